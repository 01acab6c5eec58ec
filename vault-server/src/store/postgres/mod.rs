//! The store on PostgreSQL and what speaks its protocol: any number of instances on one database.
//!
//! * An instance writes a log of its own, held by lease and fence (`log`); one task makes its commits
//!   (`committer`). Reads go through a pool, to the same server: the one that takes writes; concurrent ones by key share
//!   a statement (`reader`), and so do those of tenants' keys (`key_lists`).
//! * Only a server whose commits are durable is used (`connect`); what became of a commit whose connection was lost
//!   is asked, never guessed.
//! * SQL is what the family of engines shares: no notifications, advisory locks or extensions, no named statements.
//! * A row that is not what was written is an error that names it (`rows`).

mod alone;
mod batch;
mod committer;
mod connect;
mod database;
mod error;
mod gather;
mod key_lists;
mod locks;
mod log;
mod lost;
mod open;
mod options;
mod read;
mod reader;
mod rows;
mod schema;
mod statement;
mod turn;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;

pub use self::alone::{held_logs, open_alone};
use self::committer::Progress;
use self::database::{Database, How, READ, unavailable};
use self::gather::{Job, size};
use self::key_lists::KeyLists;
use self::log::{Grip, Standing, Wanted, left_alone};
pub use self::open::open;
pub use self::options::{Password, PostgresOptions, Transport};
use self::read::{Answers, Postings, Records};
use self::reader::Reader;
use self::statement::Statement;
use crate::domain::{
    self, BlindIndex, ClassName, Entity, EntityPlace, EntityScope, JobPlace, KeyId, KeyPurpose, KeyRecord,
    KeyVersion, LeaseName, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};
use crate::store::waiting::{self, Claim, before};
use crate::store::{
    Change, Committed, Cursor, Derived, DerivedState, EntityRow, EntrySeals, Lease, LogId, Lookup, Page,
    Remembered, Stats, Store, StoreError, TileId, Told, UnderWay, check_lengths, keys,
};

/// How many changes may wait for the committer, and how many bytes.
const QUEUE: usize = 16 * 1024;
const ROOM: u32 = 64 << 20;

/// How many records of a key one statement counts.
const COUNTED_AT_ONCE: usize = 250_000;

/// How long what was accepted has to become durable when the store is closed.
const CLOSING: Duration = Duration::from_secs(15);

