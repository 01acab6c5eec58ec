//! What may be asked for, by whom, and how often.

use super::*;

#[tokio::test]
async fn what_is_asked_for_must_be_whole_and_harmless() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let foreign = rig.keep("other", 1, None).await;
    let dora = rig.cx("dora").await;
    let good = || asked(&tokens, "bad");
    let long = "x".repeat(1 << 20);
    let mut bad: Vec<GrantAsked> =
        ["short", "a line\nanother", "\u{1b}[2Jgone it is", "left\u{202e}to right", &long]
            .map(|reason| GrantAsked { reason: reason.to_owned(), ..good() })
            .into();
    bad.extend([
        GrantAsked { ticket: "INC\n4711".to_owned(), ..good() },
        GrantAsked { reason_code: "curiosity".to_owned(), ..good() },
        GrantAsked { reason_code: String::new(), ..good() },
        GrantAsked { classes: Vec::new(), ..good() },
        GrantAsked { classes: vec![ClassName::parse("nonsense").unwrap()], ..good() },
        GrantAsked { duration: 3601, ..good() },
        GrantAsked { values: 1001, ..good() },
        GrantAsked { scope: AskedScope::Tokens(Vec::new()), ..good() },
        GrantAsked { scope: AskedScope::Tokens(vec![Ok(tokens[0]); 257]), ..good() },
        GrantAsked { scope: AskedScope::Tokens(vec![Ok(tokens[0]), Ok(foreign[0])]), ..good() },
        GrantAsked { scope: AskedScope::Tokens(vec![Ok(Token::from_bytes([3; 16]))]), ..good() },
    ]);
    for asked in bad {
        let refused = rig.ask(&dora, "demo", asked).await.unwrap_err();
        assert!(
            matches!(refused, Problem::Field(_) | Problem::ClassUnknown | Problem::NotFound),
            "{refused:?}"
        );
        let entry = rig.last(AuditAction::GrantRequest).await;
        assert!(!entry.reason.contains('\n') && entry.reason.len() < 2048);
        assert_eq!(entry.decision, 2);
    }
    let grants = rig.rows(EntityKind::Grant).await;
    assert!(grants.is_empty() && rig.alerts().await.is_empty(), "{grants:?}");
    // Of a foreign token the log alone knows what it is.
    let scope = AskedScope::Tokens(vec![Ok(foreign[0])]);
    assert_eq!(rig.ask(&dora, "demo", GrantAsked { scope, ..good() }).await, Err(Problem::NotFound));
    assert_eq!(rig.last(AuditAction::GrantRequest).await.items[0].outcome, 4);
    // Without a touch of its key.
    let untouched = rig.vault.request_grant(&dora, "demo", Ok(good())).await;
    assert_eq!(told(untouched), Err(Problem::SecondFactor("second_factor_missing")));
}

