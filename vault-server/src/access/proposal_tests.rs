use super::*;
use crate::access::authenticator::Authenticator;
use crate::access::{PrincipalKind, Role, TenantScope};

/// Rows as the first version wrote them: they must open for ever. A principal's, then a security key's.
const VECTORS: &str = include_str!("vectors/proposal.txt");

fn party(name: &str, credential: u8) -> Party {
    Party {
        principal: PrincipalId::parse(name).unwrap(),
        credential: [credential; 32],
        identities: vec![Sha256::digest(format!("spiffe://test.local/{name}")).into()],
        key: String::new(),
    }
}

fn ann(revision: u64) -> Principal {
    let demo = TenantScope::One(TenantId::parse("demo").unwrap());
    Principal {
        id: PrincipalId::parse("ann").unwrap(),
        kind: PrincipalKind::Human,
        identities: ["spiffe://test.local/ann".to_owned()].into(),
        roles: [(demo, [Role::Approver].into())].into(),
        owner: Some("operations".to_owned()),
        enabled: true,
        expires: Some(Timestamp(1_800_000_000_000_000)),
        revision: Some(revision),
    }
}

fn of(tenant: Option<&str>, change: Proposed) -> Proposal {
    Proposal {
        id: ProposalId::from_bytes([0x11; 16]),
        tenant: tenant.map(|tenant| TenantId::parse(tenant).unwrap()),
        asker: party("boss", 1),
        request: RequestId::from_bytes([0x22; 16]),
        asked: Timestamp(1_790_000_000_000_000),
        expires: Timestamp(1_790_000_060_000_000),
        change,
        reason: "on the rota".to_owned(),
        ticket: "IAM-12".to_owned(),
    }
}

fn principal() -> Proposal {
    let change = Proposed::Principal { after: Box::new(ann(4)), before: Some(state_hash(&ann(3))) };
    of(Some("demo"), change)
}

fn key() -> Proposal {
    let (key, label) = SecurityKey::parse_line(&Authenticator::ed25519(1).line("blue")).unwrap();
    of(
        None,
        Proposed::SecurityKey { principal: PrincipalId::parse("ann").unwrap(), key: Box::new(key), label },
    )
}

#[test]
fn the_committed_rows_open_to_what_was_written() {
    let vectors: Vec<_> = VECTORS.lines().map(|line| hex::decode(line).unwrap()).collect();
    for (proposal, content) in [principal(), key()].into_iter().zip(&vectors) {
        let entity = proposal.entity().unwrap();
        assert_eq!(hex::encode(&entity.content), hex::encode(content));
        assert_eq!(Proposal::read(&entity), Ok(proposal));
    }
    assert_eq!(vectors.len(), 2);
    let new = of(None, Proposed::Principal { after: Box::new(ann(0)), before: None });
    assert_eq!(Proposal::read(&new.entity().unwrap()), Ok(new));
}

#[test]
fn what_was_not_written_so_is_corrupt() {
    for waits in [principal(), key()] {
        let good = waits.entity().unwrap();
        for at in 0..good.content.len() {
            let mut content = good.content.clone();
            content[at] ^= 1;
            let read = Proposal::read(&Entity { content, ..good.clone() });
            // A byte that is another may be another proposal, and then it has another hash; never this one.
            assert!(read.is_err() || read.is_ok_and(|other| other.hash() != waits.hash()), "byte {at}");
            let cut = Entity { content: good.content[..at].to_vec(), ..good.clone() };
            assert_eq!(Proposal::read(&cut), Err(CorruptProposal), "cut to {at}");
        }
        let other = Proposal::place(waits.tenant.as_ref(), ProposalId::from_bytes([0x12; 16]));
        assert_eq!(Proposal::read(&Entity { place: other, ..good.clone() }), Err(CorruptProposal), "place");
        let elsewhere = TenantId::parse("other").unwrap();
        let elsewhere = Proposal::place(Some(&elsewhere), waits.id);
        assert_eq!(Proposal::read(&Entity { place: elsewhere, ..good }), Err(CorruptProposal), "tenant");
    }
    let both = ProposalRow { key: Some(KeyRow::default()), ..row(&principal()) };
    assert!(proposal(both).is_none());
    assert!(proposal(ProposalRow { principal: None, ..row(&principal()) }).is_none());
    assert!(proposal(ProposalRow { asker: None, ..row(&principal()) }).is_none());
}

fn row(proposal: &Proposal) -> ProposalRow {
    ProposalRow::decode(&proposal.entity().unwrap().content[1..]).unwrap()
}

