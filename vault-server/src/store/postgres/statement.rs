//! Statements with their parameters.
//!
//! They are never named: parse, bind and execute go in one round trip, so that a pooler in transaction mode may give
//! each to another connection.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::error::Failure;

/// A column's number. Times, revisions and sequences are far below 2^63.
pub(super) fn int8(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// In whatever transaction it is, its commit is durable as [`super::connect`] asks for at the connection's beginning,
/// whoever has since told the server, or a session that a pooler shares, to acknowledge sooner; and it says so if it is not.
pub(super) const DURABLY: &str = "set_config('synchronous_commit', \
     CASE current_setting('synchronous_commit', true) WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true), \
     set_config('client_min_messages', 'warning', true)";

/// A statement that is being put together.
#[derive(Default)]
pub(super) struct Statement<'a> {
    sql: String,
    values: Vec<Box<dyn ToSql + Sync + Send + 'a>>,
    types: Vec<Type>,
}

impl<'a> Statement<'a> {
    pub(super) fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), ..Self::default() }
    }

    /// Adds SQL.
    pub(super) fn add(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    /// Adds a parameter; `$1` is the first.
    pub(super) fn bind(&mut self, value: impl ToSql + Sync + Send + 'a, of: Type) -> &mut Self {
        self.values.push(Box::new(value));
        self.types.push(of);
        self
    }

    /// How many parameters it has.
    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    /// Adds an array parameter and gives it as SQL: `$3::bytea[]`.
    pub(super) fn array(&mut self, value: impl ToSql + Sync + Send + 'a, of: Type) -> String {
        let name = of.name().trim_start_matches('_').to_owned();
        self.bind(value, of);
        format!("${}::{name}[]", self.values.len())
    }

    /// Runs it in a transaction that the database gives up if it waits for a lock for long, so that sessions nobody
    /// listens to any more don't pile up there. For statements that change a log's row beside its committer.
    pub(super) async fn run_or_give_up(&self, client: &Client) -> Result<Vec<Row>, Failure> {
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '4s'; SELECT {DURABLY}");
        let (begun, rows, committed) =
            futures::join!(client.batch_execute(&begin), self.run(client), client.batch_execute("COMMIT"));
        begun?;
        let rows = rows?;
        committed?;
        Ok(rows)
    }

    /// Runs it in one round trip.
    pub(super) async fn run(&self, client: &Client) -> Result<Vec<Row>, Failure> {
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = self
            .values
            .iter()
            .zip(&self.types)
            .map(|(value, of)| (&**value as &(dyn ToSql + Sync), of.clone()))
            .collect();
        Ok(client.query_typed(&self.sql, &parameters).await?)
    }
}
