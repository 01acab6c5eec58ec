//! An allocator that overwrites what it frees.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// Overwrites memory with zeros before giving it back to the allocator `A`. To be set by a binary:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: vault_mem::WipingAllocator = vault_mem::WipingAllocator::SYSTEM;
/// # fn main() {}
/// ```
#[derive(Debug, Clone, Copy)]
pub struct WipingAllocator<A = System>(A);

impl WipingAllocator {
    /// Over the operating system's allocator.
    pub const SYSTEM: Self = Self(System);
}

impl<A> WipingAllocator<A> {
    /// Over another allocator.
    pub const fn new(inner: A) -> Self {
        Self(inner)
    }
}

// SAFETY: every block comes from `A` and goes back to it under the layout it was asked for with; a block is written
// to only when its owner gives it up.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipingAllocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `A` asks for.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `A` asks for.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block of `layout.size()` bytes.
        unsafe { wipe(block, layout.size()) };
        // SAFETY: the caller's promises are those that `A` asks for.
        unsafe { self.0.dealloc(block, layout) };
    }

    /// Always moves: `A` may move a block itself, even one that shrinks, and would free the old one as it is.
    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, fits `isize`; the alignment is
        // that of a valid layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that `new_size` is not zero.
        let new_block = unsafe { self.alloc(new_layout) };
        if !new_block.is_null() {
            let kept = layout.size().min(new_size);
            // SAFETY: both blocks have at least `kept` bytes and, both being live, do not overlap.
            unsafe { ptr::copy_nonoverlapping(block, new_block, kept) };
            // SAFETY: the caller gives up the old block, of `layout`, as its content has moved.
            unsafe { self.dealloc(block, layout) };
        }
        new_block
    }
}

/// Overwrites a block in a way that the compiler does not leave out, though the block is freed next.
///
/// # Safety
/// `block` has `len` bytes that nobody uses any more.
#[inline]
unsafe fn wipe(block: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::write_bytes(block, 0, len) };
    let wiped: *const [u8] = ptr::slice_from_raw_parts(block, len);
    // SAFETY: the block is live until the caller frees it, and was initialized by the line above.
    zeroize::optimization_barrier(unsafe { &*wiped });
}