#[test]
fn an_approval_is_of_the_content_that_was_seen_and_of_nothing_else() {
    let now = Timestamp(1_790_000_000_000_001);
    let chief = party("chief", 2);
    for proposal in [principal(), key()] {
        let hash = proposal.hash();
        assert_eq!(proposal.may_approve(&chief, &hash, now), Ok(()));
        for other in [&[][..], &hash[..31], &[7; 32], &principal().entity().unwrap().content] {
            assert_eq!(proposal.may_approve(&chief, other, now), Err(ProposalRefusal::Content));
        }
    }
    // Each thing that is asked for is in the hash.
    let hash = principal().hash();
    let with = |change: &dyn Fn(&mut Proposal)| {
        let mut other = principal();
        change(&mut other);
        other.hash()
    };
    assert_eq!(with(&|_| ()), hash);
    let after = |change: &dyn Fn(&mut Principal)| {
        with(&|proposal| {
            let Proposed::Principal { after, .. } = &mut proposal.change else { panic!() };
            change(after);
        })
    };
    for (what, other) in [
        ("id", with(&|p| p.id = ProposalId::from_bytes([9; 16]))),
        ("tenant", with(&|p| p.tenant = None)),
        ("asker", with(&|p| p.asker = party("boss", 2))),
        ("expiry", with(&|p| p.expires = Timestamp(p.expires.0 + 1))),
        ("reason", with(&|p| p.reason.clear())),
        ("identity", after(&|p| p.identities.extend(["spiffe://test.local/x".to_owned()]))),
        ("role", after(&|p| p.roles.values_mut().for_each(|roles| roles.extend([Role::Admin])))),
        ("expires", after(&|p| p.expires = None)),
        ("before", with(&|p| p.change = Proposed::Principal { after: Box::new(ann(4)), before: None })),
        ("key", key().hash()),
    ] {
        assert_ne!(other, hash, "{what}");
    }
}

#[test]
fn who_asked_or_gains_by_it_does_not_approve_under_any_name() {
    let (proposal, now) = (principal(), Timestamp(1_790_000_000_000_001));
    let by = |party: &Party| proposal.may_approve(party, &proposal.hash(), now);
    let chief = party("chief", 2);
    assert_eq!(by(&chief), Ok(()));
    let second = Err(ProposalRefusal::SecondPerson);
    assert_eq!(by(&party("boss", 2)), second, "the same principal, with another certificate");
    assert_eq!(by(&party("chief", 1)), second, "another principal, with the same certificate");
    let boss = party("boss", 1).identities;
    assert_eq!(by(&Party { identities: boss, ..chief.clone() }), second, "an identity of the asker's");
    assert_eq!(by(&party("ann", 3)), second, "who gains by it");
    let anns = party("ann", 3).identities;
    assert_eq!(by(&Party { identities: anns, ..chief.clone() }), second, "by an identity that it shall get");
    assert_eq!(key().may_approve(&party("ann", 3), &key().hash(), now), second, "its own key");
    // The same security key, touched by both.
    let touched = Proposal { asker: party("boss", 1).touched("SHA256:x"), ..principal() };
    let hash = touched.hash();
    assert_eq!(touched.may_approve(&chief.clone().touched("SHA256:x"), &hash, now), second);
    assert_eq!(touched.may_approve(&chief.touched("SHA256:y"), &hash, now), Ok(()));
}

#[test]
fn it_is_over_at_its_time_and_superseded_by_any_change() {
    let proposal = principal();
    let chief = party("chief", 2);
    let at = |time| proposal.may_approve(&chief, &proposal.hash(), Timestamp(time));
    assert_eq!(at(proposal.expires.0 - 1), Ok(()));
    assert_eq!(at(proposal.expires.0), Err(ProposalRefusal::Expired));
    assert!(proposal.is_of(Some(&ann(3))));
    assert!(!proposal.is_of(None) && !proposal.is_of(Some(&ann(2))));
    // A store that was set back may count to the same number again.
    assert!(!proposal.is_of(Some(&Principal { owner: None, ..ann(3) })));
    let new = of(None, Proposed::Principal { after: Box::new(ann(0)), before: None });
    assert!(new.is_of(None) && !new.is_of(Some(&ann(0))));
}

#[test]
fn the_log_tells_why_an_approval_was_refused() {
    use ProposalRefusal::{Approver, Asker, Content, Expired, SecondPerson, Superseded};
    let words = [Expired, Content, SecondPerson, Superseded, Asker, Approver].map(ProposalRefusal::as_str);
    let told =
        ["expired", "another_content", "second_person", "superseded", "asker_may_not", "approver_may_not"];
    assert_eq!(words, told);
}
