//! What people are told before they touch their security key, and what they do next.

use std::time::{Duration, SystemTime};

use vault_client::break_glass::{Grant, GrantState};

use crate::paste::{Paste, count};

use super::Step;
use super::show::about;

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

/// A command about a grant, with its options behind the id; less what `vaultctl` needs before it.
pub(super) fn command(grant: &Grant, what: &str) -> String {
    let (verb, options) = what.split_once(' ').unwrap_or((what, ""));
    format!("break-glass {verb} {} {options}", grant.id.short()).trim_end().to_owned()
}

/// How long is left, and how much.
pub(super) fn left(grant: &Grant, now: SystemTime) -> String {
    let time = grant.time_left(now).map_or_else(|| "no time".to_owned(), span);
    match grant.state {
        GrantState::Active => {
            format!("{time} and {} of {} are left", grant.values_left(), count(grant.values_allowed, "value"))
        }
        _ => format!("{time} left to approve it"),
    }
}

/// How it stands with a grant, and what comes next, with the commands as `reader` (a principal) or others can paste them.
pub(super) fn next(grant: &Grant, reader: Option<&str>, paste: &Paste) -> String {
    next_at(grant, reader, paste, SystemTime::now())
}

fn next_at(grant: &Grant, reader: Option<&str>, paste: &Paste, now: SystemTime) -> String {
    let requester = &*grant.requester;
    let taken_part: Vec<&str> =
        std::iter::once(requester).chain(grant.approvers.iter().map(String::as_str)).collect();
    let to_paste = |is_readers: bool, whats: &[&str]| {
        let whats = whats.iter().map(|what| command(grant, what));
        if is_readers {
            let lines = whats.map(|what| format!("    {}", paste.mine(&grant.tenant, &what)));
            return lines.collect::<Vec<_>>().join("\n");
        }
        let lines = whats.map(|what| format!("    {}", paste.theirs(&grant.tenant, &what)));
        let lines = lines.chain(Some(paste.legend()).filter(|legend| !legend.is_empty()));
        lines.collect::<Vec<_>>().join("\n")
    };
    let is_requester = reader == Some(requester);
    let may_be_next = reader.is_some_and(|reader| !taken_part.contains(&reader));
    match grant.state {
        GrantState::Requested => format!(
            "it waits for approval ({} of {}; {}).\nnext: an approver other than {} runs\n{}",
            grant.approvers.len(),
            grant.approvals_needed,
            left(grant, now),
            taken_part.join(", "),
            to_paste(may_be_next, &["approve"]),
        ),
        GrantState::Active => format!(
            "it is in force: {}.\nnext: {requester} runs the first of these, and when that is enough the second\n{}",
            left(grant, now),
            to_paste(is_requester, &["reveal", "close"]),
        ),
        GrantState::Over => format!(
            "it is over ({}); {} of {} seen.\nnext: an auditor who had no part in it looks at it, and says what to think of it{}\n{}\n{REVIEW}",
            grant.ended,
            grant.values_seen,
            count(grant.values_allowed, "value"),
            grant.review_due.map_or_else(String::new, |due| format!(", by {}", crate::describe::time(due))),
            to_paste(may_be_next, &["story", "review --verdict VERDICT --notes \"WHY\""]),
        ),
        GrantState::Denied => {
            format!("{} denied it. What is still needed has to be asked for anew.", grant.ended_by)
        }
        GrantState::Lapsed => "it was not approved in time, or was taken back. Ask anew.".to_owned(),
        GrantState::Reviewed => {
            let verdict = grant.verdict.map_or("reviewed", |verdict| verdict.as_str());
            format!("{} reviewed it: {verdict}. There is nothing left to do.", grant.reviewer)
        }
        _ => "this vaultctl does not know its state: it may be too old".to_owned(),
    }
}

/// Why something can't be done about a grant as it stands, and what to do then.
pub(super) fn why_not(grant: &Grant, step: Step) -> (String, &'static str) {
    let is_review = step == Step::Review;
    let ended = if grant.ended.is_empty() { "over" } else { &*grant.ended };
    match grant.state {
        GrantState::Requested => ("it waits for approval".to_owned(), "nothing can be seen under it before"),
        GrantState::Reviewed if is_review => (
            format!("{} reviewed it already", grant.reviewer),
            "a grant is reviewed once; nothing was changed",
        ),
        GrantState::Denied | GrantState::Lapsed if is_review => (
            format!("it is {}", grant.state.as_str()),
            "nothing could be seen under it, so there is nothing to review",
        ),
        GrantState::Active if is_review => (
            "it is not over yet".to_owned(),
            "it can be reviewed when it has expired, is used up, or was closed",
        ),
        GrantState::Active => (
            "it is in force, but not for that: another certificate or session asked for it".to_owned(),
            "if your certificate was renewed, or you logged in again: ask for another grant, and close this one",
        ),
        GrantState::Over => {
            (format!("it is over ({ended})"), "what is still needed has to be asked for anew")
        }
        _ => (format!("it is {}", grant.state.as_str()), "what is still needed has to be asked for anew"),
    }
}

