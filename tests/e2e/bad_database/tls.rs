//! A server that does not prove who it is, or a vault that does not.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use vault_tests::database::Database;
use vault_tests::postgres::{Cluster, Options, Tls, USER};

use super::Home;

/// An authority whose server certificates are as bad as a test wants.
struct Pki {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let pki = Self { dir, issuer: Issuer::new(params, key) };
        give(pki.dir.path());
        pki
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// The server's certificate from its next start on.
    fn issue(&self, name: SanType, until: (i32, u8, u8)) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        for (name, text) in [("server.pem", certificate), ("server.key", key.serialize_pem())] {
            let file = self.dir.path().join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            give(&file);
        }
    }
}

/// To the user that the server runs as where this process is root's.
fn give(path: &Path) {
    const NOBODY: u32 = 65534;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn loopback() -> SanType {
    SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())
}

const FAR: (i32, u8, u8) = (2040, 1, 1);

#[test]
fn a_server_must_prove_who_it_is_and_so_must_the_vault() {
    let pki = Pki::make();
    pki.issue(loopback(), FAR);
    let options =
        Options { tls: Tls::ClientCertificate, password: Some("first".to_owned()), ..Options::default() };
    let options = options.set("ssl_cert_file", &pki.path("server.pem"));
    let options = options.set("ssl_key_file", &pki.path("server.key"));
    let Some(mut cluster) = Cluster::start(&options) else { return };
    let database = cluster.create_database();
    let home = Home::make();
    let password = home.site.dir().join("db-password");
    fs::write(&password, "first\n").unwrap();
    let (certificate, key) = cluster.client_certificate().unwrap();
    let section = |ca: &str, identity: bool| {
        let identity = if identity {
            format!("certificate = \"{}\"\nkey = \"{}\"\n", certificate.display(), key.display())
        } else {
            String::new()
        };
        format!(
            "hosts = [\"127.0.0.1:{}\"]\ndatabase = \"{database}\"\nuser = \"{USER}\"\ntls = \"verify-full\"\n\
             ca = \"{ca}\"\npassword_file = \"db-password\"\n{identity}",
            cluster.port()
        )
    };
    let good = home.config("good", &section(&pki.path("ca.pem"), true));
    assert_eq!(home.serve(&good).stop(), Some(0));

    let other_authority = cluster.ca().unwrap().display().to_string();
    Home::refuses(&home.config("other-authority", &section(&other_authority, true)), &["certificate"]);
    Home::refuses(&home.config("no-authority", &section("missing.pem", true)), &["missing.pem"]);
    Home::refuses(
        &home.config("no-client-certificate", &section(&pki.path("ca.pem"), false)),
        &["ertificate"],
    );
    fs::write(&password, "wrong\n").unwrap();
    let says = Home::refuses(&good, &["password authentication failed", "28P01"]);
    assert!(!says.contains("wrong"), "{says}");
    fs::write(&password, "\n").unwrap();
    Home::refuses(&good, &["the password is empty"]);
    fs::remove_file(&password).unwrap();
    Home::refuses(&good, &["db-password"]);
    fs::write(&password, "first\n").unwrap();

    for (name, until, why) in [
        (SanType::DnsName("db.example".try_into().unwrap()), FAR, "name"),
        (SanType::IpAddress([127, 0, 0, 2].into()), FAR, "name"),
        (loopback(), (2021, 1, 1), "xpired"),
    ] {
        pki.issue(name, until);
        cluster.restart();
        Home::refuses(&good, &["certificate", why]);
    }
    pki.issue(loopback(), FAR);
    cluster.restart();
    let vault = home.serve(&good);
    a_rotated_password_needs_no_restart(&cluster, &database, &password, &vault);
    assert_eq!(vault.stop(), Some(0));
}

fn a_rotated_password_needs_no_restart(
    cluster: &Cluster,
    database: &str,
    password: &Path,
    vault: &vault_tests::process::DevVault,
) {
    let tokenize = || {
        let arguments = ["--timeout", "3s", "tokenize", "--class", "ssn"];
        vault.ctl("service", &arguments).stdin("999-31-4101").run()
    };
    assert_eq!(tokenize().code, Some(0));
    let disconnect = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                      AND backend_type = 'client backend'";
    cluster.sql(database, &format!("ALTER ROLE {USER} PASSWORD 'rotated-4711'")).unwrap();
    // Connections that are there work on; new ones are refused until the file has the new one.
    assert_eq!(tokenize().code, Some(0));
    cluster.sql(database, disconnect).unwrap();
    let refused = tokenize();
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(4), ""), "{}", refused.stderr);
    fs::write(password, "rotated-4711\n").unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while tokenize().code != Some(0) {
        assert!(Instant::now() < until, "it does not use the new password:\n{}", vault.log());
    }
    assert!(!vault.log().contains("rotated-4711"), "the password is in the log");
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let Some(database) = Database::create() else { return };
    let home = Home::make();
    let (port, user) = database.address();
    let section = format!(
        "hosts = [\"127.0.0.1:{port}\"]\ndatabase = \"{}\"\nuser = \"{user}\"\ntls = \"verify-full\"\n\
         ca = \"pki/ca.pem\"\n",
        database.name()
    );
    Home::refuses(&home.config("plaintext", &section), &["TLS"]);
    assert!(!database.is_begun());
}
