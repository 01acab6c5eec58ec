//! What an ordinary client makes of it: it must end within its time, and nothing else than its own task may suffer.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Config, Error, NoTls, Row};

use super::{FakePostgres, Trick};

const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(fake: &FakePostgres) -> Result<tokio_postgres::Client, Error> {
    let config: Config = fake.url().parse().unwrap();
    let connected = timeout(PATIENCE, config.clone().password("password").connect(NoTls)).await.unwrap();
    let (client, connection) = connected?;
    tokio::spawn(connection);
    Ok(client)
}

/// What a connection is refused with.
async fn refused(trick: Trick) -> String {
    let fake = FakePostgres::start(trick);
    let error = connect(&fake).await.map(drop).unwrap_err();
    assert_eq!(fake.connections(), 1);
    format!("{:#}", anyhow::Error::from(error))
}

/// What a statement is answered with, over either of the two ways to send one.
async fn asked(trick: Trick) -> (Result<Vec<Row>, Error>, Result<(), Error>) {
    let fake = FakePostgres::start(trick);
    let client = connect(&fake).await.unwrap();
    let rows = timeout(PATIENCE, client.query("SELECT $1", &[&&b"x"[..]])).await.unwrap();
    let client = connect(&fake).await.unwrap();
    (rows, timeout(PATIENCE, client.simple_query("SELECT 1")).await.unwrap().map(drop))
}

#[tokio::test]
async fn a_connection_that_goes_wrong_is_refused() {
    for (trick, why) in [
        (Trick::Close, "connection closed"),
        (Trick::Garbage, "invalid message length"),
        (Trick::TlsGarbage, "connection closed"),
    ] {
        let refused = refused(trick.clone()).await;
        assert!(refused.contains(why), "{trick:?}: {refused}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_the_password_is_refused() {
    for (trick, why) in [
        (Trick::WrongSignature, "SCRAM verification error"),
        (Trick::Iterations(u32::MAX), "iteration count"),
        // Taken as it is; then the signature is wrong.
        (Trick::Iterations(0), "SCRAM"),
        (Trick::ForeignNonce, "invalid nonce"),
        (Trick::EndlessScram, "unexpected message"),
    ] {
        let refused = refused(trick.clone()).await;
        assert!(refused.contains(why), "{trick:?}: {refused}");
    }
}

#[tokio::test]
async fn garbage_instead_of_a_tls_handshake_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let fake = FakePostgres::start(Trick::TlsGarbage);
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", fake.port)).await.unwrap();
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let handshake = connector.connect("localhost".try_into().unwrap(), stream);
    timeout(PATIENCE, handshake).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn what_does_not_end_is_left_by_a_timeout() {
    for trick in [Trick::Silence, Trick::HugeMessage] {
        let fake = FakePostgres::start(trick);
        let config: Config = fake.url().parse().unwrap();
        timeout(Duration::from_millis(500), config.connect(NoTls)).await.map(drop).unwrap_err();
    }
    let fake = FakePostgres::start(Trick::HugeRow);
    let client = connect(&fake).await.unwrap();
    timeout(Duration::from_millis(500), client.simple_query("SELECT 1")).await.unwrap_err();
}

#[tokio::test]
async fn an_error_of_any_length_comes_through() {
    let refused = refused(Trick::LongError).await;
    assert!(refused.len() > 15 << 20, "{}", refused.len());
    assert!(refused.contains('\x1b'), "control characters are kept");
}

#[tokio::test]
async fn values_that_are_none_of_their_type_are_errors() {
    let (rows, _) = asked(Trick::WrongTypes(vec![20, 25, 16])).await;
    let row = &rows.unwrap()[0];
    row.try_get::<_, i64>(0).unwrap_err();
    row.try_get::<_, &str>(1).unwrap_err();
    row.try_get::<_, bool>(2).unwrap_err();
}

#[tokio::test]
async fn a_negative_length_is_taken_for_null() {
    let (rows, simple) = asked(Trick::NegativeLengths(vec![17])).await;
    assert_eq!(rows.unwrap()[0].try_get::<_, Option<Vec<u8>>>(0).unwrap(), None);
    simple.unwrap();
}

#[tokio::test]
async fn a_row_that_does_not_fit_its_message_or_its_columns_is_an_error() {
    for trick in [Trick::TooLongColumns(vec![17]), Trick::TooFewColumns(vec![17])] {
        let (rows, simple) = asked(trick).await;
        rows.unwrap_err();
        simple.unwrap_err();
    }
}

#[tokio::test]
async fn a_fake_ends_with_its_connections_when_it_is_dropped() {
    let fake = FakePostgres::start(Trick::Silence);
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", fake.port)).await.unwrap();
    let port = fake.port;
    tokio::task::spawn_blocking(|| drop(fake)).await.unwrap();
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut byte);
    assert!(matches!(timeout(PATIENCE, read).await.unwrap(), Ok(0) | Err(_)));
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
}
