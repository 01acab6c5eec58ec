//! What answers is no PostgreSQL.

use std::thread;

use vault_tests::fake_postgres::{FakePostgres, Oid, Trick};

use super::{Home, plain};

/// Columns of the types that the first statements ask for.
const TEXTS: [Oid; 4] = [25; 4];
const MIXED: [Oid; 5] = [16, 17, 20, 23, 25];

fn tricks() -> Vec<Trick> {
    let types = || [TEXTS.to_vec(), MIXED.to_vec(), vec![16], Vec::new()];
    let mut tricks = vec![
        Trick::Close,
        Trick::Garbage,
        Trick::TlsGarbage,
        Trick::WrongSignature,
        Trick::Iterations(0),
        Trick::Iterations(100_000),
        Trick::Iterations(u32::MAX),
        Trick::ForeignNonce,
        Trick::EndlessScram,
        Trick::HugeMessage,
        Trick::HugeRow,
        Trick::Silence,
        Trick::LongError,
    ];
    tricks.extend(types().map(Trick::TooFewColumns));
    tricks.extend(types().map(Trick::WrongTypes));
    tricks.extend(types().map(Trick::NegativeLengths));
    tricks.extend(types().map(Trick::TooLongColumns));
    tricks
}

#[test]
fn whatever_a_hostile_server_does_the_start_ends_in_one_clear_line() {
    let home = Home::make();
    std::fs::write(home.site.dir().join("db-password"), "a password\n").unwrap();
    let tricks = tricks();
    // A few at a time: some wait for as long as a server may take.
    for some in tricks.chunks(6) {
        thread::scope(|scope| {
            for trick in some {
                let home = &home;
                scope.spawn(move || {
                    let name = format!("{trick:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                    let fake = FakePostgres::start(trick.clone());
                    let mut section = plain(fake.port, "phi_vault", "phi_vault");
                    section.push_str("password_file = \"db-password\"\n");
                    if *trick == Trick::TlsGarbage {
                        section = section.replace("\"off\"", "\"verify-full\"\nca = \"pki/ca.pem\"");
                    }
                    let says = Home::refuses(&home.config(&name, &section), &["database: 127.0.0.1"]);
                    assert!(fake.connections() >= 1, "{trick:?}: nobody asked");
                    assert!(!says.contains("a password"), "{trick:?}");
                });
            }
        });
    }
}

#[test]
fn of_several_servers_that_are_none_each_is_named() {
    let home = Home::make();
    let fakes = [Trick::Close, Trick::LongError, Trick::Silence].map(FakePostgres::start);
    let hosts: Vec<_> = fakes.iter().map(|fake| format!("\"127.0.0.1:{}\"", fake.port)).collect();
    let section = plain(fakes[0].port, "phi_vault", "phi_vault");
    let section = section.replace(&hosts[0], &hosts.join(", "));
    let ports: Vec<_> = fakes.iter().map(|fake| format!("127.0.0.1:{}: ", fake.port)).collect();
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    Home::refuses(&home.config("several", &section), &ports);
}
