//! The lists of keys that instances ask for each second, for each tenant in use: what is asked for while a statement is under
//! way goes together in the next.
//!
//! Each ends like a commit: all that it has read is as durable as one. A commit whose session was ended, or whose server has
//! crashed and recovered, is seen before a standby has it; values sealed under such a key would be lost with it. So the
//! statement writes: to a row of its own, or it would stand in the way of the log's committer.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use super::closed;
use super::database::{Database, How};
use super::log::{Grip, int4};
use super::rows::{self, number, purpose};
use super::statement::{Statement, int8};
use crate::domain::{KeyPurpose, KeyRecord, TenantId};
use crate::store::StoreError;

/// Lists that may wait, and those of one statement.
const QUEUE: usize = 4096;
const LISTS: usize = 1024;

/// What is known of a list. `None`: the log is not this instance's.
type List = Option<Vec<KeyRecord>>;

struct Ask {
    tenant: Option<TenantId>,
    purpose: KeyPurpose,
    answer: oneshot::Sender<Result<List, StoreError>>,
}

/// Asks for lists.
pub(super) struct KeyLists {
    asks: mpsc::Sender<Ask>,
}

impl KeyLists {
    /// Its task ends with it.
    pub(super) fn start(database: &Arc<Database>, grip: &Grip) -> Self {
        let (asks, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(work(Arc::clone(database), grip.clone(), waiting));
        Self { asks }
    }

    /// All versions of a key, oldest first, as they are at some time after the call.
    pub(super) async fn get(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<List, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { tenant: tenant.cloned(), purpose, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn work(database: Arc<Database>, grip: Grip, mut waiting: mpsc::Receiver<Ask>) {
    let mut asks = Vec::new();
    while waiting.recv_many(&mut asks, LISTS).await > 0 {
        // Who gave up waiting does not hear it.
        asks.retain(|ask| !ask.answer.is_closed());
        if asks.is_empty() {
            continue;
        }
        let lists = look_up(&database, &grip, &asks).await;
        let lists = lists.unwrap_or_else(|error| asks.iter().map(|_| Err(error.clone())).collect());
        for (ask, list) in asks.drain(..).zip(lists) {
            let _ = ask.answer.send(list);
        }
    }
}

/// A list for each.
async fn look_up(
    database: &Database,
    grip: &Grip,
    asks: &[Ask],
) -> Result<Vec<Result<List, StoreError>>, StoreError> {
    let rows = database.query_as(&statement(grip, asks), How::LikeACommit).await?;
    if rows.is_empty() {
        return Ok(asks.iter().map(|_| Ok(None)).collect());
    }
    let mut lists: Vec<_> = asks.iter().map(|_| Ok(Some(Vec::new()))).collect();
    for row in &rows {
        let asked = usize::try_from(number(row, "asked")?).unwrap_or(usize::MAX);
        let Some(list) = lists.get_mut(asked) else {
            return Err(StoreError::Corrupt { what: "a list of keys".to_owned() });
        };
        // Without an id: there is no key.
        if matches!(row.try_get::<_, Option<&[u8]>>("id"), Ok(None)) {
            continue;
        }
        match (&mut *list, rows::key(row)) {
            (Ok(Some(keys)), Ok(key)) => keys.push(key),
            (list, Err(error)) => *list = Err(error),
            _ => {}
        }
    }
    Ok(lists)
}

/// No row: another has the log.
fn statement<'a>(grip: &'a Grip, asks: &'a [Ask]) -> Statement<'a> {
    let mut statement = Statement::default();
    statement.bind(int4(grip.log), Type::INT4).bind(grip.holder.as_bytes().as_slice(), Type::BYTEA);
    let owners = asks.iter().map(|ask| ask.tenant.as_ref().map_or("", TenantId::as_str));
    let arrays = [
        statement.array(owners.collect::<Vec<_>>(), Type::TEXT_ARRAY),
        statement.array(asks.iter().map(|ask| purpose(ask.purpose)).collect::<Vec<_>>(), Type::INT2_ARRAY),
        statement.array((0..asks.len() as u64).map(int8).collect::<Vec<_>>(), Type::INT8_ARRAY),
    ];
    statement.add(&format!(
        "WITH settled AS (INSERT INTO looks (log, number) VALUES ($1, 1) \
          ON CONFLICT (log) DO UPDATE SET number = looks.number + 1 RETURNING log) \
         SELECT u.asked, {} FROM settled JOIN logs ON logs.log = settled.log AND logs.holder = $2, \
         unnest({}) AS u (owner, use, asked) LEFT JOIN keys ON keys.tenant = u.owner AND keys.purpose = u.use \
         ORDER BY u.asked, keys.version",
        rows::KEY,
        arrays.join(", ")
    ));
    statement
}
