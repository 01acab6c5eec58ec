//! A whole move, from one open store to another.

use std::sync::Arc;
use std::time::Duration;

use super::error::{MoveError, Of as _, Side};
use super::log::LogEnd;
use super::logs::Exported;
use super::marker::{self, Target};
use super::open::Opened;
use super::progress::Progress;
use super::rows::Row;
use crate::audit::{self, AuditAction, Draft, Log, LogOptions};
use crate::domain::{Clock, Entity, Job, KeyRecord, Record, RequestId, VaultIdentity};
use crate::store::{Change, EntrySeals, Lease, LogId, Remembered, Store};

/// How much is in memory at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rows of a page. A record has at most some 64 KiB.
    pub(super) rows: usize,
    /// Bytes of a change.
    pub(super) bytes: usize,
    /// Entries of a change.
    pub(super) entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 512, bytes: 4 << 20, entries: 1024 }
    }
}

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Keys.
    pub(super) keys: u64,
    /// Records, erased ones included.
    pub(super) records: u64,
    /// Remembered answers.
    pub(super) answers: u64,
    /// Jobs on keys, under way or over.
    pub(super) jobs: u64,
    /// What the access layer keeps.
    pub(super) entities: u64,
    /// Log entries, that of the move not among them.
    pub(super) entries: u64,
}

/// How a move ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All is there.
    Moved(Counts),
    /// All was there before.
    WasThere(Counts),
}

/// What is to be moved.
pub(super) struct Move<'a> {
    pub(super) old: &'a Opened,
    pub(super) new: &'a Opened,
    pub(super) identity: &'a VaultIdentity,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    pub(super) progress: &'a Progress,
    /// What seals the entries that are not signed yet.
    pub(super) seals: Option<Arc<EntrySeals>>,
    /// Logs of the old store that were exported because the new one has no room for them.
    pub(super) exported: Vec<Exported>,
}

/// How long the last entry may take.
const LAST_ENTRY: Duration = Duration::from_secs(30);

/// What becomes of a row that only the old store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Insert,
    Refuse,
}

