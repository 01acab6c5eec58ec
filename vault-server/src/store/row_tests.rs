use proptest::prelude::*;

use super::*;
use crate::domain::{
    BlindIndex, Body, ClassName, EntityKind, EntityName, JobKind, KeyPurpose, Record, Sealed, SubjectRef,
};
use crate::store::keys;

fn sealed(space: Space, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut row = Vec::new();
    write(&mut row);
    let sum = checksum(space, key, &row);
    row.extend_from_slice(&sum);
    row
}

fn record_row(record: &Record) -> Vec<u8> {
    sealed(Space::Records, record.token.as_bytes(), |out| write_record(record, out))
}

fn place(key: &KeyRecord) -> Vec<u8> {
    keys::key(key.tenant.as_ref(), key.purpose, key.version)
}

fn key_row(key: &KeyRecord) -> Vec<u8> {
    sealed(Space::Keys, &place(key), |out| write_key(key, out))
}

fn remembered_row(answer: &Remembered) -> Vec<u8> {
    sealed(Space::Remembered, &answer.key, |out| write_remembered(answer, out))
}

fn example_record() -> Record {
    Record {
        token: Token::from_bytes([0x11; 16]),
        tenant: TenantId::parse("st-mary").unwrap(),
        class: ClassName::parse("ssn").unwrap(),
        subject: Some(SubjectRef { version: KeyVersion(2), mac: [0x22; 16] }),
        index: Some(BlindIndex { version: KeyVersion(3), mac: [0x33; 16] }),
        created: Timestamp(1_700_000_000_000_000),
        body: Body::Sealed {
            key_id: KeyId::from_bytes([0x44; 16]),
            key_version: KeyVersion(5),
            bytes: Sealed(vec![0x55; 5]),
        },
        revision: 7,
    }
}

fn example_key() -> KeyRecord {
    KeyRecord {
        id: KeyId::from_bytes([0x44; 16]),
        tenant: Some(TenantId::parse("st-mary").unwrap()),
        purpose: KeyPurpose::Index,
        version: KeyVersion(2),
        state: KeyState::Retired,
        created: Timestamp(1_700_000_000_000_000),
        wraps: vec![WrappedKey { wrapping_key: "local:a".to_owned(), ciphertext: vec![0x66; 3] }],
        revision: 1,
        statements: String::new(),
    }
}

fn job_row(job: &Job) -> Vec<u8> {
    sealed(Space::Jobs, &keys::job(&job.place), |out| write_job(job, out))
}

fn example_job() -> Job {
    Job {
        id: JobId::from_bytes([0x99; 16]),
        place: JobPlace { tenant: Some(TenantId::parse("st-mary").unwrap()), kind: JobKind::Destroy },
        order: JobOrder {
            key: Some(KeyId::from_bytes([0x44; 16])),
            budget: JobBudget { bytes: 1 << 20, kms_calls: 3 },
            asked_by: PrincipalId::parse("ann@example.org").unwrap(),
            asked: Timestamp(1),
            not_before: Timestamp(2),
            asker: Vec::new(),
            kms_set: None,
        },
        state: JobState::Failed,
        approved_by: Some(PrincipalId::parse("bob").unwrap()),
        begun: Timestamp(3),
        changed: Timestamp(4),
        progress: JobProgress { total: 5, done: 6, failed: 7, bytes: 8, kms_calls: 9 },
        cause: "kms".to_owned(),
        revision: 10,
    }
}

/// With all that may be left out.
fn rewrap_job() -> Job {
    let job = example_job();
    let place = JobPlace { kind: JobKind::Rewrap, ..job.place };
    Job { place, order: JobOrder { kms_set: Some(KmsSet::from_bytes([0x55; 16])), ..job.order }, ..job }
}

/// One that another person must approve, who must not be the same person under another name.
fn asked_job() -> Job {
    let job = example_job();
    Job {
        order: JobOrder { asker: vec![1, 0xab, 0xcd], ..job.order },
        state: JobState::Asked,
        approved_by: None,
        ..job
    }
}