#[tokio::test]
async fn the_same_request_gives_the_same_grant() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 2, None).await;
    let dora = rig.cx("dora").await;
    let first = rig.ask(&dora, "demo", asked(&tokens, "k")).await.unwrap();
    rig.clock.pass(MINUTE);
    let again = rig.ask(&dora, "demo", asked(&tokens, "k")).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(detail(&rig.last(AuditAction::GrantRequest).await, "repeated"), "true");
    assert_eq!(rig.alerts().await, ["grant_requested"]);
    for other in [asked(&tokens[..1], "k"), GrantAsked { values: 7, ..asked(&tokens, "k") }] {
        assert_eq!(rig.ask(&dora, "demo", other).await, Err(Problem::IdempotencyConflict));
    }
    // Somebody else's key is another.
    let other = rig.ask(&rig.cx("dirk").await, "demo", asked(&tokens, "k")).await.unwrap();
    assert_ne!(first.terms().id, other.terms().id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_requester_has_so_many_at_a_time_however_fast_it_asks() {
    let rig = Arc::new(Rig::new().await);
    let tokens = rig.keep("demo", 1, None).await;
    let mut tasks = tokio::task::JoinSet::new();
    // Each with a touch of its own, in the order of the key's counter: what comes late is used up by what came first.
    for n in 0..8 {
        let (rig, tokens) = (Arc::clone(&rig), tokens.clone());
        tasks.spawn(async move {
            let dora = rig.cx("dora").await;
            rig.ask(&dora, "demo", asked(&tokens, &format!("k{n}"))).await
        });
    }
    let made = tasks.join_all().await.into_iter().flatten().count();
    assert!((1..=3).contains(&made), "{made}");
    let dora = rig.cx("dora").await;
    let mut grants = Vec::new();
    for n in 0..8 {
        match rig.ask(&dora, "demo", asked(&tokens, &format!("late{n}"))).await {
            Ok(grant) => grants.push(grant),
            Err(problem) => assert!(matches!(problem, Problem::LimitReached { limit: "open_grants", .. })),
        }
    }
    assert_eq!(made + grants.len(), 3);
    // One that was taken back makes room.
    if let Some(grant) = grants.first() {
        rig.close(&dora, grant).await.unwrap();
        rig.ask(&dora, "demo", asked(&tokens, "room")).await.unwrap();
    }
}

#[tokio::test]
async fn who_has_one_unreviewed_gets_no_other_at_any_tenant() {
    let rig = Rig::new().await;
    let (tokens, foreign) = (rig.keep("demo", 1, None).await, rig.keep("other", 1, None).await);
    let dora = rig.cx("dora").await;
    let grant = rig.granted(&tokens, 1).await;
    // Never used, and over: it is reviewed all the same.
    let grant = rig.close(&rig.cx("gus").await, &grant).await.unwrap();
    assert_eq!(grant.state(), GrantState::Over);
    rig.clock.pass(2 * DAY);
    let fine = rig.ask(&dora, "other", asked(&foreign, "in time")).await.unwrap();
    rig.clock.pass(DAY);
    assert_eq!(rig.ask(&dora, "other", asked(&foreign, "late")).await, Err(Problem::ReviewOverdue));
    assert_eq!(rig.ask(&dora, "demo", asked(&tokens, "late")).await, Err(Problem::ReviewOverdue));
    assert_eq!(rig.last(AuditAction::GrantRequest).await.cause, "review_overdue");
    rig.review(&rig.cx("ann").await, &grant, ReviewVerdict::Justified).await.unwrap();
    rig.ask(&dora, "demo", asked(&tokens, "again")).await.unwrap();
    drop(fine);
}

#[tokio::test]
async fn a_tenant_may_say_that_nobody_needs_to_approve_and_somebody_is_woken() {
    let tenants = [(
        TenantId::parse("demo").unwrap(),
        TenantRules { approvals: Some(0), max_duration: Some(Duration::from_mins(5)), max_values: Some(3) },
    )];
    let rules = GrantRules { tenants: tenants.into(), ..rules() };
    let rig = Rig::with(Arc::new(MemoryStore::new()), rules, None).await;
    let tokens = rig.keep("demo", 1, None).await;
    let foreign = rig.keep("other", 1, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.ask(&dora, "demo", asked(&tokens, "k")).await.unwrap();
    assert!(grant.is_unapproved() && grant.state() == GrantState::Active);
    assert_eq!(grant.terms().duration, 300);
    assert_eq!(rig.alerts().await, ["grant_requested", "grant_unapproved"]);
    assert!(rig.reveal(&dora, &grant, &[]).await.unwrap()[0].is_ok());
    let more = GrantAsked { values: 4, ..asked(&tokens, "more") };
    assert!(matches!(rig.ask(&dora, "demo", more).await, Err(Problem::Field(_))));
    let elsewhere = rig.ask(&dora, "other", asked(&foreign, "k")).await.unwrap();
    assert_eq!(elsewhere.state(), GrantState::Requested);
}
