//! Whether what callers were told is true, and on record.
//!
//! What is found wrong is returned, not asserted: a test may want to see that a fault is found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use prost::Message as _;
use vault_client::{Client, DetokenizeOptions, Purpose, Reason};
use vault_format::checkpoint::Checkpoint;
use vault_format::note::Verifier;
use vault_format::token;
use vault_format::tree::{Frontier, Hash};
use vault_proto::v1::AuditEntry;
use vault_proto::v1::audit_entry::Action;
use vault_proto::v1::audit_item::Outcome;
use vault_server::store::{LogId, Store};

use super::load::{Known, State, Told};

/// How many tokens are asked for at once.
const AT_ONCE: usize = 500;

/// What a log was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFound {
    /// Which.
    pub log: LogId,
    /// How many entries it has.
    pub entries: u64,
    /// How many of them are under its newest checkpoint.
    pub covered: u64,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The logs.
    pub logs: Vec<LogFound>,
    /// How many checkpoints were compared with the final trees.
    pub checkpoints: usize,
    /// Acknowledged, and not there: values, and erasures.
    pub lost: Vec<String>,
    /// Answered, and not on record.
    pub unlogged: Vec<String>,
    /// A log with a gap, an entry that is there twice, or a checkpoint of another tree.
    pub forked: Vec<String>,
}

impl Found {
    /// Whether nothing is wrong.
    pub fn is_fine(&self) -> bool {
        self.lost.is_empty() && self.unlogged.is_empty() && self.forked.is_empty()
    }

    /// What is wrong, in short.
    pub fn faults(&self) -> String {
        let kinds = [("lost", &self.lost), ("unlogged", &self.unlogged), ("forked", &self.forked)];
        let kinds = kinds.map(|(kind, faults)| {
            let some: Vec<_> = faults.iter().take(5).collect();
            format!("{kind}: {} {some:?}", faults.len())
        });
        kinds.join("; ")
    }

    /// How many entries all logs have.
    pub fn entries(&self) -> u64 {
        self.logs.iter().map(|log| log.entries).sum()
    }
}

/// Asks for every token again.
///
/// # Panics
/// If the vault does not answer.
pub async fn values(client: &Client, told: &Told, found: &mut Found) {
    for known in told.tokens.chunks(AT_ONCE) {
        let tokens: Vec<_> = known.iter().map(|known| known.token.clone()).collect();
        let answers = client.detokenize(&tokens, Purpose::Treatment, &DetokenizeOptions::default()).await;
        for (known, answer) in known.iter().zip(answers.unwrap()) {
            let told = match &answer {
                // Exposed: to be compared with the synthetic value that was given.
                Ok(value) if value.expose() == known.value => "its value",
                Ok(_) => "another value",
                Err(error) if error.reason() == Reason::Erased => "erased",
                Err(error) => error.reason().as_str(),
            };
            let is_fine = match known.state {
                State::Kept => told == "its value",
                State::Unsure => told == "its value" || told == "erased",
                State::Erased => told == "erased",
            };
            if !is_fine {
                found.lost.push(format!("{} ({:?}): {told}", known.token, known.state));
            }
        }
    }
}

