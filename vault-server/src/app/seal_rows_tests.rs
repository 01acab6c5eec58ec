//! A vault of before is sealed once, wherever it is interrupted; one whose key was removed is not.

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::access::write_principal;
use crate::app::rows::tests::{Bench, identity, principal, put};
use crate::domain::{EntityKind, EntityName, EntityPlace, EntityScope};
use crate::store::memory::MemoryStore;
use crate::store::{Derived, DerivedState, LogId, Unsealed};

const DAY: Duration = Duration::from_hours(24);

type Told = Arc<Mutex<Vec<String>>>;

const TO_BE_SEALED: &str = "to be sealed, and the vault's own from then on:";
const NOW: &str = "principals that are the vault's own now:";

/// The lines that were said under a heading.
fn under(told: &Told, heading: &str) -> Vec<String> {
    let told = told.lock();
    let lines = told.iter().skip_while(|line| *line != heading).skip(1);
    lines
        .take_while(|line| line.starts_with("  ") || heading == TO_BE_SEALED && !line.starts_with("sealed:"))
        .cloned()
        .collect()
}

impl Bench {
    fn work(&self) -> Work {
        self.telling(&Arc::default())
    }

    /// As [`Bench::work`]; what it says is kept.
    fn telling(&self, told: &Told) -> Work {
        let told = Arc::clone(told);
        Work {
            say: Box::new(move |line| told.lock().push(line.to_owned())),
            identity: identity(),
            // Another process each time, that knows of no seals yet.
            store: Arc::new(self.store.instance(LogId::default())),
            keyring: self.keyring(&self.store),
            overlap: DAY,
            unsealed: Unsealed::Refuse,
            clock: Arc::new(SystemClock),
        }
    }

    /// Signs what is in log 0 so far, as a vault does that is served.
    async fn sign(&self) {
        self.work().sign().await.unwrap();
        let size = self.store.log_size(LogId(0)).await.unwrap();
        assert_eq!(self.store.derived(LogId(0)).await.unwrap().upto, size);
    }

    /// A vault that was served by software that knows no seals, with so many rows.
    async fn old(rows: u8) -> Self {
        let bench = Self::new();
        bench
            .work()
            .log()
            .record(Draft::of_vault(RequestId::from_bytes([1; 16]), AuditAction::Start), Vec::new())
            .await
            .unwrap();
        put(&bench.store, write_principal(&principal("ann"))).await;
        for number in 0..rows {
            put(&bench.store, session(number)).await;
        }
        bench.sign().await;
        bench
    }

    /// The same rows and log, but what a database's administrator left out.
    async fn without(&self, key: bool, entities: bool) -> Self {
        let log = self.store.entries(LogId(0), 0, 1000, usize::MAX).await.unwrap();
        self.with_log(key, entities, log, self.store.derived(LogId(0)).await.unwrap()).await
    }

    /// As [`Bench::without`], with another log.
    async fn with_log(&self, key: bool, entities: bool, entries: Vec<Bytes>, state: DerivedState) -> Self {
        let bench = Self { store: MemoryStore::new(), kms: Arc::clone(&self.kms) };
        let mut writes = Vec::new();
        for record in self.store.scan_keys(None, 100).await.unwrap() {
            if !key || record.purpose != KeyPurpose::RowMac {
                writes.push(Write::InsertKey(record));
            }
        }
        for kind in EntityKind::ALL.iter().filter(|_| !entities) {
            let rows = self.store.entities(&EntityScope::Kind(*kind), None, 1000).await.unwrap();
            writes.extend(rows.into_iter().map(|row| Write::PutEntity(Entity { revision: 0, ..row })));
        }
        bench.store.commit(Change { writes, entries }).await.unwrap();
        let derived = Derived {
            from: 0,
            upto: state.upto,
            tiles: Vec::new(),
            postings: Vec::new(),
            checkpoint: state.checkpoint,
        };
        bench.store.derive(derived).await.unwrap();
        bench
    }

    async fn is_served(&self) -> Result<Arc<dyn Store>, String> {
        self.start(0).await.map_err(|error| error.to_string())
    }

    async fn run(&self) -> Result<(), String> {
        self.work().run(false).await.map_err(|error| format!("{error:#}"))
    }

