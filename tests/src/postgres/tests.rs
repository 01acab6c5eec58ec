use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_rustls::TlsConnector;

use super::{Cluster, Options, Rows, Server, Tls};

fn text(rows: Rows) -> Vec<String> {
    rows.into_iter().flatten().map(|value| value.unwrap_or_else(|| "NULL".to_owned())).collect()
}

fn filled(cluster: &Cluster) -> String {
    let database = cluster.create_database();
    cluster.sql(&database, "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000)").unwrap();
    database
}

fn count(cluster: &Cluster, database: &str) -> Vec<String> {
    text(cluster.sql(database, "SELECT count(*) FROM t").unwrap())
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_and_after_an_immediate_stop() {
    let Some(mut cluster) = Cluster::start(&Options::default()) else { return };
    let database = filled(&cluster);
    let port = cluster.port();
    cluster.kill();
    assert!(cluster.sql(&database, "SELECT 1").is_err());
    cluster.restart();
    assert_eq!(count(&cluster, &database), ["1000"]);
    cluster.sql(&database, "DELETE FROM t WHERE n > 10").unwrap();
    cluster.stop_immediately();
    cluster.restart();
    assert_eq!(count(&cluster, &database), ["10"]);
    assert_eq!(cluster.port(), port);
    assert_eq!(text(cluster.sql(&database, "SHOW fsync").unwrap()), ["on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_answers_nothing_until_it_goes_on() {
    let Some(cluster) = Cluster::start(&Options::default()) else { return };
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await.unwrap();
    cluster.pause();
    let mut asked = Box::pin(client.simple_query("SELECT 1"));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut asked).await.is_err());
    cluster.resume();
    tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().unwrap();
}

#[test]
fn a_paused_server_is_ended_at_once() {
    let Some(cluster) = Cluster::start(&Options::default()) else { return };
    cluster.pause();
    let begin = Instant::now();
    drop(cluster);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_password_is_asked_for_over_tcp() {
    let options = Options { password: Some("not a secret: 'tést'".to_owned()), ..Options::default() };
    let Some(cluster) = Cluster::start(&options) else { return };
    let mut config: tokio_postgres::Config = cluster.url("postgres").parse().unwrap();
    assert!(config.connect(NoTls).await.is_err());
    assert!(config.password("another").connect(NoTls).await.is_err());
    assert!(config.password("not a secret: 'tést'").connect(NoTls).await.is_ok());
}

#[tokio::test]
async fn tls_is_spoken_by_a_certificate_for_loopback_and_asked_for() {
    let options = Options { tls: Tls::Required, ..Options::default() };
    let Some(cluster) = Cluster::start(&options) else { return };
    let plain = tokio_postgres::connect(&cluster.url("postgres"), NoTls).await.err().unwrap();
    assert_eq!(plain.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
    for name in ["localhost", "127.0.0.1"] {
        assert_eq!(greeting(&cluster, name, false).await.unwrap(), b'R');
    }
    greeting(&cluster, "example.org", false).await.unwrap_err();
}

#[tokio::test]
async fn a_client_certificate_is_asked_for() {
    let options = Options { tls: Tls::ClientCertificate, ..Options::default() };
    let Some(cluster) = Cluster::start(&options) else { return };
    assert_eq!(greeting(&cluster, "localhost", true).await.unwrap(), b'R');
    assert_eq!(greeting(&cluster, "localhost", false).await.unwrap(), b'E');
}

/// Asks for TLS as the protocol has it, says who it is, and gives the tag of the answer: `R` of a welcome, `E` of an
/// error.
async fn greeting(cluster: &Cluster, name: &str, certificate: bool) -> std::io::Result<u8> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cluster.ca().unwrap()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = if certificate {
        let (certificate, key) = cluster.client_certificate().unwrap();
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
    } else {
        config.with_no_client_auth()
    };
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.port())).await?;
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
    assert_eq!(stream.read_u8().await?, b'S');
    let name = name.to_owned().try_into().unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let parameters = b"user\0phi_vault\0database\0postgres\0\0";
    stream.write_u32(8 + parameters.len() as u32).await?;
    stream.write_u32(3 << 16).await?;
    stream.write_all(parameters).await?;
    stream.read_u8().await
}

#[test]
fn the_shared_server_gives_everybody_a_database_of_their_own() {
    let Some(server) = Server::shared() else { return };
    let (one, other) = (server.create_database(), server.create_database());
    assert_ne!(one, other);
    let rows = server.sql(&one, "SELECT current_database(), NULL; SELECT 7").unwrap();
    assert_eq!(rows, [vec![Some(one.clone()), None], vec![Some("7".to_owned())]]);
    assert!(server.sql(&one, "SELECT * FROM nothing").is_err());
    for database in [one, other] {
        server.sql("postgres", &format!("DROP DATABASE {database}")).unwrap();
    }
}
