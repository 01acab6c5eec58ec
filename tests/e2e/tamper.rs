//! Whoever can write to the store can change, swap and move records. None of that opens, and all of it is on record.

use tempfile::TempDir;
use tonic::Code;
use vault_proto::v1::{self, Reason, audit_item::Outcome};
use vault_server::domain::{
    BlindIndex, Body, ClassName, Environment, KeyId, KeyVersion, Record, Sealed, SubjectRef, TenantId,
    Timestamp, Token,
};
use vault_server::store::{Change, Lookup, Store, Write};
use vault_tests::site::Site;
use vault_tests::wire::{Wire, item, token};

/// The site of two tenants; their services `service` and `elsewhere`; and a policy that permits everything, so that
/// only the seal is in the way.
fn site(dir: &TempDir) -> Site {
    let site = Site::make(&dir.path().join("vault"));
    site.add_service("elsewhere", "other");
    site.use_policies("@id(\"everything\")\npermit (principal, action, resource);\n");
    site
}

/// The store of a stopped vault.
struct Held(std::sync::Arc<dyn Store>);

impl Held {
    async fn open(site: &Site) -> Self {
        Self(site.open_store().await)
    }

    async fn records(&self, tokens: &[String]) -> Vec<Record> {
        let tokens: Vec<Token> = tokens.iter().map(|token| parse(token)).collect();
        let found = self.0.records(&tokens).await.unwrap();
        let found = found.into_iter().map(|lookup| match lookup {
            Lookup::Found(record) => *record,
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    /// Writes records over those that are there, and lets go.
    async fn replace(self, records: impl IntoIterator<Item = Record>) {
        let writes = records.into_iter().map(|record| {
            let revision = record.revision + 1;
            Write::Replace(Record { revision, ..record })
        });
        self.0.commit(Change { writes: writes.collect(), entries: Vec::new() }).await.unwrap();
        self.0.close().await.unwrap();
    }
}

fn parse(token: &str) -> Token {
    Token::parse(token, &Environment::parse("dev").unwrap()).unwrap()
}

fn sealed(record: &Record) -> &[u8] {
    match &record.body {
        Body::Sealed { bytes, .. } => &bytes.0,
        Body::Erased { .. } => panic!("erased"),
    }
}

fn with_bytes(record: &Record, new: Vec<u8>) -> Record {
    let mut record = record.clone();
    match &mut record.body {
        Body::Sealed { bytes, .. } => *bytes = Sealed(new),
        Body::Erased { .. } => panic!("erased"),
    }
    record
}

fn with_key(record: &Record, key: KeyId) -> Record {
    let mut record = record.clone();
    match &mut record.body {
        Body::Sealed { key_id, .. } => *key_id = key,
        Body::Erased { .. } => panic!("erased"),
    }
    record
}

/// A way to alter a record, given another one of the same tenant and class, and one of another tenant.
type Alteration = Box<dyn Fn(&Record, &Record, &Record) -> Record>;

fn altered(change: impl Fn(&mut Record, &Record) + 'static) -> Alteration {
    Box::new(move |record, other, _| {
        let mut record = record.clone();
        change(&mut record, other);
        record
    })
}

fn alterations() -> Vec<(String, Alteration)> {
    let mut all: Vec<(String, Alteration)> = vec![
        ("another class".to_owned(), altered(|r, _| r.class = ClassName::parse("name").unwrap())),
        ("no subject".to_owned(), altered(|r, _| r.subject = None)),
        ("another record's subject".to_owned(), altered(|r, other| r.subject = other.subject)),
        (
            "an invented subject".to_owned(),
            altered(|r, _| r.subject = Some(SubjectRef { version: KeyVersion(1), mac: [9; 16] })),
        ),
        ("no index".to_owned(), altered(|r, _| r.index = None)),
        ("another record's index".to_owned(), altered(|r, other| r.index = other.index)),
        (
            "an invented index".to_owned(),
            altered(|r, _| r.index = Some(BlindIndex { version: KeyVersion(1), mac: [9; 16] })),
        ),
        ("a later time".to_owned(), altered(|r, _| r.created = Timestamp(r.created.0 + 1))),
        (
            "another record's sealed bytes".to_owned(),
            Box::new(|record, other, _| with_bytes(record, sealed(other).to_vec())),
        ),
        (
            "another tenant's sealed bytes".to_owned(),
            Box::new(|record, _, foreign| with_bytes(record, sealed(foreign).to_vec())),
        ),
        (
            "another tenant's body".to_owned(),
            Box::new(|record, _, foreign| Record { body: foreign.body.clone(), ..record.clone() }),
        ),
        ("an invented key".to_owned(), Box::new(|record, _, _| with_key(record, KeyId::from_bytes([9; 16])))),
        (
            "another tenant's key".to_owned(),
            Box::new(|record, _, foreign| with_key(record, foreign.key_id().unwrap())),
        ),
        ("no bytes".to_owned(), Box::new(|record, _, _| with_bytes(record, Vec::new()))),
        ("a byte less".to_owned(), Box::new(|record, _, _| with_bytes(record, sealed(record)[1..].to_vec()))),
        (
            "a byte cut off".to_owned(),
            Box::new(|record, _, _| with_bytes(record, sealed(record)[..sealed(record).len() - 1].to_vec())),
        ),
        (
            "a byte more".to_owned(),
            Box::new(|record, _, _| with_bytes(record, [sealed(record), &[0]].concat())),
        ),
    ];
    // A bit in each sixteenth of the sealed bytes, and in the last byte.
    for part in 0..=16 {
        let flip: Alteration = Box::new(move |record, _, _| {
            let mut bytes = sealed(record).to_vec();
            let at = (bytes.len() * part / 16).min(bytes.len() - 1);
            bytes[at] ^= 1 << (part % 8);
            with_bytes(record, bytes)
        });
        all.push((format!("a bit flipped at {part}/16"), flip));
    }
    all
}

/// Tokens of SSNs, each about a person of its own.
async fn people(wire: &mut Wire, count: usize) -> Vec<String> {
    let items = (0..count).map(|n| v1::TokenizeItem {
        subject: Some(v1::SubjectId { id: format!("person-{n}") }),
        ..item("ssn", &ssn(n))
    });
    let request = v1::TokenizeRequest { items: items.collect(), ..v1::TokenizeRequest::default() };
    let answer = wire.vault.tokenize(request).await.unwrap().into_inner();
    answer.results.iter().map(|result| token(result).unwrap()).collect()
}

fn ssn(n: usize) -> String {
    format!("999-31-{:04}", 4100 + n)
}

fn is_data_loss(result: &Result<String, v1::ItemError>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.code == Code::DataLoss as i32 && error.reason() == Reason::RecordCorrupt)
}

/// Tokens named by entries about records that did not open.
async fn on_record(auditor: &mut Wire) -> Vec<Vec<u8>> {
    let entries = auditor.entries("open_failed").await;
    let items = entries.into_iter().flat_map(|entry| entry.items);
    items.filter(|item| item.outcome() == Outcome::Corrupt).map(|item| item.token.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_record_never_opens_and_is_named_in_the_log() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| site(&dir));
    let vault = site.dev();
    let alterations = alterations();
    // The last two stay as they are: one to take parts of, one to see that the rest still opens.
    let tokens = people(&mut Wire::connect(&vault, "service").await, alterations.len() + 2).await;
    let foreign = people(&mut Wire::connect(&vault, "elsewhere").await, 1).await;
    assert_eq!(vault.stop(), Some(0));

    let store = Held::open(&site).await;
    let records = store.records(&tokens).await;
    let foreign = store.records(&foreign).await.remove(0);
    let other = &records[alterations.len()];
    let bad: Vec<Record> =
        alterations.iter().zip(&records).map(|((_, alter), record)| alter(record, other, &foreign)).collect();
    for ((name, _), (bad, good)) in alterations.iter().zip(bad.iter().zip(&records)) {
        assert_ne!(bad, good, "{name} alters nothing");
    }
    store.replace(bad).await;

    let vault = site.dev();
    let values = Wire::connect(&vault, "service").await.values("", &tokens).await;
    for (n, value) in values.iter().enumerate() {
        match alterations.get(n) {
            Some((name, _)) => assert!(is_data_loss(value), "{name}: {value:?}"),
            None => assert_eq!(value.as_ref().unwrap(), &ssn(n)),
        }
    }
    // Neither does its mask.
    let request = v1::MaskRequest { tenant: String::new(), tokens: tokens.clone() };
    let masks = Wire::connect(&vault, "service").await.vault.mask(request).await.unwrap().into_inner();
    for (n, result) in masks.results.iter().enumerate() {
        let masked = matches!(result.outcome, Some(v1::mask_result::Outcome::Masked(_)));
        assert_eq!(masked, n >= alterations.len(), "{:?}", alterations.get(n).map(|(name, _)| name));
    }
    let named = on_record(&mut Wire::connect(&vault, "auditor").await).await;
    for (token, (name, _)) in tokens.iter().zip(&alterations) {
        assert!(named.iter().any(|there| there == parse(token).as_bytes()), "{name} is not on record");
    }
    assert_eq!(named.len(), 2 * alterations.len(), "only those are, once for each request");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_records_that_swap_their_sealed_bytes_neither_opens() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| site(&dir));
    let vault = site.dev();
    let tokens = people(&mut Wire::connect(&vault, "service").await, 4).await;
    vault.stop();
    let store = Held::open(&site).await;
    let records = store.records(&tokens).await;
    let swapped = [
        with_bytes(&records[0], sealed(&records[1]).to_vec()),
        with_bytes(&records[1], sealed(&records[0]).to_vec()),
    ];
    store.replace(swapped).await;
    let vault = site.dev();
    let values = Wire::connect(&vault, "service").await.values("", &tokens).await;
    assert!(is_data_loss(&values[0]) && is_data_loss(&values[1]), "{values:?}");
    assert_eq!(values[2].as_ref().unwrap(), &ssn(2));
    assert_eq!(values[3].as_ref().unwrap(), &ssn(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_moved_to_another_tenant_opens_for_neither() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| site(&dir));
    let vault = site.dev();
    let tokens = people(&mut Wire::connect(&vault, "service").await, 3).await;
    let own = people(&mut Wire::connect(&vault, "elsewhere").await, 1).await;
    vault.stop();
    let store = Held::open(&site).await;
    let records = store.records(&tokens).await;
    let theirs = store.records(&own).await.remove(0);
    let tenant = TenantId::parse("other").unwrap();
    let moved = Record { tenant: tenant.clone(), ..records[0].clone() };
    // With the other tenant's key named, as well.
    let rekeyed = with_key(&Record { tenant, ..records[1].clone() }, theirs.key_id().unwrap());
    store.replace([moved, rekeyed]).await;

    let vault = site.dev();
    let mut elsewhere = Wire::connect(&vault, "elsewhere").await;
    let values = elsewhere.values("", &[&tokens[..2], &own[..]].concat()).await;
    assert!(is_data_loss(&values[0]) && is_data_loss(&values[1]), "{values:?}");
    assert_eq!(values[2].as_ref().unwrap(), &ssn(0), "its own opens");
    let values = Wire::connect(&vault, "service").await.values("", &tokens).await;
    for value in &values[..2] {
        assert!(value.as_ref().is_err_and(|error| error.code == Code::NotFound as i32), "{value:?}");
    }
    assert_eq!(values[2].as_ref().unwrap(), &ssn(2));
    // Nor by asking in the other's name.
    let request = vault_tests::wire::detokenize("demo", &tokens);
    let status = elsewhere.vault.detokenize(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let named = on_record(&mut Wire::connect(&vault, "auditor").await).await;
    assert_eq!(named.len(), 2, "both are on record");
}
