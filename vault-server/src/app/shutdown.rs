//! Why and how the server stops.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Why the server is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked for it.
    Signal(&'static str),
    /// It can't keep its promises any longer.
    Fatal(Fatality),
}

/// Why the server can't keep its promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fatality {
    /// The store failed for good.
    StoreFailed(String),
    /// Another instance writes this one's log now. Nothing is lost; a new process takes another log.
    LogTaken,
}

impl std::fmt::Display for Fatality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StoreFailed(why) => write!(f, "the store failed for good: {why}"),
            Self::LogTaken => f.write_str("another instance has taken this one's log"),
        }
    }
}

/// Stops the server when its promises can't be kept, as after a failed sync. Cheap to clone.
#[derive(Clone)]
pub struct FatalSwitch(watch::Sender<Option<Fatality>>);

impl FatalSwitch {
    /// Stops the server. `why` is for the operator; the first one counts.
    pub fn trip(&self, why: Fatality) {
        self.0.send_if_modified(|tripped| {
            let first = tripped.is_none();
            if first {
                *tripped = Some(why);
            }
            first
        });
    }
}

impl Default for FatalSwitch {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

/// Waits for the reason to stop.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    fatal: watch::Receiver<Option<Fatality>>,
}

impl StopSignals {
    /// From now on SIGTERM and SIGINT are taken note of.
    pub fn new(fatal: &FatalSwitch) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            fatal: fatal.0.subscribe(),
        })
    }

    /// The next reason.
    pub async fn next(&mut self) -> Reason {
        let fatal = async {
            let tripped = self.fatal.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
            match tripped {
                Some(why) => Reason::Fatal(why),
                // Nobody is left who could trip it.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = fatal => reason,
            _ = self.terminate.recv() => Reason::Signal("SIGTERM"),
            _ = self.interrupt.recv() => Reason::Signal("SIGINT"),
        }
    }

    /// The next signal, whether or not the switch is tripped.
    pub async fn signal(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_fatal_reason_counts() {
        let switch = FatalSwitch::default();
        let mut signals = StopSignals::new(&switch).unwrap();
        let failed = Fatality::StoreFailed("sync failed".to_owned());
        switch.trip(failed.clone());
        switch.trip(Fatality::LogTaken);
        assert_eq!(signals.next().await, Reason::Fatal(failed));
    }
}
