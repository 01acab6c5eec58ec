//! Memory that stays: in large pages, and for a while after it was used.

use std::ffi::c_long;

use libmimalloc_sys::{_mi_option_last, mi_option_set_default, mi_option_t};

/// `mi_option_minimal_purge_size`, in KiB. The bindings do not name it.
const MINIMAL_PURGE_SIZE: mi_option_t = 44;
/// `mi_option_purge_delay`, in milliseconds.
const PURGE_DELAY: mi_option_t = 15;
const _: () = assert!(_mi_option_last == 47, "mimalloc has other options: look up the number in mimalloc.h");

/// A large page of the platforms that have them, in KiB.
const LARGE_PAGE: c_long = 2048;
/// How long memory that nothing is in stays, in milliseconds.
const FOR_A_WHILE: c_long = 10_000;

/// Has mimalloc give memory back to the operating system by whole large pages, where `MIMALLOC_MINIMAL_PURGE_SIZE` does not
/// say otherwise. By default it gives back 64 KiB: each time the kernel splits a large page for good, until there are nearly
/// none. And it waits ten seconds at least (`MIMALLOC_PURGE_DELAY`), not one: a busy process faulted in each second what it had
/// given back the second before. To be called first, by a binary whose allocator is mimalloc.
pub fn keep_large_pages() {
    // SAFETY: the options are there, as asserted above, and take any number. mimalloc keeps each in one aligned word and reads
    // it when it gives memory back: in a call that is not the first thing, another thread may still use the number of before.
    unsafe { mi_option_set_default(MINIMAL_PURGE_SIZE, LARGE_PAGE) };
    // SAFETY: as above.
    unsafe { mi_option_set_default(PURGE_DELAY, FOR_A_WHILE) };
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, c_char, c_void};
    use std::ptr;

    use libmimalloc_sys::mi_option_get;

    use super::*;

    unsafe extern "C" {
        fn mi_options_print_out(out: extern "C" fn(*const c_char, *mut c_void), arg: *mut c_void);
    }

    extern "C" fn take(line: *const c_char, told: *mut c_void) {
        // SAFETY: mimalloc gives a string that ends.
        let line = unsafe { CStr::from_ptr(line) };
        // SAFETY: it is the `String` below, which nobody else uses meanwhile.
        let told = unsafe { &mut *told.cast::<String>() };
        told.push_str(&line.to_string_lossy());
    }

    /// The numbers are those of the options by these names.
    #[test]
    fn memory_is_given_back_by_large_pages_and_after_a_while() {
        keep_large_pages();
        let mut told = String::new();
        // SAFETY: it calls `take` with lines, and with the string that is given, until it returns.
        unsafe { mi_options_print_out(take, ptr::from_mut(&mut told).cast()) };
        assert!(told.contains("option 'minimal_purge_size': 2048 KiB"), "{told}");
        assert!(told.contains("option 'purge_delay': 10000"), "{told}");
        for (option, set) in [(MINIMAL_PURGE_SIZE, LARGE_PAGE), (PURGE_DELAY, FOR_A_WHILE)] {
            // SAFETY: the option is there.
            assert_eq!(unsafe { mi_option_get(option) }, set);
        }
    }
}
