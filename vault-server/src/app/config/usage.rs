//! `[usage]`: how principals usually behave, and what happens when one does not.

use std::time::Duration;

use serde::Deserialize;

use super::units;
use crate::access::{Action, HoursRule, LimitRule, LimitRules, PrincipalKind, Role, Then, Whom};
use crate::domain::{ClassName, PrincipalId};

/// The most a limit may be: what is counted of subjects is kept in memory.
const MOST: u64 = 1_000_000;
/// What can be counted.
const ACTIONS: [Action; 3] = [Action::Detokenize, Action::Mask, Action::Find];

/// `[usage]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Whether there is an alert when a principal uses a role at a tenant for the first time.
    pub first_seen_tenant: bool,
    /// How much one principal may use.
    pub limits: Vec<Limit>,
    /// When persons usually work.
    pub hours: Vec<Hours>,
}

/// `[[usage.limits]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// Whom it is about.
    #[serde(default)]
    pub roles: Vec<String>,
    /// `service`, `human`.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// By id.
    #[serde(default)]
    pub principals: Vec<String>,
    /// What is counted; all that can be if empty.
    #[serde(default)]
    pub actions: Vec<String>,
    /// Values of which classes.
    #[serde(default)]
    pub classes: Vec<String>,
    /// How long a window is.
    #[serde(deserialize_with = "units::duration")]
    pub window: Duration,
    /// The most requests.
    pub requests: Option<u64>,
    /// The most values.
    pub values: Option<u64>,
    /// The most subjects.
    pub subjects: Option<u64>,
    /// What happens past it.
    pub then: Past,
}

/// What happens past a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Past {
    /// The request is refused.
    Deny,
    /// It goes on.
    Alert,
}