    /// The state and the number of principals in each entry of this command.
    async fn entries(&self) -> Vec<(String, String)> {
        use prost::Message as _;
        let entries = self.store.entries(LogId(0), 0, 1000, usize::MAX).await.unwrap();
        let entries = entries.into_iter().map(|entry| vault_proto::v1::AuditEntry::decode(entry).unwrap());
        let own = entries.filter(|entry| entry.action() == AuditAction::RowsSealed);
        own.map(|entry| {
            let detail = |name: &str| entry.details.get(name).cloned().unwrap_or_default();
            (detail("state"), detail("principal"))
        })
        .collect()
    }
}

fn session(number: u8) -> Entity {
    let name = EntityName::new(&[number; 32]).unwrap();
    let place = EntityPlace { kind: EntityKind::Session, tenant: None, name };
    Entity { place, revision: 0, content: vec![1, number] }
}

fn begun_and_done() -> Vec<(String, String)> {
    vec![("begun".to_owned(), String::new()), ("done".to_owned(), "1".to_owned())]
}

#[tokio::test]
async fn an_old_vault_is_refused_sealed_and_served() {
    let bench = Bench::old(200).await;
    let refused = bench.is_served().await.err().unwrap();
    assert!(refused.contains("vault-server seal-rows"), "{refused}");
    let before = bench.store.log_size(LogId(0)).await;
    bench.work().run(true).await.unwrap();
    assert_eq!(bench.store.log_size(LogId(0)).await, before, "a dry run writes nothing");
    bench.run().await.unwrap();
    assert_eq!(bench.entries().await, begun_and_done());
    let served = bench.is_served().await.unwrap();
    for number in 0..200 {
        assert_eq!(
            served.entity(&session(number).place).await,
            Ok(Some(Entity { revision: 1, ..session(number) }))
        );
    }
    assert!(served.entity(&write_principal(&principal("ann")).place).await.unwrap().is_some());
    // Once more it says how they are, and writes nothing.
    let before = bench.store.log_size(LogId(0)).await;
    bench.run().await.unwrap();
    assert_eq!(bench.store.log_size(LogId(0)).await, before);
}

#[tokio::test]
async fn it_goes_on_where_it_was_interrupted() {
    let bench = Bench::old(200).await;
    // It begins, and ends before a row is sealed; then with some.
    let key = bench.work().begin().await.unwrap();
    let refused = bench.is_served().await.err().unwrap();
    assert!(refused.contains("half sealed"), "{refused}");
    for number in 0..50 {
        let content = key.seal(&session(number).place, &session(number).content);
        put(&bench.store, Entity { revision: 1, content, ..session(number) }).await;
    }
    bench.sign().await;
    bench.run().await.unwrap();
    assert_eq!(bench.entries().await, begun_and_done());
    let served = bench.is_served().await.unwrap();
    for number in 0..200 {
        assert_eq!(
            served.entity(&session(number).place).await.unwrap().unwrap().content,
            session(number).content
        );
    }
}

#[tokio::test]
async fn a_row_with_a_seal_of_somebody_else_ends_it() {
    let bench = Bench::old(3).await;
    let (_, other) = Bench::new().keyring(&MemoryStore::new()).new_row_key().await.unwrap();
    let content = other.seal(&session(1).place, &session(1).content);
    put(&bench.store, Entity { revision: 1, content, ..session(1) }).await;
    let refused = bench.run().await.unwrap_err();
    assert!(refused.contains("session") && refused.contains(&"01".repeat(32)), "{refused}");
    assert!(bench.is_served().await.is_err());
}

#[tokio::test]
async fn rows_are_not_sealed_a_second_time() {
    let bench = Bench::old(3).await;
    bench.run().await.unwrap();
    put(&bench.store, write_principal(&principal("eve"))).await;
    let refused = bench.run().await.unwrap_err();
    assert!(refused.contains("1 rows are not the vault's"), "{refused}");
    let served = bench.is_served().await.unwrap();
    assert!(served.entity(&write_principal(&principal("eve")).place).await.is_err());
}

