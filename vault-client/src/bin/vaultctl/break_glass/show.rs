//! Grants: a table or a list for people, an object for programs.

use std::io;
use std::time::SystemTime;

use serde_json::{Value, json};
use vault_client::break_glass::{Grant, GrantState};

use crate::describe::time;
use crate::output;
use crate::paste::{count, tell};

use super::say;

/// A table; for programs an object a line. `waiting`: only those that do were asked for.
pub(super) fn list(as_json: bool, waiting: bool, grants: &[Grant]) -> io::Result<()> {
    if as_json {
        return grants.iter().try_for_each(|grant| output::line(&object(grant).to_string()));
    }
    if grants.is_empty() {
        let what = if waiting { "waits, for approval or for review," } else { "is there" };
        tell(&format!("no grant {what} that you may see; is it another tenant's? --tenant TENANT"));
        return Ok(());
    }
    let now = SystemTime::now();
    let header = [
        "GRANT",
        "STATE",
        "LEFT",
        "REQUESTER",
        "APPROVALS",
        "ABOUT",
        "CLASSES",
        "VALUES",
        "REASON",
        "REQUESTED",
    ];
    let row = |grant: &Grant| {
        vec![
            grant.id.short().to_owned(),
            state(grant),
            grant.time_left(now).map_or_else(|| "-".to_owned(), say::span),
            grant.requester.clone(),
            format!("{}/{}", grant.approvers.len(), grant.approvals_needed),
            about(grant),
            grant.classes.join(" "),
            format!("{}/{}", grant.values_seen, grant.values_allowed),
            grant.reason_code.clone(),
            or_dash(grant.requested),
        ]
    };
    output::table(&header, grants.iter().map(row))
}

/// All of one.
pub(super) fn grant(as_json: bool, grant: &Grant) -> io::Result<()> {
    if as_json {
        return output::json(&object(grant));
    }
    lines(grant).iter().try_for_each(|line| output::line(line))
}

/// One, as it is after something was done with it: a line for people.
pub(super) fn outcome(as_json: bool, grant: &Grant) -> io::Result<()> {
    if as_json {
        return output::json(&object(grant));
    }
    output::line(&format!("{} {}", grant.id, state(grant)))
}

/// Names and what is to be said of them.
pub(super) fn lines(grant: &Grant) -> Vec<String> {
    let mut of = vec![
        ("grant", grant.id.to_string()),
        ("state", state(grant)),
        ("tenant", grant.tenant.clone()),
        ("requester", grant.requester.clone()),
        ("about", about(grant)),
    ];
    of.extend(grant.tokens.iter().map(|token| ("token", token.clone())));
    of.extend([
        ("classes", grant.classes.join(" ")),
        ("reason", format!("{}: {}", grant.reason_code, grant.reason)),
        ("ticket", grant.ticket.clone()),
        ("values", format!("{} seen of {}", grant.values_seen, grant.values_allowed)),
        ("good for", say::span(grant.duration)),
        ("approvals", format!("{} of {}", grant.approvers.len(), grant.approvals_needed)),
        ("approved by", grant.approvers.join(", ")),
    ]);
    let times = [
        ("requested", grant.requested),
        ("lapses", grant.lapses.filter(|_| grant.state == GrantState::Requested)),
        ("approved", grant.approved),
        ("expires", grant.expires),
        ("first used", grant.first_used),
        ("over", grant.over),
        ("review due", grant.review_due),
    ];
    of.extend(times.into_iter().filter_map(|(name, at)| Some((name, time(at?)))));
    of.extend([
        ("ended", [&*grant.ended, &*grant.ended_by].join(" ").trim_end().to_owned()),
        ("reviewer", grant.reviewer.clone()),
        ("review", grant.review_notes.clone()),
    ]);
    of.into_iter()
        .filter(|(_, said)| !said.is_empty())
        .map(|(name, said)| format!("{name:<12} {said}"))
        .collect()
}

/// For programs.
pub(super) fn object(grant: &Grant) -> Value {
    json!({
        "id": grant.id.as_str(),
        "tenant": grant.tenant,
        "state": grant.state.as_str(),
        "requester": grant.requester,
        "approvers": grant.approvers,
        "approvals_needed": grant.approvals_needed,
        "unapproved": grant.is_unapproved,
        "tokens": grant.tokens,
        "of_subject": grant.is_of_subject,
        "classes": grant.classes,
        "reason_code": grant.reason_code,
        "reason": grant.reason,
        "ticket": grant.ticket,
        "values_allowed": grant.values_allowed,
        "values_seen": grant.values_seen,
        "duration_s": grant.duration.as_secs(),
        "requested": grant.requested.map(time),
        "lapses": grant.lapses.map(time),
        "approved": grant.approved.map(time),
        "expires": grant.expires.map(time),
        "first_used": grant.first_used.map(time),
        "over": grant.over.map(time),
        "ended": grant.ended,
        "ended_by": grant.ended_by,
        "review_due": grant.review_due.map(time),
        "reviewer": grant.reviewer,
        "verdict": grant.verdict.map(vault_client::break_glass::Verdict::as_str),
        "review_notes": grant.review_notes,
    })
}

/// What it is about.
pub(super) fn about(grant: &Grant) -> String {
    match grant.tokens.len() {
        _ if grant.is_of_subject => "a person".to_owned(),
        tokens => count(tokens as u64, "token"),
    }
}

fn state(grant: &Grant) -> String {
    match grant.verdict {
        Some(verdict) => format!("{}: {}", grant.state.as_str(), verdict.as_str()),
        None if grant.is_unapproved => format!("{}, without approval", grant.state.as_str()),
        None => grant.state.as_str().to_owned(),
    }
}

fn or_dash(moment: Option<SystemTime>) -> String {
    moment.map_or_else(|| "-".to_owned(), time)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One that waits since `requested`, for a minute.
    pub(in crate::break_glass) fn grant(id: &str, requested: u64) -> Grant {
        let mut grant = Grant::waiting(id.parse().unwrap());
        let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds));
        (grant.requested, grant.lapses) = (at(requested), at(requested + 60));
        grant
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let shown = lines(&grant("0123456789abcdef0123456789abcdef", 0)).join("\n");
        assert!(shown.contains("requester    oncall") && shown.contains("1 token"), "{shown}");
        assert!(!shown.contains("ticket") && !shown.contains("reviewer"), "{shown}");
    }
}
