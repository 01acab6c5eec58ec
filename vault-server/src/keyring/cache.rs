//! Open keys, for a while. Pure: time comes in as an argument.
//!
//! * Named by the whole (tenant, purpose, id): a key is never found under another tenant or for another purpose.
//! * A hard lifetime from insertion, which no use prolongs; a count of uses; a count of entries (the one that was
//!   used longest ago goes).
//! * A hit allocates nothing: a [`Slot`]'s tenant is a shared string.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::CacheOptions;
use crate::crypto::{DataKey, IndexKey};
use crate::domain::{KeyId, KeyPurpose, TenantId};

/// The full name of an open key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) tenant: TenantId,
    pub(super) purpose: KeyPurpose,
    pub(super) id: KeyId,
}

/// An open key of either kind.
#[derive(Clone)]
pub(super) enum OpenKey {
    Data(Arc<DataKey>),
    Index(Arc<IndexKey>),
}

pub(super) struct Cache {
    options: CacheOptions,
    entries: HashMap<Slot, Entry>,
    /// Counts uses, to tell which entry was used longest ago.
    clock: u64,
    hits: u64,
    misses: u64,
}

struct Entry {
    key: OpenKey,
    inserted: Instant,
    uses: u64,
    last_used: u64,
}

impl Cache {
    pub(super) fn new(options: CacheOptions) -> Self {
        Self { options, entries: HashMap::new(), clock: 0, hits: 0, misses: 0 }
    }

    /// Uses a key.
    pub(super) fn get(&mut self, slot: &Slot, now: Instant) -> Option<OpenKey> {
        let entry = self.entries.get_mut(slot)?;
        if is_over(&self.options, entry, now) {
            self.entries.remove(slot);
            return None;
        }
        self.hits += 1;
        self.clock += 1;
        entry.uses += 1;
        entry.last_used = self.clock;
        Some(entry.key.clone())
    }

    /// Keeps a key; its loading counts as the first use. A key that is there keeps its lifetime.
    pub(super) fn insert(&mut self, slot: Slot, key: OpenKey, now: Instant) {
        self.sweep(now);
        if self.entries.contains_key(&slot) || self.options.max_entries == 0 {
            return;
        }
        while self.entries.len() >= self.options.max_entries {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_used);
            let Some(oldest) = oldest.map(|(slot, _)| slot.clone()) else { break };
            self.entries.remove(&oldest);
        }
        self.clock += 1;
        self.entries.insert(slot, Entry { key, inserted: now, uses: 1, last_used: self.clock });
    }

    /// Counts a key that has to be opened.
    pub(super) fn missed(&mut self) {
        self.misses += 1;
    }

    pub(super) fn remove(&mut self, slot: &Slot) {
        self.entries.remove(slot);
    }

    /// Drops what is over, so that key bytes do not outlive their lifetime for want of a use.
    pub(super) fn sweep(&mut self, now: Instant) {
        let options = self.options;
        self.entries.retain(|_, entry| !is_over(&options, entry, now));
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Entries, hits, misses.
    pub(super) fn counts(&self) -> (usize, u64, u64) {
        (self.entries.len(), self.hits, self.misses)
    }
}

