//! A vault of many tenants, served by a process of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use vault_client::Client;
use vault_server::store::Store;
use vault_server::store::embedded::{self, EngineKind, StoreOptions};
use vault_server::store::postgres::{self, Password, PostgresOptions, Transport};

use super::{Engine, Options};
use crate::postgres::{administer, server};
use crate::servers::ready;

/// The database, if the rows are kept in one.
const DATABASE: &str = "bench_jobs";
/// Destructions don't wait for a day, and as many calls of the KMS as there are keys; all else is as it comes.
const CONFIG: &str = "\n[keys]\ndestroy_after = \"1s\"\n[jobs]\nkms_calls_per_second = 1000\n";

/// The name of a tenant.
pub(super) fn tenant(number: usize) -> String {
    format!("tenant-{number}")
}

pub(super) struct Place {
    dir: TempDir,
    engine: Engine,
    database: Option<(SocketAddr, String)>,
    child: Option<Child>,
}

impl Place {
    /// Makes it, and serves it.
    pub(super) async fn make(options: &Options) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        // Beside the binary: the store's directory is on a disk that syncs, not on a tmpfs.
        let dir = TempDir::new_in(here.parent().unwrap_or(Path::new(".")))?;
        let database = if options.engine == Engine::Postgres {
            let url = std::env::var("PHI_VAULT_TEST_POSTGRES")
                .context("PHI_VAULT_TEST_POSTGRES: run under with-postgres")?;
            administer(&url, &format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")).await?;
            administer(&url, &format!("CREATE DATABASE {DATABASE}")).await?;
            Some(server(&url)?)
        } else {
            None
        };
        let mut place = Self { dir, engine: options.engine, database, child: None };
        // The first start makes the files.
        place.serve()?;
        place.stop();
        let config = place.home().join("vault.toml");
        let engine = if place.engine == Engine::Sled { "[store]\nengine = \"sled\"\n" } else { "" };
        fs::write(&config, format!("{}\n{engine}{CONFIG}", fs::read_to_string(&config)?))?;
        fs::write(place.home().join("principals.toml"), principals(options.tenants)?)?;
        if place.engine == Engine::Sled {
            fs::remove_dir_all(place.home().join("data"))?;
        }
        place.serve()?;
        Ok(place)
    }

    fn home(&self) -> std::path::PathBuf {
        self.dir.path().join("vault")
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        let server = std::env::current_exe()?.with_file_name("vault-server");
        anyhow::ensure!(server.exists(), "build it first: cargo build --release --bin vault-server");
        let mut command = Command::new(server);
        command.arg("dev").arg("--dir").arg(self.home()).args(["--listen", "127.0.0.1:0"]);
        if let Some((address, user)) = &self.database {
            command.arg("--postgres").arg(format!("postgres://{user}@{address}/{DATABASE}"));
        }
        command.stderr(Stdio::null());
        self.child = Some(ready(command)?.0);
        Ok(())
    }

    /// The server's.
    pub(super) fn process(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub(super) fn client(&self, identity: &str) -> anyhow::Result<Client> {
        Ok(Client::from_profile(self.home().join("profile.toml"), Some(identity))?)
    }

    /// Ends the server.
    pub(super) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Opens what the server kept, once it is gone.
    pub(super) async fn open_store(&self) -> anyhow::Result<Arc<dyn Store>> {
        let kind = match self.engine {
            Engine::Fjall => EngineKind::Fjall,
            Engine::Sled => EngineKind::Sled,
            Engine::Postgres => {
                let (address, user) = self.database.clone().context("no database")?;
                let options = PostgresOptions {
                    hosts: vec![(address.ip().to_string(), address.port())],
                    database: DATABASE.to_owned(),
                    user,
                    password: Password::None,
                    transport: Transport::Plain,
                    connections: 8,
                    instance: None,
                    lease: Duration::from_secs(10),
                };
                return Ok(postgres::open(options, None).await?);
            }
        };
        Ok(embedded::open(kind, &self.home().join("data/store"), StoreOptions::default())?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Who works for all tenants.
fn principals(tenants: usize) -> anyhow::Result<String> {
    let mut text = String::new();
    let of = [("service", "service"), ("rotator", "service"), ("admin", "human"), ("approver", "human")];
    for (id, kind) in of {
        write!(
            text,
            "[[principal]]\nid = \"{id}\"\nkind = \"{kind}\"\n\
             identities = [\"spiffe://dev.phi-vault.internal/{id}\"]\n[principal.roles]\n"
        )?;
        let role = if id == "approver" { "admin" } else { id };
        if role == "admin" {
            writeln!(text, "\"*\" = [\"admin\"]")?;
            continue;
        }
        for number in 0..tenants {
            writeln!(text, "\"{}\" = [\"{role}\"]", tenant(number))?;
        }
    }
    Ok(text)
}
