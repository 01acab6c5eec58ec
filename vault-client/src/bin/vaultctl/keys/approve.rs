//! `vaultctl jobs approve`

use clap::Args;
use vault_client::audit::{AuditEntry, AuditQuery};
use vault_client::keys::{Job, JobKind, JobState, Key, KeyPurpose, KeyState};
use vault_client::{Client, Reason};

use super::jobs::JobArgs;
use crate::args::Global;
use crate::describe::time;
use crate::failure::{Exit, Failure};
use crate::meant;
use crate::paste::{count, tell};
use crate::touch::{TouchArgs, second_factor};
use crate::words::NoteArgs;

/// Approve a job that somebody else asked for. Shows it, asks whether you mean it, and has your security key touched, if you
/// ever had one.
#[derive(Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    job: JobArgs,

    /// Don't ask: you know the job. Needed where there is no terminal.
    #[arg(long, short = 'y')]
    yes: bool,

    #[command(flatten)]
    note: NoteArgs,

    #[command(flatten)]
    touch: TouchArgs,
}

/// What an approval sets off, before anybody is asked.
const BEFORE: &str = "on record, for good: your name, the time, your reason and ticket, and that you approved it.\n\
     with your approval a waiting period begins (`keys.destroy_after`, a day unless your vault has another one); until it is \
     over `jobs cancel` ends the job. then there is no way back.";

/// Approves a job; with a touch of the security key, if the vault wants one.
pub(super) async fn approve(global: &Global, client: &Client, args: ApproveArgs) -> Result<Job, Failure> {
    meant::can_be_asked(args.yes, "this job", "jobs list")?;
    let job = args.job.find(client).await?;
    let client = client.for_tenant(&job.tenant);
    let keys = client.list_keys(true).await;
    let keys = keys.as_ref().map(|keys| affected(&job, keys));
    let asking = asking(&client, &job).await;
    for line in lines(&job, &keys, &asking) {
        eprintln!("    {line}");
    }
    if job.state != JobState::Asked {
        let oneself = client.who_am_i().await.ok().map(|me| me.principal.id);
        if oneself.is_some() && oneself == job.approved_by && !job.state.is_over() {
            return Ok(job);
        }
        let message = format!("it does not wait for approval: it is {}", job.state);
        return Err(Failure::new(Exit::SomeFailed, Reason::JobState, message));
    }
    tell(BEFORE);
    if !args.yes && !meant::agreed(&question(&job, keys.as_deref().unwrap_or_default()))? {
        let cancel = global.paste().mine(&job.tenant, &format!("jobs cancel {}", job.id));
        return Err(Failure::wrong_use("nothing was done; it still waits")
            .hint(format!("to have it off the list: {cancel}")));
    }
    let approval = client.job_approval(job.id, &args.note.into());
    match client.approve_job_by(&approval, None).await {
        Err(refused) if refused.reason() == Reason::SecondFactor => {
            let signer = args.touch.signer()?;
            let (_, factor) = second_factor(&client, &signer, approval.action(), approval.hash()).await?;
            Ok(client.approve_job_by(&approval, Some(factor)).await?)
        }
        done => Ok(done?),
    }
}

/// The keys that are gone after the job.
fn affected<'a>(job: &Job, keys: &'a [Key]) -> Vec<&'a Key> {
    let is_one = |key: &&Key| match job.kind {
        JobKind::Shred => key.state != KeyState::Destroyed,
        _ => job.key == Some(key.id),
    };
    keys.iter().filter(is_one).collect()
}

/// What was said when the job was asked for, as the log has it: reason and ticket.
async fn asking(client: &Client, job: &Job) -> Result<Option<(String, String)>, vault_client::Error> {
    // The log's time is not exactly the job's.
    let around = std::time::Duration::from_mins(5);
    let query = AuditQuery {
        action: Some("job_start".to_owned()),
        principal: Some(job.asked_by.clone()),
        since: job.asked.and_then(|asked| asked.checked_sub(around)),
        until: job.asked.and_then(|asked| asked.checked_add(around)),
        limit: 1_000,
        oldest_first: true,
        ..AuditQuery::default()
    };
    let found = client.audit_query(query).await?;
    let id = job.id.to_string();
    let is_it = |entry: &AuditEntry| entry.details.get("job") == Some(&id);
    let entry = found.entries.into_iter().filter_map(|record| record.entry).find(is_it);
    Ok(entry.map(|entry| (entry.reason, entry.ticket)))
}

