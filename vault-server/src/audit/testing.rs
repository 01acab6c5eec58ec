//! What the tests of this module share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::test_store::TestStore;
use super::{Actor, AuditAction, Decision, Draft, Item, Log, LogOptions, Outcome};
use crate::access::testing::{test_access, test_caller, test_tenant};
use crate::access::{OpenAction, Permit, Role};
use crate::domain::{
    Body, ClassName, Clock, Environment, KeyId, KeyVersion, Purpose, Record, RequestId, Sealed, SubjectRef,
    Timestamp, Token, VaultId, VaultIdentity,
};

/// It is always the same time.
pub(super) struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000_000)
    }
}

pub(super) fn identity() -> VaultIdentity {
    VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment: Environment::parse("dev").unwrap() }
}

pub(super) fn token(i: u64) -> Token {
    let mut bytes = [0xEE; 16];
    bytes[..8].copy_from_slice(&i.to_be_bytes());
    Token::from_bytes(bytes)
}

pub(super) fn subject(i: u8) -> SubjectRef {
    SubjectRef { version: KeyVersion(1), mac: [i; 16] }
}

pub(super) fn record(i: u64) -> Record {
    Record {
        token: token(i),
        tenant: test_tenant(),
        class: ClassName::parse("member_id").unwrap(),
        subject: Some(subject(i as u8)),
        index: None,
        created: Timestamp(1),
        body: Body::Sealed {
            key_id: KeyId::from_bytes([4; 16]),
            key_version: KeyVersion::FIRST,
            bytes: Sealed(vec![1]),
        },
        revision: 0,
    }
}

pub(super) fn items(records: &[Record]) -> Vec<Item> {
    records.iter().map(|record| Item::of_record(record, Outcome::Ok)).collect()
}

pub(super) fn draft(request: u8) -> Draft {
    Draft {
        request: RequestId::from_bytes([request; 16]),
        action: AuditAction::Detokenize,
        actor: Actor::caller(&test_caller(Role::Service), &test_tenant()),
        tenant: Some(test_tenant()),
        purpose: Some(Purpose::Treatment),
        reason: String::new(),
        ticket: String::new(),
        grant: None,
        policies: BTreeSet::new(),
        decision: Decision::Allow,
        cause: "",
        details: Vec::new(),
    }
}

/// A permit for the records, and the draft that goes with it.
pub(super) fn permitted<A: OpenAction>(request: u8, records: Vec<Record>) -> (Draft, Permit<A>) {
    let draft = draft(request);
    let caller = test_caller(Role::Service);
    let (permit, _) =
        test_access().permit(&caller, draft.request, &test_tenant(), Some(Purpose::Treatment), records);
    (Draft { policies: permit.policies().clone(), ..draft }, permit)
}

pub(super) fn log(store: &Arc<TestStore>) -> Log {
    let options = LogOptions { deadline: Duration::from_millis(100), max_in_flight: 4 };
    Log::new(Arc::clone(store) as _, Arc::new(StoppedClock), options)
}
