//! Records that were read in order to be replaced, so that the committer need not read them a second time: to look for one
//! costs about as much as to seal it.
//!
//! A record was seen as it was when some batch was durable. The committer writes all batches, so it knows whether the record was
//! changed in one since ([`Rewritten`]). If it was, or if that is forgotten, it looks itself.

use parking_lot::Mutex;

use crate::domain::{BlindIndex, ClassName, Record, SubjectRef, TenantId};
use crate::store::Lookup;
use crate::store::embedded::by_token::ByToken;
use crate::store::embedded::engine::Rows;
use crate::store::embedded::prepare::put_index_changes;
use crate::store::keys::Indexed;

/// Records that somebody read in order to replace them.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<ByToken<Sight>>);

/// What index rows are made of, and the revision.
#[derive(Debug)]
struct Sight {
    /// The batch that was durable before it was read.
    durable: u64,
    revision: u32,
    tenant: TenantId,
    class: ClassName,
    subject: Option<[u8; SubjectRef::LEN]>,
    index: Option<[u8; BlindIndex::LEN]>,
    key: Option<[u8; 16]>,
}

/// Index rows that come and go with records that are replaced.
#[derive(Debug)]
pub(crate) struct Foreseen {
    /// If none of the records was changed after this batch.
    pub(crate) durable: u64,
    pub(crate) rows: Rows,
}

impl Seen {
    /// Records that are kept in mind. Before there are more, all are forgotten: some that nobody replaced among them.
    const MOST: usize = 1 << 16;

    /// Keeps in mind what was read when this batch was durable.
    pub(super) fn note(&self, read: &[Lookup], durable: u64) {
        let mut seen = self.0.lock();
        if seen.len() + read.len() > Self::MOST {
            seen.clear();
        }
        for lookup in read.iter().take(Self::MOST) {
            if let Lookup::Found(record) = lookup {
                seen.insert(*record.token.as_bytes(), Sight::of(record, durable));
            }
        }
    }

    /// What comes of replacing records by these. `None`: there are none, or one was not seen, or not before this revision of it.
    pub(super) fn foresee<'a>(&self, next: impl Iterator<Item = &'a Record>) -> Option<Foreseen> {
        let mut next = next.peekable();
        next.peek()?;
        let mut foreseen = Foreseen { durable: u64::MAX, rows: Rows::default() };
        let mut seen = self.0.lock();
        for next in next {
            let sight = seen.remove(next.token.as_bytes())?;
            if next.revision.checked_sub(1) != Some(sight.revision) {
                return None;
            }
            foreseen.durable = foreseen.durable.min(sight.durable);
            let was = sight.indexed(next.token.as_bytes());
            put_index_changes(&was, &Indexed::of(next), &mut foreseen.rows);
        }
        Some(foreseen)
    }
}

impl Sight {
    fn of(record: &Record, durable: u64) -> Self {
        let Indexed { subject, index, key, .. } = Indexed::of(record);
        let (tenant, class) = (record.tenant.clone(), record.class.clone());
        Self { durable, revision: record.revision, tenant, class, subject, index, key }
    }

    fn indexed<'a>(&'a self, token: &'a [u8; 16]) -> Indexed<'a> {
        let Self { subject, index, key, .. } = *self;
        Indexed { token, tenant: self.tenant.as_str(), class: self.class.as_str(), subject, index, key }
    }
}

/// Which records were changed of late, and in which batches.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// The last batch, by token: those of late, and those before.
    batches: [ByToken<u64>; 2],
    /// The batch that each begins with; some of that may be in the one before.
    from: [u64; 2],
}

impl Rewritten {
    /// Records that are kept in mind of late, and as many of before.
    const MOST: usize = 1 << 16;

    pub(super) fn note(&mut self, token: [u8; 16], batch: u64) {
        if self.batches[0].len() >= Self::MOST {
            self.batches.swap(0, 1);
            self.batches[0].clear();
            self.from = [batch, self.from[0]];
        }
        self.batches[0].insert(token, batch);
    }

