//! Goes over records and seals them anew, some batches at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures::stream::{FuturesOrdered, StreamExt as _};
use tokio_util::task::AbortOnDropHandle;

use super::shift::{Shift, Stop};
use super::steps::{Step, reached};
use super::worker::Parts;
use crate::audit::{Item, LogError, Outcome};
use crate::crypto::{DataKey, IndexKey, Mandate, ResealError, Resealing};
use crate::domain::{ClassName, JobKind, KeyId, KeyPurpose, KeyVersion, Record, TenantId, Token};
use crate::store::{Cursor, Lookup, Malformed, Page, Store, Write};

/// Tokens that are read at once.
const PAGE: usize = 4096;
/// Records of the first commits, until it is known how large records are.
const FIRST_BATCH: usize = 64;
/// The fewest records of one commit after that, under however small a budget, and the most.
const BATCH: (usize, usize) = (8, 512);
/// About the most bytes of one commit.
const BATCH_BYTES: u64 = 1 << 20;
/// Batches that are worked on at once, under a bound and without one: more than one, so that one is sealed while another
/// is written, and so many that a sync is for many.
const AT_ONCE: (usize, usize) = (3, 32);
/// Records that are sealed without a break for others.
const STRETCH: usize = 32;
/// Items of one entry: each is small, and an entry has its bound.
const NAMED_AT_ONCE: usize = 512;
/// Records that were not as their row said, and are looked for again at the end of a walk. Of more, the next walk tells.
const LOOKED_FOR: usize = 4096;
/// How often a batch is tried whose records others change meanwhile; then they are for the next round.
const ATTEMPTS: usize = 4;

/// What is done with records.
pub(super) struct Task {
    pub(super) parts: Arc<Parts>,
    pub(super) mandate: Arc<Mandate>,
    /// Keys that records are under. Those under others are left alone.
    pub(super) from: HashMap<KeyId, Arc<DataKey>>,
    /// All that there were when the round began.
    pub(super) known: Arc<HashSet<KeyId>>,
    pub(super) to: Arc<DataKey>,
    /// Whose index is made anew, and under which key; `None`: the index stays.
    pub(super) index: Option<(ClassName, Arc<IndexKey>)>,
    pub(super) fence: Write,
}

/// Tokens to go over, in pages.
#[derive(Clone)]
pub(super) enum Pages {
    /// Of records that are sealed under a key, past one of them.
    OfKey(KeyId, Option<Cursor>),
    /// Of records whose index a version of the index key made, past one of them.
    OfIndex { tenant: TenantId, class: ClassName, version: KeyVersion, after: Option<Cursor> },
}

impl Pages {
    /// Begins to read the next page.
    fn read(self, store: Arc<dyn Store>) -> Reading {
        AbortOnDropHandle::new(tokio::spawn(async move { self.next(&*store).await }))
    }

    /// The next page, and those behind it, if there are more.
    async fn next(self, store: &dyn Store) -> Result<(Page<Token>, Option<Self>), Stop> {
        match self {
            Self::OfKey(key, after) => {
                let page = store.tokens_of_key(key, after, PAGE).await?;
                let rest = page.next.clone().map(|next| Self::OfKey(key, Some(next)));
                Ok((page, rest))
            }
            Self::OfIndex { tenant, class, version, after } => {
                let page = store.indexed_under(&tenant, &class, version, after, PAGE).await?;
                let after = page.next.clone();
                let rest = after.is_some().then_some(Self::OfIndex { tenant, class, version, after });
                Ok((page, rest))
            }
        }
    }
}

/// A page that is being read, and those behind it.
type Reading = AbortOnDropHandle<Result<(Page<Token>, Option<Pages>), Stop>>;

/// What came of a walk, or of a part of it.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) done: u64,
    bytes: u64,
    /// Of all that it was tried with, as often as it was tried.
    worked_on: u64,
    failed: Vec<Item>,
    /// Records that were not as the row said that they were found by, and what to say of each if the row is still there.
    unlike: HashMap<Token, Item>,
    /// A key was replaced: go on under the new one.
    pub(super) rotated: bool,
}

/// How many records the next commit has: under a bound, about a hundredth of a second's. Whoever else writes waits for
/// what the store has begun, and who reads waits for an entry in the log.
fn batch_of(bytes_a_second: u64, walked: &Walked) -> usize {
    let Some(usual) = walked.bytes.checked_div(walked.done) else { return FIRST_BATCH };
    let bytes = if is_bound(bytes_a_second) { bytes_a_second / 100 } else { BATCH_BYTES };
    usize::try_from(bytes / usual.max(1)).unwrap_or(BATCH.1).clamp(BATCH.0, BATCH.1)
}

/// Whether a budget makes batches smaller.
fn is_bound(bytes_a_second: u64) -> bool {
    bytes_a_second != 0 && bytes_a_second / 100 < BATCH_BYTES
}

