//! The processes of a server, by their id and the time of their start, so that a stranger who got the same id is left
//! alone.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to obey a signal that it cannot refuse.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    id: u32,
    started: u64,
}

impl Process {
    /// The one that has this id now.
    pub(super) fn of(id: u32) -> Option<Self> {
        Status::read(id).map(|status| Self { id, started: status.started })
    }

    /// Those that it has started and that run still.
    pub(super) fn children(self) -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|id| Some((id, Status::read(id)?)))
            .filter(|(_, status)| status.parent == self.id)
            .map(|(id, status)| Self { id, started: status.started })
            .collect()
    }

    /// Sends a signal, if it runs still.
    pub(super) fn signal(self, signal: Signal) {
        let id = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        if let (Some(id), Some(_)) = (id, self.status()) {
            // It may have ended in between.
            let _ = kill_process(id, signal);
        }
    }

    /// Waits until it is gone.
    pub(super) fn wait_gone(self) {
        self.wait(|status| status.is_none_or(|status| matches!(status.state, 'Z' | 'X')));
    }

    /// Waits until it stands still, or is gone.
    pub(super) fn wait_stopped(self) {
        self.wait(|status| status.is_none_or(|status| matches!(status.state, 'T' | 'Z' | 'X')));
    }

    fn wait(self, done: impl Fn(Option<Status>) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(self.status()) {
            assert!(Instant::now() < until, "process {} does not obey", self.id);
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn status(self) -> Option<Status> {
        Status::read(self.id).filter(|status| status.started == self.started)
    }
}

/// From `/proc/<id>/stat`, proc(5).
struct Status {
    state: char,
    parent: u32,
    started: u64,
}

impl Status {
    fn read(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name before may hold blanks and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}
