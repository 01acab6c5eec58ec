//! The database that a vault is kept in, where the end-to-end tests run on PostgreSQL (`PHI_VAULT_TEST_STORE=postgres`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::canary::{self, Canaries, Hit};
use crate::postgres::{Rows, Server};

/// Says which kind of store the vaults of the tests have.
const KIND: &str = "PHI_VAULT_TEST_STORE";

/// What the directory of a server that was started for tests begins with; no other server's files are read.
const OWN: &str = "phi-vault-postgres-";

/// A database of one vault, in the server that all tests share.
pub struct Database {
    server: &'static Server,
    name: String,
}

impl Database {
    /// Whether vaults are to be kept in databases.
    ///
    /// # Panics
    /// If the variable names another kind: to test something else than what was asked for would prove nothing.
    pub fn is_wanted() -> bool {
        match std::env::var(KIND).as_deref() {
            Ok("postgres") => true,
            Err(_) | Ok("" | "embedded") => false,
            Ok(other) => panic!("{KIND}={other}: must be postgres or embedded"),
        }
    }

    /// A new one, if vaults are to be kept in databases.
    ///
    /// # Panics
    /// If they are, and there is no server.
    pub fn wanted() -> Option<Self> {
        Self::is_wanted().then(|| Self::create().unwrap_or_else(|| panic!("{KIND}: there is no PostgreSQL")))
    }

    /// A new one. `None`, after saying why, if there is no server.
    pub fn create() -> Option<Self> {
        let server = Server::shared()?;
        Some(Self { server, name: server.create_database() })
    }

    /// The one of the vault in this directory, if it is kept in one.
    pub fn of(dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(dir.join("vault.toml")).ok()?;
        let config: toml::Table = text.parse().ok()?;
        let name = config.get("store")?.get("postgres")?.get("database")?.as_str()?.to_owned();
        Some(Self { server: Server::shared()?, name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As `vault-server` takes it.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// The server's port on 127.0.0.1 and the role that the tests have.
    pub fn address(&self) -> (u16, String) {
        let config: tokio_postgres::Config = self.url().parse().expect("a URL");
        (config.get_ports()[0], config.get_user().expect("a role").to_owned())
    }

    /// Does something in it, as its administrator would.
    ///
    /// # Panics
    /// If the database refuses.
    pub fn sql(&self, text: &str) -> Rows {
        self.try_sql(text).unwrap_or_else(|error| panic!("{text}: {error:#}"))
    }

    /// Does something that the database may refuse, or that may be ended from elsewhere.
    pub fn try_sql(&self, text: &str) -> anyhow::Result<Rows> {
        self.server.sql(&self.name, text)
    }

    /// Does something to it, from another database of its server.
    ///
    /// # Panics
    /// If the database refuses.
    pub fn administer(&self, text: &str) -> Rows {
        self.server.sql("postgres", text).unwrap_or_else(|error| panic!("{text}: {error:#}"))
    }

    /// Whether a vault has begun to use it.
    pub fn is_begun(&self) -> bool {
        self.sql("SELECT to_regclass('vault_schema') IS NOT NULL") == [[Some("t".to_owned())]]
    }

    /// What stands in its tables, whichever way its bytes are written; and in all files of the server but those of other
    /// databases, if it was started for tests.
    pub fn scan(&self, canaries: &Canaries) -> Vec<Hit> {
        let mut hits = Vec::new();
        let tables =
            self.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'");
        for table in tables.iter().flatten().flatten() {
            for form in ["hex", "escape"] {
                let rows = self.sql(&format!("SET bytea_output = '{form}'; SELECT * FROM {table}"));
                for column in rows.iter().flatten().flatten() {
                    hits.extend(canaries.scan(table, column.as_bytes()));
                    let bytes = column.strip_prefix("\\x").and_then(|digits| hex::decode(digits).ok());
                    hits.extend(canaries.scan(table, &bytes.unwrap_or_default()));
                }
            }
        }
        if let Some(home) = self.files() {
            self.sql("CHECKPOINT");
            let oid = self.sql("SELECT oid FROM pg_database WHERE datname = current_database()");
            let (base, own) = (home.join("data/base"), oid[0][0].clone().expect("an identifier"));
            let of_others = |path: &PathBuf| path.starts_with(&base) && !path.starts_with(base.join(&own));
            for path in canary::files(&home).into_iter().filter(|path| !of_others(path)) {
                // It works on: a file may be gone. A socket is none.
                let bytes = fs::read(&path).unwrap_or_default();
                hits.extend(canaries.scan(&path.display().to_string(), &bytes));
            }
        }
        hits
    }

    /// The directory of the server, if it was started for tests and this process may read it.
    pub fn files(&self) -> Option<PathBuf> {
        let data = PathBuf::from(self.sql("SHOW data_directory").first()?.first()?.as_deref()?);
        let home = data.parent()?;
        let is_own = home.file_name()?.to_str()?.starts_with(OWN) && fs::read_dir(&data).is_ok();
        is_own.then(|| home.to_owned())
    }
}