/// A store that writes one log.
struct PostgresStore {
    database: Arc<Database>,
    grip: Grip,
    progress: Arc<Progress>,
    records: Reader<Records>,
    answers: Reader<Answers>,
    key_lists: KeyLists,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    room: Arc<Semaphore>,
    told: Told,
    closed: AtomicBool,
    closing: CancellationToken,
    committer: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl PostgresStore {
    fn usable(&self) -> Result<(), StoreError> {
        self.progress.fatal().map_or(Ok(()), Err)?;
        if self.closed.load(Ordering::SeqCst) { Err(closed()) } else { Ok(()) }
    }

    /// Gives a change to the committer, and waits for what comes of it.
    async fn write(&self, change: Change, until: Option<Instant>) -> Result<Committed, StoreError> {
        self.usable()?;
        check_lengths(&change)?;
        if let Some(write) = batch::twice(&change) {
            return Err(StoreError::Conflict { write });
        }
        let queue = self.queue.lock().clone().ok_or_else(closed)?;
        let written = self.progress.written.load(Ordering::SeqCst);
        let late = || self.late(written);
        // What is larger than the queue takes all of it.
        let room = u32::try_from(size(&change)).unwrap_or(u32::MAX).clamp(1, ROOM);
        let room = before(until, Arc::clone(&self.room).acquire_many_owned(room)).await.ok_or_else(late)?;
        let room = room.map_err(|_| closed())?;
        let (claim, (answer, answered)) = (Claim::default(), oneshot::channel());
        let job = Job { change, claim: claim.clone(), answer, _room: room };
        before(until, queue.send(job)).await.ok_or_else(late)?.map_err(|_| closed())?;
        drop(queue);
        let answer = waiting::answer(until, &claim, answered).await.ok_or_else(late)?;
        answer.map_err(|_| self.progress.fatal().unwrap_or_else(closed))?
    }

    /// What became of a change that was taken back. So many batches had been written when it began to wait.
    fn late(&self, written: u64) -> StoreError {
        if self.progress.written.load(Ordering::SeqCst) == written {
            return unavailable(&"it takes no commit; nothing was written");
        }
        if self.told.is_due("late") {
            tracing::warn!(
                "changes wait for longer than their callers do: more is to be written than the database writes"
            );
        }
        StoreError::Late
    }

    /// Runs a statement that may be repeated.
    async fn query(&self, statement: &Statement<'_>) -> Result<Vec<Row>, StoreError> {
        self.usable()?;
        self.database.query(statement).await
    }

    /// Rows of a log's entries, as [`Store::entries`] gives them.
    async fn entry_rows(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let end = self.log_size(log).await?;
        if start >= end {
            return Ok(Vec::new());
        }
        let most = max_entries.max(1).min(usize::try_from(end - start).unwrap_or(usize::MAX));
        let rows = self.query(&read::entries_statement(log, start, most, max_bytes)).await?;
        if rows.is_empty() { Err(rows::lost_entry(log, start)) } else { Ok(rows) }
    }

    /// What a statement means that found no row of this instance's log.
    async fn not_held(&self) -> StoreError {
        let stands = async {
            let connection = self.database.pool.get().await.ok()?;
            log::standing(&connection, &self.progress.grip(&self.grip)).await.ok()
        };
        match timeout(READ, stands).await {
            Ok(Some(Standing::Taken)) => self.progress.fatal.get_or_init(|| StoreError::Taken).clone(),
            // Who writes the log, or renews its lease, finds out, and does what is to be done then.
            _ => unavailable(&"it does not know this instance's log"),
        }
    }

    /// The fence that is in force for this instance.
    fn fence(&self) -> u64 {
        self.progress.fence.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn engine(&self) -> &'static str {
        "postgres"
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn identity(&self) -> Result<Option<VaultIdentity>, StoreError> {
        read::identity_of(&self.query(&read::identity_statement()).await?)
    }

    async fn found(&self, identity: &VaultIdentity) -> Result<(), StoreError> {
        self.query(&read::found_statement(identity)).await?;
        if self.identity().await?.as_ref() != Some(identity) {
            return Err(other_vault());
        }
        self.database.connector.expect(identity);
        Ok(())
    }

    async fn commit(&self, change: Change) -> Result<Committed, StoreError> {
        self.write(change, None).await
    }

    async fn commit_until(&self, change: Change, until: Instant) -> Result<Committed, StoreError> {
        self.write(change, Some(until)).await
    }

    async fn records(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        self.usable()?;
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.records.get(tokens.to_vec()).await?;
        Ok(found.into_iter().map(|lookup| lookup.unwrap_or(Lookup::Missing)).collect())
    }

    async fn find(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        index: BlindIndex,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        let rows = self.query(&read::find_statement(tenant, class, index, limit)).await?;
        rows.iter().map(rows::token).collect()
    }

    async fn tokens_of_subject(
        &self,
        tenant: &TenantId,
        subject: SubjectRef,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        let rows = self.query(&read::subject_statement(tenant, subject, after, limit)).await?;
        let tokens = rows.iter().map(rows::token).collect::<Result<Vec<_>, _>>()?;
        let goes_on =
            tokens.first().is_none_or(|first| Some(first.as_bytes()) > after.as_ref().map(Token::as_bytes));
        if goes_on { Ok(tokens) } else { Err(stands_still()) }
    }

    async fn tokens_of_key(
        &self,
        key: KeyId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        let rows = self.query(&read::key_tokens_statement(key, after, limit)).await?;
        rows::page(&rows, limit, &["token"], rows::token)
    }

    async fn count_of_key(&self, key: KeyId) -> Result<u64, StoreError> {
        let (mut count, mut last): (_, Option<Cursor>) = (0, None);
        loop {
            let rows = self.query(&read::key_count_statement(key, last.clone(), COUNTED_AT_ONCE)).await?;
            let Some(row) = rows.first() else { return Ok(count) };
            let more = rows::number(row, "number")?;
            count += more;
            if more < COUNTED_AT_ONCE as u64 {
                return Ok(count);
            }
            let next = Some(rows::cursor(row, &["token"])?);
            if next <= last {
                return Err(stands_still());
            }
            last = next;
        }
    }

    async fn indexed_under(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        version: KeyVersion,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        let rows = self.query(&read::indexed_statement((tenant, class), version, after, limit)).await?;
        rows::page(&rows, limit, &["blind_index", "token"], rows::indexed)
    }

    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        self.usable()?;
        match self.key_lists.get(tenant, purpose).await? {
            Some(keys) => Ok(keys),
            None => Err(self.not_held().await),
        }
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let rows = self.query(&read::key_statement(id)).await?;
        rows.first().map(rows::key).transpose()
    }

    async fn remembered(&self, key: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
        self.usable()?;
        self.answers.get(vec![*key]).await?.pop().flatten().transpose()
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.query(&read::forget_statement(now, limit)).await?.len())
    }

