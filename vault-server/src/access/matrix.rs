//! The effect of a policy set, as text that a person can review. `policies/matrix.txt` is that of the default set;
//! the tests compare it, and `UPDATE_MATRIX=1` writes it anew.
//!
//! Every combination of role, action, class, purpose, relation to the tenant and environment is asked, by
//! [`Access::decide`] and [`Access::decide_for_vault`]; only then are answers that are the same merged into one line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::access::{
    Access, Action, Directory, GrantSeen, Policies, PolicyError, Principal, PrincipalKind, Question, Role,
    TenantScope,
};
use crate::domain::{ClassName, Environment, PrincipalId, Purpose, TenantId};

const HEAD: &str = "\
# What policies allow, by role and action. What is not listed is denied.
#
# Asked is every combination of role, action, class of data (npi, which is public; ssn; none: may it be done at all),
# purpose of use (each, and none; BTG and TREAT also under a grant of break-glass that covers the value), relation to
# the tenant, environment (prod, dev), and kind of principal (person, program); what is the same is merged.
#
#   own           a tenant at which the role is held
#   other         a tenant at which it is not
#   everywhere    any tenant, for a role that is held at *
#   vault         the vault as a whole: the log of all tenants and of none, keys and jobs
#   vault (at *)  the same, for a role that is held at *
";

/// What a question is about, in relation to where the role is held.
const RELATIONS: &[&str] = &["own", "other", "everywhere", "vault", "vault (at *)"];
/// Purposes that are asked for under a grant, too: the one that grants are for, and one that they are not.
const GRANTED: &[Purpose] = &[Purpose::BreakTheGlass, Purpose::Treatment];
const CLASSES: &[&str] = &["class npi", "class ssn", "at all"];
const ENVIRONMENTS: &[&str] = &["in prod", "in dev"];

/// One answer for all purposes: `yes`, `no`, or the purposes for which it is yes.
type Cell = String;

/// What a policy set (Cedar) allows.
pub fn matrix(policies: &str) -> Result<String, PolicyError> {
    let of = |environment: &&str| {
        let name = environment.trim_start_matches("in ");
        let environment = Environment::parse(name).map_err(|_| PolicyError::Schema(name.to_owned()))?;
        let policies = Policies::parse(policies, environment)?;
        Ok(Access::new(Directory::nobody(), policies))
    };
    let access = ENVIRONMENTS.iter().map(of).collect::<Result<Vec<_>, PolicyError>>()?;
    let mut text = HEAD.to_owned();
    for &role in Role::ALL {
        let program = block(&access, role, PrincipalKind::Service);
        let person = block(&access, role, PrincipalKind::Human);
        if program == person {
            let _ = write!(text, "\n{role}\n{program}");
        } else {
            let _ = write!(text, "\n{role} (a person)\n{person}\n{role} (a program)\n{program}");
        }
    }
    Ok(text)
}

/// What principals of a kind that hold a role may do, at one tenant and everywhere.
fn block(access: &[Access], role: Role, kind: PrincipalKind) -> String {
    let holders = [TenantScope::One(name("own", TenantId::parse)), TenantScope::All].map(|place| Principal {
        id: name("somebody", PrincipalId::parse),
        kind,
        identities: [].into(),
        roles: [(place, [role].into())].into(),
        owner: None,
        enabled: true,
        expires: None,
        revision: None,
    });
    let mut text = String::new();
    let mut never = Vec::new();
    for &action in Action::ALL {
        let lines = merged(|environment, class, relation| {
            cell(&access[environment], &holders, action, class, relation)
        });
        if lines.is_empty() {
            never.push(action.as_str());
        }
        for (place, cell) in lines {
            write_wrapped(&mut text, &format!("{:<17} {place}: ", action.as_str()), &cell);
        }
    }
    write_wrapped(&mut text, &format!("{:<17} ", "never"), &never.join(" "));
    text
}

