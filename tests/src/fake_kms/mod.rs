//! A KMS of our own that speaks AWS's JSON 1.1 protocol on the loopback interface, for what moto does not do: key
//! states are enforced, the encryption context is compared pair by pair, `KeyId` on Decrypt must be the ciphertext's,
//! rotated material still opens what older material closed, it throttles, it fails on demand, it survives a restart.
//!
//! Operations: GenerateDataKey, GenerateDataKeyWithoutPlaintext, Encrypt, Decrypt, ReEncrypt, DescribeKey.
//! Signatures are not checked, but a request without an `Authorization` header is refused. Every request is kept, to
//! be searched for what must not be in it. It is for tests: its keys are plain, in memory and in its file.

mod keys;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use self::keys::KeyStatus;
use self::keys::Keys;

/// How to start one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `us-east-1` if not given.
    pub region: Option<String>,
    /// Where its keys outlive it; nowhere if not given.
    pub file: Option<PathBuf>,
    /// A port to come back on; any if not given.
    pub port: Option<u16>,
}

/// What to do with one call instead of answering it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An empty answer with this status.
    Status(u16),
    /// An AWS error of this code, with status 400.
    Error(&'static str),
    /// The right answer, later.
    Delay(Duration),
    /// No answer, until the caller gives up.
    Hang,
    /// The connection is closed without an answer.
    Reset,
    /// Status 200, and a body that is not JSON.
    Garbage,
    /// The right answer, but with a plain key of this many bytes.
    PlaintextOf(usize),
    /// The right answer, but said to be of this key.
    KeyId(String),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `Decrypt`, `Encrypt` ...
    pub operation: String,
    /// The JSON body; null if it was none.
    pub body: Value,
    /// Head and body as text, to be searched.
    pub text: String,
}

/// A running one; stopped when dropped.
pub struct FakeKms {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

pub(in crate::fake_kms) struct Shared {
    region: String,
    file: Option<PathBuf>,
    keys: Mutex<Keys>,
    control: Mutex<Control>,
}

#[derive(Default)]
struct Control {
    faults: VecDeque<Fault>,
    down: Option<Fault>,
    limit: Option<u32>,
    window: Option<(Instant, u32)>,
    denied: Vec<&'static str>,
    requests: Vec<Request>,
    answered: BTreeMap<String, u64>,
}

impl FakeKms {
    /// Starts one with no keys, in `us-east-1`, that forgets all when it ends.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one; with the keys of its file, if there is one.
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        let keys = match &options.file {
            Some(file) if file.exists() => Keys::load(file)?,
            _ => Keys::default(),
        };
        let listener = TcpListener::bind(("127.0.0.1", options.port.unwrap_or(0))).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            region: options.region.unwrap_or_else(|| "us-east-1".to_owned()),
            file: options.file,
            keys: Mutex::new(keys),
            control: Mutex::default(),
        });
        let task = tokio::spawn(server::serve(listener, shared.clone()));
        Ok(Self { shared, address, task })
    }

    /// `http://127.0.0.1:<port>`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port, to come back on after a restart.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its region.
    pub fn region(&self) -> &str {
        &self.shared.region
    }

    /// A new, enabled key; its ARN.
    pub fn create_key(&self) -> anyhow::Result<String> {
        let arn = self.shared.keys.lock().create(&self.shared.region)?;
        self.shared.save()?;
        Ok(arn)
    }

    /// Enables, disables or schedules a key for deletion.
    pub fn set_status(&self, arn: &str, status: KeyStatus) -> anyhow::Result<()> {
        self.shared.keys.lock().get_mut(arn).context("no such key")?.status = status;
        self.shared.save()
    }

    /// New material for a key: what the older closed still opens.
    pub fn rotate(&self, arn: &str) -> anyhow::Result<()> {
        self.shared.keys.lock().get_mut(arn).context("no such key")?.rotate()?;
        self.shared.save()
    }

    /// Removes a key and its material for good.
    pub fn delete_key(&self, arn: &str) -> anyhow::Result<()> {
        self.shared.keys.lock().remove(arn).context("no such key")?;
        self.shared.save()
    }

    /// What to do with the next calls, one fault each; then it answers again.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.control.lock().faults.extend(faults);
    }

    /// What to do with every call from now on; `None`: answer.
    pub fn set_down(&self, fault: Option<Fault>) {
        self.shared.control.lock().down = fault;
    }

    /// Refuses these operations from now on with AccessDeniedException, as a key's policy may.
    pub fn deny(&self, operations: &[&'static str]) {
        self.shared.control.lock().denied = operations.to_vec();
    }

    /// Answers so many calls a second, and throttles the rest.
    pub fn set_limit(&self, calls_per_second: Option<u32>) {
        let mut control = self.shared.control.lock();
        control.limit = calls_per_second;
        control.window = None;
    }

    /// Calls of an operation that came in, answered or not.
    pub fn received(&self, operation: &str) -> usize {
        self.shared.control.lock().requests.iter().filter(|request| request.operation == operation).count()
    }

    /// Calls of an operation that were answered with success.
    pub fn answered(&self, operation: &str) -> u64 {
        self.shared.control.lock().answered.get(operation).copied().unwrap_or(0)
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.control.lock().requests.clone()
    }

    /// Forgets requests and counts.
    pub fn clear_requests(&self) {
        let mut control = self.shared.control.lock();
        control.requests.clear();
        control.answered.clear();
    }
}

impl Drop for FakeKms {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn save(&self) -> anyhow::Result<()> {
        match &self.file {
            Some(file) => self.keys.lock().save(file),
            None => Ok(()),
        }
    }
}

impl Control {
    /// Notes a request; what to do with it instead of answering.
    fn receive(&mut self, request: Request, now: Instant) -> Option<Fault> {
        self.requests.push(request);
        if let Some(fault) = self.faults.pop_front().or_else(|| self.down.clone()) {
            return Some(fault);
        }
        let limit = self.limit?;
        let (begin, count) = match self.window {
            Some((begin, count)) if now.duration_since(begin) < Duration::from_secs(1) => (begin, count),
            _ => (now, 0),
        };
        self.window = Some((begin, count + 1));
        (count >= limit).then_some(Fault::Error("ThrottlingException"))
    }
}
