use vault_format::checkpoint::Checkpoint;
use vault_format::history;
use vault_format::tree::Hash;

use super::*;
use crate::audit::KeyJournal;
use crate::audit::testing::{StoppedClock, identity};
use crate::domain::KeyVersion;
use crate::keyring::CacheOptions;
use crate::kms::WrappingKeys;
use crate::kms::testing::TestKms;
use crate::store::memory::MemoryStore;
use crate::store::{Change, Store as _, Write};

const OVERLAP: Duration = Duration::from_hours(1);

struct Bench {
    store: MemoryStore,
    keyring: Arc<Keyring>,
    vault: String,
}

impl Bench {
    fn new() -> Self {
        let store = MemoryStore::new();
        let clock: Arc<dyn Clock> = Arc::new(StoppedClock);
        let keyring = Arc::new(Keyring::new(
            identity(),
            Arc::new(store.clone()),
            WrappingKeys::new(vec![TestKms::new("east")]),
            Arc::new(KeyJournal::new(Arc::clone(&clock))),
            clock,
            CacheOptions { lifetime: Duration::from_mins(1), max_uses: u64::MAX, max_entries: 100 },
        ));
        Self { store, keyring, vault: origin(&identity(), LogId::default()) }
    }

    /// Of an instance that has just started.
    async fn keys(&self) -> Result<Arc<SigningKeys>, SigningError> {
        let clock = Arc::new(StoppedClock);
        VaultSigning::new(Arc::clone(&self.keyring), &identity(), clock, OVERLAP).now().await
    }

    async fn versions(&self) -> Vec<KeyRecord> {
        self.keyring.list(None, KeyPurpose::LogSigning).await.unwrap()
    }

    async fn signer(&self, key: &KeyRecord) -> Signer {
        Signer::from_seed(&self.vault, self.keyring.signing_seed(key).await.unwrap().expose()).unwrap()
    }

    /// As the vault does it; `by`: who signs for the old key.
    async fn rotate(&self, by: Option<&Signer>) {
        let active = self.versions().await.remove(0);
        let old = self.signer(&active).await;
        let version = active.version.0 + 1;
        let (mut new, seed) = self.keyring.new_signing_version(KeyVersion(version)).await.unwrap();
        let signer = Signer::from_seed(&self.vault, seed.expose()).unwrap();
        new.statements = history::succession(version, by.unwrap_or(&old), &signer).unwrap();
        let retired = KeyRecord { state: KeyState::Retired, revision: active.revision + 1, ..active };
        self.write(vec![Write::InsertKey(new), Write::ReplaceKey(retired)]).await;
    }

    async fn mark(&self, key: KeyRecord, of: &Verifier) {
        let by = self.signer(&self.versions().await[0]).await;
        let statements = key.statements.clone() + &history::compromised(key.version.0, of, &by).unwrap();
        let (state, revision) = (KeyState::Compromised, key.revision + 1);
        self.write(vec![Write::ReplaceKey(KeyRecord { state, revision, statements, ..key })]).await;
    }

    async fn write(&self, writes: Vec<Write>) {
        self.store.commit(Change { writes, entries: Vec::new() }).await.unwrap();
    }

    /// A checkpoint that these keys sign, and how many signatures it has.
    fn signed(&self, keys: &SigningKeys) -> (String, usize) {
        let checkpoint = Checkpoint { origin: self.vault.clone(), size: 3, root: Hash::leaf(b"x") };
        let signed = keys.sign(&self.vault, &checkpoint.text()).unwrap();
        let signatures = signed.lines().filter(|line| line.starts_with('\u{2014}')).count();
        (signed, signatures)
    }
}

#[tokio::test]
async fn who_knows_only_the_old_key_verifies_through_the_overlap_and_learns_the_new_one() {
    let bench = Bench::new();
    let first = bench.keys().await.unwrap().newest().clone();
    bench.rotate(None).await;
    let keys = bench.keys().await.unwrap();
    let (signed, signatures) = bench.signed(&keys);
    assert_eq!(signatures, 2);
    // With a tool that knows of no statements, and with the newest key.
    assert!(Checkpoint::open(&signed, &first).is_ok());
    assert!(Checkpoint::open(&signed, keys.newest()).is_ok());
    let statements: String = bench.versions().await.iter().rev().map(|key| key.statements.as_str()).collect();
    let history = History::read(&statements, &first).unwrap();
    assert_eq!(history.newest(), keys.newest());
    assert_ne!(&first, keys.newest());
    assert!(Checkpoint::open_strict(&signed, history.of_log(&bench.vault).unwrap()).is_ok());
    // The one before the last does not sign any more.
    bench.rotate(None).await;
    let (signed, signatures) = bench.signed(&bench.keys().await.unwrap());
    assert_eq!(signatures, 2);
    assert!(Checkpoint::open(&signed, &first).is_err());
}

#[tokio::test]
async fn after_the_overlap_and_after_a_mark_the_new_key_signs_alone() {
    let bench = Bench::new();
    let first = bench.keys().await.unwrap().newest().clone();
    bench.rotate(None).await;
    let over =
        VaultSigning::new(Arc::clone(&bench.keyring), &identity(), Arc::new(StoppedClock), Duration::ZERO);
    assert_eq!(bench.signed(&over.now().await.unwrap()).1, 1);
    let before = bench.signed(&bench.keys().await.unwrap()).0;
    assert!(Checkpoint::open(&before, &first).is_ok());
    bench.mark(bench.versions().await.remove(1), &first).await;
    let keys = bench.keys().await.unwrap();
    assert_eq!(bench.signed(&keys).1, 1);
    let only_old = Checkpoint { origin: bench.vault.clone(), size: 3, root: Hash::leaf(b"x") };
    let forged = only_old.sign(&Signer::from_seed(&bench.vault, &[9; 32]).unwrap()).unwrap();
    assert!(Checkpoint::open(&forged, keys.verifiers(&bench.vault).unwrap()).is_err());
    assert!(Checkpoint::open(&before, keys.verifiers(&bench.vault).unwrap()).is_ok());
}

#[tokio::test]
async fn a_stored_succession_that_the_old_key_has_not_signed_leads_nobody_from_it() {
    let bench = Bench::new();
    let first = bench.keys().await.unwrap().newest().clone();
    bench.rotate(Some(&Signer::from_seed(&bench.vault, &[9; 32]).unwrap())).await;
    let statements: String = bench.versions().await.iter().rev().map(|key| key.statements.as_str()).collect();
    assert_eq!(History::read(&statements, &first), Err(HistoryError::Untrusted));
}

#[tokio::test]
async fn a_rotation_is_heard_of_within_the_bound() {
    let bench = Bench::new();
    let signing = VaultSigning::new(Arc::clone(&bench.keyring), &identity(), Arc::new(StoppedClock), OVERLAP);
    let first = signing.now().await.unwrap();
    bench.rotate(None).await;
    tokio::time::sleep(FRESH).await;
    assert_ne!(signing.now().await.unwrap().newest(), first.newest());
}
