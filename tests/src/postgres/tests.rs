use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

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
    assert_eq!(plain.code().unwrap().code(), "28000");
    for name in ["localhost", "127.0.0.1"] {
        handshake(&cluster, name).await.unwrap();
    }
    handshake(&cluster, "example.org").await.unwrap_err();
}

/// Asks for TLS as the protocol has it and shakes hands, without a word of SQL.
async fn handshake(cluster: &Cluster, name: &str) -> std::io::Result<()> {
    use rustls::pki_types::pem::PemObject;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(cluster.ca().unwrap()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", cluster.port())).await?;
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
    assert_eq!(stream.read_u8().await?, b'S');
    let name = name.to_owned().try_into().unwrap();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.map(drop)
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
