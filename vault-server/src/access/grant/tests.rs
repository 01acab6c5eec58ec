use std::time::Duration;

use super::*;
use crate::access::testing::{test_credential, test_directory, test_policies};
use crate::access::{Access, Caller, PrincipalKind};
use crate::domain::{
    Body, ClassName, Entity, GrantId, KeyId, KeyVersion, Record, Sealed, SubjectRef, TenantId, Token,
};

const MINUTE: u64 = 60_000_000;
const DAY: u64 = 24 * 60 * MINUTE;
const T0: u64 = 1_790_000_000_000_000;
const SOON: Duration = Duration::from_secs(1);

fn at(micros: u64) -> Timestamp {
    Timestamp(T0 + micros)
}

fn who(id: &str, number: u8) -> Party {
    Party {
        principal: PrincipalId::parse(id).unwrap(),
        credential: [number; 32],
        identities: vec![[number; 32], [number + 100; 32]],
        key: format!("SHA256:{id}"),
    }
}

fn token(number: u8) -> Token {
    Token::from_bytes([number; 16])
}

fn class(name: &str) -> ClassName {
    ClassName::parse(name).unwrap()
}

fn tenant() -> TenantId {
    TenantId::parse("demo").unwrap()
}

fn terms() -> Terms {
    Terms {
        id: GrantId::from_bytes([0xab; 16]),
        tenant: tenant(),
        requester: Party { credential: [7; 32], ..who("oncall@person", 1) },
        scope: GrantScope::Tokens(vec![token(1), token(2)]),
        classes: vec![class("mrn"), class("ssn")],
        reason_code: "patient_safety".to_owned(),
        reason: "Blood group of the patient in bay 4".to_owned(),
        ticket: "INC-4711".to_owned(),
        duration: 15 * 60,
        values: 3,
        approvals_needed: 1,
        wait: 60 * 60,
        review_within: 72 * 60 * 60,
        requested: at(0),
    }
}

/// The requester of [`terms`], as it calls.
fn requester() -> Caller {
    let access = Access::new(test_directory(), test_policies("dev"));
    access.authenticate(&test_credential("oncall/person"), at(0)).unwrap()
}

fn approved() -> Grant {
    let grant = Grant::asked(terms());
    grant.approve(who("approver", 2), &terms().hash(), String::new(), at(MINUTE)).unwrap()
}

