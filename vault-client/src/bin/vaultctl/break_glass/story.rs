//! `vaultctl break-glass story`: all that happened with a grant, from the log: for its reviewer.

use clap::Args;
use serde_json::{Value, json};
use vault_client::audit::{AuditEntry, AuditItem, AuditQuery, AuditRecord, audit_entry, audit_item};
use vault_client::break_glass::GrantId;
use vault_client::{Client, Environment, Token};

use crate::audit::query::{name, object, place, when, who};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::paste::{count, tell};

use super::{GrantArg, show};

/// So many entries a page.
const PAGE: u32 = 1_000;

/// Tell all that happened with a grant: who, when, what, about which tokens, and how it was decided. From the log, oldest
/// first; each line names its entry. For auditors and admins. Reading the log is itself logged.
#[derive(Args)]
pub(crate) struct StoryArgs {
    #[command(flatten)]
    grant: GrantArg,

    /// Each look at the grant on a line of its own; else those in a row are told as one.
    #[arg(long)]
    looks: bool,
}

pub(super) async fn run(as_json: bool, client: &Client, args: StoryArgs) -> Result<Exit, Failure> {
    let id = args.grant.resolve(client).await?;
    let grant = client.get_grant(&id).await?.grant;
    let entries = entries(client, &id).await?;
    let environment = client.environment();
    if as_json {
        let entries: Value = entries.iter().map(|record| object(record, environment)).collect();
        output::json(&json!({ "grant": show::object(&grant), "entries": entries }))?;
        return Ok(Exit::Done);
    }
    for line in show::lines(&grant) {
        output::line(&line)?;
    }
    output::line("")?;
    for scene in scenes(&entries, args.looks) {
        for line in scene.lines(environment) {
            output::line(&line)?;
        }
    }
    tell(&format!(
        "entries of the log about this grant: {}; --json tells all that is in them",
        entries.len()
    ));
    Ok(Exit::Done)
}

/// All entries about the grant, oldest first.
async fn entries(client: &Client, id: &GrantId) -> Result<Vec<AuditRecord>, Failure> {
    let mut entries = Vec::new();
    let mut page = None;
    loop {
        let query = AuditQuery {
            grant: Some(id.clone()),
            limit: PAGE,
            page: page.take(),
            oldest_first: true,
            ..AuditQuery::default()
        };
        let answer = client.audit_query(query).await?;
        entries.extend(answer.entries);
        page = answer.next;
        if page.is_none() {
            return Ok(entries);
        }
    }
}

/// An entry, or looks of one person's in a row.
struct Scene<'a> {
    first: &'a AuditRecord,
    entry: &'a AuditEntry,
    /// How many further looks there were, and the last.
    more: Option<(usize, &'a AuditRecord)>,
    /// Of values that were about to be seen: how many did not open, by a later entry of the same request.
    unopened: usize,
}

/// Entries as they are told: nothing is left out but that somebody looked again and again.
fn scenes(entries: &[AuditRecord], looks: bool) -> Vec<Scene<'_>> {
    let mut scenes: Vec<Scene<'_>> = Vec::new();
    for record in entries {
        let Some(entry) = &record.entry else { continue };
        match scenes.last_mut() {
            Some(last)
                if !looks && is_look(last.entry) && is_look(entry) && who(last.entry) == who(entry) =>
            {
                last.more = Some((last.more.map_or(1, |(count, _)| count + 1), record));
            }
            _ => {
                let unopened = unopened(entries, entry);
                scenes.push(Scene { first: record, entry, more: None, unopened });
            }
        }
    }
    scenes
}

/// How many values of a request did not open. What is on record before they are opened says that they may be.
fn unopened(entries: &[AuditRecord], of: &AuditEntry) -> usize {
    let later = entries.iter().filter_map(|record| record.entry.as_ref());
    let failed = later.filter(|entry| {
        entry.action() == audit_entry::Action::OpenFailed && entry.request_id == of.request_id
    });
    failed.map(|entry| entry.items.len()).sum()
}

/// Somebody looked at the grant, and was let to.
fn is_look(entry: &AuditEntry) -> bool {
    entry.action() == audit_entry::Action::GrantRead && entry.decision() == audit_entry::Decision::Allow
}

