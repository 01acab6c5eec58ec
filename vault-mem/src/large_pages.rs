//! Memory in large pages.

use std::ffi::c_long;

use libmimalloc_sys::{_mi_option_last, mi_option_set_default, mi_option_t};

/// `mi_option_minimal_purge_size`, in KiB. The bindings do not name it.
const MINIMAL_PURGE_SIZE: mi_option_t = 44;
const _: () = assert!(_mi_option_last == 47, "mimalloc has other options: look up the number in mimalloc.h");

/// A large page of the platforms that have them, in KiB.
const LARGE_PAGE: c_long = 2048;

/// Has mimalloc give memory back to the operating system by whole large pages, where `MIMALLOC_MINIMAL_PURGE_SIZE` does not
/// say otherwise. By default it gives back 64 KiB: each time the kernel splits a large page for good, until there are nearly
/// none. To be called first, by a binary whose allocator is mimalloc.
pub fn keep_large_pages() {
    // SAFETY: the option is there, as asserted above, and takes any number. mimalloc keeps it in one aligned word and reads it
    // when it gives memory back: in a call that is not the first thing, another thread may still use the number of before.
    unsafe { mi_option_set_default(MINIMAL_PURGE_SIZE, LARGE_PAGE) };
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

    /// The number is that of the option by this name.
    #[test]
    fn memory_is_given_back_by_large_pages() {
        keep_large_pages();
        let mut told = String::new();
        // SAFETY: it calls `take` with lines, and with the string that is given, until it returns.
        unsafe { mi_options_print_out(take, ptr::from_mut(&mut told).cast()) };
        assert!(told.contains("option 'minimal_purge_size': 2048 KiB"), "{told}");
        // SAFETY: the option is there.
        assert_eq!(unsafe { mi_option_get(MINIMAL_PURGE_SIZE) }, LARGE_PAGE);
    }
}
