//! How a store is opened: the database is looked at, brought to this software's schema, and a log is taken.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Object, Pool};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use super::committer::{Committer, Progress};
use super::connect::{Connection, Connector, Manager};
use super::database::{Database, READ, unavailable};
use super::key_lists::KeyLists;
use super::log::{Grip, Wanted, fence_others, renew, take};
use super::lost::why_lost;
use super::options::PostgresOptions;
use super::reader::Reader;
use super::{PostgresStore, QUEUE, ROOM, other_vault, read, schema};
use crate::domain::VaultIdentity;
use crate::store::entry_seals::Sealing;
use crate::store::{Store, StoreError, Told};

/// How long the database may take until its tables are right and a log is taken.
const OPENING: Duration = Duration::from_secs(30);

/// Opens the store of a vault, and takes a log to write.
///
/// [`StoreError::Foreign`] if the database is of another vault than `expected`, or for newer software.
pub async fn open(
    options: PostgresOptions,
    expected: Option<&VaultIdentity>,
) -> Result<Arc<dyn Store>, StoreError> {
    open_wanting(options, expected, Wanted::Any).await
}

pub(super) async fn open_wanting(
    options: PostgresOptions,
    expected: Option<&VaultIdentity>,
    wanted: Wanted<'_>,
) -> Result<Arc<dyn Store>, StoreError> {
    let opened = timeout(OPENING, open_unbounded(options, expected, wanted)).await;
    opened.unwrap_or_else(|_| Err(unavailable(&"it did not get ready in time (is a table locked?)")))
}

async fn open_unbounded(
    options: PostgresOptions,
    expected: Option<&VaultIdentity>,
    wanted: Wanted<'_>,
) -> Result<Arc<dyn Store>, StoreError> {
    let connector = Arc::new(Connector::new(options));
    let connection = connector.connect().await.map_err(|error| unavailable(&error))?;
    // Before anything is written to it.
    if schema::is_there(&connection).await? {
        check_identity(&connection, expected).await?;
    }
    schema::prepare(&connection).await?;
    if let Some(identity) = check_identity(&connection, expected).await? {
        connector.expect(&identity);
    }
    let size = connector.options().connections.max(1);
    let pool = Pool::builder(Manager(Arc::clone(&connector)))
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(READ))
        .create_timeout(Some(READ))
        .build()
        .map_err(|error| StoreError::Unavailable { why: error.to_string() })?;
    let database = Arc::new(Database {
        connector,
        pool,
        own: Mutex::default(),
        sealing: Sealing::default(),
        silent: Mutex::default(),
    });
    let store = PostgresStore::start(database, connection, wanted).await?;
    Ok(Arc::new(store.ok_or_else(|| unavailable(&"the first log is held"))?))
}

async fn check_identity(
    connection: &Connection,
    expected: Option<&VaultIdentity>,
) -> Result<Option<VaultIdentity>, StoreError> {
    let there = read::identity(connection).await?;
    let other = there.is_some() && expected.is_some() && there.as_ref() != expected;
    if other { Err(other_vault()) } else { Ok(there) }
}

impl PostgresStore {
    /// `None` if no log is there that is wanted.
    pub(super) async fn start(
        database: Arc<Database>,
        connection: Connection,
        wanted: Wanted<'_>,
    ) -> Result<Option<Self>, StoreError> {
        let options = database.connector.options();
        let taken = take(&connection, wanted, options.instance.as_deref(), options.lease);
        let taken = timeout(OPENING, taken).await.map_err(|_| unavailable(&"no log was taken in time"))?;
        let Some(grip) = taken? else { return Ok(None) };
        database.own.lock().insert(grip.log);
        if wanted == Wanted::First {
            fence_others(&connection, &grip).await?;
        }
        let says = match wanted {
            Wanted::These(_) => "this instance brings the log of a silent one to its end",
            Wanted::Any | Wanted::First => "this instance writes a log",
        };
        tracing::info!(log = grip.log.0, fence = grip.fence, size = grip.size, "{says}");
        let (progress, closing) = (Arc::new(Progress::default()), CancellationToken::new());
        let committer = Committer::new(
            Arc::clone(&database),
            connection,
            grip.clone(),
            Arc::clone(&progress),
            closing.clone(),
        );
        let keeper =
            tokio::spawn(keep(Arc::clone(&database), grip.clone(), Arc::clone(&progress), closing.clone()));
        let (sender, receiver) = mpsc::channel(QUEUE);
        let committer = tokio::spawn(committer.run(receiver, keeper));
        Ok(Some(Self {
            records: Reader::start(&database),
            answers: Reader::start(&database),
            key_lists: KeyLists::start(&database, &grip),
            database,
            grip,
            progress,
            queue: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            told: Told::default(),
            closed: AtomicBool::new(false),
            closing,
            committer: tokio::sync::Mutex::new(Some(committer)),
        }))
    }
}

/// Renews the lease until the store is closed, or somebody else has the log.
async fn keep(database: Arc<Database>, grip: Grip, progress: Arc<Progress>, closing: CancellationToken) {
    let lease = database.connector.options().lease;
    let mut ticks = interval((lease / 3).max(Duration::from_millis(10)));
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Ok(connection) = database.pool.get().await else { continue };
        match timeout(READ, renew(&connection, &grip)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                drop(connection);
                if let Some(error) = why_lost(&database.connector, &progress.grip(&grip), &closing).await {
                    progress.fatal.get_or_init(|| error);
                }
                return;
            }
            Ok(Err(failure)) => tracing::warn!(why = failure.why(), "the log's lease was not renewed"),
            Err(_) => drop(Object::take(connection)),
        }
    }
}