impl Scene<'_> {
    fn lines(&self, environment: Option<&Environment>) -> Vec<String> {
        let entry = self.entry;
        let mut head = format!("{}  {:<16} {}", when(entry.time_us), who(entry), did(entry, self.unopened));
        if let Some((count, last)) = self.more {
            let until = last.entry.as_ref().map_or(0, |entry| entry.time_us);
            let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
            head = format!("{head}, and {times} more until {}", when(until));
        }
        let mut lines = vec![head];
        let detail = |name: &str, said: &str| format!("{:26}{name:<16} {}", "", said.escape_debug());
        let of = format!("{} request {}", place(self.first), hex::encode(&entry.request_id));
        if entry.cause == UNTOUCHED {
            // What was done with a touch, or refused, is told with all of it.
            lines.push(detail("entry", &of));
            return lines;
        }
        if !entry.reason.is_empty() {
            lines.push(detail("reason", &entry.reason));
        }
        if !entry.ticket.is_empty() {
            lines.push(detail("ticket", &entry.ticket));
        }
        let mut details: Vec<_> = entry.details.iter().collect();
        details.sort();
        lines.extend(details.into_iter().map(|(name, said)| detail(name, said)));
        lines.extend(entry.items.iter().map(|item| detail("value", &item_line(item, environment))));
        if !entry.policies.is_empty() {
            lines.push(detail("policies", &entry.policies.join(" ")));
        }
        lines.push(detail("entry", &of));
        lines
    }
}

/// What was done, in words; or what was not.
fn did(entry: &AuditEntry, unopened: usize) -> String {
    use audit_entry::{Action, Decision};
    if entry.action() == Action::OpenFailed {
        let values = count(entry.items.len() as u64, "value");
        return format!("{values} of that did not open ({})", entry.cause);
    }
    let (did, done) = words(entry, unopened);
    match entry.decision() {
        Decision::Allow => did,
        Decision::Partial => format!("{did}, in part"),
        Decision::Deny | Decision::Unspecified if entry.cause == UNTOUCHED => {
            format!("would have {done}, but for the touch of a security key ({UNTOUCHED})")
        }
        Decision::Deny | Decision::Unspecified => {
            let cause = if entry.cause.is_empty() { "no cause is told" } else { &entry.cause };
            format!("REFUSED ({cause}): would have {done}")
        }
    }
}

/// The cause of a refusal for want of a touch and nothing else. `vaultctl` sends a request so before it asks for the touch.
const UNTOUCHED: &str = "second_factor_missing";

/// What was done: "they ..." and "they would have ...".
fn words(entry: &AuditEntry, unopened: usize) -> (String, String) {
    use audit_entry::Action;
    let (did, done) = match entry.action() {
        Action::GrantRequest => ("asked for it", "asked for it"),
        Action::GrantApprove => ("approved it", "approved it"),
        Action::GrantDeny => ("denied it", "denied it"),
        Action::GrantRead => ("looked at it", "looked at it"),
        Action::GrantReview => ("reviewed it", "reviewed it"),
        Action::GrantEnd => ("ended it", "ended it"),
        Action::Detokenize => {
            let seen = entry.items.iter().filter(|item| item.outcome() == audit_item::Outcome::Ok).count();
            let seen = seen.saturating_sub(unopened);
            let of = count(entry.items.len() as u64, "value");
            let done = if entry.items.is_empty() { "seen values".to_owned() } else { format!("seen {of}") };
            return (format!("saw {seen} of {of}"), done);
        }
        other => {
            let name = name(other.as_str_name(), "ACTION_");
            return (name.clone(), format!("done: {name}"));
        }
    };
    (did.to_owned(), done.to_owned())
}

fn item_line(item: &AuditItem, environment: Option<&Environment>) -> String {
    let known = environment.and_then(|environment| Token::from_log(&item.token, environment));
    let token = match known {
        Some(token) => token.to_string(),
        None if item.token.is_empty() => format!("subject {}", hex::encode(&item.subject)),
        None => hex::encode(&item.token),
    };
    let class = if item.data_class.is_empty() { "-" } else { &item.data_class };
    format!("{token} {class} {}", name(item.outcome().as_str_name(), "OUTCOME_"))
}