fn record(number: u8) -> Record {
    Record {
        token: token(number),
        tenant: tenant(),
        class: class("ssn"),
        subject: None,
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

#[test]
fn a_grant_goes_from_request_to_review() {
    let grant = Grant::asked(terms());
    assert_eq!((grant.state(), grant.expires()), (GrantState::Requested, None));
    assert_eq!(grant.use_by(&requester(), at(1), SOON).err(), Some(GrantRefusal::State));
    let grant = approved();
    assert_eq!((grant.state(), grant.expires()), (GrantState::Active, Some(at(16 * MINUTE))));
    let using = grant.use_by(&requester(), at(2 * MINUTE), SOON).unwrap();
    assert_eq!((using.left(), using.seen().approvals), (3, 1));
    let grant = grant.used(&using, 2).unwrap();
    assert_eq!((grant.seen(), grant.first_used()), (2, Some(at(2 * MINUTE))));
    let using = grant.use_by(&requester(), at(3 * MINUTE), SOON).unwrap();
    assert_eq!(grant.used(&using, 2).err(), Some(GrantRefusal::UsedUp));
    let grant = grant.used(&using, 1).unwrap();
    assert_eq!(grant.first_used(), Some(at(2 * MINUTE)));
    assert_eq!(grant.use_by(&requester(), at(4 * MINUTE), SOON).err(), Some(GrantRefusal::UsedUp));
    let grant = grant.due(at(4 * MINUTE), SOON).unwrap();
    assert_eq!((grant.state(), grant.end().unwrap().how), (GrantState::Over, Ended::UsedUp));
    assert_eq!(grant.review_due(), Some(at(4 * MINUTE + 3 * DAY)));
    assert!(!grant.is_overdue(at(2 * DAY)) && grant.is_overdue(at(4 * DAY)));
    let reviewed =
        grant.review(&who("auditor", 3), ReviewVerdict::Justified, "as it should be".to_owned(), at(DAY));
    let grant = reviewed.unwrap();
    assert!(grant.state().is_settled() && !grant.is_overdue(at(4 * DAY)));
    let again =
        grant.review(&who("auditor", 3), ReviewVerdict::Escalated, "on second thought".to_owned(), at(DAY));
    assert_eq!(again.err(), Some(GrantRefusal::State));
}

#[test]
fn nobody_approves_denies_or_reviews_its_own_by_whatever_name() {
    let grant = Grant::asked(terms());
    let own = terms().requester;
    let stranger = who("stranger", 9);
    let aliases = [
        own.clone(),
        // Another certificate of the same principal.
        Party { credential: [9; 32], ..own.clone() },
        // Another principal with the same certificate, a common identity, or the same security key.
        Party { credential: own.credential, ..stranger.clone() },
        Party { identities: vec![[9; 32], own.identities[1]], ..stranger.clone() },
        Party { key: own.key.clone(), ..stranger.clone() },
    ];
    for alias in &aliases {
        let hash = terms().hash();
        let refused = grant.approve(alias.clone(), &hash, String::new(), at(1)).err();
        assert_eq!(refused, Some(GrantRefusal::SecondPerson), "{alias:?}");
        assert_eq!(grant.deny(alias, at(1)).err(), Some(GrantRefusal::SecondPerson));
        let over = approved().close(&own.principal, at(2 * MINUTE)).unwrap();
        let refused = over.review(alias, ReviewVerdict::Justified, "all is well".to_owned(), at(DAY)).err();
        assert_eq!(refused, Some(GrantRefusal::SecondPerson), "{alias:?}");
    }
    // Who approved neither approves again nor reviews.
    let two = Grant::asked(Terms { approvals_needed: 2, ..terms() });
    let hash = two.terms().hash();
    let once = two.approve(who("approver", 2), &hash, String::new(), at(1)).unwrap();
    assert_eq!(once.state(), GrantState::Requested);
    let alias = Party { credential: [2; 32], ..stranger.clone() };
    for by in [who("approver", 2), alias] {
        let refused = once.approve(by, &hash, String::new(), at(2)).err();
        assert_eq!(refused, Some(GrantRefusal::SecondPerson));
    }
    let twice = once.approve(stranger.clone(), &hash, String::new(), at(3)).unwrap();
    assert_eq!(twice.state(), GrantState::Active);
    let over = twice.close(&own.principal, at(4)).unwrap();
    let refused = over.review(&stranger, ReviewVerdict::Justified, String::new(), at(5)).err();
    assert_eq!(refused, Some(GrantRefusal::SecondPerson));
}

#[test]
fn two_without_a_security_key_are_not_one_person_for_that() {
    let (one, other) =
        (Party { key: String::new(), ..who("a", 1) }, Party { key: String::new(), ..who("b", 2) });
    assert!(!one.is_same_person(&other));
}

#[test]
fn a_caller_is_the_same_with_the_same_credential_only() {
    let one = who("a", 1);
    assert!(one.is_same_caller(&Party { identities: Vec::new(), key: String::new(), ..one.clone() }));
    assert!(!one.is_same_caller(&Party { credential: [9; 32], ..one.clone() }));
    assert!(!one.is_same_caller(&Party { principal: who("b", 1).principal, ..one.clone() }));
    let touched = one.clone().touched("SHA256:other");
    assert_eq!(touched, Party { key: "SHA256:other".to_owned(), ..one });
}

#[test]
fn the_same_is_asked_for_when_all_but_the_names_of_the_person_is_the_same() {
    let t = terms;
    let asks_the_same = |other: Terms| t().asks_the_same(&other);
    assert!(asks_the_same(t()));
    // What the policy and the clock say is not asked for.
    assert!(asks_the_same(Terms { requested: at(5), approvals_needed: 2, wait: 1, review_within: 1, ..t() }));
    for (what, other) in [
        ("id", Terms { id: GrantId::from_bytes([0xac; 16]), ..t() }),
        ("tenant", Terms { tenant: TenantId::parse("other").unwrap(), ..t() }),
        ("requester", Terms { requester: who("somebody", 5), ..t() }),
        ("credential", Terms { requester: Party { credential: [8; 32], ..t().requester }, ..t() }),
        ("scope", Terms { scope: GrantScope::Tokens(vec![token(1)]), ..t() }),
        ("classes", Terms { classes: vec![class("mrn")], ..t() }),
        ("reason code", Terms { reason_code: "legal".to_owned(), ..t() }),
        ("reason", Terms { reason: "another".to_owned(), ..t() }),
        ("ticket", Terms { ticket: String::new(), ..t() }),
        ("duration", Terms { duration: 1, ..t() }),
        ("values", Terms { values: 4, ..t() }),
    ] {
        assert!(!asks_the_same(other), "{what}");
    }
    // A person has a name under each version of the index key: one in common will do.
    let name = |version| SubjectRef { version: KeyVersion(version), mac: [version as u8; 16] };
    let of = |names: Vec<SubjectRef>| Terms { scope: GrantScope::Subject(names), ..t() };
    assert!(of(vec![name(1), name(2)]).asks_the_same(&of(vec![name(2), name(3)])));
    assert!(!of(vec![name(1)]).asks_the_same(&of(vec![name(2)])));
    assert!(!of(vec![name(1)]).asks_the_same(&t()));
}

#[test]
fn the_words_in_the_log_are_what_they_always_were() {
    use {GrantRefusal as R, GrantState as S, ReviewVerdict as V};
    let states = [S::Requested, S::Active, S::Denied, S::Lapsed, S::Over, S::Reviewed];
    assert_eq!(
        states.map(|state| (state.as_str(), state.is_open(), state.is_settled())),
        [
            ("requested", true, false),
            ("active", true, false),
            ("denied", false, true),
            ("lapsed", false, true),
            ("over", false, false),
            ("reviewed", false, true),
        ]
    );
    let ends = [Ended::Closed, Ended::Expired, Ended::UsedUp, Ended::Denied, Ended::Lapsed];
    assert_eq!(ends.map(Ended::as_str), ["closed", "expired", "used_up", "denied", "lapsed"]);
    let verdicts = [V::Justified, V::NotJustified, V::Escalated];
    assert_eq!(verdicts.map(V::as_str), ["justified", "not_justified", "escalated"]);
    let refusals = [R::State, R::Another, R::Credential, R::SecondPerson, R::Changed, R::UsedUp];
    assert_eq!(
        refusals.map(R::as_str),
        ["state", "another_requester", "another_credential", "second_person", "terms_changed", "used_up"]
    );
}

#[test]
fn a_party_is_known_by_all_identities_of_its_principal() {
    let caller = requester();
    assert_eq!(caller.principal.kind, PrincipalKind::Human);
    let party = Party::of(&caller);
    let mut shouted = caller.clone();
    shouted.identity = shouted.identity.replace("test.local", "TEST.LOCAL");
    assert_eq!(Party::of(&shouted), party);
    assert_eq!(party.identities.len(), 1);
}

#[test]
fn an_approval_is_of_the_terms_and_no_others() {
    let grant = Grant::asked(terms());
    let by = || who("approver", 2);
    for wrong in [&[][..], &[0; 32], &terms().hash()[..31]] {
        let refused = grant.approve(by(), wrong, String::new(), at(1)).err();
        assert_eq!(refused, Some(GrantRefusal::Changed));
    }
    // Terms that differ in anything have another hash.
    let t = terms;
    let others = [
        Terms { id: GrantId::from_bytes([0xac; 16]), ..t() },
        Terms { tenant: TenantId::parse("other").unwrap(), ..t() },
        Terms { requester: who("somebody", 5), ..t() },
        Terms { scope: GrantScope::Tokens(vec![token(1), token(2), token(3)]), ..t() },
        Terms {
            scope: GrantScope::Subject(vec![SubjectRef { version: KeyVersion(1), mac: [1; 16] }]),
            ..t()
        },
        Terms { classes: vec![class("mrn")], ..t() },
        Terms { reason_code: "legal".to_owned(), ..t() },
        Terms { reason: "another reason".to_owned(), ..t() },
        Terms { ticket: String::new(), ..t() },
        Terms { duration: 16 * 60, ..t() },
        Terms { values: 4, ..t() },
        Terms { approvals_needed: 2, ..t() },
        Terms { wait: 1, ..t() },
        Terms { review_within: 1, ..t() },
        Terms { requested: at(1), ..t() },
    ];
    let mut hashes: Vec<_> = others.iter().map(Terms::hash).collect();
    hashes.push(terms().hash());
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), others.len() + 1);
}

