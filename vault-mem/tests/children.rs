//! What changes a whole process is tested in a process of its own: the test starts itself again.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::env;
use std::fs;
use std::process::{Command, Output};

use vault_mem::{
    LockedKey, LockedMemoryError, Protection, RandomKeyError, allow_unlocked, harden, protection,
};

const CHILD: &str = "VAULT_MEM_TEST_CHILD";

fn in_child(test: &str, what: &str) -> Output {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, what)
        .output()
        .unwrap()
}

fn assert_passed(child: &Output) {
    let text = [&child.stdout[..], &child.stderr].map(String::from_utf8_lossy).concat();
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
}

fn is_child(what: &str) -> bool {
    env::var(CHILD).is_ok_and(|given| given == what)
}

fn dumpable() -> i32 {
    // SAFETY: takes integers only.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }
}

fn no_new_privileges() -> bool {
    fs::read_to_string("/proc/thread-self/status").unwrap().lines().any(|line| line == "NoNewPrivs:\t1")
}

fn core_limit() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: `limit` lives through the call, which writes a whole `rlimit`.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) }, 0);
    (limit.rlim_cur, limit.rlim_max)
}

fn no_locked_memory() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` lives through the call, which only reads it.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) }, 0);
    drop_the_right_to_lock();
}

/// Root may lock any amount; an unprivileged user may not.
fn drop_the_right_to_lock() {
    // SAFETY: takes integers only.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: takes an integer only; the child has nothing else to do as root.
        assert_eq!(unsafe { libc::setuid(65_534) }, 0);
    }
}

#[test]
fn harden_leaves_no_core_no_debugger_and_no_new_privileges() {
    if !is_child("harden") {
        assert_eq!(dumpable(), 1, "the check can fail");
        assert_passed(&in_child("harden_leaves_no_core_no_debugger_and_no_new_privileges", "harden"));
        return;
    }
    harden().unwrap();
    assert_eq!(dumpable(), 0);
    assert_eq!(core_limit(), (0, 0));
    assert!(no_new_privileges());
}

#[test]
fn a_key_is_refused_where_no_memory_can_be_locked() {
    if !is_child("refused") {
        assert_passed(&in_child("a_key_is_refused_where_no_memory_can_be_locked", "refused"));
        return;
    }
    no_locked_memory();
    assert_eq!(LockedKey::random().err(), Some(RandomKeyError::LockedMemory(LockedMemoryError)));
    assert_eq!(protection(), Protection::Unlocked);
}

#[test]
fn unlocked_memory_serves_only_when_it_was_allowed() {
    if !is_child("allowed") {
        assert_passed(&in_child("unlocked_memory_serves_only_when_it_was_allowed", "allowed"));
        return;
    }
    no_locked_memory();
    allow_unlocked();
    assert!(LockedKey::random().is_ok());
    assert_eq!(protection(), Protection::Unlocked);
}

#[test]
fn a_forked_child_cannot_read_a_key() {
    let key = LockedKey::random().unwrap();
    let byte: *const u8 = key.expose().as_ptr();
    // SAFETY: the child makes only async-signal-safe calls: a read of memory and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: meant to fault; were the page inherited, it would be a plain read of an initialized byte.
        let value = unsafe { byte.read_volatile() };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(value != 0)) };
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: `status` lives through the call; the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFSIGNALED(status), "the child read the key's page");
}