/// All that is known of the job, for who answers for it.
fn lines<K: std::fmt::Display, L: std::fmt::Display>(
    job: &Job,
    keys: &Result<Vec<&Key>, K>,
    asking: &Result<Option<(String, String)>, L>,
) -> Vec<String> {
    let what = match job.kind {
        JobKind::Destroy => ": a version of a key is gone for good",
        JobKind::Shred => ": all keys of the tenant are gone for good, and with them every value",
        _ => "",
    };
    let mut of = vec![
        ("job", job.id.to_string()),
        ("tenant", job.tenant.clone()),
        ("kind", format!("{}{what}", job.kind)),
        ("state", job.state.to_string()),
    ];
    match keys {
        Ok(keys) => of.extend(keys.iter().map(|key| ("key", told_of(key)))),
        Err(error) => {
            of.extend(job.key.map(|key| ("key", key.to_string())));
            of.push(("keys", format!("what they are is not known: {error}")));
        }
    }
    of.push(("asked by", job.asked_by.clone()));
    of.extend(job.asked.map(|asked| ("asked", time(asked))));
    match asking {
        Ok(Some((reason, ticket))) => of.extend([("reason", or_none(reason)), ("ticket", or_none(ticket))]),
        Ok(None) => of.push(("reason", "not found in the log".to_owned())),
        Err(error) => of.push(("reason", format!("the log does not tell: {error}"))),
    }
    of.extend(job.approved_by.clone().map(|who| ("approved by", who)));
    of.iter().map(|(name, said)| format!("{name:<12} {}", said.escape_debug())).collect()
}

fn or_none(said: &str) -> String {
    if said.is_empty() { "none was given".to_owned() } else { said.to_owned() }
}

/// One version, and what refers to it.
fn told_of(key: &Key) -> String {
    let Key { id, purpose, version, state, .. } = key;
    let records = match purpose {
        KeyPurpose::Data => format!(", {}", count(key.records, "record")),
        _ => String::new(),
    };
    format!("{id}: {purpose}, version {version}, {state}{records}")
}

fn question(job: &Job, keys: &[&Key]) -> String {
    match (job.kind, keys) {
        (JobKind::Shred, keys) => {
            let records = keys.iter().filter(|key| key.purpose == KeyPurpose::Data).map(|key| key.records);
            let records = records.fold(0, u64::saturating_add);
            let values = if keys.is_empty() { "every value".to_owned() } else { count(records, "record") };
            format!("may all keys of tenant {} be destroyed, and with them {values}?", job.tenant)
        }
        (JobKind::Destroy, [key]) => format!(
            "may version {} of the {} key of tenant {} be destroyed?",
            key.version, key.purpose, job.tenant
        ),
        _ => format!("may this be done for tenant {}?", job.tenant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_approves_a_shred_is_shown_every_key_that_goes_with_it() {
        let job = Job::standing(JobKind::Shred, JobState::Asked);
        let mut keys = [
            Key::active(KeyPurpose::Data, 1),
            Key::active(KeyPurpose::Data, 2),
            Key::active(KeyPurpose::Index, 1),
        ];
        (keys[0].state, keys[0].records, keys[1].records) = (KeyState::Destroyed, 9, 1835);
        let shown = affected(&job, &keys);
        let told = lines::<String, String>(
            &job,
            &Ok(shown.clone()),
            &Ok(Some(("the contract".into(), String::new()))),
        );
        let told = told.join("\n");
        for part in ["demo", "shred: all keys", "data, version 2", "1835 records", "index, version 1, active"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(told.contains("the contract") && told.contains("none was given"), "{told}");
        assert!(!told.contains("data, version 1") && !told.contains("version 1, active,"), "{told}");
        let question = question(&job, &shown);
        assert!(question.contains("tenant demo") && question.contains("1835 records"), "{question}");
    }

    #[test]
    fn who_approves_a_destruction_is_shown_its_version() {
        let mut job = Job::standing(JobKind::Destroy, JobState::Asked);
        let keys = [Key::active(KeyPurpose::Data, 1), Key::active(KeyPurpose::Data, 2)];
        job.key = Some(keys[0].id);
        let shown = affected(&job, &keys);
        assert!(question(&job, &shown).contains("version 1 of the data key of tenant demo"));
        let told = lines::<String, String>(&job, &Ok(shown), &Ok(None)).join("\n");
        assert!(told.contains(&keys[0].id.to_string()) && !told.contains("version 2"), "{told}");
        assert!(told.contains("asked by     admin") && told.contains("not found in the log"), "{told}");
        let unknown = lines(&job, &Err("away"), &Err("away")).join("\n");
        assert!(unknown.contains(&keys[0].id.to_string()), "{unknown}");
        assert!(unknown.contains("not known: away") && unknown.contains("does not tell: away"), "{unknown}");
    }
}