#[test]
fn a_scope_that_grew_after_the_approval_is_good_for_nothing() {
    let grant = approved();
    let wider = Terms { scope: GrantScope::Tokens(vec![token(1), token(2), token(3)]), ..terms() };
    let grown = Grant { terms: wider, ..grant.clone() };
    assert_eq!(grown.use_by(&requester(), at(2 * MINUTE), SOON).err(), Some(GrantRefusal::Changed));
    let more = Grant { terms: Terms { values: 1000, ..terms() }, ..grant.clone() };
    assert_eq!(more.use_by(&requester(), at(2 * MINUTE), SOON).err(), Some(GrantRefusal::Changed));
    let unapproved = Grant { approvals: Vec::new(), ..grant };
    assert_eq!(unapproved.use_by(&requester(), at(2 * MINUTE), SOON).err(), Some(GrantRefusal::Changed));
}

#[test]
fn only_the_requester_with_its_credential_may_use_it() {
    let grant = approved();
    let other = Access::new(test_directory(), test_policies("dev"));
    let other = other.authenticate(&test_credential("approver/person"), at(0)).unwrap();
    assert_eq!(grant.use_by(&other, at(2 * MINUTE), SOON).err(), Some(GrantRefusal::Another));
    let renewed = Caller { credential: [8; 32], ..requester() };
    assert_eq!(grant.use_by(&renewed, at(2 * MINUTE), SOON).err(), Some(GrantRefusal::Credential));
}

