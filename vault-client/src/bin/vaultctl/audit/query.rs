//! `vaultctl audit query`

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};
use vault_client::audit::{AuditEntry, AuditItem, AuditQuery, AuditRecord, actor, audit_item};
use vault_client::{Environment, Token};

use crate::args::{self, Global, Subject};
use crate::break_glass::{OfGrant, grant_of};
use crate::describe::time;
use crate::failure::{Exit, Failure};
use crate::paste::tell;
use crate::short_id::ShortId;
use crate::{input, output};

/// So many entries a page.
const PAGE: u32 = 1_000;

/// Look entries up. Reading the log is itself logged.
#[derive(Args)]
pub(crate) struct QueryArgs {
    /// Entries that name this token.
    #[arg(long)]
    token: Option<String>,

    #[command(flatten)]
    subject: Subject,

    /// Entries of this principal.
    #[arg(long)]
    principal: Option<String>,

    /// Entries of this action: tokenize, detokenize, mask, find, describe, erase, audit_query ...
    #[arg(long)]
    action: Option<String>,

    /// Entries that are about this grant of break-glass, or were done under it: its id, or its first digits (6 at least).
    #[arg(long, value_name = "ID")]
    grant: Option<ShortId<OfGrant>>,

    /// From then on: `2026-05-01`, `2026-05-01T12:00:00Z`, or so long ago: `15m`, `2h`, `7d`.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<SystemTime>,

    /// Before then.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<SystemTime>,

    /// At most so many entries.
    #[arg(long, default_value_t = 100)]
    limit: u32,

    /// Oldest first.
    #[arg(long)]
    oldest_first: bool,
}

pub(crate) async fn run(global: &Global, args: QueryArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let token = args.token.map(|text| text.parse()).transpose();
    let token =
        token.map_err(|error: vault_client::ItemError| Failure::from(vault_client::Error::from(error)))?;
    // Exposed: each page of the query names the subject to the vault again.
    let subject = input::subject(args.subject, false)?;
    let again =
        |subject: &vault_client::SubjectId| vault_client::SubjectId::new(subject.expose().to_owned()).ok();
    let grant = match &args.grant {
        Some(name) => Some(grant_of(name, &client).await?),
        None => None,
    };
    let mut entries = Vec::new();
    let mut page = None;
    loop {
        let left = args.limit.saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        let query = AuditQuery {
            token: Option::clone(&token),
            subject: subject.as_ref().and_then(again),
            principal: args.principal.clone(),
            action: args.action.clone(),
            grant: grant.clone(),
            since: args.since,
            until: args.until,
            limit: left.min(PAGE),
            page: page.take(),
            oldest_first: args.oldest_first,
        };
        let answer = client.audit_query(query).await?;
        entries.extend(answer.entries);
        page = answer.next;
        if page.is_none() || entries.len() >= args.limit as usize {
            break;
        }
    }
    entries.truncate(args.limit as usize);
    if global.json {
        output::json(
            &json!({ "entries": entries.iter().map(|record| object(record, client.environment())).collect::<Value>(), "more": page.is_some() }),
        )?;
    } else {
        if entries.is_empty() {
            let everywhere = if client.tenant_name() == "*" {
                ""
            } else {
                "; those of all tenants, and of none: --tenant '*'"
            };
            tell(&format!("no entry fits{everywhere}"));
        } else {
            table(&entries, client.tenant_name() == "*")?;
        }
        if page.is_some() {
            eprintln!("vaultctl: there are more; ask for them with --limit");
        }
    }
    Ok(Exit::Done)
}

/// Where an entry is: its log, unless that is the first one, and its position in it.
pub(crate) fn place(record: &AuditRecord) -> String {
    match record.log {
        0 => record.sequence.to_string(),
        log => format!("{log}/{}", record.sequence),
    }
}

/// Whose entry it is.
pub(crate) fn who(entry: &AuditEntry) -> String {
    match &entry.actor {
        Some(actor) if !actor.principal.is_empty() => actor.principal.clone(),
        Some(actor) if !actor.identity.is_empty() => format!("? {}", actor.identity),
        Some(actor) if actor.kind() == actor::Kind::Vault => "(the vault)".to_owned(),
        _ => "-".to_owned(),
    }
}

