//! Keys, jobs and previews: tables for people, an object a line for programs.

use std::io;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use vault_client::keys::{Job, JobNews, JobOrder, JobState, Key, KeyPurpose, Preview, Rotation};

use crate::describe::time;
use crate::output;

/// Prints keys. `counted`: their records were.
pub(super) fn keys(as_json: bool, counted: bool, keys: &[Key]) -> io::Result<()> {
    if as_json {
        return lines(keys.iter().map(|key| key_object(key, counted)));
    }
    let mut header = vec!["KEY", "TENANT", "PURPOSE", "VERSION", "STATE", "CREATED", "WRAPPED BY"];
    if counted {
        header.push("RECORDS");
    }
    let row = |key: &Key| {
        let mut row = vec![
            key.id.to_string(),
            key.tenant.clone(),
            key.purpose.to_string(),
            key.version.to_string(),
            key.state.to_string(),
            or_dash(key.created.map(time)),
            or_dash(Some(wraps(key)).filter(|names| !names.is_empty())),
        ];
        row.extend(counted.then(|| or_dash(records(key).map(|records| records.to_string()))));
        row
    };
    output::table(&header, keys.iter().map(row))
}

/// The records under it. Records are sealed under data keys, and only those are counted.
fn records(key: &Key) -> Option<u64> {
    (key.purpose == KeyPurpose::Data).then_some(key.records)
}

/// The KMS keys that wrap it; `!` is before one that may not.
fn wraps(key: &Key) -> String {
    let mark = |name: &String| if key.stray_wraps.contains(name) { "!" } else { "" };
    let names: Vec<String> = key.wrapped_by.iter().map(|name| format!("{}{name}", mark(name))).collect();
    names.join(" ")
}

/// Prints what came of a rotation.
pub(super) fn rotation(as_json: bool, rotation: &Rotation) -> io::Result<()> {
    if !as_json {
        return keys(false, false, std::slice::from_ref(&rotation.key));
    }
    let mut object = key_object(&rotation.key, false);
    object["rotated"] = json!(rotation.rotated);
    lines([object])
}

/// Prints a version that was marked as compromised, and the active one of its purpose.
pub(super) fn revoked(as_json: bool, key: &Key, active: Option<&Key>) -> io::Result<()> {
    let both: Vec<Key> = std::iter::once(key).chain(active).cloned().collect();
    if !as_json {
        return keys(false, false, &both);
    }
    let mut object = key_object(key, false);
    object["active"] = json!(active.map(|active| active.id.to_string()));
    lines([object])
}

/// Prints jobs.
pub(super) fn jobs(as_json: bool, jobs: &[Job]) -> io::Result<()> {
    if as_json {
        return lines(jobs.iter().map(job_object));
    }
    let header = [
        "JOB",
        "TENANT",
        "KIND",
        "STATE",
        "DONE",
        "FAILED",
        "TOTAL",
        "KEY",
        "ASKED BY",
        "APPROVED BY",
        "NOT BEFORE",
        "CAUSE",
    ];
    let now = SystemTime::now();
    let row = |job: &Job| {
        vec![
            job.id.to_string(),
            job.tenant.clone(),
            job.kind.to_string(),
            standing(job, now).to_owned(),
            job.done.to_string(),
            job.failed.to_string(),
            job.total.to_string(),
            or_dash(job.key.map(|key| key.to_string())),
            job.asked_by.clone(),
            or_dash(job.approved_by.clone()),
            or_dash(not_before(job).map(time)),
            or_dash(job.cause.clone()),
        ]
    };
    output::table(&header, jobs.iter().map(row))
}

/// Prints what a job would have to do.
pub(super) fn preview(as_json: bool, order: &JobOrder, preview: &Preview) -> io::Result<()> {
    let Preview { items, bytes, kms_calls, kms_cost_micros, refused, .. } = preview;
    if as_json {
        return lines([json!({
            "kind": order.kind.as_str(), "key": order.key.map(|key| key.to_string()), "items": items, "bytes": bytes,
            "kms_calls": kms_calls, "kms_cost_micros": kms_cost_micros, "seconds": preview.time.as_secs(),
            "refused": refused,
        })]);
    }
    let cost = format!("{}.{:06}", kms_cost_micros / 1_000_000, kms_cost_micros % 1_000_000);
    let row = vec![
        order.kind.to_string(),
        items.to_string(),
        bytes.to_string(),
        kms_calls.to_string(),
        or_dash((*kms_cost_micros > 0).then_some(cost)),
        span(preview.time),
        or_dash(refused.clone()),
    ];
    output::table(&["KIND", "ITEMS", "BYTES", "KMS CALLS", "KMS COST", "TIME", "REFUSED"], [row])
}