fn cell(access: &Access, holders: &[Principal; 2], action: Action, class: usize, relation: usize) -> Cell {
    let [here, everywhere] = holders;
    let (own, other) = (name("own", TenantId::parse), name("other", TenantId::parse));
    let class = CLASSES[class].strip_prefix("class ").filter(|_| action.of_class());
    let class = class.map(|class| name(class, ClassName::parse));
    let (holder, place) = match RELATIONS[relation] {
        "own" => (here, TenantScope::One(own)),
        "other" => (here, TenantScope::One(other)),
        "everywhere" => (everywhere, TenantScope::One(other)),
        "vault" => (here, TenantScope::All),
        _ => (everywhere, TenantScope::All),
    };
    let purposes = [None].into_iter().chain(Purpose::ALL.iter().copied().map(Some));
    let mut asked: Vec<_> = purposes.map(|purpose| (purpose, None)).collect();
    asked.extend(GRANTED.iter().map(|purpose| (Some(*purpose), Some(GrantSeen { approvals: 1 }))));
    let allowed = asked.iter().filter(|(purpose, grant)| {
        let question = Question { action, class: class.as_ref(), purpose: *purpose, grant: *grant };
        access.explain(holder, &place, question).allowed
    });
    let name = |(purpose, grant): &(Option<Purpose>, Option<GrantSeen>)| {
        let purpose = purpose.map_or("(none)", Purpose::code);
        if grant.is_some() { format!("{purpose}+grant") } else { purpose.to_owned() }
    };
    let allowed: Vec<_> = allowed.map(name).collect();
    match allowed.len() {
        0 => "no".to_owned(),
        n if n == asked.len() => "yes".to_owned(),
        _ => allowed.join(" "),
    }
}

/// A name that is written here.
fn name<T, E>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> T {
    parse(text).unwrap_or_else(|_| unreachable!("{text} is a name"))
}

/// Asks for all places and merges those with the same answer; what is denied is left out.
fn merged(cell: impl Fn(usize, usize, usize) -> Cell) -> Vec<(String, Cell)> {
    // (class, environment, cell) -> relations; empty: whichever it is.
    let mut lines: BTreeMap<(&str, &str, Cell), Vec<&str>> = BTreeMap::new();
    for (relation, name) in RELATIONS.iter().enumerate() {
        let mut add = |class, environment, cell: Cell| {
            if cell != "no" {
                lines.entry((class, environment, cell)).or_default().push(name);
            }
        };
        let of = |environment, class| cell(environment, class, relation);
        let classless = |e| (1..CLASSES.len()).all(|c| of(e, c) == of(e, 0));
        let same_everywhere = (0..CLASSES.len()).all(|c| of(0, c) == of(1, c));
        match ((0..2).all(classless), same_everywhere) {
            (true, true) => add("", "", of(0, 0)),
            (true, false) => (0..2).for_each(|e| add("", ENVIRONMENTS[e], of(e, 0))),
            (false, true) => (0..CLASSES.len()).for_each(|c| add(CLASSES[c], "", of(0, c))),
            (false, false) => (0..2)
                .for_each(|e| (0..CLASSES.len()).for_each(|c| add(CLASSES[c], ENVIRONMENTS[e], of(e, c)))),
        }
    }
    let line = |((class, environment, cell), relations): ((&str, &str, Cell), Vec<&str>)| {
        let mut place = relations.join(", ");
        for detail in [class, environment] {
            if !detail.is_empty() {
                let _ = write!(place, "; {detail}");
            }
        }
        (place, cell)
    };
    lines.into_iter().map(line).collect()
}

fn write_wrapped(text: &mut String, head: &str, words: &str) {
    let mut line = format!("  {head}");
    for word in words.split(' ') {
        if line.len() + word.len() > 100 {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(22);
        }
        let _ = write!(line, "{word} ");
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
#[path = "matrix_tests.rs"]
mod tests;
