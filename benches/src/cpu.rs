//! Processor time, as Linux tells it: who took how much of a shared machine. Nothing of a process that is not on it.

use std::fs;
use std::time::Duration;

/// Linux counts these in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// What a process took until now.
pub(crate) fn of_process(process: u32) -> Duration {
    Stat::of(process).map_or(Duration::ZERO, |stat| TICK * stat.time)
}

/// What a process took until now, with those that it started, also those that have ended.
pub(crate) fn of_family(process: u32) -> Duration {
    loop {
        let Some(own) = Stat::of(process) else { return Duration::ZERO };
        let all = fs::read_dir("/proc").into_iter().flatten();
        let all = all.filter_map(|entry| Stat::of(entry.ok()?.file_name().to_str()?.parse().ok()?));
        let children: u32 = all.filter(|stat| stat.parent == process).map(|stat| stat.time).sum();
        // One that was waited for meanwhile may be in neither figure.
        if Stat::of(process).is_none_or(|now| now.ended == own.ended) {
            return TICK * (own.time + own.ended + children);
        }
    }
}

/// A process and those that it started and that still run.
pub(crate) fn family(process: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten();
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children = all.filter(|other| Stat::of(*other).is_some_and(|stat| stat.parent == process));
    [process].into_iter().chain(children).collect()
}

/// What is of interest in `/proc/<pid>/stat`.
struct Stat {
    parent: u32,
    time: u32,
    ended: u32,
}

impl Stat {
    fn of(process: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name before it may have anything in it.
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
        let sum = |at: usize| Some(number(at)? + number(at + 1)?);
        Some(Self { parent: number(1)?, time: sum(11)?, ended: sum(13)? })
    }
}
