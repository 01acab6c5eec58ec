//! What a process that holds keys does not need.

use std::fmt;
use std::io;

/// A protection of the process could not be had.
#[derive(Debug)]
pub struct HardenError {
    /// Which.
    pub what: &'static str,
    /// Why not.
    pub source: io::Error,
}

impl fmt::Display for HardenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.source)
    }
}

impl std::error::Error for HardenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Makes this process undumpable (no core file; no debugger and no `/proc/<pid>/mem` for processes without
/// CAP_SYS_PTRACE), bars it, and what it starts, from gaining privileges, and makes the files that it creates its owner's
/// alone.
///
/// To be called first thing in `main`: the last holds for this thread and those that it starts from now on.
pub fn harden() -> Result<(), HardenError> {
    control("make the process undumpable", libc::PR_SET_DUMPABLE, 0)?;
    control("forbid new privileges", libc::PR_SET_NO_NEW_PRIVS, 1)?;
    private_files();
    no_core()
}

fn private_files() {
    // SAFETY: the call takes an integer, always succeeds, and touches no memory of ours.
    unsafe { libc::umask(0o077) };
}

fn control(what: &'static str, option: libc::c_int, value: libc::c_ulong) -> Result<(), HardenError> {
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: both options that are given here take integers only; the kernel wants the unused ones to be zero.
    let result = unsafe { libc::prctl(option, value, UNUSED, UNUSED, UNUSED) };
    check(what, result)
}

fn no_core() -> Result<(), HardenError> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` lives through the call, which only reads it.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    check("forbid core files", result)
}

fn check(what: &'static str, result: libc::c_int) -> Result<(), HardenError> {
    if result == 0 { Ok(()) } else { Err(HardenError { what, source: io::Error::last_os_error() }) }
}
