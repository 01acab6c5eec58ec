//! Who approves, and what.

use super::*;
use crate::store::LogId;

#[tokio::test]
async fn nobody_approves_its_own_whoever_it_says_it_is() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let dual = rig.cx("dual").await;
    let grant = rig.ask(&dual, "demo", asked(&tokens, "k")).await.unwrap();
    let before = rig.row(&grant).await;
    for (identity, certificate) in [
        ("spiffe://test.local/dual", 7),
        ("SPIFFE://TEST.LOCAL/dual", 8),
        ("spiffe://Test.Local/dual/", 9),
        ("subject:CN=dual,O=Test", 10),
        ("subject:cn=dual, o=Test", 11),
    ] {
        let cx = rig.cx_by(identity, certificate).await;
        assert_eq!(rig.approve(&cx, &grant).await, Err(Problem::SecondPerson), "{identity}");
        let entry = rig.last(AuditAction::GrantApprove).await;
        assert_eq!((entry.cause.as_str(), detail(&entry, "why")), ("second_person", "second_person"));
        assert_eq!(rig.row(&grant).await, before, "{identity}");
    }
    // Nor is one's own reviewed, nor one that one approved.
    let grant = rig.approve(&rig.cx("gus").await, &grant).await.unwrap();
    let grant = rig.close(&dual, &grant).await.unwrap();
    assert_eq!(rig.review(&dual, &grant, ReviewVerdict::Justified).await, Err(Problem::SecondPerson));
    // A program is no person.
    let robot = rig.cx("robot").await;
    for refused in [
        told(rig.vault.request_grant(&robot, "demo", Ok(asked(&tokens, "r"))).await),
        rig.approve(&robot, &grant).await,
        rig.review(&robot, &grant, ReviewVerdict::Justified).await,
    ] {
        assert_eq!(refused, Err(Problem::ActionNotAllowed));
    }
}

#[tokio::test]
async fn an_approval_is_good_once_and_for_one_grant() {
    let store = MemoryStore::new();
    let rig = Rig::with(Arc::new(store.clone()), GrantRules { approvals: 2, ..rules() }, None).await;
    let other = Rig::with(Arc::new(store.instance(LogId(1))), rules(), Some(&rig)).await;
    let tokens = rig.keep("demo", 2, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.ask(&dora, "demo", asked(&tokens[..1], "a")).await.unwrap();
    let wider = rig.ask(&dora, "demo", asked(&tokens, "b")).await.unwrap();
    let gus = rig.cx("gus").await;
    let factor = rig.factor(&gus, SecondFactorAction::GrantApprove).await;
    let approving = |grant: &Grant, terms: &Grant, factor: &Option<GivenFactor>| Approving {
        id: grant.terms().id,
        terms: terms.terms().hash().to_vec(),
        notes: String::new(),
        factor: factor.clone(),
    };
    // Terms of another grant.
    let before = rig.row(&wider).await;
    let refused = rig.vault.approve_grant(&gus, "demo", Ok(approving(&wider, &grant, &factor))).await;
    assert_eq!(told(refused), Err(Problem::GrantChanged));
    assert_eq!(rig.row(&wider).await, before);
    // Once.
    let once = rig.vault.approve_grant(&gus, "demo", Ok(approving(&grant, &grant, &factor))).await;
    assert_eq!(told(once).unwrap().state(), GrantState::Requested, "one of two");
    // The same again: here, on another instance, and for another grant.
    let before = (rig.row(&grant).await, rig.row(&wider).await);
    for (rig, grant, problem) in [
        (&rig, &grant, Problem::SecondPerson),
        (&other, &grant, Problem::SecondPerson),
        (&rig, &wider, Problem::SecondFactor("second_factor_unknown")),
        (&other, &wider, Problem::SecondFactor("second_factor_unknown")),
    ] {
        let gus = rig.cx("gus").await;
        let again = rig.vault.approve_grant(&gus, "demo", Ok(approving(grant, grant, &factor))).await;
        assert_eq!(told(again), Err(problem));
    }
    assert_eq!((rig.row(&grant).await, rig.row(&wider).await), before);
    assert_eq!(rig.reveal(&dora, &grant, &[]).await, Err(Problem::GrantState));
    let grant = other.approve(&other.cx("hal").await, &grant).await.unwrap();
    assert_eq!(grant.state(), GrantState::Active);
    let entry = other.last(AuditAction::GrantApprove).await;
    assert_eq!((detail(&entry, "approvals"), detail(&entry, "security_key").is_empty()), ("2/2", false));
    // Without a touch there is none.
    let refused = rig.vault.approve_grant(&gus, "demo", Ok(approving(&wider, &wider, &None))).await;
    assert_eq!(told(refused), Err(Problem::SecondFactor("second_factor_missing")));
}

/// The story of a grant has them; and whoever asks learns nothing by it.
#[tokio::test]
async fn who_may_not_is_on_record_with_the_grant_that_it_named() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.ask(&dora, "demo", asked(&tokens, "a")).await.unwrap();
    let terms = grant.terms().hash().to_vec();
    let nothing = GrantId::from_bytes([0xee; 16]);
    let (app, robot) = (rig.cx("app").await, rig.cx("robot").await);
    for id in [grant.terms().id, nothing] {
        let (notes, factor) = (String::new, None);
        let approving = || Approving { id, terms: terms.clone(), notes: notes(), factor: factor.clone() };
        let denying = || Denying { id, notes: notes(), factor: factor.clone() };
        let reviewing =
            Reviewing { id, verdict: ReviewVerdict::Justified, notes: "It was as they said".to_owned() };
        let begin = rig.entries().await.len();
        let answers = [
            told(rig.vault.approve_grant(&app, "demo", Ok(approving())).await).map(drop),
            told(rig.vault.deny_grant(&app, "demo", Ok(denying())).await).map(drop),
            told(rig.vault.review_grant(&app, "demo", Ok(reviewing)).await).map(drop),
            told(rig.vault.close_grant(&app, "demo", Ok((id, notes()))).await).map(drop),
            told(rig.vault.get_grant(&app, "demo", Ok(id)).await).map(drop),
        ];
        assert!(answers.iter().all(|answer| *answer == Err(Problem::ActionNotAllowed)), "{answers:?}");
        // A program, whatever roles it has.
        let program = told(rig.vault.approve_grant(&robot, "demo", Ok(approving())).await);
        assert_eq!(program, Err(Problem::ActionNotAllowed));
        let entries = rig.entries().await.split_off(begin);
        assert_eq!(entries.len(), answers.len() + 1);
        for entry in entries {
            assert_eq!(entry.grant, id.to_string(), "{:?}", entry.action());
            assert_eq!(entry.decision(), vault_proto::v1::audit_entry::Decision::Deny);
        }
    }
}