#[test]
fn a_proof_is_of_its_grant_as_long_as_that_is_in_force() {
    let (grant, other) = (approved(), Terms { id: GrantId::from_bytes([0xac; 16]), ..terms() });
    let other = Grant::asked(Terms { approvals_needed: 0, ..other });
    let using = other.use_by(&requester(), at(MINUTE), SOON).unwrap();
    assert_eq!((using.id(), grant.used(&using, 1).err()), (other.terms().id, Some(GrantRefusal::State)));
    let using = grant.use_by(&requester(), at(2 * MINUTE), SOON).unwrap();
    let over = grant.close(&terms().requester.principal, at(3 * MINUTE)).unwrap();
    assert_eq!(over.used(&using, 1).err(), Some(GrantRefusal::State));
    assert_eq!(grant.used(&using, 1).unwrap().left(), 2);
}

#[test]
fn it_is_about_its_tokens_or_its_person_and_its_classes() {
    let using = approved().use_by(&requester(), at(2 * MINUTE), SOON).unwrap();
    assert!(using.covers(&record(1)));
    for other in [
        record(3),
        Record { class: class("dob"), ..record(1) },
        Record { tenant: TenantId::parse("other").unwrap(), ..record(1) },
    ] {
        assert!(!using.covers(&other), "{other:?}");
    }
    let name = |version| SubjectRef { version: KeyVersion(version), mac: [9; 16] };
    let of_person = Terms { scope: GrantScope::Subject(vec![name(1), name(2)]), ..terms() };
    let grant = Grant::asked(of_person.clone());
    let grant = grant.approve(who("approver", 2), &of_person.hash(), String::new(), at(1)).unwrap();
    let using = grant.use_by(&requester(), at(2), SOON).unwrap();
    assert!(using.covers(&Record { subject: Some(name(2)), ..record(77) }));
    assert!(!using.covers(&Record { subject: Some(name(3)), ..record(1) }));
    assert!(!using.covers(&record(1)));
}