/// A column: its name, and what it has of an entry.
type Column = (&'static str, fn(&AuditEntry) -> String);

/// What of an entry stands behind its place. `everywhere`: it may be of any tenant. What no entry has gets no column.
fn columns(entries: &[AuditRecord], everywhere: bool) -> Vec<Column> {
    let any =
        |has: fn(&AuditEntry) -> bool| entries.iter().filter_map(|record| record.entry.as_ref()).any(has);
    let mut columns: Vec<Column> = vec![("TIME", |entry| when(entry.time_us))];
    if everywhere {
        columns.push(("TENANT", |entry| or_dash(&entry.tenant)));
    }
    columns.extend::<[Column; 5]>([
        ("PRINCIPAL", who),
        ("ACTION", |entry| name(entry.action().as_str_name(), "ACTION_")),
        ("DECISION", |entry| name(entry.decision().as_str_name(), "DECISION_")),
        ("PURPOSE", |entry| or_dash(&entry.purpose)),
        ("ITEMS", counted),
    ]);
    if any(|entry| !key_or_job(entry).is_empty()) {
        columns.push(("KEY OR JOB", |entry| or_dash(key_or_job(entry))));
    }
    if any(|entry| !entry.ticket.is_empty()) {
        columns.push(("TICKET", |entry| or_dash(&entry.ticket)));
    }
    columns
        .push(("REASON", |entry| or_dash(if entry.cause.is_empty() { &entry.reason } else { &entry.cause })));
    columns
}

fn table(entries: &[AuditRecord], everywhere: bool) -> std::io::Result<()> {
    let columns = columns(entries, everywhere);
    let header: Vec<&str> =
        std::iter::once("SEQUENCE").chain(columns.iter().map(|(name, _)| *name)).collect();
    output::table(&header, entries.iter().map(|record| row(record, &columns)))
}

fn row(record: &AuditRecord, columns: &[Column]) -> Vec<String> {
    let cells = record.entry.iter().flat_map(|entry| columns.iter().map(move |(_, cell)| cell(entry)));
    std::iter::once(place(record)).chain(cells).collect()
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// What an entry about keys is about: the key, where one is named, else the job.
fn key_or_job(entry: &AuditEntry) -> &str {
    let detail = |name: &str| entry.details.get(name).map(String::as_str).filter(|text| !text.is_empty());
    detail("key").or_else(|| detail("job")).unwrap_or_default()
}

fn counted(entry: &AuditEntry) -> String {
    let failed = entry.items.iter().filter(|item| item.outcome() != audit_item::Outcome::Ok).count();
    if failed == 0 {
        entry.items.len().to_string()
    } else {
        format!("{} ({failed} failed)", entry.items.len())
    }
}

/// An entry, for programs.
pub(crate) fn object(record: &AuditRecord, environment: Option<&Environment>) -> Value {
    let Some(entry) = &record.entry else { return json!({ "log": record.log, "sequence": record.sequence }) };
    let actor = entry.actor.clone().unwrap_or_default();
    json!({
        "log": record.log,
        "sequence": record.sequence,
        "time": when(entry.time_us),
        "request": hex::encode(&entry.request_id),
        "part": entry.part,
        "parts": entry.parts,
        "action": name(entry.action().as_str_name(), "ACTION_"),
        "decision": name(entry.decision().as_str_name(), "DECISION_"),
        "cause": entry.cause,
        "policies": entry.policies,
        "principal": actor.principal,
        "kind": name(actor.kind().as_str_name(), "KIND_"),
        "roles": actor.roles,
        "credential": hex::encode(&actor.credential),
        "identity": actor.identity,
        "factors": actor.factors,
        "source": actor.source,
        "tenant": entry.tenant,
        "purpose": entry.purpose,
        "reason": entry.reason,
        "ticket": entry.ticket,
        "grant": entry.grant,
        "accounting_exclusion": entry.accounting_exclusion,
        "items": items(entry, environment),
        "details": entry.details,
    })
}

/// Tokens as applications know them, where the environment is known; else as the log has them, in hexadecimal.
fn items(entry: &AuditEntry, environment: Option<&Environment>) -> Value {
    let token = |bytes: &[u8]| {
        let known = environment.and_then(|environment| Token::from_log(bytes, environment));
        known.map_or_else(|| hex::encode(bytes), |token| token.to_string())
    };
    let one = |item: &AuditItem| {
        json!({
            "token": token(&item.token),
            "class": item.data_class,
            "subject": hex::encode(&item.subject),
            "key": hex::encode(&item.key_id),
            "outcome": name(item.outcome().as_str_name(), "OUTCOME_"),
            "matches": item.matches,
        })
    };
    entry.items.iter().map(one).collect()
}

/// The name of the wire's, for people.
pub(crate) fn name(wire: &str, prefix: &str) -> String {
    wire.strip_prefix(prefix).unwrap_or(wire).to_ascii_lowercase()
}

/// A time of the log's.
pub(crate) fn when(micros: u64) -> String {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_micros(micros))
        .map_or_else(|| "out of range".to_owned(), time)
}

/// An instant, a day (UTC), or a span before now.
fn instant(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.into());
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>() {
        let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| error.to_string())?;
        return Ok(midnight.timestamp().into());
    }
    let ago = args::duration(text).ok().and_then(|span| SystemTime::now().checked_sub(span));
    ago.ok_or_else(|| {
        "a time such as 2026-05-01T12:00:00Z, a day such as 2026-05-01, or a span such as 2h".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use vault_client::audit::audit_entry;

    use super::*;

    #[test]
    fn times_are_instants_days_or_spans_before_now() {
        let day = instant("2026-05-01").unwrap();
        assert_eq!(day, instant("2026-05-01T00:00:00Z").unwrap());
        assert_eq!(day, instant("2026-05-01T02:00:00+02:00").unwrap());
        assert!(instant("1h").unwrap() < SystemTime::now());
        for bad in ["", "yesterday", "2026-02-30", "1"] {
            assert!(instant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entries_read_as_the_log_has_them() {
        let mut entry = AuditEntry { time_us: 1_000_000, ..AuditEntry::default() };
        entry.set_action(audit_entry::Action::Detokenize);
        entry.set_decision(audit_entry::Decision::Deny);
        let mut record = AuditRecord { sequence: 7, entry: Some(entry), log: 0 };
        let object = object(&record, None);
        assert_eq!(object["time"], "1970-01-01T00:00:01.000Z");
        assert_eq!(object["action"], "detokenize");
        assert_eq!((&object["log"], &object["sequence"]), (&json!(0), &json!(7)));
        let row = |record: &AuditRecord| row(record, &columns(std::slice::from_ref(record), false));
        assert_eq!((&*row(&record)[0], &*row(&record)[4]), ("7", "deny"));
        record.log = 3;
        assert_eq!(row(&record)[0], "3/7");
    }

    #[test]
    fn a_column_is_there_where_an_entry_has_something_for_it() {
        let names = |entry: &AuditEntry, everywhere| {
            let record = AuditRecord { sequence: 7, entry: Some(entry.clone()), log: 0 };
            columns(&[record], everywhere).iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
        };
        let mut entry = AuditEntry::default();
        assert_eq!(names(&entry, false), "TIME,PRINCIPAL,ACTION,DECISION,PURPOSE,ITEMS,REASON");
        entry.ticket = "SEC-7".to_owned();
        entry.details.insert("job".to_owned(), "0a".to_owned());
        let all = "TIME,TENANT,PRINCIPAL,ACTION,DECISION,PURPOSE,ITEMS,KEY OR JOB,TICKET,REASON";
        assert_eq!((&*names(&entry, true), key_or_job(&entry)), (all, "0a"));
        entry.details.insert("key".to_owned(), "0b".to_owned());
        assert_eq!(key_or_job(&entry), "0b");
    }
}
