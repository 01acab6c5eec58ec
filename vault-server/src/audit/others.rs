//! Checkpoints of logs that other instances write. They sign them, or who takes the log of one that crashed
//! ([`Adopter`](super::Adopter)); here they are waited for.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use vault_format::checkpoint::Checkpoint;

use super::follower::FreshError;
use crate::store::{LogId, Store, StoreError};

/// How often the store is asked.
const LOOK: Duration = Duration::from_millis(50);

/// The newest checkpoint of another instance's log; with `fresh`, one that covers every entry written before the
/// call.
pub async fn checkpoint_of_other(
    store: &dyn Store,
    log: LogId,
    fresh: bool,
    within: Duration,
) -> Result<String, FreshError> {
    let signed = async {
        let size = if fresh { store.log_size(log).await? } else { 0 };
        loop {
            match store.derived(log).await?.checkpoint {
                // What stands beside it is the database's word alone; whether it is signed, who gets it looks.
                Some((covered, text)) if covered >= size && says(&text) == Some(covered) => {
                    return Ok::<_, StoreError>(text);
                }
                _ => sleep(LOOK).await,
            }
        }
    };
    timeout(within, signed).await.map_err(|_| FreshError::Timeout)?.map_err(FreshError::Store)
}

/// How many entries a checkpoint says that it covers.
fn says(text: &str) -> Option<u64> {
    let end = text.find("\n\n")?;
    Some(Checkpoint::parse(&text[..=end]).ok()?.size)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vault_format::tree::Hash;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Change, Derived};

    const OTHER: LogId = LogId(4);
    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(100);

    async fn write(store: &MemoryStore) {
        let change = Change { writes: Vec::new(), entries: vec![Bytes::from_static(b"entry")] };
        store.commit(change).await.unwrap();
    }

    fn signed(size: u64) -> String {
        let text = Checkpoint { origin: "log".to_owned(), size, root: Hash::empty() }.text();
        format!("{text}\n\u{2014} log signature\n")
    }

    async fn sign(store: &MemoryStore, upto: u64) {
        let checkpoint = Some((upto, signed(upto)));
        store
            .derive(Derived { from: 0, upto, tiles: Vec::new(), postings: Vec::new(), checkpoint })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_fresh_one_covers_what_the_other_instance_wrote_before_the_call() {
        let store = MemoryStore::new();
        let other = store.instance(OTHER);
        write(&other).await;
        sign(&other, 1).await;
        write(&other).await;
        let fresh = checkpoint_of_other(&store, OTHER, true, SHORT).await;
        assert_eq!(fresh, Err(FreshError::Timeout));
        assert_eq!(checkpoint_of_other(&store, OTHER, false, SHORT).await, Ok(signed(1)));
        let (fresh, ()) = tokio::join!(checkpoint_of_other(&store, OTHER, true, LONG), async {
            sleep(SHORT).await;
            // What is written after the call is not waited for.
            write(&other).await;
            sign(&other, 2).await;
        });
        assert_eq!(fresh, Ok(signed(2)));
    }

    #[tokio::test]
    async fn an_instance_that_has_not_signed_yet_is_waited_for() {
        let store = MemoryStore::new();
        let other = store.instance(OTHER);
        let (newest, ()) = tokio::join!(checkpoint_of_other(&store, OTHER, false, LONG), async {
            sleep(SHORT).await;
            sign(&other, 0).await;
        });
        assert_eq!(newest, Ok(signed(0)));
    }

    #[tokio::test]
    async fn an_older_one_that_is_said_to_cover_more_is_not_taken_for_a_fresh_one() {
        let store = MemoryStore::new();
        let other = store.instance(OTHER);
        write(&other).await;
        let checkpoint = Some((1, signed(0)));
        let forged = Derived { from: 0, upto: 1, tiles: Vec::new(), postings: Vec::new(), checkpoint };
        other.derive(forged).await.unwrap();
        for fresh in [true, false] {
            assert_eq!(checkpoint_of_other(&store, OTHER, fresh, SHORT).await, Err(FreshError::Timeout));
        }
    }
}
