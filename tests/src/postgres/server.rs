//! The server that all tests of a process share, each in a database of its own.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use tokio_postgres::Config;

use super::cluster::Cluster;
use super::options::Options;
use super::query::{self, Rows};

/// A server in which tests make databases.
pub struct Server {
    /// Up to the name of the database, and what follows it.
    url: (String, String),
    /// If it was started for this process; its guard ends it.
    _cluster: Option<Cluster>,
}

impl Server {
    /// The one that `PHI_VAULT_TEST_POSTGRES` names, or one that is started for this process. `None`, after saying
    /// why, if there is neither.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED
            .get_or_init(|| {
                if let Ok(url) = std::env::var("PHI_VAULT_TEST_POSTGRES") {
                    return Some(Self { url: split(&url), _cluster: None });
                }
                let cluster = Cluster::start(&Options::default().set("max_connections", "400"))?;
                Some(Self { url: split(&cluster.url("postgres")), _cluster: Some(cluster) })
            })
            .as_ref()
    }

    /// Of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}{}", self.url.0, self.url.1)
    }

    /// Makes a database; gives its name.
    pub fn create_database(&self) -> String {
        query::create_database(|text| self.sql("postgres", text))
    }

    /// Runs statements as the user of the URL.
    pub fn sql(&self, database: &str, text: &str) -> Result<Rows> {
        let config: Config = self.url(database).parse().context("PHI_VAULT_TEST_POSTGRES")?;
        query::run(&config, text)
    }
}

/// What stands before the slash and the name of the database, and the parameters after it.
fn split(url: &str) -> (String, String) {
    let (url, parameters) = url.split_at(url.find('?').unwrap_or(url.len()));
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..].find('/').map_or(url.len(), |at| authority + at);
    (url[..end].to_owned(), parameters.to_owned())
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_url_is_split_around_its_database() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(split("postgres://u@h:1/d"), pair("postgres://u@h:1", ""));
        assert_eq!(split("postgres://u@h:1"), pair("postgres://u@h:1", ""));
        assert_eq!(split("postgres://u@h:1/d?a=b/c"), pair("postgres://u@h:1", "?a=b/c"));
    }
}
