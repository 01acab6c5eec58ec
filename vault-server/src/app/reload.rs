//! Takes up new files while the server runs: TLS, principals, policy.

use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::metrics::{Metrics, ReloadLabels};

/// Something that is read from files and can be read again.
pub struct Reloadable {
    /// What it is, for people and for a metric's label.
    pub name: &'static str,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Reads them and puts the new content in force; on an error the old content stays in force.
    pub reload: Box<dyn Fn() -> anyhow::Result<()> + Send + Sync>,
}

/// Reloads what has changed: looks every `every`, and at once when `now` is notified. Never returns.
pub async fn watch(items: Vec<Reloadable>, every: Duration, now: &Notify, metrics: &Metrics) {
    let mut watched: Vec<Watched> = items.into_iter().map(Watched::new).collect();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = now.notified() => {
                tracing::info!("looking for changed files");
                for item in &mut watched {
                    item.seen = None;
                }
            }
        }
        for item in &mut watched {
            item.look(metrics);
        }
    }
}

struct Watched {
    item: Reloadable,
    /// What was in force or refused last; `None` to try in any case: at first, because the files may have changed
    /// since they were read at the start, and when somebody asks for it.
    seen: Option<[u8; 32]>,
    /// Whether an uneventful reload is worth telling. The first is not.
    telling: bool,
    /// The last refusal, so that it is told once. Files that are not complete yet are tried again and again.
    refusal: Option<String>,
}

impl Watched {
    fn new(item: Reloadable) -> Self {
        Self { item, seen: None, telling: false, refusal: None }
    }

    fn look(&mut self, metrics: &Metrics) {
        let digest = digest(&self.item.files);
        if self.seen == Some(digest) && self.refusal.is_none() {
            return;
        }
        self.seen = Some(digest);
        let what = self.item.name;
        let telling = std::mem::replace(&mut self.telling, true);
        let outcome = match (self.item.reload)() {
            Ok(()) => {
                self.refusal = None;
                if !telling {
                    return;
                }
                tracing::info!(what, "new files are in force");
                "ok"
            }
            Err(error) => {
                let refusal = format!("{error:#}");
                if self.refusal.as_ref() == Some(&refusal) {
                    return;
                }
                tracing::error!(what, error = %refusal, "new files refused, the old ones stay in force");
                self.refusal = Some(refusal);
                "refused"
            }
        };
        metrics.reloads.get_or_create(&ReloadLabels { what, outcome }).inc();
    }
}

/// Of the files' content: times of modification do not tell of a change within their resolution, nor of a swapped
/// symbolic link.
fn digest(files: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        match std::fs::read(file) {
            Ok(content) => {
                hash.update([1]);
                hash.update(Sha256::digest(zeroize::Zeroizing::new(content).as_slice()));
            }
            Err(_) => hash.update([0]),
        }
    }
    hash.finalize().into()
}