#[cfg(test)]
mod tests {
    use vault_client::audit::Actor;

    use super::*;

    fn record(principal: &str, action: audit_entry::Action, decision: audit_entry::Decision) -> AuditRecord {
        let actor = Actor { principal: principal.to_owned(), ..Actor::default() };
        let mut entry = AuditEntry { time_us: 1_000_000, actor: Some(actor), ..AuditEntry::default() };
        entry.set_action(action);
        entry.set_decision(decision);
        AuditRecord { sequence: 7, entry: Some(entry), log: 0 }
    }

    #[test]
    fn nothing_is_folded_but_one_persons_looks_in_a_row() {
        use audit_entry::{Action, Decision};
        let look = |who| record(who, Action::GrantRead, Decision::Allow);
        let all = [
            look("ann"),
            look("ann"),
            look("ann"),
            look("bob"),
            record("bob", Action::GrantRead, Decision::Deny),
            record("bob", Action::GrantRead, Decision::Deny),
            record("bob", Action::GrantApprove, Decision::Allow),
            look("ann"),
        ];
        let folded = scenes(&all, false);
        assert_eq!(folded.len(), 6);
        assert!(folded[0].lines(None)[0].contains("2 times more"));
        assert_eq!(scenes(&all, true).len(), all.len());
    }

    #[test]
    fn what_was_refused_does_not_read_as_done() {
        let mut refused = record("ann", audit_entry::Action::GrantApprove, audit_entry::Decision::Deny);
        refused.entry.as_mut().unwrap().cause = "second_person".to_owned();
        let all = [refused];
        let line = &scenes(&all, false)[0].lines(None)[0];
        assert!(line.contains("REFUSED (second_person): would have approved it"), "{line}");
    }

    #[test]
    fn values_that_were_refused_were_not_seen() {
        let mut refused = record("ann", audit_entry::Action::Detokenize, audit_entry::Decision::Deny);
        let entry = refused.entry.as_mut().unwrap();
        entry.cause = "grant_state".to_owned();
        entry.items = vec![AuditItem::default()];
        assert_eq!(did(entry, 0), "REFUSED (grant_state): would have seen 1 value");
    }

    #[test]
    fn values_that_did_not_open_were_not_seen() {
        let ok = AuditItem { outcome: audit_item::Outcome::Ok.into(), ..AuditItem::default() };
        let mut asked = record("ann", audit_entry::Action::Detokenize, audit_entry::Decision::Allow);
        let entry = asked.entry.as_mut().unwrap();
        (entry.request_id, entry.items) = (vec![1].into(), vec![ok.clone(), ok]);
        let mut failed = record("ann", audit_entry::Action::OpenFailed, audit_entry::Decision::Deny);
        let entry = failed.entry.as_mut().unwrap();
        entry.cause = "not_opened".to_owned();
        (entry.request_id, entry.items) = (vec![1].into(), vec![AuditItem::default()]);
        let mut other = failed.clone();
        other.entry.as_mut().unwrap().request_id = vec![2].into();
        let all = [asked, failed, other];
        let told: Vec<_> = scenes(&all, false).iter().map(|scene| did(scene.entry, scene.unopened)).collect();
        assert_eq!(told[0], "saw 1 of 2 values");
        assert_eq!(told[1], "1 value of that did not open (not_opened)");
    }

    #[test]
    fn what_waited_for_a_touch_does_not_read_as_an_attempt_that_was_stopped() {
        let mut asked = record("ann", audit_entry::Action::GrantRequest, audit_entry::Decision::Deny);
        let entry = asked.entry.as_mut().unwrap();
        entry.cause = UNTOUCHED.to_owned();
        let said = did(entry, 0);
        assert!(said.contains("but for the touch") && !said.contains("REFUSED"), "{said}");
    }

    #[test]
    fn texts_of_others_stay_on_their_line() {
        let mut one = record("ann", audit_entry::Action::GrantRequest, audit_entry::Decision::Allow);
        one.entry.as_mut().unwrap().reason = "a\n1970-01-01T00:00:02.000Z  bob  approved it".to_owned();
        let all = [one];
        assert!(scenes(&all, false)[0].lines(None).iter().all(|line| !line.contains('\n')));
    }
}