#[test]
fn no_clock_makes_it_last_longer() {
    let grant = approved();
    let over = |clock, known| grant.due(clock, known).map(|grant| grant.end().unwrap().how);
    assert_eq!(over(at(15 * MINUTE), SOON), None);
    assert_eq!(over(at(16 * MINUTE), SOON), Some(Ended::Expired));
    // Three days ahead: over. Three days back: over when its time has passed by a clock that nobody sets.
    assert_eq!(over(at(3 * DAY), SOON), Some(Ended::Expired));
    let back = Timestamp(T0 - 3 * DAY);
    assert_eq!(over(back, SOON), None);
    assert_eq!(over(back, Duration::from_mins(15)), Some(Ended::Expired));
    let known = Duration::from_mins(15);
    assert_eq!(grant.use_by(&requester(), back, known).err(), Some(GrantRefusal::State));
    // What happens by a clock that was set back did not happen before what came first.
    let using = grant.use_by(&requester(), back, SOON).unwrap();
    let used = grant.used(&using, 1).unwrap();
    assert_eq!(used.first_used(), Some(at(MINUTE)));
    let closed = used.close(&terms().requester.principal, back).unwrap();
    assert_eq!(closed.end().unwrap().at, at(MINUTE));
    // A use by a clock that is ahead ends it for everybody.
    let ahead = grant.use_by(&requester(), at(10 * MINUTE), SOON).unwrap();
    let used = grant.used(&ahead, 1).unwrap();
    assert!(used.due(at(2 * MINUTE), SOON).is_none());
    let closed = used.close(&terms().requester.principal, at(2 * MINUTE)).unwrap();
    assert_eq!(closed.end().unwrap().at, at(10 * MINUTE), "not before its last use");
}

#[test]
fn of_two_approvals_the_second_is_not_before_the_first_whatever_the_clock() {
    let two = Grant::asked(Terms { approvals_needed: 2, ..terms() });
    let hash = two.terms().hash();
    let once = two.approve(who("approver", 2), &hash, String::new(), at(10 * MINUTE)).unwrap();
    let twice = once.approve(who("stranger", 9), &hash, String::new(), at(MINUTE)).unwrap();
    assert_eq!(twice.approved(), Some(at(10 * MINUTE)));
    assert_eq!(twice.expires(), Some(at(25 * MINUTE)));
    let by: Vec<_> =
        twice.approvals().iter().map(|approval| (approval.by.principal.as_str(), approval.at)).collect();
    assert_eq!(by, [("approver", at(10 * MINUTE)), ("stranger", at(10 * MINUTE))]);
}

#[test]
fn a_request_that_nobody_approves_lapses() {
    let grant = Grant::asked(terms());
    assert_eq!(grant.due(at(59 * MINUTE), SOON), None);
    for (clock, known) in [(at(60 * MINUTE), SOON), (at(0), Duration::from_hours(1))] {
        let lapsed = grant.due(clock, known).unwrap();
        assert_eq!((lapsed.state(), lapsed.review_due()), (GrantState::Lapsed, None));
        let refused = lapsed.approve(who("approver", 2), &terms().hash(), String::new(), at(1)).err();
        assert_eq!(refused, Some(GrantRefusal::State));
    }
    // One that was taken back, or denied, was never in force, and there is nothing to review.
    let taken_back = grant.close(&terms().requester.principal, at(1)).unwrap();
    assert_eq!((taken_back.state(), taken_back.end().unwrap().how), (GrantState::Lapsed, Ended::Closed));
    let denied = grant.deny(&who("approver", 2), at(1)).unwrap();
    for settled in [taken_back, denied] {
        assert!(settled.state().is_settled() && !settled.is_overdue(at(100 * DAY)));
        let refused =
            settled.review(&who("auditor", 3), ReviewVerdict::Justified, String::new(), at(DAY)).err();
        assert_eq!(refused, Some(GrantRefusal::State));
    }
}

#[test]
fn one_that_needs_nobody_is_in_force_at_once_and_says_so() {
    let terms = Terms { approvals_needed: 0, ..terms() };
    let grant = Grant::asked(terms);
    assert!(grant.is_unapproved() && grant.state() == GrantState::Active);
    assert!(!approved().is_unapproved());
    assert_eq!(grant.use_by(&requester(), at(1), SOON).unwrap().seen().approvals, 0);
}

#[test]
fn an_escalated_one_may_be_reviewed_again() {
    let over = approved().due(at(DAY), SOON).unwrap();
    let review =
        |grant: &Grant, verdict| grant.review(&who("auditor", 3), verdict, "because".into(), at(DAY));
    let escalated = review(&over, ReviewVerdict::Escalated).unwrap();
    assert!(!escalated.is_overdue(at(9 * DAY)));
    let settled = review(&escalated, ReviewVerdict::NotJustified).unwrap();
    assert_eq!(settled.reviewed().unwrap().verdict, ReviewVerdict::NotJustified);
    assert!(review(&settled, ReviewVerdict::Justified).is_err());
}