/// Prints how a job stands, for programs.
pub(super) fn news(news: &JobNews) -> io::Result<()> {
    let mut object = job_object(&news.job);
    object["rate"] = json!(news.rate);
    object["seconds_left"] = json!(news.left.map(|left| left.as_secs()));
    lines([object])
}

/// How a job stands, in a line for people.
pub(super) fn progress(news: &JobNews) -> String {
    use std::fmt::Write as _;

    let Job { kind, id, done, total, failed, .. } = &news.job;
    let now = SystemTime::now();
    let state = standing(&news.job, now);
    // What there was to do when it began says nothing of a job that is done: less may have been left to do, or more have come.
    let mut line = match news.job.state {
        JobState::Done => format!("{kind} {id}: {state}: {done}"),
        _ => format!("{kind} {id}: {state}, {done} of {total} done"),
    };
    // Writing to a string does not fail.
    let _ = match (failed, &news.job.cause) {
        (0, None) => Ok(()),
        (failed, None) => write!(line, ", {failed} failed"),
        (failed, Some(cause)) => write!(line, ", {failed} failed, {cause}"),
    };
    if let Some(rate) = news.rate {
        let _ = write!(line, ", {rate:.1}/s");
    }
    if let Some(left) = news.left {
        let _ = write!(line, ", {} left", span(left));
    }
    match not_before(&news.job).filter(|_| waits(&news.job, now)) {
        Some(then) => line + ", not before " + &time(then),
        None => line,
    }
}

/// Whether a job was approved, and its time has not come.
fn waits(job: &Job, now: SystemTime) -> bool {
    job.state == JobState::Running && job.begun.is_none() && job.not_before.is_some_and(|then| then > now)
}

/// How a job stands, for people.
fn standing(job: &Job, now: SystemTime) -> &'static str {
    if waits(job, now) { "waiting" } else { job.state.as_str() }
}

/// The time before which a job does not begin: the approval sets it.
fn not_before(job: &Job) -> Option<SystemTime> {
    job.not_before.filter(|_| job.state != JobState::Asked)
}

fn key_object(key: &Key, counted: bool) -> Value {
    json!({
        "key": key.id.to_string(),
        "tenant": key.tenant,
        "purpose": key.purpose.as_str(),
        "version": key.version.0,
        "state": key.state.as_str(),
        "created": key.created.map(time),
        "wrapped_by": key.wrapped_by,
        "stray_wraps": key.stray_wraps,
        "records": records(key).filter(|_| counted),
    })
}

fn job_object(job: &Job) -> Value {
    json!({
        "job": job.id.to_string(),
        "tenant": job.tenant,
        "kind": job.kind.as_str(),
        "state": job.state.as_str(),
        "key": job.key.map(|key| key.to_string()),
        "asked_by": job.asked_by,
        "approved_by": job.approved_by,
        "asked": job.asked.map(time),
        "not_before": not_before(job).map(time),
        "begun": job.begun.map(time),
        "changed": job.changed.map(time),
        "total": job.total,
        "done": job.done,
        "failed": job.failed,
        "bytes": job.bytes,
        "kms_calls": job.kms_calls,
        "cause": job.cause,
        "bytes_per_second": job.bytes_per_second,
        "kms_calls_per_second": job.kms_calls_per_second,
    })
}

/// Prints objects, one a line even on a terminal.
fn lines(objects: impl IntoIterator<Item = Value>) -> io::Result<()> {
    objects.into_iter().try_for_each(|object| output::line(&object.to_string()))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// The two greatest units of a span.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use vault_client::keys::JobKind;

    use super::*;

    #[test]
    fn a_job_that_was_approved_waits_until_its_time_has_come() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut job = Job::standing(JobKind::Destroy, JobState::Asked);
        job.not_before = Some(at(100));
        assert_eq!((standing(&job, at(0)), not_before(&job)), ("asked", None));
        job.state = JobState::Running;
        assert_eq!((standing(&job, at(0)), not_before(&job)), ("waiting", Some(at(100))));
        assert_eq!(standing(&job, at(100)), "running");
        (job.begun, job.state) = (Some(at(100)), JobState::Paused);
        assert_eq!(standing(&job, at(0)), "paused");
    }

    #[test]
    fn only_data_keys_have_records() {
        let mut key = Key::active(KeyPurpose::Data, 1);
        key.records = 7;
        assert_eq!((records(&key), &key_object(&key, true)["records"]), (Some(7), &json!(7)));
        key.purpose = KeyPurpose::Index;
        assert_eq!((records(&key), &key_object(&key, true)["records"]), (None, &Value::Null));
    }

    #[test]
    fn spans_have_their_two_greatest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3_600, "1h 0m"),
            (90_061, "1d 1h"),
            (8_640_000, "100d 0h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
