//! What people are told before they touch their security key, and what they do next.

use std::time::{Duration, SystemTime};

use vault_client::break_glass::{Grant, GrantState};

use super::show::about;

/// To standard error, a line at a time.
pub(super) fn tell(text: &str) {
    for line in text.lines() {
        eprintln!("vaultctl: {line}");
    }
}

/// Words that a review or a request needs.
pub(super) fn words(text: &str) -> Result<String, String> {
    let length = text.trim().chars().count();
    if (10..=512).contains(&length) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("10 to 512 characters, in one line".to_owned())
}

/// A span of time, as people say it.
pub(super) fn span(left: Duration) -> String {
    let seconds = left.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, 0) => format!("{minutes}m"),
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, 0, 0) => format!("{hours}h"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}

/// A command for somebody to paste.
pub(super) fn command(grant: &Grant, what: &str) -> String {
    // Names of tenants need no quotes.
    format!("vaultctl --tenant {} break-glass {what} {}", grant.tenant, grant.id.short())
}

/// How long is left, and how much.
pub(super) fn left(grant: &Grant, now: SystemTime) -> String {
    let time = grant.time_left(now).map_or_else(|| "no time".to_owned(), span);
    match grant.state {
        GrantState::Active => {
            let (left, of) = (grant.values_left(), grant.values_allowed);
            format!("{time} and {left} of {of} values are left")
        }
        _ => format!("{time} left to approve it"),
    }
}

/// How it stands with a grant, and what comes next: for whoever looks at it.
pub(super) fn next(grant: &Grant) {
    tell(&next_text(grant, SystemTime::now()));
}

fn next_text(grant: &Grant, now: SystemTime) -> String {
    let requester = &grant.requester;
    match grant.state {
        GrantState::Requested => format!(
            "it waits for approval ({} of {}; {}).\nnext: somebody else than {} runs\n    {}",
            grant.approvers.len(),
            grant.approvals_needed,
            left(grant, now),
            [std::slice::from_ref(requester), &grant.approvers].concat().join(", "),
            command(grant, "approve"),
        ),
        GrantState::Active => format!(
            "it is in force: {}.\nnext: {requester} runs\n    {}\nand when that is enough\n    {}",
            left(grant, now),
            command(grant, "reveal"),
            command(grant, "close"),
        ),
        GrantState::Over => format!(
            "it is over ({}); {} of {} values were seen.\nnext: somebody who had no part in it reviews it{}\n    {}",
            grant.ended,
            grant.values_seen,
            grant.values_allowed,
            grant.review_due.map_or_else(String::new, |due| format!(" by {}", crate::describe::time(due))),
            command(grant, "review") + " --verdict justified --notes \"...\"",
        ),
        GrantState::Denied => {
            format!("{} denied it. What is still needed has to be asked for anew.", grant.ended_by)
        }
        GrantState::Lapsed => "it was not approved in time, or was taken back. Ask anew.".to_owned(),
        GrantState::Reviewed => {
            let verdict = grant.verdict.map_or("reviewed", |verdict| verdict.as_str());
            format!("{} reviewed it: {verdict}.", grant.reviewer)
        }
        _ => "this vaultctl does not know its state: it may be too old".to_owned(),
    }
}

/// What an approval sets off, before the touch.
pub(super) fn before_approval(grant: &Grant) -> String {
    let last = grant.approvers.len() + 1 >= grant.approvals_needed as usize;
    let then = if last {
        format!("with it the grant is in force for {}", span(grant.duration))
    } else {
        "with it the grant still waits for others' approval".to_owned()
    };
    format!(
        "on record, for good: your name, the time, your security key and notes, and that you approved just these terms.\n\
         told at once: whoever gets the vault's alerts, once it is in force and when a value is seen.\n\
         your touch is good for this grant and no other; {then}."
    )
}

/// What a denial sets off, before the touch.
pub(super) const BEFORE_DENIAL: &str = "on record, for good: your name, the time, your security key and notes, and that you denied it.\n\
     told at once: whoever gets the vault's alerts. the grant is over then, and can't be approved any more.";

/// What a grant is about, in a line.
pub(super) fn scope(grant: &Grant) -> String {
    format!(
        "{} ({}) of tenant {}, up to {} values for {}",
        about(grant),
        grant.classes.join(", "),
        grant.tenant,
        grant.values_allowed,
        span(grant.duration)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::break_glass::show::tests::grant;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn spans_are_told_as_people_say_them() {
        for (seconds, said) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m 01s"), (3600, "1h"), (3660, "1h 01m")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn who_looks_is_told_the_command_that_comes_next() {
        let mut it = grant(ID, 1);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(30);
        let waits = next_text(&it, now);
        assert!(waits.contains("\n    vaultctl --tenant demo break-glass approve 0123456789ab"), "{waits}");
        assert!(waits.contains("somebody else than oncall runs") && waits.contains("31s left"), "{waits}");
        it.state = GrantState::Active;
        it.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(90));
        let is_on = next_text(&it, now);
        assert!(is_on.contains("1m and 1 of 1 values are left"), "{is_on}");
        assert!(
            is_on.contains("break-glass reveal 0123456789ab") && is_on.contains("break-glass close"),
            "{is_on}"
        );
        it.state = GrantState::Over;
        assert!(next_text(&it, now).contains("break-glass review 0123456789ab --verdict"));
    }

    #[test]
    fn an_approver_is_told_whether_the_grant_is_in_force_then() {
        let mut it = grant(ID, 1);
        assert!(before_approval(&it).contains("in force for 15m"));
        it.approvals_needed = 2;
        assert!(before_approval(&it).contains("still waits"));
    }

    #[test]
    fn words_are_long_enough_and_a_line() {
        assert!(words("merged charts").is_ok());
        for bad in ["", "because", "          ", "two\nlines of text", &"x".repeat(513)] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }
}
