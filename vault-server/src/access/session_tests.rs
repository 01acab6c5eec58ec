use super::*;

const RULES: SessionRules =
    SessionRules { idle: Duration::from_mins(15), lifetime: Duration::from_hours(12), per_principal: 10 };
const SECOND: u64 = 1_000_000;

fn session() -> Session {
    Session {
        principal: "joan".to_owned(),
        identity: "oidc:https://idp.example.org#00u1".to_owned(),
        factors: vec!["oidc".to_owned(), "hwk".to_owned()],
        opened_us: 1_000 * SECOND,
        used_us: 2_000 * SECOND,
        ends_us: 1_000 * SECOND + 12 * 3600 * SECOND,
        certificate: vec![7; 32],
        token: vec![9; 32],
        closed_us: 0,
    }
}

/// Rows that were written before still open: one a line, name and content in hexadecimal.
#[test]
fn rows_of_version_1_are_read_as_they_were_written() {
    let principal = PrincipalId::parse("joan").unwrap();
    let rows = [
        (SessionRow::session(&[1; 32]), SessionRow::Session(session())),
        (SessionRow::list(&principal), SessionRow::List(SessionList { sessions: vec![vec![1; 32]] })),
        (SessionRow::used(&[9; 32]), SessionRow::Used(UsedToken { expires_us: 5 * SECOND })),
    ];
    let written = rows.iter().map(|(place, row)| {
        let entity = row.entity(place.clone().unwrap(), 0);
        format!("{} {}\n", hex::encode(entity.place.name.as_bytes()), hex::encode(&entity.content))
    });
    let vectors = include_str!("vectors/session.hex");
    assert_eq!(written.collect::<String>(), vectors);
    for (line, (place, row)) in vectors.lines().zip(rows) {
        let content = hex::decode(line.split_once(' ').unwrap().1).unwrap();
        let entity = Entity { place: place.unwrap(), revision: 3, content };
        assert_eq!(SessionRow::read(&entity), Some(row));
    }
}

#[test]
fn a_row_that_is_none_of_these_is_not_read() {
    let good = SessionRow::Session(session()).entity(SessionRow::session(&[1; 32]).unwrap(), 0);
    let with = |content: Vec<u8>| SessionRow::read(&Entity { content, ..good.clone() });
    assert!(with(good.content.clone()).is_some());
    let mut newer = good.content.clone();
    newer[0] = 2;
    for bad in [Vec::new(), newer, good.content[..9].to_vec()] {
        assert_eq!(with(bad), None);
    }
    let odd = place(&[b'x'; 33]).unwrap();
    assert_eq!(SessionRow::read(&Entity { place: odd, ..good.clone() }), None);
}

#[test]
fn a_session_ends_when_it_is_idle_over_or_closed() {
    let over = |at: u64| session().over(Timestamp(at * SECOND), &RULES);
    assert_eq!(over(2_000), None);
    assert_eq!(over(2_000 + 899), None);
    assert_eq!(over(2_000 + 900), Some("session_idle"));
    let busy = Session { used_us: session().ends_us - SECOND, ..session() };
    assert_eq!(busy.over(Timestamp(busy.ends_us - 1), &RULES), None);
    assert_eq!(busy.over(Timestamp(busy.ends_us), &RULES), Some("session_expired"));
    let closed = Session { closed_us: 1, ..session() };
    assert_eq!(closed.over(Timestamp(2_000 * SECOND), &RULES), Some("session_closed"));
}

#[test]
fn shorter_rules_hold_for_sessions_that_are_open() {
    let at = Timestamp(2_100 * SECOND);
    assert_eq!(session().over(at, &RULES), None);
    let idle = SessionRules { idle: Duration::from_secs(100), ..RULES };
    assert_eq!(session().over(at, &idle), Some("session_idle"));
    let short = SessionRules { lifetime: Duration::from_secs(1_100), ..RULES };
    assert_eq!(session().over(at, &short), Some("session_expired"));
}

#[test]
fn a_clock_that_was_set_back_prolongs_nothing() {
    let used_at_its_end = Session { used_us: session().ends_us, ..session() };
    assert_eq!(used_at_its_end.over(Timestamp(0), &RULES), Some("session_expired"));
}

#[test]
fn a_bound_session_needs_its_certificate() {
    let bound = session();
    assert!(bound.fits(Some(&[7; 32])));
    assert!(!bound.fits(Some(&[8; 32])) && !bound.fits(None));
    let free = Session { certificate: Vec::new(), ..bound };
    assert!(free.fits(None) && free.fits(Some(&[8; 32])));
}

#[test]
fn a_use_is_noted_each_minute_or_four_times_while_idle() {
    let every = |idle| SessionRules { idle, ..RULES }.noted_every();
    assert_eq!(every(Duration::from_mins(15)), Duration::from_mins(1));
    assert_eq!(every(Duration::from_mins(4)), Duration::from_mins(1));
    assert_eq!(every(Duration::from_mins(2)), Duration::from_secs(30));
    let is_stale = |at: u64| session().is_stale(Timestamp(at), &RULES);
    assert!(!is_stale(2_060 * SECOND - 1) && is_stale(2_060 * SECOND));
    assert!(!is_stale(0), "a clock that was set back");
}

#[test]
fn a_text_that_begins_as_a_session_token_is_meant_as_one() {
    assert!(SessionToken::is_meant(SessionToken::random().unwrap().expose()));
    assert!(SessionToken::is_meant("pvs_x"));
    for other in ["", "pvs", "Pvs_x", "eyJhbGciOiJFUzI1NiJ9.e30.AA", " pvs_x"] {
        assert!(!SessionToken::is_meant(other), "{other}");
    }
}

#[test]
fn a_session_token_has_one_spelling() {
    let token = SessionToken::random().unwrap();
    let text = token.expose().to_owned();
    assert_eq!(text.len(), 68);
    assert_eq!(SessionToken::parse(&text).unwrap().name(), token.name());
    assert_ne!(SessionToken::random().unwrap().name(), token.name());
    for bad in [
        text.to_uppercase(),
        text[..67].to_owned(),
        format!("{text}0"),
        format!(" {text}"),
        text.replace("pvs_", "pvs-"),
        "pvs_".to_owned(),
        format!("pvs_{}", "g".repeat(64)),
        format!("pvs_{}", "\u{ff11}".repeat(64)),
    ] {
        assert!(SessionToken::parse(&bad).is_none(), "{bad}");
    }
}