#[tokio::test]
async fn a_marker_that_was_put_back_does_not_begin_it_again() {
    let bench = Bench::old(3).await;
    bench.work().begin().await.unwrap();
    let marker = bench.store.entity(&rows::marker_place()).await.unwrap().unwrap();
    bench.run().await.unwrap();
    put(&bench.store, marker).await;
    put(&bench.store, write_principal(&principal("eve"))).await;
    assert!(bench.is_served().await.is_err());
    let refused = bench.run().await.unwrap_err();
    assert!(refused.contains("put back"), "{refused}");
}

#[tokio::test]
async fn a_marker_that_the_vault_did_not_write_begins_nothing() {
    let bench = Bench::new();
    bench.is_served().await.unwrap();
    put(&bench.store, rows::marker()).await;
    put(&bench.store, write_principal(&principal("eve"))).await;
    assert!(bench.is_served().await.is_err());
    assert!(bench.run().await.is_err());
}

#[tokio::test]
async fn a_vault_whose_key_was_removed_is_neither_served_nor_sealed_anew() {
    let sealed = Bench::old(3).await;
    sealed.run().await.unwrap();
    let new = Bench::new();
    new.is_served().await.unwrap();
    let half = Bench::old(3).await;
    half.work().begin().await.unwrap();
    for bench in [sealed, new, half] {
        bench.sign().await;
        for entities in [false, true] {
            let altered = bench.without(true, entities).await;
            put(&altered.store, write_principal(&principal("eve"))).await;
            let refused = altered.is_served().await.err().unwrap();
            assert!(refused.contains("no key"), "{refused}");
            let refused = altered.run().await.unwrap_err();
            assert!(refused.contains("it was removed"), "{refused}");
            assert!(altered.store.keys(None, KeyPurpose::RowMac).await.unwrap().is_empty());
        }
        // With its key it is as it was.
        assert_eq!(
            bench.without(false, false).await.is_served().await.is_ok(),
            bench.is_served().await.is_ok()
        );
    }
}

#[tokio::test]
async fn a_log_that_was_altered_is_not_believed() {
    let bench = Bench::old(3).await;
    bench.run().await.unwrap();
    bench.sign().await;
    let whole = bench.store.entries(LogId(0), 0, 100, usize::MAX).await.unwrap();
    let signed = bench.store.derived(LogId(0)).await.unwrap();
    // Without the entries that tell of the key: cut, or with others in their place.
    for entries in [whole[..1].to_vec(), whole.iter().map(|_| whole[0].clone()).collect()] {
        let forged = bench.with_log(true, true, entries, signed.clone()).await;
        put(&forged.store, write_principal(&principal("eve"))).await;
        let refused = forged.run().await.unwrap_err();
        assert!(refused.contains("not what was signed"), "{refused}");
    }
}

#[tokio::test]
async fn a_log_without_its_checkpoint_is_not_believed() {
    let bench = Bench::old(3).await;
    let before = bench.store.entries(LogId(0), 0, 100, usize::MAX).await.unwrap();
    bench.run().await.unwrap();
    let (_, text) = bench.store.derived(LogId(0)).await.unwrap().checkpoint.unwrap();
    let size = bench.store.log_size(LogId(0)).await.unwrap();
    let cases = [
        (0, None, "restore the backup of before"),
        // What the follower refuses, too.
        (1, None, "the index covers 1 entries"),
        (1, Some((size, text.clone())), "the index covers 1 entries"),
        (1, Some((1, text)), "the index covers 1 entries"),
    ];
    for (upto, checkpoint, why) in cases {
        let state = DerivedState { upto, checkpoint };
        let forged = bench.with_log(true, true, before.clone(), state).await;
        put(&forged.store, write_principal(&principal("eve"))).await;
        let refused = forged.run().await.unwrap_err();
        assert!(refused.contains(why), "{refused}");
        assert!(forged.store.keys(None, KeyPurpose::RowMac).await.unwrap().is_empty());
    }
    // The log of another instance is read like its own.
    let bench = Bench::old(3).await;
    let other = bench.store.instance(LogId(1));
    other.commit(Change { writes: Vec::new(), entries: before }).await.unwrap();
    let refused = bench.run().await.unwrap_err();
    assert!(refused.contains("log 1 has 2 entries and no checkpoint"), "{refused}");
}

