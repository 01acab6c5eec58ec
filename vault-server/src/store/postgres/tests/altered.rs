//! Rows that somebody changed in the database.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_administrator_altered_are_named() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(insert(1)).await.unwrap();
    store.commit(insert(2)).await.unwrap();
    for altered in [
        "UPDATE records SET tenant = 'st-john'",
        "UPDATE records SET tenant = 'st-mary', sealed = sealed || '\\x00'",
        "UPDATE records SET subject = NULL",
        "UPDATE records SET key_version = -1",
        "UPDATE records SET erased = 5, sealed = NULL, key_id = NULL",
    ] {
        database.sql(altered).await;
        assert_eq!(store.records(&[token(1)]).await, Ok(vec![Lookup::Corrupt]), "{altered}");
        assert!(matches!(store.scan_records(None, 9).await, Err(StoreError::Corrupt { .. })), "{altered}");
    }
    database.sql("UPDATE log_entries SET entry = 'forged' WHERE sequence = 1").await;
    assert!(matches!(store.entries(LogId(0), 0, 9, 99).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.entries(LogId(0), 0, 1, 99).await.unwrap().len(), 1);
    database.sql("UPDATE log_entries SET sequence = 7 WHERE sequence = 0").await;
    assert!(matches!(store.entries(LogId(0), 0, 9, 99).await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_administrator_altered_are_in_the_way_of_no_others() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    for number in 1..=5 {
        store.commit(insert(number)).await.unwrap();
    }
    let jobs = ["a", "b", "c"].map(|name| {
        job(JobPlace { tenant: Some(TenantId::parse(name).unwrap()), kind: JobKind::Reindex }, 0)
    });
    store.commit(change(jobs.clone().map(Write::PutJob), &[])).await.unwrap();
    store.commit(change([1, 2, 3].map(|number| Write::InsertKey(key(number))), &[])).await.unwrap();
    let (second, fourth) = (hex::encode(token(2).as_bytes()), hex::encode(token(4).as_bytes()));
    for altered in [
        format!("UPDATE records SET blind_index = blind_index || '\\x00' WHERE token = '\\x{second}'"),
        format!("UPDATE records SET token = token || '\\x07' WHERE token = '\\x{fourth}'"),
        format!("UPDATE keys SET created = created + 1 WHERE version = {}", key(2).version.0),
        format!("UPDATE jobs SET revision = 7 WHERE place = '\\x{}'", hex::encode(keys::job(&jobs[1].place))),
    ] {
        database.sql(&altered).await;
    }
    let malformed = |what: String, token| vec![Malformed { what, token }];
    let longer = format!("record {fourth}07");
    // Alone, too: the others are gone on to behind each of them.
    for limit in [1, 2, 9] {
        let (found, bad) = paged(async |after| store.tokens_of_key(key_id(1), after, limit).await).await;
        assert_eq!(found, [1, 2, 3, 5].map(token), "{limit}");
        assert_eq!(bad, malformed(longer.clone(), None), "{limit}");
        let (mary, ssn) = (TenantId::parse("st-mary").unwrap(), ClassName::parse("ssn").unwrap());
        let version = KeyVersion(1);
        let (found, bad) =
            paged(async |after| store.indexed_under(&mary, &ssn, version, after, limit).await).await;
        assert_eq!(found.len(), 3, "{limit}");
        let named = bad.into_iter().map(|row| (row.what, row.token)).collect::<BTreeSet<_>>();
        let expected = [(format!("record {second}"), Some(token(2))), (longer.clone(), None)];
        assert_eq!(named, BTreeSet::from(expected), "{limit}");
        let (found, bad) = paged(async |after| store.key_rows(after, limit).await).await;
        assert_eq!(found, [key(1), key(3)], "{limit}");
        assert_eq!(bad, malformed(format!("key {}", "02".repeat(16)), None), "{limit}");
        let (found, bad) = paged(async |after| store.job_rows(after, limit).await).await;
        assert_eq!(found, [jobs[0].clone(), jobs[2].clone()], "{limit}");
        assert_eq!((bad.len(), bad[0].token), (1, None), "{limit}");
    }
    assert_eq!(store.count_of_key(key_id(1)).await, Ok(5), "what can't be read counts");
}

/// What was read, and what is malformed, some at a time.
async fn paged<T>(
    read: impl AsyncFn(Option<Cursor>) -> Result<Page<T>, StoreError>,
) -> (Vec<T>, Vec<Malformed>) {
    let (mut items, mut malformed, mut next) = (Vec::new(), Vec::new(), None);
    loop {
        let page = read(next).await.unwrap();
        items.extend(page.items);
        malformed.extend(page.malformed);
        next = page.next;
        if next.is_none() {
            return (items, malformed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_an_administrator_altered_is_named() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    let place = entity_place(EntityKind::Principal, None, b"ann");
    let scope = EntityScope::Kind(EntityKind::Principal);
    store.commit(change([Write::PutEntity(entity(&place, 0))], &[])).await.unwrap();
    database.sql("CREATE TABLE kept AS SELECT * FROM entities").await;
    let named = |key: &str| StoreError::Corrupt { what: format!("entity {key}") };
    for altered in ["content = content || '\\x00'", "revision = 1", "checksum = '\\x00'", "content = ''"] {
        database.sql(&format!("UPDATE entities SET {altered}")).await;
        assert_eq!(store.entity(&place).await, Err(named("0100616e6e")), "{altered}");
        assert_eq!(store.entities(&scope, None, 9).await, Err(named("0100616e6e")), "{altered}");
        let next = Write::PutEntity(entity(&place, if altered == "revision = 1" { 2 } else { 1 }));
        let refused = store.commit(change([next], &[])).await;
        assert_eq!(refused.err(), Some(named("0100616e6e")), "{altered}");
        database.sql("DELETE FROM entities; INSERT INTO entities SELECT * FROM kept").await;
    }
    database.sql("UPDATE entities SET place = '\\x0100626f62'").await;
    assert_eq!(store.entities(&scope, None, 9).await, Err(named("0100626f62")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_altered_fails_who_needs_it_and_nobody_who_shares_the_commit() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    let lease = |name: &str, fence, revision| Lease {
        name: LeaseName::parse(name).unwrap(),
        holder: InstanceId::from_bytes([7; 16]),
        fence,
        expires: Timestamp(9),
        revision,
    };
    let first = [Write::PutLease(lease("good", 1, 0)), Write::PutLease(lease("bad", 1, 0))];
    store.commit(change(first, &[])).await.unwrap();
    store.commit(change([Write::InsertKey(key(1)), Write::InsertKey(key(2))], &[])).await.unwrap();
    database.sql("UPDATE leases SET expires = 8 WHERE name = 'bad'").await;
    let keys = format!("UPDATE keys SET created = created + 1 WHERE version = {}", key(1).version.0);
    database.sql(&keys).await;
    let mut commits = Vec::new();
    for round in 0..8_u64 {
        let fence = |name: &str| Write::Fence { lease: LeaseName::parse(name).unwrap(), fence: 1 };
        let number = 100 + round * 10;
        let under = |number| vec![fence("good"), Write::Active(key_id(number))];
        for (place, writes) in
            [vec![fence("good")], vec![fence("bad")], under(2), under(1)].into_iter().enumerate()
        {
            let record = Write::Insert(record(number + place as u64));
            let writes: Vec<_> = writes.into_iter().chain([record]).collect();
            commits.push((place % 2 == 0, store.commit(change(writes, &["e"]))));
        }
        // Under a name of its own, where the altered one is.
        let again = KeyRecord { id: KeyId::from_bytes([0xee; 16]), ..key(1) };
        commits.push((false, store.commit(change([Write::InsertKey(again)], &[]))));
    }
    let (fine, commits): (Vec<_>, Vec<_>) = commits.into_iter().unzip();
    for (fine, outcome) in fine.into_iter().zip(futures::future::join_all(commits).await) {
        match outcome {
            Ok(_) => assert!(fine),
            Err(error) => assert!(!fine && matches!(error, StoreError::Corrupt { .. }), "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_an_administrator_made_is_not_signed() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.seal_entries(EntrySeals::new(row_key(1), Unsealed::Refuse));
    store.commit(change([], &["a", "b", "c"])).await.unwrap();
    assert_eq!(store.entries_to_sign(LogId(0), 0, 9, 99).await.unwrap().len(), 3);
    // With the right checksum, which has no key.
    let sum = "UPDATE log_entries SET checksum = substring(sha256('\\x09'::bytea || int4send(12) || int4send(log) \
               || int8send(sequence) || entry) for 8)";
    for (altered, why) in [
        ("UPDATE log_entries SET entry = 'x' WHERE sequence = 1", "its seal is not the vault's"),
        ("UPDATE log_entries SET seal = NULL WHERE sequence = 1", "no seal"),
        ("UPDATE log_entries SET seal = '' WHERE sequence = 1", "its seal is not the vault's"),
        (
            "UPDATE log_entries SET (entry, seal) = (SELECT entry, seal FROM log_entries WHERE sequence = 2) \
             WHERE sequence = 1",
            "its seal is not the vault's",
        ),
    ] {
        database.sql("CREATE TABLE saved AS SELECT * FROM log_entries").await;
        database.sql(&format!("{altered}; {sum}")).await;
        assert_eq!(
            store.entries(LogId(0), 0, 9, 99).await.unwrap().len(),
            3,
            "its checksum is right: {altered}"
        );
        let Err(StoreError::Corrupt { what }) = store.entries_to_sign(LogId(0), 0, 9, 99).await else {
            panic!("to be signed: {altered}");
        };
        assert!(what.contains("log entry 1 of log 0") && what.contains(why), "{altered}: {what}");
        database
            .sql("TRUNCATE log_entries; INSERT INTO log_entries SELECT * FROM saved; DROP TABLE saved")
            .await;
    }
    // A log that was written as another.
    database.sql(&format!("UPDATE log_entries SET log = 5; UPDATE logs SET log = 5; {sum}")).await;
    let other = database.instance("bob").await;
    other.seal_entries(EntrySeals::new(row_key(1), Unsealed::Refuse));
    assert!(matches!(other.entries_to_sign(LogId(5), 0, 9, 99).await, Err(StoreError::Corrupt { .. })));
}
