//! A receiver of alerts, as a site would run one: it verifies what comes, and answers what the test wants.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::Sha256;

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_mins(2);

/// A delivery that came, and was what it should be.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `webhook-id`.
    pub id: String,
    /// What was told.
    pub alert: Value,
    /// What it was answered.
    pub status: u16,
}

/// The receiver.
pub struct Receiver {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    got: Mutex<Vec<Delivery>>,
    answer: AtomicU16,
    hanging: AtomicUsize,
}

impl Receiver {
    /// Receives from now on, and answers this status; 0: nothing, ever.
    ///
    /// # Panics
    /// If it can't listen.
    pub fn start(answer: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { answer: AtomicU16::new(answer), ..State::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || state.serve(stream));
            }
        });
        Self { port, state }
    }

    /// The section `[alerts]` that leads here; writes the file of the secret into a vault's directory.
    ///
    /// # Panics
    /// If the file can't be written.
    pub fn section(&self, home: &Path) -> String {
        let file = home.join("alerts-secret");
        fs::write(&file, format!("whsec_{}\n", STANDARD.encode(SECRET))).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        format!(
            "\n[alerts]\nwebhook = \"http://127.0.0.1:{}/hook\"\nsecret_file = \"alerts-secret\"\ntimeout = \"1s\"\n",
            self.port
        )
    }

    /// Answers this from now on.
    pub fn answer(&self, status: u16) {
        self.state.answer.store(status, Ordering::SeqCst);
    }

    /// What came so far and was answered.
    pub fn got(&self) -> Vec<Delivery> {
        self.state.got.lock().clone()
    }

    /// How many were taken and not answered.
    pub fn hanging(&self) -> usize {
        self.state.hanging.load(Ordering::SeqCst)
    }

    /// Waits until it is so.
    ///
    /// # Panics
    /// If it does not come to be.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < until, "{what}: {:?}, {} hang", self.got(), self.hanging());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let mut text = Vec::new();
        let (head, body) = loop {
            let mut some = [0; 4096];
            match stream.read(&mut some) {
                Ok(len @ 1..) => text.extend_from_slice(&some[..len]),
                _ => return,
            }
            let text = String::from_utf8_lossy(&text);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if body.len() == header(head, "content-length").parse::<usize>().unwrap() {
                break (head.to_owned(), body.to_owned());
            }
        };
        let (id, time) = (header(&head, "webhook-id").to_owned(), header(&head, "webhook-timestamp"));
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
        mac.update(format!("{id}.{time}.{body}").as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let verified =
            head.starts_with("POST /hook HTTP/1.1") && header(&head, "webhook-signature") == expected;
        let alert: Value = serde_json::from_str(&body).unwrap();
        // What is not as it should be is refused, and so never counts as delivered.
        let status = if verified { self.answer.load(Ordering::SeqCst) } else { 400 };
        if status == 0 {
            self.hanging.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 1]);
            return;
        }
        self.got.lock().push(Delivery { id, alert, status });
        let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes());
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
}