#[tokio::test]
async fn it_goes_on_though_its_log_has_nothing_but_its_own_entries() {
    let bench = Bench::old(3).await;
    let log = bench.store.instance(LogId(1));
    let work = Work { store: Arc::new(log.clone()), ..bench.work() };
    let (_, other) = Bench::new().keyring(&MemoryStore::new()).new_row_key().await.unwrap();
    let place = session(9).place;
    put(&log, Entity { content: other.seal(&place, b"forged"), ..session(9) }).await;
    work.run(false).await.unwrap_err();
    assert_eq!(log.log_size(LogId(1)).await, Ok(2));
    let gone = Write::DropEntity { place, revision: 0 };
    log.commit(Change { writes: vec![gone], entries: Vec::new() }).await.unwrap();
    work.run(false).await.unwrap();
    assert!(bench.is_served().await.is_ok());
}

#[tokio::test]
async fn what_it_did_is_signed_when_it_ends() {
    let bench = Bench::old(3).await;
    bench.work().begin().await.unwrap();
    let marker = bench.store.entity(&rows::marker_place()).await.unwrap().unwrap();
    bench.run().await.unwrap();
    let mut log = bench.store.entries(LogId(0), 0, 100, usize::MAX).await.unwrap();
    let state = bench.store.derived(LogId(0)).await.unwrap();
    assert_eq!(state.upto, log.len() as u64);
    // Who kept the marker takes back the entry that says that it is done, and has a row of his own.
    log.pop();
    let forged = bench.with_log(false, false, log, state).await;
    put(&forged.store, marker).await;
    put(&forged.store, write_principal(&principal("eve"))).await;
    let refused = forged.run().await.unwrap_err();
    assert!(refused.contains("not what was signed"), "{refused}");
}

#[tokio::test]
async fn what_it_seals_when_it_goes_on_is_shown_before() {
    let bench = Bench::old(3).await;
    let key = bench.work().begin().await.unwrap();
    let ann = write_principal(&principal("ann"));
    put(&bench.store, Entity { revision: 1, content: key.seal(&ann.place, &ann.content), ..ann }).await;
    put(&bench.store, write_principal(&principal("eve"))).await;
    let unreadable = write_principal(&principal("mallory")).place;
    put(&bench.store, Entity { place: unreadable, revision: 0, content: vec![9] }).await;
    let told = Told::default();
    bench.telling(&told).run(true).await.unwrap();
    let shown = under(&told, TO_BE_SEALED);
    assert!(
        shown.contains(&"  eve: *:admin".to_owned()) && shown.contains(&"session 3".to_owned()),
        "{shown:?}"
    );
    assert!(shown.iter().any(|line| line.ends_with("is not what was written")), "{shown:?}");
    assert!(!shown.iter().any(|line| line.contains("ann")), "{shown:?}");
    let told = Told::default();
    bench.telling(&told).run(false).await.unwrap();
    assert_eq!(under(&told, TO_BE_SEALED), shown);
}

#[tokio::test]
async fn who_was_sealed_unseen_is_told_at_the_end() {
    let bench = Bench::old(3).await;
    let told = Told::default();
    let work = bench.telling(&told);
    work.show().await.unwrap();
    // In between, and in a run that was stopped.
    put(&bench.store, write_principal(&principal("eve"))).await;
    let key = work.begin().await.unwrap();
    let bob = write_principal(&principal("bob"));
    put(&bench.store, Entity { content: key.seal(&bob.place, &bob.content), ..bob }).await;
    work.seal(key).await.unwrap();
    assert!(!told.lock().iter().take_while(|line| *line != NOW).any(|line| line.contains("eve")));
    let mut now = under(&told, NOW);
    now.sort();
    assert_eq!(now, ["  ann: *:admin", "  bob: *:admin", "  eve: *:admin"]);
}

#[tokio::test]
async fn a_vault_that_was_never_served_has_nothing_to_seal() {
    let bench = Bench::new();
    bench.run().await.unwrap();
    assert!(bench.store.keys(None, KeyPurpose::RowMac).await.unwrap().is_empty());
}
