//! Memory that keys and values may lie in: the one crate of phi-vault with unsafe code.
//!
//! * [`LockedKey`]: 32 bytes of key in pages that are never swapped, dumped or inherited, wiped when dropped.
//! * [`WipingAllocator`]: overwrites heap memory before it is freed, so that a value that went through a buffer
//!   of the network stack does not outlive its request.
//! * [`wipe_stack`]: overwrites what earlier calls left on a thread's stack.
//! * `keep_large_pages` (feature `mimalloc`): memory that is cheaper to reach, and stays for a while.
//! * [`harden`]: no debugger, no core file, no new privileges for this process.
//!
//! What it does not do: keys that an algorithm copies to registers or its stack are out of its reach, and nothing
//! here holds against the kernel or the hypervisor.

mod allocator;
mod harden;
mod key;
#[cfg(feature = "mimalloc")]
mod large_pages;
mod pages;
mod pool;
mod stack;

pub use allocator::WipingAllocator;
pub use harden::{HardenError, harden};
pub use key::{LockedKey, RandomKeyError};
#[cfg(feature = "mimalloc")]
pub use large_pages::keep_large_pages;
pub use pool::{LockedMemoryError, Protection, allow_unlocked, protection};
pub use stack::wipe_stack;