impl Move<'_> {
    /// Moves what is not moved yet, and compares all of it.
    pub(super) async fn run(&self) -> Result<Ended, MoveError> {
        let (old, new) = (&*self.old.store, &*self.new.store);
        self.check_old(old).await?;
        let marker = match marker::look(new, self.identity).await? {
            Target::Moved => {
                self.seal_entries(new);
                let counts = self.compare(old, new, LogEnd::Move).await?;
                return Ok(Ended::WasThere(counts));
            }
            Target::Half(marker) => marker,
            Target::Empty => marker::put(new, self.identity).await?,
        };
        // After the marker: who came before it is seen here, and who comes after it sees the marker.
        self.new.is_alone(Side::New).await?;
        self.rows::<KeyRecord>(old, new, Missing::Insert).await?;
        self.rows::<Record>(old, new, Missing::Insert).await?;
        self.rows::<Remembered>(old, new, Missing::Insert).await?;
        self.rows::<Job>(old, new, Missing::Insert).await?;
        self.rows::<Entity>(old, new, Missing::Insert).await?;
        self.copy_log(old, new).await?;
        self.derive(old, new).await?;
        let counts = self.compare(old, new, LogEnd::Same).await?;
        new.found(self.identity).await.of(Side::New)?;
        self.end(marker, counts).await?;
        Ok(Ended::Moved(counts))
    }

    /// What the old store has; it is read from end to end.
    pub(super) async fn count(&self) -> Result<Counts, MoveError> {
        let old = &*self.old.store;
        self.check_old(old).await?;
        self.compare_rows(old, old).await
    }

    async fn check_old(&self, old: &dyn Store) -> Result<(), MoveError> {
        let refused = |why: &str| Err(MoveError::Refused(format!("the old store {why}")));
        match old.identity().await.of(Side::Old)? {
            None => return refused("is not the store of any vault"),
            Some(there) if there != *self.identity => return refused("is the store of another vault"),
            Some(_) => {}
        }
        marker::refuse_half_moved(old).await.of(Side::Old)?;
        audit::check_log(old).await.of(Side::Old)?;
        check_logs(self.old, Side::Old, &self.exported).await
    }

    /// Reads both stores from end to end; the first difference is an error.
    async fn compare(&self, old: &dyn Store, new: &dyn Store, end: LogEnd) -> Result<Counts, MoveError> {
        let size = old.log_size(LogId::default()).await.of(Side::Old)?;
        self.compare_end(new, size, end).await?;
        let counts = self.compare_rows(old, new).await?;
        self.compare_log(old, new).await?;
        check_logs(self.old, Side::Old, &self.exported).await?;
        check_logs(self.new, Side::New, &[]).await?;
        Ok(counts)
    }

    async fn compare_rows(&self, old: &dyn Store, new: &dyn Store) -> Result<Counts, MoveError> {
        Ok(Counts {
            keys: self.rows::<KeyRecord>(old, new, Missing::Refuse).await?,
            records: self.rows::<Record>(old, new, Missing::Refuse).await?,
            answers: self.rows::<Remembered>(old, new, Missing::Refuse).await?,
            jobs: self.rows::<Job>(old, new, Missing::Refuse).await?,
            entities: self.rows::<Entity>(old, new, Missing::Refuse).await?,
            entries: old.log_size(LogId::default()).await.of(Side::Old)?,
        })
    }

    /// Walks both stores in step. How many rows the old one has, without those that are over and not in the new
    /// one. A row that only the new one has is always an error.
    async fn rows<R: Row>(
        &self,
        old: &dyn Store,
        new: &dyn Store,
        missing: Missing,
    ) -> Result<u64, MoveError> {
        let now = self.clock.now();
        let verb = if missing == Missing::Insert { "copied" } else { "compared" };
        let (mut after, mut count) = (None, 0_u64);
        loop {
            let page = R::page(old, after.as_ref(), self.limits.rows).await.of(Side::Old)?;
            let Some(last) = page.last().map(Row::name) else { break };
            // As many as in the page are enough: one more that is not in it would be among them.
            let mut there = R::page(new, after.as_ref(), page.len()).await.of(Side::New)?;
            there.retain(|row| row.name() <= last);
            let mut there = there.into_iter().peekable();
            let mut rows = Vec::new();
            for row in page {
                match there.next_if(|there| there.name() <= row.name()) {
                    Some(other) if other.name() < row.name() => return Err(extra(&other)),
                    Some(other) if other != row => {
                        return Err(MoveError::different(named(&row), "is not the same in both stores"));
                    }
                    Some(_) => count += 1,
                    None if row.is_over(now) => {}
                    None if missing == Missing::Refuse => {
                        return Err(MoveError::different(named(&row), "is in the old store only"));
                    }
                    None => {
                        count += 1;
                        rows.push(row);
                    }
                }
            }
            self.insert(new, rows).await?;
            self.progress.at(verb, R::MANY, count);
            after = Some(last);
        }
        match R::page(new, after.as_ref(), 1).await.of(Side::New)?.first() {
            Some(row) => Err(extra(row)),
            None => Ok(count),
        }
    }

    /// Each change is durable before the next one begins.
    async fn insert<R: Row>(&self, new: &dyn Store, rows: Vec<R>) -> Result<(), MoveError> {
        let (mut writes, mut bytes) = (Vec::new(), 0);
        for row in rows {
            if bytes > 0 && bytes + row.bytes() > self.limits.bytes {
                let change = Change { writes: std::mem::take(&mut writes), entries: Vec::new() };
                new.commit(change).await.of(Side::New)?;
                bytes = 0;
            }
            bytes += row.bytes();
            writes.push(row.insert());
        }
        if !writes.is_empty() {
            new.commit(Change { writes, entries: Vec::new() }).await.of(Side::New)?;
        }
        Ok(())
    }

    /// Puts the move on record, and ends the marker with it.
    async fn end(&self, marker: Lease, counts: Counts) -> Result<(), MoveError> {
        let (old, new) = (&self.old.store, &self.new.store);
        if new.log_size(LogId::default()).await.of(Side::New)? != counts.entries {
            return Err(MoveError::different("log 0", "the new store was used meanwhile"));
        }
        let request = RequestId::random()
            .map_err(|_| MoveError::Refused("no randomness from the operating system".to_owned()))?;
        let mut details = vec![
            ("from", old.engine().to_owned()),
            ("to", new.engine().to_owned()),
            ("keys", counts.keys.to_string()),
            ("records", counts.records.to_string()),
            ("answers", counts.answers.to_string()),
            ("jobs", counts.jobs.to_string()),
            ("entities", counts.entities.to_string()),
            ("entries", counts.entries.to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        if !self.exported.is_empty() {
            let logs: Vec<_> = self.exported.iter().map(|exported| exported.log.to_string()).collect();
            details.push(("exported_logs", logs.join(" ")));
        }
        let draft = Draft { details, ..Draft::of_vault(request, AuditAction::StoreMoved) };
        let options = LogOptions { deadline: LAST_ENTRY, max_in_flight: 1 };
        let log = Log::new(Arc::clone(new), Arc::clone(&self.clock), options);
        log.commit(draft, Vec::new(), vec![marker::end(marker)]).await?;
        Ok(())
    }
}

/// Nobody else is at work, and each log but the first has no entries, or those that were exported and no more.
async fn check_logs(opened: &Opened, side: Side, exported: &[Exported]) -> Result<(), MoveError> {
    opened.is_alone(side).await?;
    for log in opened.store.logs().await.of(side)? {
        if log == LogId::default() {
            continue;
        }
        let size = opened.store.log_size(log).await.of(side)?;
        if let Some(exported) = exported.iter().find(|exported| exported.log == log) {
            if exported.size != size {
                let why = format!(
                    "{side} was used meanwhile: log {log} had {} entries when it was exported, and has {size}",
                    exported.size
                );
                return Err(MoveError::Refused(why));
            }
            continue;
        }
        if size > 0 {
            let hint = if side == Side::Old { ": only log 0 can be moved. See --logs-to" } else { "" };
            return Err(MoveError::Refused(format!("{side} has {size} entries in log {log}{hint}")));
        }
    }
    Ok(())
}

fn named<R: Row>(row: &R) -> String {
    format!("{} {}", R::ONE, R::named(&row.name()))
}

fn extra<R: Row>(row: &R) -> MoveError {
    MoveError::different(named(row), "is in the new store only")
}
