//! Callers that write and read without a pause, and remember what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use vault_proto::v1;
use vault_server::domain::{Environment, Token};
use vault_tests::process::DevVault;
use vault_tests::wire::{Wire, detokenize, item, token, value};

/// How many there are.
const CALLERS: usize = 4;

/// Nobody waits longer for an answer of any kind: 5 s for what is read, 2 s for what is written.
pub(super) const PATIENCE: Duration = Duration::from_secs(9);

/// What callers were told.
#[derive(Default)]
pub(super) struct Told {
    /// Values by token: acknowledged.
    pub(super) kept: BTreeMap<String, String>,
    /// Tokens whose value was given out.
    pub(super) opened: BTreeSet<String>,
    /// How many calls were refused.
    pub(super) refused: usize,
    /// The longest a call took.
    pub(super) slowest: Duration,
}

impl Told {
    fn add(&mut self, other: Self) {
        self.kept.extend(other.kept);
        self.opened.extend(other.opened);
        self.refused += other.refused;
        self.slowest = self.slowest.max(other.slowest);
    }

    fn refuse(&mut self, status: &Status) {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        self.refused += 1;
    }
}

/// Callers at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    callers: JoinSet<Told>,
}

impl Load {
    pub(super) async fn start(vault: &DevVault) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let wire = Wire::connect(vault, "service").await;
            callers.spawn(call(wire, caller, Arc::clone(&stop), Arc::clone(&done)));
        }
        Self { stop, done, callers }
    }

    /// Waits until so many more values were written and read.
    pub(super) async fn progress(&self, more: usize) {
        let (until, goal) =
            (Instant::now() + Duration::from_mins(1), self.done.load(Ordering::SeqCst) + more);
        while self.done.load(Ordering::SeqCst) < goal {
            assert!(Instant::now() < until, "it does not go on");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it.
    pub(super) async fn end(self) -> Told {
        self.stop.store(true, Ordering::SeqCst);
        let mut told = Told::default();
        for of_one in self.callers.join_all().await {
            told.add(of_one);
        }
        told
    }
}

async fn call(mut wire: Wire, caller: usize, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Told {
    let mut told = Told::default();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let text = format!("note {number} of {caller}");
        let Some(token) = write(&mut wire, &text, &mut told).await else { continue };
        read(&mut wire, &token, &text, &mut told).await;
        done.fetch_add(1, Ordering::SeqCst);
    }
    told
}

/// The token, if the value was acknowledged.
pub(super) async fn write(wire: &mut Wire, text: &str, told: &mut Told) -> Option<String> {
    let request = v1::TokenizeRequest { items: vec![item("text", text)], ..v1::TokenizeRequest::default() };
    let begun = Instant::now();
    let answer = timeout(PATIENCE, wire.vault.tokenize(request)).await.expect("an answer in time");
    told.slowest = told.slowest.max(begun.elapsed());
    match answer {
        Ok(answer) => {
            let token = token(&answer.into_inner().results[0]).unwrap();
            told.kept.insert(token.clone(), text.to_owned());
            Some(token)
        }
        Err(status) => {
            told.refuse(&status);
            sleep(Duration::from_millis(20)).await;
            None
        }
    }
}

/// Whether the value came.
pub(super) async fn read(wire: &mut Wire, token: &str, text: &str, told: &mut Told) -> bool {
    let begun = Instant::now();
    let answer = timeout(PATIENCE, wire.vault.detokenize(detokenize("", &[token.to_owned()]))).await;
    told.slowest = told.slowest.max(begun.elapsed());
    match answer.expect("an answer in time") {
        Ok(answer) => {
            let value = value(answer.into_inner().results.remove(0));
            // The database may go between the entry and the keys.
            if let Err(error) = &value
                && error.reason() == v1::Reason::StoreUnavailable
            {
                told.refused += 1;
                return false;
            }
            assert_eq!(value.as_deref(), Ok(text), "another value than was written");
            told.opened.insert(token.to_owned());
            true
        }
        Err(status) => {
            told.refuse(&status);
            false
        }
    }
}

/// What was acknowledged is there; what was given out is in the log; the log is whole.
pub(super) async fn verify(vault: &DevVault, told: &Told) {
    let mut service = Wire::connect(vault, "service").await;
    let tokens: Vec<String> = told.kept.keys().cloned().collect();
    for tokens in tokens.chunks(1000) {
        for (token, value) in tokens.iter().zip(service.values("", tokens).await) {
            assert_eq!(value.as_ref(), Ok(&told.kept[token]), "an acknowledged value is lost");
        }
    }
    let entries = Wire::connect(vault, "auditor").await.entries("detokenize").await;
    // The reads of this very function come later, with many tokens each.
    let single = entries.iter().filter(|entry| entry.items.len() == 1);
    let logged: BTreeSet<Vec<u8>> = single.map(|entry| entry.items[0].token.to_vec()).collect();
    let environment = Environment::parse("dev").unwrap();
    for token in &told.opened {
        let bytes = Token::parse(token, &environment).unwrap();
        assert!(logged.contains(&bytes.as_bytes()[..]), "a value was given out without a log entry");
    }
    verify_log(vault);
}

fn verify_log(vault: &DevVault) {
    let dir = tempfile::TempDir::new().unwrap();
    let log = dir.path().join("log").display().to_string();
    let key = dir.path().join("log.vkey").display().to_string();
    vault.ctl("auditor", &["audit", "export", "--dir", &log, "--key-out", &key]).ok();
    vault.ctl("auditor", &["audit", "verify", "--dir", &log, "--key", &key]).ok();
}