/// Of the vault itself, with nothing that may be left out.
fn bare_job() -> Job {
    let job = example_job();
    let order = JobOrder { key: None, budget: JobBudget::default(), ..job.order };
    let place = JobPlace { tenant: None, kind: JobKind::Rewrap };
    Job { place, order, state: JobState::Asked, approved_by: None, cause: String::new(), ..job }
}

fn entity_row(entity: &Entity) -> Vec<u8> {
    sealed(Space::Entities, &keys::entity(&entity.place), |out| write_entity(entity, out))
}

fn example_entity() -> Entity {
    let place = EntityPlace {
        kind: EntityKind::SecurityKey,
        tenant: Some(TenantId::parse("st-mary").unwrap()),
        name: EntityName::new(&[0xaa, 0, 0xff]).unwrap(),
    };
    Entity { place, revision: 3, content: vec![0xbb; 5] }
}

/// Of the vault itself, with nothing in it.
fn bare_entity() -> Entity {
    let name = EntityName::new(&[0]).unwrap();
    let place = EntityPlace { kind: EntityKind::Alert, tenant: None, name };
    Entity { place, revision: 0, content: Vec::new() }
}

fn example_answer() -> Remembered {
    Remembered {
        key: [0x77; 32],
        request: [0x88; 32],
        tokens: vec![Some(Token::from_bytes([0x11; 16])), None],
        at: Timestamp(1),
        expires: Timestamp(2),
    }
}

/// The format on disk. When one of these changes, stores in the field stop to open.
#[test]
fn rows_are_the_committed_vectors() {
    let erased = Record { index: None, body: Body::Erased { at: Timestamp(9) }, ..example_record() };
    let vault_key = KeyRecord { tenant: None, purpose: KeyPurpose::LogSigning, ..example_key() };
    let signing_key = KeyRecord { statements: "a statement\n".to_owned(), ..vault_key.clone() };
    let row_key = KeyRecord { purpose: KeyPurpose::RowMac, ..vault_key.clone() };
    for (name, row, vector) in [
        ("record", record_row(&example_record()), include_str!("vectors/record.hex")),
        ("erased", record_row(&erased), include_str!("vectors/erased.hex")),
        ("key", key_row(&example_key()), include_str!("vectors/key.hex")),
        ("vault key", key_row(&vault_key), include_str!("vectors/vault-key.hex")),
        ("row key", key_row(&row_key), include_str!("vectors/row-key.hex")),
        ("signing key", key_row(&signing_key), include_str!("vectors/signing-key.hex")),
        ("remembered", remembered_row(&example_answer()), include_str!("vectors/remembered.hex")),
        ("job", job_row(&example_job()), include_str!("vectors/job.hex")),
        ("rewrap job", job_row(&rewrap_job()), include_str!("vectors/rewrap-job.hex")),
        ("asked job", job_row(&asked_job()), include_str!("vectors/asked-job.hex")),
        ("bare job", job_row(&bare_job()), include_str!("vectors/bare-job.hex")),
        ("entity", entity_row(&example_entity()), include_str!("vectors/entity.hex")),
        ("bare entity", entity_row(&bare_entity()), include_str!("vectors/bare-entity.hex")),
    ] {
        assert_eq!(hex::encode(row), vector.split_whitespace().collect::<String>(), "{name}");
    }
}

fn read(sequence: u64, row: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), CorruptRow> {
    let (entry, seal) = read_entry(sequence, row)?;
    Ok((entry.to_vec(), seal.map(|seal| seal.to_vec())))
}

#[test]
fn rows_of_log_entries_are_the_committed_vectors() {
    let sealed = "616e20656e747279000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232467e36b34cd753a9b";
    let (sealed, plain) =
        (hex::decode(sealed).unwrap(), hex::decode("616e20656e747279b4ca1d3d933cecb8").unwrap());
    let seal: Vec<u8> = (0..37).collect();
    assert_eq!(read(7, &sealed), Ok((b"an entry".to_vec(), Some(seal))));
    assert_eq!(read(7, &plain), Ok((b"an entry".to_vec(), None)));
    for row in [sealed, plain] {
        assert_eq!(read(8, &row), Err(CorruptRow));
        for bit in 0..row.len() * 8 {
            let mut altered = row.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(7, &altered), Err(CorruptRow), "bit {bit}");
        }
    }
}