/// Does the task with all tokens of the pages.
pub(super) async fn walk(shift: &mut Shift, task: Task, pages: Pages) -> Result<Walked, Stop> {
    let (task, first) = (Arc::new(task), pages.clone());
    let mut under_way: FuturesOrdered<AbortOnDropHandle<Result<Walked, Stop>>> = FuturesOrdered::new();
    let mut all = Walked::default();
    let mut ahead = VecDeque::new();
    let mut reading = Some(pages.read(Arc::clone(&shift.parts.store)));
    let mut more = true;
    let at_once = if is_bound(shift.job.order.budget.bytes) { AT_ONCE.0 } else { AT_ONCE.1 };
    while more || !under_way.is_empty() {
        while more && under_way.len() < at_once {
            while ahead.is_empty()
                && let Some(page) = reading.take()
            {
                let (page, rest) =
                    page.await.map_err(|_| Stop::Trouble("a page was dropped".to_owned()))??;
                // One page is read ahead.
                reading = rest.map(|rest| rest.read(Arc::clone(&shift.parts.store)));
                ahead.extend(page.items);
                let malformed = malformed(shift, &page.malformed);
                left(shift, malformed).await?;
            }
            more = !ahead.is_empty() && !all.rotated;
            if more {
                let batch = batch_of(shift.job.order.budget.bytes, &all).min(ahead.len());
                // An altered index may name one twice, and no change writes a row twice.
                let mut seen = HashSet::with_capacity(batch);
                let tokens = ahead.drain(..batch).filter(|token| seen.insert(*token)).collect();
                under_way.push_back(AbortOnDropHandle::new(tokio::spawn(Arc::clone(&task).batch(tokens))));
            }
        }
        if let Some(ended) = under_way.next().await {
            let walked = ended.map_err(|_| Stop::Trouble("a batch was dropped".to_owned()))??;
            shift.job.progress.done += walked.done;
            all.done += walked.done;
            all.bytes += walked.bytes;
            all.rotated |= walked.rotated;
            let room = LOOKED_FOR.saturating_sub(all.unlike.len());
            all.unlike.extend(walked.unlike.into_iter().take(room));
            left(shift, walked.failed).await?;
            shift.tick().await?;
            shift.spend_bytes(walked.bytes, walked.worked_on).await?;
        }
    }
    all.rotated |= is_outdated(shift, &task, &all.unlike).await?;
    if !all.rotated {
        let stale = stale(shift, first, std::mem::take(&mut all.unlike)).await?;
        left(shift, stale).await?;
    }
    Ok(all)
}

/// Whether records are under a data key that was made since the round began: another job has sealed them anew.
async fn is_outdated(shift: &Shift, task: &Task, unlike: &HashMap<Token, Item>) -> Result<bool, Stop> {
    let unopened = unlike.values().filter(|item| item.outcome == Outcome::KeyUnusable);
    let new: HashSet<_> =
        unopened.filter_map(|item| item.key_id).filter(|id| !task.known.contains(id)).collect();
    if new.is_empty() {
        return Ok(false);
    }
    let now = shift.parts.keyring.list(Some(task.mandate.tenant()), KeyPurpose::Data).await?;
    Ok(now.iter().any(|key| new.contains(&key.id)))
}

/// Counts what could not be changed, and puts it on record.
async fn left(shift: &mut Shift, items: Vec<Item>) -> Result<(), Stop> {
    shift.job.progress.failed += items.len() as u64;
    for some in items.chunks(NAMED_AT_ONCE) {
        shift.trouble(some.to_vec()).await?;
    }
    Ok(())
}

/// Rows that are not what was written. The server's messages name those, too, that have no token.
fn malformed(shift: &Shift, rows: &[Malformed]) -> Vec<Item> {
    let item = |row: &Malformed| {
        tracing::error!(job = %shift.job.id, row = row.what, "a row is not what was written: a job passes over it");
        Item { token: row.token, outcome: Outcome::Corrupt, ..Item::invalid() }
    };
    rows.iter().map(item).collect()
}

/// What to say of records that a walk found by rows that are there still. Who changes a record changes its rows with it: a
/// row that was behind the record, and stayed so, is not what was written.
async fn stale(shift: &mut Shift, first: Pages, mut unlike: HashMap<Token, Item>) -> Result<Vec<Item>, Stop> {
    let (mut found, mut more) = (Vec::new(), Some(first));
    while let Some(pages) = more.take().filter(|_| !unlike.is_empty()) {
        let (page, rest) = pages.next(&*shift.parts.store).await?;
        found.extend(page.items.iter().filter_map(|token| unlike.remove(token)));
        more = rest;
        shift.tick().await?;
    }
    Ok(found)
}

impl Task {
    fn kind(&self) -> JobKind {
        if self.index.is_some() { JobKind::Reindex } else { JobKind::Reencrypt }
    }

