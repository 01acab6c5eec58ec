//! The part of a thread's stack that is not in use.

/// As deep as a request's polls get.
const DEPTH: usize = 128 << 10;

/// Overwrites what earlier calls have left on this thread's stack, below the caller.
///
/// A value that was moved, or worked on in a small buffer, leaves copies there that no allocator sees. A worker
/// thread calls this before it rests, when no call of a request is left on its stack.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "to reach that deep is its purpose")]
pub fn wipe_stack() {
    let unused = [0_u8; DEPTH];
    // One pass over it, since a thread rests thousands of times a second; nobody reads it but this barrier.
    zeroize::optimization_barrier(&unused);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: u64 = 0x5ec2_e7ed_0bad_cafe;

    /// Leaves marks on the stack; where.
    #[inline(never)]
    fn leave() -> usize {
        let marks = std::hint::black_box([MARK; 512]);
        std::ptr::from_ref(&marks[256]).expose_provenance()
    }

    /// What is there now.
    #[inline(never)]
    fn look(at: usize) -> u64 {
        // SAFETY: it is within this thread's stack, which is mapped and does not shrink.
        unsafe { std::ptr::with_exposed_provenance::<u64>(at).read_volatile() }
    }

    #[test]
    fn what_a_call_left_is_overwritten() {
        let at = leave();
        assert_eq!(look(at), MARK, "it is still there");
        wipe_stack();
        assert_ne!(look(at), MARK);
    }
}