#[test]
fn a_jobs_row_says_whether_it_is_over() {
    for state in [
        JobState::Asked,
        JobState::Running,
        JobState::Paused,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ] {
        assert_eq!(says_over(&job_row(&Job { state, ..bare_job() })), state.is_over(), "{state:?}");
    }
    assert!(!says_over(&[4; 25]));
}

fn assert_every_bit_counts<T: PartialEq + std::fmt::Debug>(
    row: &[u8],
    read: impl Fn(&[u8]) -> Result<T, CorruptRow>,
) {
    assert!(read(row).is_ok());
    for position in 0..row.len() {
        for bit in 0..8 {
            let mut changed = row.to_vec();
            changed[position] ^= 1 << bit;
            assert_eq!(read(&changed), Err(CorruptRow), "bit {bit} of byte {position}");
        }
        assert_eq!(read(&row[..position]), Err(CorruptRow), "cut at {position}");
    }
    assert_eq!(read(&[row, &[0]].concat()), Err(CorruptRow), "a byte more");
}

#[test]
fn any_changed_bit_is_corrupt() {
    let (record, key, answer) = (example_record(), example_key(), example_answer());
    assert_every_bit_counts(&record_row(&record), |row| read_record(record.token, row));
    assert_every_bit_counts(&key_row(&key), |row| read_key(&place(&key), row));
    assert_every_bit_counts(&remembered_row(&answer), |row| read_remembered(&answer.key, row));
    for job in [example_job(), asked_job(), bare_job()] {
        assert_every_bit_counts(&job_row(&job), |row| read_job(&job.place, row));
    }
    for entity in [example_entity(), bare_entity()] {
        assert_every_bit_counts(&entity_row(&entity), |row| read_entity(&entity.place, row));
    }
}

#[test]
fn a_row_under_another_key_or_in_another_space_is_corrupt() {
    let record = example_record();
    let row = record_row(&record);
    assert_eq!(read_record(Token::from_bytes([0x12; 16]), &row), Err(CorruptRow));
    assert_eq!(content(Space::KeyIds, record.token.as_bytes(), &row), Err(CorruptRow));
}

#[test]
fn a_row_with_a_good_checksum_is_still_read_strictly() {
    let record = example_record();
    let key = record.token.as_bytes();
    let good = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = Vec::new();
        write_record(&record, &mut content);
        change(&mut content);
        read_record(record.token, &sealed(Space::Records, key, |out| *out = content))
    };
    assert_eq!(good(&|_| ()), Ok(record.clone()));
    assert_eq!(good(&|content| content[0] = 2), Err(CorruptRow), "version");
    assert_eq!(good(&|content| content[14] = b'A'), Err(CorruptRow), "tenant");
    assert_eq!(good(&|content| content[25] |= 8), Err(CorruptRow), "flags");
    assert_eq!(good(&|content| content.push(0)), Err(CorruptRow), "end");
}

#[test]
fn a_jobs_row_with_a_good_checksum_is_still_read_strictly() {
    let job = example_job();
    let good = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = Vec::new();
        write_job(&job, &mut content);
        change(&mut content);
        read_job(&job.place, &sealed(Space::Jobs, &keys::job(&job.place), |out| *out = content))
    };
    assert_eq!(good(&|_| ()), Ok(job.clone()));
    assert_eq!(good(&|content| content[0] = 2), Err(CorruptRow), "version");
    for state in [0, 7, 255] {
        assert_eq!(good(&|content| content[25] = state), Err(CorruptRow), "state {state}");
    }
    for flags in [0, 1, 2, 7, 0x83] {
        assert_eq!(good(&|content| content[26] = flags), Err(CorruptRow), "flags {flags}");
    }
    assert_eq!(good(&|content| content[28] = b'A'), Err(CorruptRow), "who asked");
    assert_eq!(good(&|content| *content.last_mut().unwrap() = 0xff), Err(CorruptRow), "cause");
    assert_eq!(good(&|content| content.push(0)), Err(CorruptRow), "end");
    let mut nobody = Vec::new();
    let one = Job { order: JobOrder { asker: vec![7], ..job.order.clone() }, ..job.clone() };
    write_job(&one, &mut nobody);
    let at = nobody.windows(5).position(|bytes| bytes == [0, 0, 0, 1, 7]).unwrap();
    nobody.splice(at..at + 5, [0; 4]);
    let row = sealed(Space::Jobs, &keys::job(&job.place), |out| *out = nobody);
    assert_eq!(read_job(&job.place, &row), Err(CorruptRow), "an asker that is none");
    let other = JobPlace { kind: JobKind::Shred, ..job.place.clone() };
    assert_eq!(read_job(&other, &job_row(&job)), Err(CorruptRow), "place");
}