    async fn lease(&self, name: &LeaseName) -> Result<Option<Lease>, StoreError> {
        let rows = self.query(&read::lease_statement(name)).await?;
        rows.first().map(rows::lease).transpose()
    }

    async fn job(&self, place: &JobPlace) -> Result<Option<domain::Job>, StoreError> {
        let rows = self.query(&read::job_statement(place)).await?;
        rows.first().map(rows::job).transpose()
    }

    async fn jobs(&self, after: Option<&JobPlace>, limit: usize) -> Result<Vec<domain::Job>, StoreError> {
        let after = after.map(|place| Cursor::behind(&keys::job(place)));
        let rows = self.query(&read::jobs_statement(after, limit)).await?;
        rows.iter().map(rows::job).collect()
    }

    async fn job_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<domain::Job>, StoreError> {
        let rows = self.query(&read::jobs_statement(after, limit)).await?;
        rows::page(&rows, limit, &["place"], rows::job)
    }

    async fn entity(&self, place: &EntityPlace) -> Result<Option<Entity>, StoreError> {
        let rows = self.query(&read::entity_statement(place)).await?;
        rows.first().map(rows::entity).transpose()
    }

    async fn entities(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<Entity>, StoreError> {
        let after = after.map(keys::entity);
        let rows = self.query(&read::entities_statement(of, after.as_deref(), limit)).await?;
        rows.iter().map(rows::entity).collect()
    }

    async fn entity_rows(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<EntityRow>, StoreError> {
        let (mut found, mut after) = (Vec::new(), after.map(keys::entity));
        // In place of those that are passed over come others: who reads takes a short page for the last.
        while found.len() < limit {
            let wanted = limit - found.len();
            let rows = self.query(&read::entities_statement(of, after.as_deref(), wanted)).await?;
            found.extend(rows.iter().filter_map(rows::entity_row));
            if rows.len() < wanted {
                break;
            }
            let next = rows.last().map(|row| rows::entity_key(row).to_vec());
            if next <= after {
                return Err(stands_still());
            }
            after = next;
        }
        Ok(found)
    }

    async fn jobs_under_way(&self) -> Result<UnderWay, StoreError> {
        let mut found = UnderWay::default();
        for row in &self.query(&read::jobs_under_way_statement()).await? {
            found.push(rows::job(row))?;
        }
        Ok(found)
    }

    fn log(&self) -> LogId {
        self.grip.log
    }

    async fn logs(&self) -> Result<Vec<LogId>, StoreError> {
        let rows = self.query(&log::all_statement()).await?;
        rows.iter().map(log::log_number).collect()
    }

    async fn log_size(&self, log: LogId) -> Result<u64, StoreError> {
        self.usable()?;
        if log == self.grip.log {
            return Ok(self.progress.size.load(Ordering::SeqCst));
        }
        let rows = self.query(&read::size_statement(log)).await?;
        rows.first().map_or(Ok(0), |row| rows::number(row, "size"))
    }

    async fn entries(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let rows = self.entry_rows(log, start, max_entries, max_bytes).await?;
        (start..=u64::MAX).zip(&rows).map(|(sequence, row)| rows::entry(log, sequence, row)).collect()
    }

    fn seal_entries(&self, seals: Arc<EntrySeals>) {
        self.database.sealing.set(seals);
    }

    async fn entries_to_sign(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let rows = self.entry_rows(log, start, max_entries, max_bytes).await?;
        let of = |(sequence, row)| {
            let entry = rows::entry(log, sequence, row)?;
            self.database.sealing.check(log, sequence, &entry, rows::seal(row))?;
            Ok(entry)
        };
        (start..=u64::MAX).zip(&rows).map(of).collect()
    }

    async fn adopt(&self) -> Result<Option<Arc<dyn Store>>, StoreError> {
        self.usable()?;
        let database = &self.database;
        let connection = database.connector.connect().await.map_err(|error| unavailable(&error))?;
        let sights = timeout(READ, left_alone(&connection)).await;
        let sights = sights.unwrap_or_else(|_| Err(unavailable(&"it does not answer")));
        let given_up = database.given_up(sights)?;
        let taken = Self::start(Arc::clone(database), connection, Wanted::These(&given_up)).await?;
        Ok(taken.map(|store| Arc::new(store) as Arc<dyn Store>))
    }

    async fn derive(&self, derived: Derived) -> Result<(), StoreError> {
        self.usable()?;
        let statement = |postings| read::derive_statement(&self.grip, self.fence(), &derived, postings);
        let rows = match self.database.insert(&statement(Postings::New)?).await? {
            Some(rows) => rows,
            // They were written, and the answer was lost.
            None => self.database.query_as(&statement(Postings::PerhapsThere)?, How::Durably).await?,
        };
        if !rows.is_empty() {
            return Ok(());
        }
        // A lost commit raises the fence: then it is another now.
        self.usable()?;
        let upto = derived.checkpoint.as_ref().map_or(0, |(size, _)| *size).max(derived.upto);
        let log = self.grip.log;
        let rows = self.query(&read::size_statement(log)).await?;
        let size = rows.first().map_or(Ok(0), |row| rows::number(row, "size"))?;
        // Not fatal: a server that was failed over from may answer still. The next commit finds out.
        if size < upto {
            let known = format!("fewer than the {upto} that were read or acknowledged");
            let why = format!("log {log} has {size} entries in the database, {known}");
            return Err(StoreError::Unavailable { why });
        }
        derived.joins(self.derived(log).await?.upto)?;
        Err(StoreError::Unavailable { why: "the log's fence has changed".to_owned() })
    }

    async fn derived(&self, log: LogId) -> Result<DerivedState, StoreError> {
        read::derived_of(&self.query(&read::derived_statement(log)).await?)
    }

    async fn tile(&self, log: LogId, id: TileId) -> Result<Option<Bytes>, StoreError> {
        let rows = self.query(&read::tile_statement(log, id)).await?;
        Ok(rows.first().and_then(|row| row.try_get::<_, &[u8]>(0).ok()).map(Bytes::copy_from_slice))
    }

    async fn postings(
        &self,
        log: LogId,
        key: &[u8],
        from: u64,
        until: u64,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let statement = read::postings_statement(log, key, (from, until), newest_first, limit);
        let rows = self.query(&statement).await?;
        rows.iter().map(|row| rows::number(row, "sequence")).collect()
    }

    async fn scan_records(&self, after: Option<Token>, limit: usize) -> Result<Vec<Record>, StoreError> {
        read::scanned_records(&self.query(&read::scan_records_statement(after, limit)).await?)
    }

    async fn scan_keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyRecord>, StoreError> {
        let after = after.map(|id| Cursor::behind(id.as_bytes()));
        let rows = self.query(&read::scan_keys_statement(after, limit)).await?;
        rows.iter().map(rows::key).collect()
    }

    async fn key_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<KeyRecord>, StoreError> {
        let rows = self.query(&read::scan_keys_statement(after, limit)).await?;
        rows::page(&rows, limit, &["id"], rows::key)
    }

    async fn scan_remembered(
        &self,
        after: Option<[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<Remembered>, StoreError> {
        let rows = self.query(&read::scan_remembered_statement(after, limit)).await?;
        rows.iter().map(rows::remembered).collect()
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let rows = self.query(&read::stats_statement()).await?;
        let row = rows.first().ok_or_else(closed)?;
        let disk = self.query(&Statement::new("SELECT pg_database_size(current_database()) AS bytes")).await;
        // Not every engine of the family says.
        let disk_bytes = disk.ok().and_then(|rows| rows::number(rows.first()?, "bytes").ok()).unwrap_or(0);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Stats {
            disk_bytes,
            records: rows::number(row, "records")?,
            entries: rows::number(row, "entries")?,
            resolved_made: count(&self.progress.resolved_made),
            resolved_not_made: count(&self.progress.resolved_not_made),
            repeated: count(&self.progress.repeated),
        })
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::SeqCst);
        drop(self.queue.lock().take());
        self.closing.cancel();
        if let Some(committer) = self.committer.lock().await.take() {
            let abort = committer.abort_handle();
            if timeout(CLOSING, committer).await.is_err() {
                abort.abort();
            }
        }
        self.database.own.lock().remove(&self.grip.log);
        self.progress.fatal().map_or(Ok(()), Err)
    }
}

impl Drop for PostgresStore {
    /// The committer ends when its queue does, and the lease is renewed no more.
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable { why: "the store is closed".to_owned() }
}

fn other_vault() -> StoreError {
    StoreError::Foreign { why: "it is the store of another vault".to_owned() }
}

/// A server that is asked for what comes after a row answers with what does not.
fn stands_still() -> StoreError {
    unavailable(&"its pages do not go on")
}