fn is_over(options: &CacheOptions, entry: &Entry, now: Instant) -> bool {
    now.saturating_duration_since(entry.inserted) >= options.lifetime || entry.uses >= options.max_uses
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use vault_mem::LockedKey;

    use super::*;
    use crate::domain::KeyVersion;
    use crate::kms::KmsError;

    const LIFETIME: Duration = Duration::from_mins(1);

    fn cache(max_uses: u64, max_entries: usize) -> (Cache, Instant) {
        (Cache::new(CacheOptions { lifetime: LIFETIME, max_uses, max_entries }), Instant::now())
    }

    fn slot(tenant: u8, purpose: KeyPurpose, id: u8) -> Slot {
        let tenant = TenantId::parse(&format!("t{tenant}")).unwrap();
        Slot { tenant, purpose, id: KeyId::from_bytes([id; 16]) }
    }

    fn key(slot: &Slot) -> OpenKey {
        let bytes = LockedKey::fill(|_| Ok::<(), KmsError>(())).unwrap();
        let (id, tenant) = (slot.id, slot.tenant.clone());
        if slot.purpose == KeyPurpose::Index {
            OpenKey::Index(Arc::new(IndexKey::new(id, KeyVersion::FIRST, tenant, bytes)))
        } else {
            OpenKey::Data(Arc::new(DataKey::new(id, KeyVersion::FIRST, tenant, bytes)))
        }
    }

    fn put(cache: &mut Cache, slot: &Slot, now: Instant) {
        cache.insert(slot.clone(), key(slot), now);
    }

    #[test]
    fn no_use_prolongs_a_lifetime() {
        let (mut cache, begin) = cache(u64::MAX, 10);
        let slot = slot(1, KeyPurpose::Data, 1);
        put(&mut cache, &slot, begin);
        for second in 0..60 {
            let now = begin + Duration::from_secs(second);
            assert!(cache.get(&slot, now).is_some(), "{second}");
            put(&mut cache, &slot, now);
        }
        assert!(cache.get(&slot, begin + LIFETIME).is_none());
    }

    #[test]
    fn a_key_serves_its_count_of_uses_and_no_more() {
        let (mut cache, now) = cache(3, 10);
        let slot = slot(1, KeyPurpose::Data, 1);
        put(&mut cache, &slot, now);
        assert!(cache.get(&slot, now).is_some() && cache.get(&slot, now).is_some());
        assert!(cache.get(&slot, now).is_none(), "the load was the first of three uses");
    }

    #[test]
    fn the_one_used_longest_ago_makes_room() {
        let (mut cache, now) = cache(u64::MAX, 2);
        let slots = [1, 2, 3].map(|id| slot(1, KeyPurpose::Data, id));
        put(&mut cache, &slots[0], now);
        put(&mut cache, &slots[1], now);
        assert!(cache.get(&slots[0], now).is_some());
        put(&mut cache, &slots[2], now);
        assert_eq!(cache.counts().0, 2);
        assert!(cache.get(&slots[1], now).is_none());
        assert!(cache.get(&slots[0], now).is_some() && cache.get(&slots[2], now).is_some());
    }

    #[test]
    fn a_sweep_drops_what_nobody_asks_for_any_more() {
        let (mut cache, now) = cache(u64::MAX, 10);
        put(&mut cache, &slot(1, KeyPurpose::Data, 1), now);
        cache.sweep(now + LIFETIME);
        assert_eq!(cache.counts().0, 0);
    }

    proptest! {
        #[test]
        fn a_key_is_found_only_under_its_whole_name(
            puts in proptest::collection::vec((0u8..3, any::<bool>(), 0u8..3), 0..20),
            asked in (0u8..3, any::<bool>(), 0u8..3),
        ) {
            let named = |(tenant, data, id): (u8, bool, u8)| {
                slot(tenant, if data { KeyPurpose::Data } else { KeyPurpose::Index }, id)
            };
            let (mut cache, now) = cache(u64::MAX, 100);
            for name in &puts {
                put(&mut cache, &named(*name), now);
            }
            let slot = named(asked);
            let found = cache.get(&slot, now);
            prop_assert_eq!(found.is_some(), puts.contains(&asked));
            match found {
                Some(OpenKey::Data(key)) => prop_assert!(
                    slot.purpose == KeyPurpose::Data && *key.tenant() == slot.tenant && key.id() == slot.id
                ),
                Some(OpenKey::Index(key)) => prop_assert!(
                    slot.purpose == KeyPurpose::Index && *key.tenant() == slot.tenant && key.id() == slot.id
                ),
                None => {}
            }
        }
    }
}
