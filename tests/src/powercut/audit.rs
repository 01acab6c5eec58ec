//! What a store must still hold.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use vault_server::domain::Token;
use vault_server::store::{Lookup, Store, StoreError, TileId};

use super::Subject;
use super::workload::{Acknowledged, KEY, TILES, entry, record, tile, token_of};

/// What was found after a cut.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Findings {
    /// Acknowledged changes whose record or entry is not there as it was.
    pub(super) lost: usize,
    /// Whether a change is there in part: an entry without its record, a record without its index row, or a part
    /// of a tile.
    pub(super) torn: bool,
    /// Why the store does not open or read, if it does not. Then all is lost.
    pub(super) unreadable: Option<String>,
}

/// Opens the store in `dir` and compares it with what was acknowledged.
pub(super) async fn check(subject: Subject, dir: &Path, acknowledged: &[Acknowledged]) -> Findings {
    // Engines may panic on files that they do not understand.
    let (dir, acks) = (dir.to_owned(), acknowledged.to_vec());
    let checked = tokio::spawn(async move {
        let store = tokio::task::spawn_blocking(move || subject.open(&dir)).await??;
        let findings = compare(&store, &acks).await?;
        store.close().await?;
        anyhow::Ok(findings)
    });
    let unreadable = match checked.await {
        Ok(Ok(findings)) => return findings,
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => panic.to_string(),
    };
    Findings { lost: acknowledged.len(), torn: false, unreadable: Some(unreadable) }
}

async fn compare(store: &Arc<dyn Store>, acknowledged: &[Acknowledged]) -> Result<Findings> {
    let entries = log(store).await?;
    let mut lost = 0;
    for page in acknowledged.chunks(1024) {
        let tokens: Vec<_> = page.iter().map(|acknowledged| acknowledged.token).collect();
        for (acknowledged, found) in page.iter().zip(store.records(&tokens).await?) {
            let logged = usize::try_from(acknowledged.sequence).ok().and_then(|at| entries.get(at));
            let whole = found == Lookup::Found(Box::new(record(acknowledged.token)))
                && logged == Some(&entry(acknowledged.token));
            lost += usize::from(!whole);
        }
    }
    // Acknowledged or not: a change is there with all its parts.
    let mut logged: Vec<_> = entries.iter().map(token_of).collect();
    logged.sort();
    let mut indexed: Vec<_> = indexed(store).await?.into_iter().map(Some).collect();
    indexed.sort();
    let stats = store.stats().await?;
    let torn = logged != indexed || stats.records != entries.len() as u64 || torn_tile(store).await?;
    Ok(Findings { lost, torn, unreadable: None })
}

/// Whether a tile is not as it was written at some time.
async fn torn_tile(store: &Arc<dyn Store>) -> Result<bool, StoreError> {
    for index in 0..TILES {
        if let Some(found) = store.tile(store.log(), TileId { level: 0, index }).await?
            && found.first().is_none_or(|byte| found != tile(*byte))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn log(store: &Arc<dyn Store>) -> Result<Vec<Bytes>, StoreError> {
    let mut entries = Vec::new();
    loop {
        let page = store.entries(store.log(), entries.len() as u64, 4096, 4 << 20).await?;
        if page.is_empty() {
            return Ok(entries);
        }
        entries.extend(page);
    }
}

/// The tokens that the index by data key has, each with its record.
async fn indexed(store: &Arc<dyn Store>) -> Result<Vec<Token>, StoreError> {
    let (mut tokens, mut after) = (Vec::new(), None);
    loop {
        let page = store.tokens_of_key(KEY, after, 4096).await?;
        let found = store.records(&page.items).await?;
        let whole = page.items.iter().zip(found).filter(|(_, found)| matches!(found, Lookup::Found(_)));
        let before = tokens.len();
        tokens.extend(whole.map(|(token, _)| *token));
        after = page.next.clone();
        // A row that can't be read, or one without its record: the lists will differ.
        if tokens.len() - before < page.len() || after.is_none() {
            return Ok(tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use vault_server::store::Derived;

    use super::*;
    use crate::powercut::workload::{Entries, commit_one};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_change_is_counted_and_a_whole_store_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Subject::Fjall.open(dir.path()).unwrap();
        let kept = commit_one(&store, Entries::Any).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(check(Subject::Fjall, dir.path(), &[kept]).await, Findings::default());
        let never_written = Acknowledged { token: Token::from_bytes([9; 16]), sequence: 0 };
        let wrong_place = Acknowledged { sequence: 1, ..kept };
        let findings = check(Subject::Fjall, dir.path(), &[kept, never_written, wrong_place]).await;
        assert_eq!(findings, Findings { lost: 2, ..Findings::default() });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tile_of_two_writes_is_torn_and_one_of_one_write_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let two = [&tile(1)[..4096], &tile(2)[..4096]].concat();
        for (bytes, torn) in [(tile(1), false), (two.into(), true)] {
            let store = Subject::Sled.open(dir.path()).unwrap();
            let tiles = vec![(TileId { level: 0, index: 1 }, bytes)];
            store
                .derive(Derived { from: 0, upto: 0, tiles, postings: vec![], checkpoint: None })
                .await
                .unwrap();
            store.close().await.unwrap();
            let findings = check(Subject::Sled, dir.path(), &[]).await;
            assert_eq!(findings, Findings { torn, ..Findings::default() });
        }
    }

    #[test]
    fn an_acknowledgement_comes_through_the_pipe_as_it_was() {
        let acknowledged = Acknowledged { token: Token::from_bytes([3; 16]), sequence: 1 << 40 };
        assert_eq!(Acknowledged::from_bytes(acknowledged.to_bytes()), acknowledged);
    }
}