/// What a review is made of.
const REVIEW: &str = "    # VERDICT is justified, not-justified or escalated; WHY has 10 to 512 characters";

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
        "{} ({}) of tenant {}, up to {} for {}",
        about(grant),
        grant.classes.join(", "),
        grant.tenant,
        count(grant.values_allowed, "value"),
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

    const AT: Duration = Duration::from_secs(30);

    fn told(grant: &Grant, reader: &str) -> String {
        let paste = Paste { profile: None, identity: Some("me".to_owned()) };
        next_at(grant, Some(reader), &paste, SystemTime::UNIX_EPOCH + AT)
    }

    #[test]
    fn who_looks_is_told_the_command_that_comes_next() {
        let mut it = grant(ID, 1);
        let waits = told(&it, "oncall");
        let command = "\n    vaultctl --as YOUR_NAME --tenant demo break-glass approve 0123456789ab\n";
        assert!(waits.contains(command) && waits.contains("# YOUR_NAME is your own"), "{waits}");
        assert!(waits.contains("other than oncall runs") && waits.contains("31s left"), "{waits}");
        it.state = GrantState::Active;
        it.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(90));
        let is_on = told(&it, "oncall");
        assert!(is_on.contains("1m and 1 of 1 value are left"), "{is_on}");
        for command in ["reveal 0123456789ab", "close 0123456789ab"] {
            assert!(is_on.contains(&format!("--as me --tenant demo break-glass {command}")), "{is_on}");
        }
        it.state = GrantState::Over;
        let over = told(&it, "oncall");
        assert!(over.contains("break-glass review 0123456789ab --verdict"), "{over}");
        assert!(over.contains("10 to 512") && over.contains("0 of 1 value seen"), "{over}");
    }

    #[test]
    fn a_command_is_the_readers_own_where_the_reader_may_be_who_runs_it() {
        let mut it = grant(ID, 1);
        assert!(told(&it, "bob").contains("--as me --tenant demo break-glass approve"));
        it.approvers = vec!["bob".to_owned()];
        assert!(told(&it, "bob").contains("--as YOUR_NAME"), "not twice by the same");
        it.state = GrantState::Active;
        assert!(told(&it, "bob").contains("--as YOUR_NAME --tenant demo break-glass reveal"));
        it.state = GrantState::Over;
        assert!(told(&it, "bob").contains("--as YOUR_NAME --tenant demo break-glass review"));
        assert!(told(&it, "carol").contains("--as me --tenant demo break-glass review"));
    }

    #[test]
    fn what_a_grant_is_not_good_for_is_told_by_how_it_stands() {
        let mut it = grant(ID, 1);
        assert!(why_not(&it, Step::Reveal).0.contains("waits for approval"));
        (it.state, it.ended) = (GrantState::Over, "used_up".to_owned());
        assert_eq!(why_not(&it, Step::Reveal).0, "it is over (used_up)");
        it.state = GrantState::Active;
        assert!(why_not(&it, Step::Reveal).1.contains("certificate was renewed"));
        assert!(why_not(&it, Step::Review).1.contains("was closed"));
        (it.state, it.reviewer) = (GrantState::Reviewed, "carol".to_owned());
        let again = why_not(&it, Step::Review);
        assert_eq!(again.0, "carol reviewed it already");
        assert!(!again.1.contains("anew"), "that is for who needs values: {}", again.1);
        it.state = GrantState::Lapsed;
        assert!(why_not(&it, Step::Review).1.contains("nothing to review"));
        assert!(why_not(&it, Step::Reveal).1.contains("asked for anew"));
    }

    #[test]
    fn an_approver_is_told_whether_the_grant_is_in_force_then() {
        let mut it = grant(ID, 1);
        assert!(before_approval(&it).contains("in force for 15m"));
        it.approvals_needed = 2;
        assert!(before_approval(&it).contains("still waits"));
    }
}
