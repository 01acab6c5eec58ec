//! Reads by key that share a statement: what is asked for while one is under way goes together in the next. Nothing
//! waits for company.
//!
//! A statement is sent after everything in it was asked for, so that who asks after a commit was acknowledged sees it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_postgres::Row;

use super::closed;
use super::database::Database;
use super::statement::Statement;
use crate::store::StoreError;

/// Statements under way at once.
const WORKERS: usize = 2;
/// Keys of a statement, about.
const KEYS: usize = 2048;
/// Reads that may wait.
const QUEUE: usize = 4096;

/// What is looked up.
pub(super) trait Table: Send + Sync + 'static {
    type Key: Copy + Eq + Hash + Send + Sync;
    type Found: Clone + Send;

    /// Of all rows with these keys.
    fn statement(keys: &[Self::Key]) -> Statement<'_>;

    /// A row's key, and what it holds.
    fn read(row: &Row) -> Result<(Self::Key, Self::Found), StoreError>;
}

struct Ask<T: Table> {
    keys: Vec<T::Key>,
    answer: oneshot::Sender<Result<Vec<Option<T::Found>>, StoreError>>,
}

/// Looks up rows of a table.
pub(super) struct Reader<T: Table> {
    asks: mpsc::Sender<Ask<T>>,
}

impl<T: Table> Reader<T> {
    /// Its tasks end with it.
    pub(super) fn start(database: &Arc<Database>) -> Self {
        let (asks, waiting) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..WORKERS {
            tokio::spawn(work(Arc::clone(database), Arc::clone(&waiting)));
        }
        Self { asks }
    }

    /// What there is of each key, in their order.
    pub(super) async fn get(&self, keys: Vec<T::Key>) -> Result<Vec<Option<T::Found>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { keys, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn work<T: Table>(database: Arc<Database>, waiting: Arc<Mutex<mpsc::Receiver<Ask<T>>>>) {
    loop {
        let asks = {
            let mut waiting = waiting.lock().await;
            let Some(first) = waiting.recv().await else { return };
            let mut count = first.keys.len();
            let mut asks = vec![first];
            while count < KEYS
                && let Ok(ask) = waiting.try_recv()
            {
                count += ask.keys.len();
                asks.push(ask);
            }
            // Who gave up waiting does not hear it.
            asks.retain(|ask| !ask.answer.is_closed());
            asks
        };
        if asks.is_empty() {
            continue;
        }
        let mut found = look_up::<T>(&database, &asks).await;
        for ask in asks {
            let answer = match &mut found {
                Ok(found) => Ok(ask.keys.iter().map(|key| found.get_mut(key)?.give()).collect()),
                Err(error) => Err(error.clone()),
            };
            let _ = ask.answer.send(answer);
        }
    }
}

/// What there is of a key that was asked for so many times.
struct Wanted<F> {
    times: usize,
    found: Option<F>,
}

impl<F: Clone> Wanted<F> {
    /// The last to ask gets it as it is.
    fn give(&mut self) -> Option<F> {
        self.times -= 1;
        if self.times == 0 { self.found.take() } else { self.found.clone() }
    }
}

async fn look_up<T: Table>(
    database: &Database,
    asks: &[Ask<T>],
) -> Result<HashMap<T::Key, Wanted<T::Found>>, StoreError> {
    let mut wanted = HashMap::new();
    for key in asks.iter().flat_map(|ask| &ask.keys) {
        wanted.entry(*key).or_insert(Wanted { times: 0, found: None }).times += 1;
    }
    let keys: Vec<_> = wanted.keys().copied().collect();
    let rows = database.query(&T::statement(&keys)).await?;
    for row in &rows {
        let (key, found) = T::read(row)?;
        if let Some(wanted) = wanted.get_mut(&key) {
            wanted.found = Some(found);
        }
    }
    Ok(wanted)
}
