//! Why and how the server stops.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Why the server is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked for it.
    Signal(&'static str),
    /// It can't keep its promises any longer.
    Fatal(String),
}

/// Stops the server when its promises can't be kept, as after a failed sync. Cheap to clone.
#[derive(Clone)]
pub struct FatalSwitch(watch::Sender<Option<String>>);

impl FatalSwitch {
    /// Stops the server. `why` is for the operator; the first one counts.
    pub fn trip(&self, why: &str) {
        self.0.send_if_modified(|tripped| {
            let first = tripped.is_none();
            if first {
                *tripped = Some(why.to_owned());
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
    fatal: watch::Receiver<Option<String>>,
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
            match self.fatal.wait_for(Option::is_some).await {
                Ok(why) => Reason::Fatal(why.clone().unwrap_or_default()),
                // Nobody is left who could trip it.
                Err(_) => std::future::pending().await,
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
        switch.trip("sync failed");
        switch.trip("something else");
        assert_eq!(signals.next().await, Reason::Fatal("sync failed".to_owned()));
    }
}
