//! The operator's log: to standard error, as text or JSON. Not the audit log.
//!
//! * Crates that are not ours stay at `warn`, whatever `RUST_LOG` asks for: what HTTP/2 and TLS libraries say at
//!   `debug` and `trace` may hold the bytes of frames, and these hold values.
//! * A panic's message may hold a value, too; of a panic only thread and place are told.

use std::io::Write as _;
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::config::{Log, LogFormat, LogLevel};

/// How the targets of this workspace's crates begin.
const OURS: &str = "vault_";

static JSON: AtomicBool = AtomicBool::new(false);

/// Begins to log. `RUST_LOG` may name other levels for crates of ours.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    JSON.store(log.format == LogFormat::Json, Ordering::Relaxed);
    subscriber(log, &directives, std::io::stderr)?.try_init()?;
    Ok(())
}

/// Makes panics tell where they were, and nothing else.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        // Nothing is left to do if standard error is closed.
        let _ = writeln!(std::io::stderr(), "{}", panic_line(info, JSON.load(Ordering::Relaxed)));
    }));
}

fn subscriber<W>(
    log: &Log,
    directives: &str,
    writer: W,
) -> anyhow::Result<Box<dyn tracing::Subscriber + Send + Sync>>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let asked = EnvFilter::builder().with_default_directive(level(log.level).into()).parse(directives)?;
    let filter = asked.and(filter_fn(may_be_told));
    let registry = tracing_subscriber::registry();
    Ok(match log.format {
        LogFormat::Text => {
            Box::new(registry.with(
                tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).with_filter(filter),
            ))
        }
        LogFormat::Json => Box::new(
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(writer).with_filter(filter)),
        ),
    })
}

fn may_be_told(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(OURS) || *metadata.level() <= Level::WARN
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

fn panic_line(info: &PanicHookInfo<'_>, json: bool) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    if json {
        serde_json::json!({ "level": "ERROR", "fields": { "message": "panic", "thread": thread, "place": place } })
            .to_string()
    } else {
        format!("ERROR panic in thread {thread} at {place} (its message is withheld: it may hold a value)")
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::process::Command;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(format: LogFormat, directives: &str) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let log = Log { format, level: LogLevel::Info };
        let subscriber = subscriber(&log, directives, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "h2::codec", "frame of a dependency");
            tracing::info!(target: "hyper", "info of a dependency");
            tracing::warn!(target: "rustls", "warning of a dependency");
            tracing::debug!(target: "vault_server::app", "our debug");
            tracing::info!(target: "vault_server::app", "our info\x1b[31m\nforged");
        });
        let bytes = captured.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn dependencies_stay_at_warn_whatever_rust_log_says() {
        for directives in ["", "trace", "h2=trace,hyper=debug,vault_server=debug"] {
            let text = said(LogFormat::Text, directives);
            assert!(!text.contains("frame of a dependency"), "{directives}: {text}");
            assert!(!text.contains("info of a dependency"), "{directives}: {text}");
            assert!(text.contains("our info"), "{directives}: {text}");
        }
        assert!(said(LogFormat::Text, "trace").contains("warning of a dependency"));
        assert!(said(LogFormat::Text, "vault_server=debug").contains("our debug"));
        assert!(!said(LogFormat::Text, "").contains("our debug"));
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert!(!said(LogFormat::Text, "").contains('\x1b'));
        assert!(
            said(LogFormat::Json, "")
                .lines()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
    }

    const SECRET: &str = "999-68-7171";

    /// Nothing by itself: the child of the next one, which panics on purpose in a process of its own.
    #[test]
    fn child_that_panics() {
        let Some(format) = std::env::var_os("PANIC_FORMAT") else { return };
        install_panic_hook();
        JSON.store(format == "json", Ordering::Relaxed);
        let _ = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(|| panic!("value was {}", std::hint::black_box(SECRET)))
            .unwrap()
            .join();
    }

    #[test]
    fn panic_tells_thread_and_place_but_not_its_message() {
        for json in [false, true] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "--nocapture", "app::telemetry::tests::child_that_panics"]);
            child.env("PANIC_FORMAT", if json { "json" } else { "text" });
            let output = child.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("worker") && text.contains("telemetry.rs:"), "{text}");
            assert!(!text.contains(SECRET), "{text}");
            let line = text.lines().find(|line| line.contains("telemetry.rs:")).unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(line).is_ok(), json, "{line}");
        }
    }
}
