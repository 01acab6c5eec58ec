//! What is written: changes of one record and one log entry, both of which follow from the record's token, so
//! that the token is all that a check needs to know.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use vault_server::domain::{
    BlindIndex, Body, ClassName, KeyId, KeyVersion, Record, Sealed, SubjectRef, TenantId, Timestamp, Token,
};
use vault_server::store::{Change, Derived, Store, TileId, Write};

use super::Subject;

/// An acknowledged change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) token: Token,
    pub(super) sequence: u64,
}

impl Acknowledged {
    /// Length of its bytes in the pipe: less than a pipe writes at once.
    pub(super) const LEN: usize = 24;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(self.token.as_bytes());
        bytes[16..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [token, sequence] = [&bytes[..16], &bytes[8..]].map(|half| half.try_into().expect("16 bytes"));
        Self { token: Token::from_bytes(token), sequence: u128::from_be_bytes(sequence) as u64 }
    }
}

/// The data key that all records are said to be sealed under.
pub(super) const KEY: KeyId = KeyId::from_bytes([7; 16]);

/// The record of a token: a row of about 300 bytes.
pub(super) fn record(token: Token) -> Record {
    let mac = *token.as_bytes();
    Record {
        token,
        tenant: TenantId::parse("st-mary").expect("a good name"),
        class: ClassName::parse("ssn").expect("a good name"),
        subject: Some(SubjectRef { version: KeyVersion(1), mac }),
        index: Some(BlindIndex { version: KeyVersion(1), mac }),
        created: Timestamp(1),
        body: Body::Sealed {
            key_id: KEY,
            key_version: KeyVersion(1),
            bytes: Sealed(token.as_bytes().repeat(12)),
        },
        revision: 0,
    }
}

/// Tokens that begin with a lesser byte have a long entry, of several pages, so that a page can be missing from
/// the middle of a row.
const LONG: u8 = 16;

/// The log entry of a token.
pub(super) fn entry(token: Token) -> Bytes {
    let times = if token.as_bytes()[0] < LONG { 2000 } else { 16 };
    token.as_bytes().repeat(times).into()
}

/// The token of an entry, if it is one of these.
pub(super) fn token_of(entry_bytes: &Bytes) -> Option<Token> {
    let token = Token::from_bytes(*entry_bytes.first_chunk()?);
    (entry(token) == *entry_bytes).then_some(token)
}

/// Which entries there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// Short and long ones, and tiles of the log beside them.
    Any,
    /// Of 256 bytes.
    Short,
}

pub(super) async fn commit_one(store: &Arc<dyn Store>, entries: Entries) -> Result<Acknowledged> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("no randomness")?;
    if entries == Entries::Short {
        bytes[0] |= LONG;
    }
    let token = Token::from_bytes(bytes);
    let change = Change { writes: vec![Write::Insert(record(token))], entries: vec![entry(token)] };
    let sequence = store.commit(change).await?.first_sequence;
    Ok(Acknowledged { token, sequence })
}

/// How many tiles there are; each is replaced again and again.
pub(super) const TILES: u64 = 64;

/// A tile as long as the log's are, of one byte.
pub(super) fn tile(byte: u8) -> Bytes {
    vec![byte; 8192].into()
}

/// Replaces tiles: rows of several pages that nobody waits for, written beside the committer.
async fn derive_tiles(store: &Arc<dyn Store>) -> Result<()> {
    for number in 0.. {
        let id = TileId { level: 0, index: number % TILES };
        let tiles = vec![(id, tile((number / TILES) as u8))];
        store.derive(Derived { from: 0, upto: 0, tiles, postings: vec![], checkpoint: None }).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The child: commits from many tasks and tells what was acknowledged on standard output, until it is killed.
pub async fn write_until_killed(
    subject: Subject,
    dir: &Path,
    writers: usize,
    entries: Entries,
) -> Result<()> {
    let store = subject.open(dir)?;
    let mut tasks = tokio::task::JoinSet::new();
    if entries == Entries::Any {
        let store = Arc::clone(&store);
        tasks.spawn(async move { derive_tiles(&store).await });
    }
    for _ in 0..writers {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            loop {
                let acknowledged = commit_one(&store, entries).await?.to_bytes();
                let mut out = std::io::stdout().lock();
                out.write_all(&acknowledged)?;
                out.flush()?;
            }
        });
    }
    tasks.join_next().await.context("no writers")??
}