#[test]
fn an_entitys_row_with_a_good_checksum_is_still_read_strictly() {
    let entity = example_entity();
    let good = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = Vec::new();
        write_entity(&entity, &mut content);
        change(&mut content);
        let row = sealed(Space::Entities, &keys::entity(&entity.place), |out| *out = content);
        read_entity(&entity.place, &row)
    };
    assert_eq!(good(&|_| ()), Ok(entity.clone()));
    assert_eq!(good(&|content| content[0] = 2), Err(CorruptRow), "version");
    assert_eq!(good(&|content| content[12] += 1), Err(CorruptRow), "length");
    assert_eq!(good(&|content| content.push(0)), Err(CorruptRow), "end");
    let place = &entity.place;
    for other in [
        EntityPlace { kind: EntityKind::Challenge, ..place.clone() },
        EntityPlace { tenant: None, ..place.clone() },
        EntityPlace { name: EntityName::new(&[0xaa, 0]).unwrap(), ..place.clone() },
    ] {
        assert_eq!(read_entity(&other, &entity_row(&entity)), Err(CorruptRow), "{other:?}");
    }
}

fn any_entity() -> impl Strategy<Value = Entity> {
    let place = (
        proptest::sample::select(EntityKind::ALL),
        proptest::option::of("[a-z0-9][a-z0-9-]{0,62}"),
        proptest::collection::vec(any::<u8>(), 1..=EntityName::MAX_LEN),
    );
    (place, any::<u64>(), any::<Vec<u8>>()).prop_map(|((kind, tenant, name), revision, content)| {
        let tenant = tenant.map(|name| TenantId::parse(&name).unwrap());
        let place = EntityPlace { kind, tenant, name: EntityName::new(&name).unwrap() };
        Entity { place, revision, content }
    })
}

fn any_job() -> impl Strategy<Value = Job> {
    let names = ("[a-z0-9][a-z0-9._@/-]{0,127}", proptest::option::of("[a-z0-9][a-z0-9._@/-]{0,127}"));
    let tenant = proptest::option::of("[a-z0-9][a-z0-9-]{0,62}");
    let place = (tenant, proptest::sample::select(JobKind::ALL));
    let state = proptest::sample::select(vec![
        JobState::Asked,
        JobState::Running,
        JobState::Paused,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ]);
    let ids = (any::<[u8; 16]>(), any::<Option<[u8; 16]>>(), any::<Option<[u8; 16]>>(), any::<Vec<u8>>());
    let fields = (ids, any::<u32>(), any::<[u64; 11]>(), any::<String>());
    (place, names, state, fields).prop_map(
        |((tenant, kind), names, state, ((id, key, set, asker), calls, n, cause))| Job {
            id: JobId::from_bytes(id),
            place: JobPlace { tenant: tenant.map(|name| TenantId::parse(&name).unwrap()), kind },
            order: JobOrder {
                key: key.map(KeyId::from_bytes),
                budget: JobBudget { bytes: n[0], kms_calls: calls },
                asked_by: PrincipalId::parse(&names.0).unwrap(),
                asked: Timestamp(n[1]),
                not_before: Timestamp(n[2]),
                asker,
                kms_set: set.map(KmsSet::from_bytes),
            },
            state,
            approved_by: names.1.map(|name| PrincipalId::parse(&name).unwrap()),
            begun: Timestamp(n[3]),
            changed: Timestamp(n[4]),
            progress: JobProgress { total: n[5], done: n[6], failed: n[7], bytes: n[8], kms_calls: n[9] },
            cause,
            revision: n[10],
        },
    )
}