/// One of each shape.
fn grants() -> Vec<Grant> {
    let used = approved();
    let using = used.use_by(&requester(), at(2 * MINUTE), SOON).unwrap();
    let over = used.used(&using, 2).unwrap().close(&terms().requester.principal, at(3 * MINUTE)).unwrap();
    let person = GrantScope::Subject(vec![SubjectRef { version: KeyVersion(2), mac: [9; 16] }]);
    vec![
        Grant::asked(Terms { scope: person, ticket: String::new(), ..terms() }),
        over.review(&who("auditor", 3), ReviewVerdict::Escalated, "Ask the ward".to_owned(), at(DAY))
            .unwrap(),
        approved().due(at(DAY), SOON).unwrap(),
    ]
}

#[test]
fn grants_of_the_first_version_still_open() {
    let rows: Vec<_> = grants().iter().map(|grant| hex::encode(grant.entity(0).unwrap().content)).collect();
    let committed = include_str!("row_v1.hex");
    assert_eq!(committed.lines().collect::<Vec<_>>(), rows, "{}", rows.join("\n"));
    for (line, grant) in committed.lines().zip(grants()) {
        let place = Grant::place(&tenant(), grant.terms().id);
        let entity = Entity { place, revision: 3, content: hex::decode(line).unwrap() };
        assert_eq!(Grant::read(&entity), Ok(grant));
    }
    let hash = "5544f5c90523b13826d609e0dcb7311141901c64dfa44d31555c01952a59fbe4";
    assert_eq!(hex::encode(terms().hash()), hash);
}

#[test]
fn what_was_not_written_is_not_a_grant() {
    for grant in grants() {
        let entity = grant.entity(1).unwrap();
        let mut changed = 0;
        for at in 0..entity.content.len() {
            let mut content = entity.content.clone();
            content[at] ^= 0x40;
            // A changed text or time reads as another grant; it is never taken for this one.
            changed +=
                usize::from(Grant::read(&Entity { content, ..entity.clone() }).ok() == Some(grant.clone()));
            let cut = Entity { content: entity.content[..at].to_vec(), ..entity.clone() };
            assert_ne!(Grant::read(&cut).ok(), Some(grant.clone()));
        }
        assert_eq!(changed, 0);
        // Nor at another place, with something behind it, or of another version.
        let elsewhere = Grant::place(&TenantId::parse("other").unwrap(), grant.terms().id);
        assert!(Grant::read(&Entity { place: elsewhere, ..entity.clone() }).is_err());
        let longer = [&entity.content[..], &[0x98, 0x06, 1]].concat();
        assert!(Grant::read(&Entity { content: longer, ..entity.clone() }).is_err());
        let newer = [&[2], &entity.content[1..]].concat();
        assert!(Grant::read(&Entity { content: newer, ..entity.clone() }).is_err());
    }
}

#[test]
fn the_largest_grant_fits_its_row() {
    let tokens = (0..256_u32).map(|n| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Token::from_bytes(bytes)
    });
    let long = || "\u{1f600}".repeat(512);
    let party = |n: u8| Party {
        principal: PrincipalId::parse(&format!("{}{n}", "p".repeat(126))).unwrap(),
        credential: [n; 32],
        identities: (0..32).map(|i| [n * 32 + i; 32]).collect(),
        key: format!("{}{n}", "k".repeat(63)),
    };
    let terms = Terms {
        scope: GrantScope::Tokens(tokens.collect()),
        classes: (0..64).map(|n| class(&format!("{}{n:02}", "c".repeat(30)))).collect(),
        reason: long(),
        ticket: "\u{1f600}".repeat(128),
        requester: party(0),
        approvals_needed: 5,
        ..terms()
    };
    let hash = terms.hash();
    let mut grant = Grant::asked(terms);
    for n in 1..=5 {
        grant = grant.approve(party(n), &hash, long(), at(1)).unwrap();
    }
    let grant = grant.due(at(DAY), SOON).unwrap();
    let grant = grant.review(&party(6), ReviewVerdict::Justified, long(), at(DAY)).unwrap();
    let entity = grant.entity(0).unwrap();
    assert_eq!(Grant::read(&entity), Ok(grant));
}