    async fn batch(self: Arc<Self>, tokens: Vec<Token>) -> Result<Walked, Stop> {
        let mut worked_on = 0;
        for _ in 0..ATTEMPTS {
            let mut walked = Walked { worked_on, ..Walked::default() };
            let mut writes = vec![self.fence.clone(), Write::Active(self.to.id())];
            writes.extend(self.index.iter().map(|(_, key)| Write::Active(key.id())));
            let conditions = writes.len();
            writes.reserve_exact(tokens.len());
            let lookups = self.parts.store.records_to_replace(&tokens).await?;
            reached(self.kind(), Step::Loaded);
            let mut lookups = tokens.iter().zip(lookups).peekable();
            while lookups.peek().is_some() {
                let mut due = Vec::with_capacity(STRETCH);
                for (token, lookup) in lookups.by_ref().take(STRETCH) {
                    match lookup {
                        Lookup::Corrupt => walked.failed.push(Item::of_token(*token, Outcome::Corrupt)),
                        Lookup::Found(record) if self.is_due(&record) => due.push(record),
                        // Who erased or changed it meanwhile has won, if anybody did.
                        lookup => {
                            walked.unlike.insert(*token, self.unlike(*token, &lookup));
                        }
                    }
                }
                walked.worked_on += due.iter().map(|record| record.sealed_len() as u64).sum::<u64>();
                let outcomes = self.anew(&mut due);
                for (record, outcome) in due.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(()) => {
                            walked.bytes += record.sealed_len() as u64;
                            writes.push(Write::Replace(*record));
                        }
                        Err(error) => walked.failed.push(Item::of_record(&record, why(error))),
                    }
                }
                tokio::task::yield_now().await;
            }
            walked.done = (writes.len() - conditions) as u64;
            if walked.done == 0 {
                return Ok(walked);
            }
            reached(self.kind(), Step::Made);
            match self.parts.log.write(writes).await {
                Ok(_) => {
                    reached(self.kind(), Step::Committed);
                    return Ok(walked);
                }
                Err(LogError::Conflict { write: 0 }) => return Err(Stop::Lost),
                Err(LogError::Conflict { write }) if write < conditions => {
                    return Ok(Walked { rotated: true, worked_on: walked.worked_on, ..Walked::default() });
                }
                Err(LogError::Conflict { .. }) => worked_on = walked.worked_on,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Walked { worked_on, ..Walked::default() })
    }

    /// Whether there is anything to do with it.
    fn is_due(&self, record: &Record) -> bool {
        let is_under = record.key_id().is_some_and(|id| self.from.contains_key(&id));
        is_under
            && self.index.as_ref().is_none_or(|(class, key)| {
                record.class == *class && record.index.is_some_and(|index| index.version != key.version())
            })
    }

    /// What to say of a record with which there is nothing to do, if the row that it was found by says otherwise.
    fn unlike(&self, token: Token, lookup: &Lookup) -> Item {
        let Lookup::Found(record) = lookup else { return Item::of_token(token, Outcome::Corrupt) };
        // An index is made anew of the value, and nobody opened the key that this one is under.
        let unopened = record.key_id().is_some_and(|id| !self.from.contains_key(&id));
        let closed = self.index.is_some() && unopened;
        Item::of_record(record, if closed { Outcome::KeyUnusable } else { Outcome::Corrupt })
    }

    /// Seals them anew, those that it can.
    fn anew(&self, due: &mut [Box<Record>]) -> Vec<Result<(), ResealError>> {
        let (mandate, identity) = (&*self.mandate, &self.parts.identity);
        let resealing = Resealing { mandate, identity, from: &self.from, to: &self.to };
        let Some((class, key)) = &self.index else { return resealing.records(due) };
        let Some(class) = self.parts.classes.get(class) else {
            return vec![Err(ResealError::Class); due.len()];
        };
        let now = self.parts.clock.now();
        due.iter_mut().map(|record| resealing.indexed(record, class, key, now)).collect()
    }
}

fn why(error: ResealError) -> Outcome {
    match error {
        ResealError::Open(_) | ResealError::NotMandated => Outcome::Corrupt,
        ResealError::Class => Outcome::Invalid,
        ResealError::Seal(_) => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_large_as_the_budget_and_the_records_let_it_be() {
        let walked = |usual: u64| Walked { done: 10, bytes: 10 * usual, ..Walked::default() };
        assert_eq!(batch_of(0, &Walked::default()), FIRST_BATCH);
        assert_eq!((batch_of(0, &walked(175)), batch_of(u64::MAX, &walked(175))), (512, 512));
        assert_eq!((batch_of(1 << 20, &walked(175)), batch_of(1, &walked(175))), (59, 8));
        assert!(is_bound(1) && is_bound(1 << 20) && !is_bound(0) && !is_bound(u64::MAX));
        assert_eq!((batch_of(0, &walked(65_536)), batch_of(1 << 20, &walked(65_536))), (16, 8));
    }
}
