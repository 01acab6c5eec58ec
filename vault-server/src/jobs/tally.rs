//! Figures of jobs, for metrics: what is under way in the vault, and what this process did since its start.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::domain::{Job, JobKind, JobProgress, JobState, Timestamp};
use crate::store::UnderWay;

/// Figures of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Jobs under way in the whole vault, by kind and state, as this process saw them last.
    pub under_way: BTreeMap<(JobKind, JobState), u64>,
    /// Jobs' rows that are not what was written, as it saw them last.
    pub corrupt: u64,
    /// What this process did for jobs of a kind: `done`, `failed`, `bytes` and `kms_calls`.
    pub work: BTreeMap<JobKind, JobProgress>,
    /// Jobs that it ended, by kind and state: how many, and when the last one.
    pub ended: BTreeMap<(JobKind, JobState), (u64, Timestamp)>,
}

/// Where workers count.
#[derive(Default)]
pub struct Tally(Mutex<JobStats>);

impl Tally {
    /// The figures so far.
    pub fn stats(&self) -> JobStats {
        self.0.lock().clone()
    }

    /// What a worker found when it looked.
    pub(super) fn saw(&self, found: &UnderWay) {
        let mut under_way = BTreeMap::new();
        for job in &found.jobs {
            *under_way.entry((job.place.kind, job.state)).or_default() += 1;
        }
        let mut stats = self.0.lock();
        stats.under_way = under_way;
        stats.corrupt = found.corrupt.len() as u64;
    }

    /// That a job is further than it was.
    pub(super) fn worked(&self, kind: JobKind, before: &JobProgress, now: &JobProgress) {
        let mut stats = self.0.lock();
        let work = stats.work.entry(kind).or_default();
        work.done += now.done.saturating_sub(before.done);
        work.failed += now.failed.saturating_sub(before.failed);
        work.bytes += now.bytes.saturating_sub(before.bytes);
        work.kms_calls += now.kms_calls.saturating_sub(before.kms_calls);
    }

    /// That a job ended here.
    pub(super) fn ended(&self, job: &Job) {
        let mut stats = self.0.lock();
        let (count, last) = stats.ended.entry((job.place.kind, job.state)).or_insert((0, Timestamp(0)));
        *count += 1;
        *last = job.changed;
    }
}