/// `[[usage.hours]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// Its name.
    pub name: String,
    /// Whom it is about.
    #[serde(default)]
    pub roles: Vec<String>,
    /// By id.
    #[serde(default)]
    pub principals: Vec<String>,
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`.
    pub to: String,
    /// `+HH:MM` or `-HH:MM`.
    pub offset: String,
}

type Wrong = (&'static str, String);

impl Usage {
    /// As the access layer has it.
    pub fn rules(&self) -> Result<LimitRules, Wrong> {
        let limits = self.limits.iter().map(Limit::rule).collect::<Result<Vec<_>, _>>()?;
        let hours = self.hours.iter().map(Hours::rule).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = limits.iter().map(|rule| &rule.name).collect();
        names.extend(hours.iter().map(|rule| &rule.name));
        names.sort_unstable();
        if names.windows(2).any(|two| two[0] == two[1]) {
            return Err(("usage.limits.name", "two rules have the same name".to_owned()));
        }
        Ok(LimitRules { limits, hours, first_seen_tenant: self.first_seen_tenant })
    }
}

impl Limit {
    fn rule(&self) -> Result<LimitRule, Wrong> {
        let most = [self.requests, self.values, self.subjects];
        if most == [None; 3] {
            return Err((
                "usage.limits.requests",
                "one of requests, values and subjects is needed".to_owned(),
            ));
        }
        if most.iter().flatten().any(|most| *most == 0 || *most > MOST) {
            return Err(("usage.limits.requests", format!("requests, values and subjects are 1 to {MOST}")));
        }
        if !(Duration::from_secs(1)..=Duration::from_hours(31 * 24)).contains(&self.window) {
            return Err(("usage.limits.window", "must be \"1s\" to \"31d\"".to_owned()));
        }
        let action = |name: &str| ACTIONS.into_iter().find(|action| action.as_str() == name);
        let actions = if self.actions.is_empty() {
            ACTIONS.into()
        } else {
            all(&self.actions, "usage.limits.actions", "detokenize, mask, find", action)?
        };
        Ok(LimitRule {
            name: name(&self.name, "usage.limits.name")?,
            whom: whom(&self.roles, &self.kinds, &self.principals)?,
            actions,
            classes: all(&self.classes, "usage.limits.classes", "classes' names", |name| {
                ClassName::parse(name).ok()
            })?,
            window: self.window,
            most,
            then: match self.then {
                Past::Deny => Then::Deny,
                Past::Alert => Then::Alert,
            },
        })
    }
}

impl Hours {
    fn rule(&self) -> Result<HoursRule, Wrong> {
        let minutes = |text: &str, option| {
            minutes(text).ok_or_else(|| (option, "must be \"00:00\" to \"23:59\"".to_owned()))
        };
        let (from, to) = (minutes(&self.from, "usage.hours.from")?, minutes(&self.to, "usage.hours.to")?);
        if from == to {
            return Err(("usage.hours.to", "must be another time than from".to_owned()));
        }
        let offset = offset(&self.offset)
            .ok_or_else(|| ("usage.hours.offset", "must be \"+HH:MM\" or \"-HH:MM\"".to_owned()))?;
        let name = name(&self.name, "usage.hours.name")?;
        Ok(HoursRule { name, whom: whom(&self.roles, &[], &self.principals)?, minutes: (from, to), offset })
    }
}

fn whom(roles: &[String], kinds: &[String], principals: &[String]) -> Result<Whom, Wrong> {
    let kind = |name: &str| match name {
        "service" => Some(PrincipalKind::Service),
        "human" => Some(PrincipalKind::Human),
        _ => None,
    };
    Ok(Whom {
        roles: all(roles, "usage.limits.roles", "roles", Role::parse)?,
        kinds: all(kinds, "usage.limits.kinds", "service, human", kind)?,
        principals: all(principals, "usage.limits.principals", "principals' ids", |id| {
            PrincipalId::parse(id).ok()
        })?,
    })
}

fn all<T, C: FromIterator<T>>(
    names: &[String],
    option: &'static str,
    known: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<C, Wrong> {
    let parsed = names.iter().map(|name| parse(name)).collect::<Option<C>>();
    parsed.ok_or_else(|| (option, format!("must be of: {known}")))
}

fn name(text: &str, option: &'static str) -> Result<String, Wrong> {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=32).contains(&text.len()) && text.bytes().all(is_word) {
        Ok(text.to_owned())
    } else {
        Err((option, "must be 1 to 32 of a-z, 0-9 and _".to_owned()))
    }
}

fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let (hours, minutes): (u32, u32) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

fn offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let minutes = i32::try_from(minutes(rest)?).ok()?;
    (minutes <= 14 * 60).then_some(sign * minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> &'static str {
        toml::from_str::<Usage>(text).unwrap().rules().unwrap_err().0
    }

    #[test]
    fn what_is_meant_is_what_is_read() {
        let text = "[[limits]]\nname = 'bulk'\nroles = ['service']\nwindow = '1h'\nsubjects = 5\nthen = 'deny'\n\
                    [[hours]]\nname = 'night'\nfrom = '07:00'\nto = '19:30'\noffset = '-05:30'\n";
        let rules = toml::from_str::<Usage>(text).unwrap().rules().unwrap();
        assert_eq!(rules.limits[0].most, [None, None, Some(5)]);
        assert_eq!(rules.limits[0].actions, ACTIONS.into());
        assert_eq!((rules.hours[0].minutes, rules.hours[0].offset), ((420, 1170), -330));
        assert_eq!(refused(&text.replace("night", "bulk")), "usage.limits.name");
        for (from, to, option) in [
            ("'bulk'", "'Bulk'", "usage.limits.name"),
            ("'service'", "'servce'", "usage.limits.roles"),
            ("subjects = 5\n", "", "usage.limits.requests"),
            ("subjects = 5", "subjects = 0", "usage.limits.requests"),
            ("'1h'", "'1ms'", "usage.limits.window"),
            ("window", "actions = ['erase']\nwindow", "usage.limits.actions"),
            ("window", "kinds = ['robot']\nwindow", "usage.limits.kinds"),
            ("window", "classes = ['A B']\nwindow", "usage.limits.classes"),
            ("'07:00'", "'7:00'", "usage.hours.from"),
            ("'19:30'", "'24:00'", "usage.hours.to"),
            ("'19:30'", "'07:00'", "usage.hours.to"),
            ("'-05:30'", "'Z'", "usage.hours.offset"),
            ("'-05:30'", "'+15:00'", "usage.hours.offset"),
        ] {
            assert_eq!(refused(&text.replacen(from, to, 1)), option, "{to}");
        }
    }
}