    /// Whether the record was changed in no batch after this one.
    pub(super) fn is_unchanged(&self, token: &[u8; 16], since: u64) -> bool {
        since >= self.from[1]
            && self.batches.iter().all(|batches| batches.get(token).is_none_or(|last| *last <= since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{record, token};
    use crate::store::keys::Space;

    fn found(number: u64) -> Lookup {
        Lookup::Found(Box::new(record(number)))
    }

    fn next(number: u64) -> Record {
        Record { index: None, revision: 1, ..record(number) }
    }

    #[test]
    fn what_comes_of_a_replacement_is_foreseen_once_if_all_of_it_was_seen() {
        let seen = Seen::default();
        seen.note(&[found(1), Lookup::Missing, found(2)], 7);
        seen.note(&[found(3)], 6);
        assert!(seen.foresee(std::iter::empty()).is_none());
        let all = [next(1), next(3)];
        let Foreseen { durable, rows } = seen.foresee(all.iter()).unwrap();
        let gone: Vec<_> = rows.iter().map(|(space, _, row)| (space, row)).collect();
        assert_eq!((durable, gone), (6, vec![(Space::Indexes, None); 2]));
        assert!(seen.foresee(all.iter()).is_none(), "a sight is good for one replacement");
        assert!(seen.foresee([next(2), next(9)].iter()).is_none(), "one of them was not seen");
    }

    #[test]
    fn another_revision_than_the_next_is_not_foreseen() {
        for revision in [0, 2, u32::MAX] {
            let seen = Seen::default();
            seen.note(&[found(1)], 1);
            assert!(seen.foresee([Record { revision, ..record(1) }].iter()).is_none(), "{revision}");
        }
    }

    #[test]
    fn no_more_is_kept_in_mind_than_may_be() {
        let seen = Seen::default();
        let page: Vec<_> = (0..4096).map(found).collect();
        for _ in 0..3 {
            seen.note(&page, 1);
        }
        for number in 4096..Seen::MOST as u64 {
            seen.note(&[found(number)], 1);
        }
        assert_eq!(seen.0.lock().len(), Seen::MOST);
        seen.note(&[found(1 << 40)], 1);
        assert_eq!(seen.0.lock().keys().collect::<Vec<_>>(), [token(1 << 40).as_bytes()]);
    }

    fn name(number: usize) -> [u8; 16] {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn a_record_is_unchanged_until_it_was_rewritten_and_never_when_that_is_forgotten() {
        let mut rewritten = Rewritten::default();
        assert!(rewritten.is_unchanged(&name(1), 0));
        rewritten.note(name(1), 5);
        assert_eq!(
            [0, 4, 5, 6].map(|since| rewritten.is_unchanged(&name(1), since)),
            [false, false, true, true]
        );
        assert!(rewritten.is_unchanged(&name(2), 0));
        // As many as are kept of late: the first are those of before.
        for number in 0..Rewritten::MOST {
            rewritten.note(name(10 + number), 6);
        }
        assert_eq!([4, 5].map(|since| rewritten.is_unchanged(&name(1), since)), [false, true]);
        assert!(rewritten.is_unchanged(&name(2), 0));
        // As many again: those of before are forgotten, and what was seen before them is not believed.
        for number in 0..Rewritten::MOST {
            rewritten.note(name(10 + number), 9);
        }
        assert_eq!([4, 5].map(|since| rewritten.is_unchanged(&name(1), since)), [false, false]);
        assert_eq!([5, 6].map(|since| rewritten.is_unchanged(&name(2), since)), [false, true]);
        assert_eq!([8, 9].map(|since| rewritten.is_unchanged(&name(10), since)), [false, true]);
        assert!(rewritten.batches.iter().all(|batches| batches.len() <= Rewritten::MOST));
    }
}
