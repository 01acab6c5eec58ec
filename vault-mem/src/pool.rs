//! Slots of 32 bytes in locked pages.
//!
//! Pages come in slabs of at least 16 KiB (512 slots), are asked for when no slot is free, and are kept for the life of
//! the process: a slot's address stays valid, so a key needs no reference to its slab.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use zeroize::Zeroize;

use crate::pages;

/// Bytes of a slot.
pub(crate) const SLOT: usize = 32;

/// Bytes of a slab, rounded up to whole pages.
const SLAB: usize = 16 * 1024;

/// 131,072 keys: far more than a cache holds, and a bound on what a leak of keys can lock.
const MAX_SLABS: usize = 256;

/// How well the memory of keys is protected, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// memfd_secret(2): never swapped or dumped, and not mapped by the kernel itself.
    Secret,
    /// mlock(2): never swapped or dumped.
    Locked,
    /// Kept out of core files, but may be swapped.
    Unlocked,
}

/// No memory for keys that is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedMemoryError;

impl fmt::Display for LockedMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no locked memory for keys: raise the limit of locked memory (ulimit -l, LimitMEMLOCK)")
    }
}

impl std::error::Error for LockedMemoryError {}

/// From now on, where no memory can be locked, keys may lie in memory that is swapped. For development.
pub fn allow_unlocked() {
    UNLOCKED_ALLOWED.store(true, Ordering::Relaxed);
}

/// The worst protection of any memory that keys lie in; asks for the first pages if there are none yet.
///
/// Where none can be locked this is [`Protection::Unlocked`], whether that was allowed or not.
pub fn protection() -> Protection {
    let mut pool = POOL.lock();
    if pool.slabs == 0 && pool.grow().is_err() {
        return Protection::Unlocked;
    }
    pool.worst
}

/// 32 bytes of a slab, all zeros when taken. Whoever has it has them to himself.
pub(crate) struct Slot(NonNull<[u8; SLOT]>);

// SAFETY: a slot is the only way to its bytes, and lends them by the rules of `&self` and `&mut self`.
unsafe impl Send for Slot {}
// SAFETY: as above; a shared slot is only read.
unsafe impl Sync for Slot {}

impl Slot {
    /// Takes a free one.
    pub(crate) fn take() -> Result<Self, LockedMemoryError> {
        let mut pool = POOL.lock();
        if pool.free.is_empty() {
            pool.grow()?;
        }
        pool.free.pop().map(Free::into_slot).ok_or(LockedMemoryError)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8; SLOT] {
        // SAFETY: it points into a slab, which is aligned for bytes, initialized and never unmapped; nobody else
        // has this slot, and `&self` keeps it from being written to.
        unsafe { self.0.as_ref() }
    }

    /// Its bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; SLOT] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        POOL.lock().free.push(Free(self.0));
    }
}

/// A slot that nobody has.
struct Free(NonNull<[u8; SLOT]>);

// SAFETY: only an address; the bytes are reached through a `Slot`.
unsafe impl Send for Free {}

impl Free {
    fn into_slot(self) -> Slot {
        Slot(self.0)
    }
}

struct Pool {
    free: Vec<Free>,
    slabs: usize,
    worst: Protection,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), slabs: 0, worst: Protection::Secret });
static UNLOCKED_ALLOWED: AtomicBool = AtomicBool::new(false);

impl Pool {
    fn grow(&mut self) -> Result<(), LockedMemoryError> {
        if self.slabs == MAX_SLABS {
            return Err(LockedMemoryError);
        }
        let len = SLAB.next_multiple_of(pages::page_size());
        let (start, protection) = map_best(len, UNLOCKED_ALLOWED.load(Ordering::Relaxed))?;
        let slots = len / SLOT;
        // Room for every slot there is, so that giving one back never allocates.
        self.free.reserve((self.slabs + 1) * slots - self.free.len());
        self.free.extend((0..slots).map(|slot| {
            // SAFETY: `slot * SLOT` is below `len`, so it stays within the mapping.
            Free(unsafe { start.add(slot * SLOT) }.cast())
        }));
        self.slabs += 1;
        self.worst = self.worst.max(protection);
        Ok(())
    }
}

/// Maps pages under the best protection to be had.
fn map_best(len: usize, unlocked: bool) -> Result<(NonNull<u8>, Protection), LockedMemoryError> {
    [Protection::Secret, Protection::Locked, Protection::Unlocked]
        .into_iter()
        .filter(|protection| unlocked || *protection != Protection::Unlocked)
        .find_map(|protection| pages::map(len, protection).ok().map(|start| (start, protection)))
        .ok_or(LockedMemoryError)
}