/// Reads every log to its end; `verifier` is that of log 0. Each is one sequence and one tree, which every checkpoint that was ever seen is of, and
/// has an entry for every answer.
///
/// # Panics
/// If the store does not answer.
pub async fn logs(
    store: &dyn Store,
    verifier: &Verifier,
    seen: &BTreeSet<(LogId, String)>,
    told: &Told,
    found: &mut Found,
) {
    let mut on_record: HashMap<([u8; 16], Action), u64> = HashMap::new();
    let mut leaves = HashSet::new();
    for log in store.logs().await.unwrap() {
        let newest = store.derived(log).await.unwrap().checkpoint;
        let covered = newest.as_ref().map_or(0, |(size, _)| *size);
        let notes = seen.iter().filter(|(of, _)| *of == log).map(|(_, note)| note.clone());
        let notes = notes.chain(newest.map(|(_, note)| note));
        let checkpoints = checkpoints(log, notes, &verifier_of(verifier, log), found);
        let size = store.log_size(log).await.unwrap();
        let mut tree = Frontier::new();
        compare(log, &tree, &checkpoints, found);
        while tree.size() < size {
            let entries = match store.entries(log, tree.size(), 1000, 4 << 20).await {
                Ok(entries) => entries,
                Err(error) => {
                    found.forked.push(format!("log {log} at {}: {error}", tree.size()));
                    break;
                }
            };
            for bytes in entries {
                let leaf = Hash::leaf(&bytes);
                if !leaves.insert(leaf.0) {
                    found.forked.push(format!("log {log}: entry {} is there twice", tree.size()));
                }
                tree.push(leaf);
                compare(log, &tree, &checkpoints, found);
                count(&bytes, &mut on_record);
            }
        }
        for size in checkpoints.range(tree.size() + 1..) {
            found
                .forked
                .push(format!("log {log}: a checkpoint of {} entries, of which some are gone", size.0));
        }
        found.checkpoints += checkpoints.len();
        found.logs.push(LogFound { log, entries: tree.size(), covered });
    }
    for known in &told.tokens {
        missing(known, &on_record, found);
    }
}

/// All logs are signed with one key. The origin of log 0 is the vault's, that of another has its number at the end.
fn verifier_of(vault: &Verifier, log: LogId) -> Verifier {
    if log.0 == 0 { vault.clone() } else { vault.named(&format!("{}/{log}", vault.name())).unwrap() }
}

/// Roots by size. Two roots of one size are a fork.
fn checkpoints(
    log: LogId,
    notes: impl Iterator<Item = String>,
    verifier: &Verifier,
    found: &mut Found,
) -> BTreeMap<u64, Hash> {
    let mut roots = BTreeMap::new();
    for note in notes {
        let checkpoint = match Checkpoint::open_strict(&note, verifier) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                found.forked.push(format!("log {log}: {error}"));
                continue;
            }
        };
        if roots.insert(checkpoint.size, checkpoint.root).is_some_and(|root| root != checkpoint.root) {
            found.forked.push(format!("log {log}: two checkpoints of {} entries", checkpoint.size));
        }
    }
    roots
}

fn compare(log: LogId, tree: &Frontier, checkpoints: &BTreeMap<u64, Hash>, found: &mut Found) {
    if checkpoints.get(&tree.size()).is_some_and(|root| *root != tree.root()) {
        found.forked.push(format!("log {log}: a checkpoint of {} entries is of another tree", tree.size()));
    }
}

/// Adds what an entry says was done.
fn count(bytes: &[u8], on_record: &mut HashMap<([u8; 16], Action), u64>) {
    let entry = AuditEntry::decode(bytes).unwrap();
    for item in entry.items.iter().filter(|item| item.outcome() == Outcome::Ok) {
        if let Ok(token) = <[u8; 16]>::try_from(&item.token[..]) {
            *on_record.entry((token, entry.action())).or_default() += 1;
        }
    }
}

/// What was answered about a token must be on record at least as often.
fn missing(known: &Known, on_record: &HashMap<([u8; 16], Action), u64>, found: &mut Found) {
    let token = *token::Token::parse_any(known.token.as_str()).unwrap().0.as_bytes();
    let erased = u64::from(known.state == State::Erased);
    for (action, answered) in [
        (Action::Tokenize, 1),
        (Action::Detokenize, known.opened),
        (Action::Mask, known.masked),
        (Action::Erase, erased),
    ] {
        let entries = on_record.get(&(token, action)).copied().unwrap_or(0);
        if entries < answered {
            found.unlogged.push(format!("{} {action:?}: {answered} answers, {entries} entries", known.token));
        }
    }
}