fn any_record() -> impl Strategy<Value = Record> {
    let names = ("[a-z0-9][a-z0-9-]{0,62}", "[a-z0-9][a-z0-9_]{0,31}");
    let hashes = (any::<Option<[u8; 20]>>(), any::<Option<[u8; 20]>>());
    let body = prop_oneof![
        any::<u64>().prop_map(|at| Body::Erased { at: Timestamp(at) }),
        (any::<[u8; 16]>(), any::<u32>(), any::<Vec<u8>>()).prop_map(|(id, version, bytes)| Body::Sealed {
            key_id: KeyId::from_bytes(id),
            key_version: KeyVersion(version),
            bytes: Sealed(bytes),
        }),
    ];
    (any::<[u8; 16]>(), names, hashes, any::<(u64, u32)>(), body).prop_map(
        |(token, (tenant, class), (subject, index), (created, revision), body)| Record {
            token: Token::from_bytes(token),
            tenant: TenantId::parse(&tenant).unwrap(),
            class: ClassName::parse(&class).unwrap(),
            subject: subject.map(SubjectRef::from_bytes),
            index: index.map(BlindIndex::from_bytes),
            created: Timestamp(created),
            body,
            revision,
        },
    )
}

fn any_key() -> impl Strategy<Value = KeyRecord> {
    let purpose = proptest::sample::select(KeyPurpose::ALL.to_vec());
    let state = prop_oneof![
        Just(KeyState::Active),
        Just(KeyState::Retired),
        Just(KeyState::Compromised),
        Just(KeyState::Destroyed)
    ];
    let wraps = proptest::collection::vec((any::<String>(), any::<Vec<u8>>()), 0..4);
    let tenant = proptest::option::of("[a-z0-9][a-z0-9-]{0,62}");
    (any::<[u8; 16]>(), tenant, purpose, state, any::<(u32, u64, u32)>(), wraps, any::<String>()).prop_map(
        |(id, tenant, purpose, state, (version, created, revision), wraps, statements)| KeyRecord {
            id: KeyId::from_bytes(id),
            tenant: tenant.map(|name| TenantId::parse(&name).unwrap()),
            purpose,
            version: KeyVersion(version),
            state,
            created: Timestamp(created),
            wraps: wraps
                .into_iter()
                .map(|(wrapping_key, ciphertext)| WrappedKey { wrapping_key, ciphertext })
                .collect(),
            revision,
            statements,
        },
    )
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was(record in any_record()) {
        prop_assert_eq!(read_record(record.token, &record_row(&record)), Ok(record));
    }

    #[test]
    fn a_key_comes_back_as_it_was(key in any_key()) {
        prop_assert_eq!(read_key(&place(&key), &key_row(&key)), Ok(key));
    }

    #[test]
    fn a_remembered_answer_comes_back_as_it_was(
        key: [u8; 32], request: [u8; 32], tokens: Vec<Option<[u8; 16]>>, at: u64, expires: u64,
    ) {
        let tokens = tokens.into_iter().map(|token| token.map(Token::from_bytes)).collect();
        let answer = Remembered { key, request, tokens, at: Timestamp(at), expires: Timestamp(expires) };
        prop_assert_eq!(read_remembered(&key, &remembered_row(&answer)), Ok(answer));
    }

    #[test]
    fn a_job_comes_back_as_it_was(job in any_job()) {
        prop_assert_eq!(read_job(&job.place, &job_row(&job)), Ok(job));
    }

    #[test]
    fn an_entity_comes_back_as_it_was(entity in any_entity()) {
        prop_assert_eq!(keys::parse_entity(&keys::entity(&entity.place)), Some(entity.place.clone()));
        prop_assert_eq!(read_entity(&entity.place, &entity_row(&entity)), Ok(entity));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
        let sum = checksum(Space::Records, &[0; 16], &bytes);
        let row = [&bytes[..], &sum].concat();
        let _ = read_record(Token::from_bytes([0; 16]), &row);
        let _ = read_key(&[], &bytes);
        let _ = read_remembered(&[0; 32], &bytes);
        let _ = read_identity(&bytes);
        let _ = read_job_content(&bare_job().place, &bytes);
        let _ = keys::parse_job(&bytes);
        let _ = read_entity_content(&bare_entity().place, &bytes);
        let _ = keys::parse_entity(&bytes);
    }
}
