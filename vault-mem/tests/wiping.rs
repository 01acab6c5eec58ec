//! What the allocator frees is wiped, seen from the allocator under it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use vault_mem::WipingAllocator;

/// Counts the blocks that come back with a marker in them.
struct Probe;

static DIRTY: AtomicUsize = AtomicUsize::new(0);
static FREED: AtomicUsize = AtomicUsize::new(0);

const MARKER: u8 = 0xA7;
/// Too rare a size for anything but these tests.
const ODD: usize = 12_347;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Probe {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() == ODD {
            // SAFETY: still a live block; these tests initialize all blocks of this size.
            let bytes = unsafe { slice::from_raw_parts(block, ODD) };
            FREED.fetch_add(1, Ordering::Relaxed);
            DIRTY.fetch_add(usize::from(bytes.contains(&MARKER)), Ordering::Relaxed);
        }
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: WipingAllocator<Probe> = WipingAllocator::new(Probe);

fn marked() -> Vec<u8> {
    let mut block = Vec::with_capacity(ODD);
    block.resize(ODD, MARKER);
    black_box(block)
}

/// One test: the counters are the process's.
#[test]
fn freed_grown_and_shrunk_blocks_are_wiped() {
    drop(marked());
    assert_eq!((FREED.load(Ordering::Relaxed), DIRTY.load(Ordering::Relaxed)), (1, 0), "freed");

    let mut grown = marked();
    grown.reserve_exact(ODD);
    assert_eq!(grown, vec![MARKER; ODD], "growing keeps the content");
    // The comparison's own block, of the same size, was freed too.
    assert_eq!((FREED.load(Ordering::Relaxed), DIRTY.load(Ordering::Relaxed)), (3, 0), "grown");

    let mut shrunk = marked();
    shrunk.truncate(100);
    shrunk.shrink_to_fit();
    assert_eq!(shrunk, [MARKER; 100], "shrinking keeps the content");
    assert_eq!((FREED.load(Ordering::Relaxed), DIRTY.load(Ordering::Relaxed)), (4, 0), "shrunk");

    let layout = Layout::array::<u8>(ODD).unwrap();
    // SAFETY: the layout's size is not zero.
    let block = unsafe { Probe.alloc(layout) };
    // SAFETY: the block has `ODD` bytes.
    unsafe { block.write_bytes(MARKER, ODD) };
    // SAFETY: given back as it was asked for.
    unsafe { Probe.dealloc(block, layout) };
    assert_eq!(DIRTY.load(Ordering::Relaxed), 1, "without the wiping, the probe sees the marker");
}
