//! Pages from the kernel, locked if it lets us.

use std::io;
use std::ptr::{self, NonNull};

use crate::Protection;

/// Maps `len` zeroed bytes under exactly this protection, readable and writable, kept out of core files and out of
/// child processes. They are never unmapped.
///
/// Not inherited, rather than wiped on fork: a child that used a key would then seal under zeros instead of
/// crashing.
pub(crate) fn map(len: usize, protection: Protection) -> io::Result<NonNull<u8>> {
    let start = match protection {
        Protection::Secret => map_secret(len)?,
        Protection::Locked | Protection::Unlocked => map_anonymous(len)?,
    };
    let guarded = advise(start, len, libc::MADV_DONTDUMP)
        .and_then(|()| advise(start, len, libc::MADV_DONTFORK))
        .and_then(|()| if protection == Protection::Locked { lock(start, len) } else { Ok(()) });
    if let Err(error) = guarded {
        // SAFETY: `start..start + len` was mapped above and nobody else has seen it.
        unsafe { libc::munmap(start.as_ptr().cast(), len) };
        return Err(error);
    }
    Ok(start)
}

/// Size of a page of memory.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf reads no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// memfd_secret(2): pages that the kernel itself has no mapping of. They count as locked.
#[cfg(target_os = "linux")]
fn map_secret(len: usize) -> io::Result<NonNull<u8>> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    let size = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the call takes one flag and no pointer.
    let raw = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let raw = i32::try_from(raw).ok().filter(|raw| *raw >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: an open descriptor and a length.
    if unsafe { libc::ftruncate(file.as_raw_fd(), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    map_pages(len, libc::MAP_SHARED, file.as_raw_fd())
}

#[cfg(not(target_os = "linux"))]
fn map_secret(_: usize) -> io::Result<NonNull<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

fn map_anonymous(len: usize) -> io::Result<NonNull<u8>> {
    map_pages(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
}

fn map_pages(len: usize, flags: libc::c_int, file: libc::c_int) -> io::Result<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, file, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn advise(start: NonNull<u8>, len: usize, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: a whole mapping of ours; neither advice given here changes its bytes.
    let result = unsafe { libc::madvise(start.as_ptr().cast(), len, advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn lock(start: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: a whole mapping of ours; locking does not change its bytes.
    let result = unsafe { libc::mlock(start.as_ptr().cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
