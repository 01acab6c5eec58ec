//! How a change of a key gets its turn among those who write under the key.
//!
//! Who seals under a key shares the lock of its row until the commit is durable, and the database lets one that shares
//! pass one that waits to have the row alone: with enough instances there is always somebody who has it. So a change of
//! a key first says, in a commit of its own, that it waits for the key. Who sees that asks for the lock no more until the
//! change is made or its time is over; who had asked before ends soon.
//!
//! This is about turns alone. What keeps records from landing under a key that is not active is the lock: a note that is
//! missed, left behind or gone too early costs time and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::error::Failure;
use super::statement::Statement;
use crate::domain::KeyId;

/// How long a change of a key tries to have the key's row alone. Longer than the database lets a transaction stand still.
pub(super) const TURN: Duration = Duration::from_millis(1250);

/// How soon who writes under a key looks again whether its change was made.
pub(super) const LOOK: Duration = Duration::from_millis(4);

/// For how long others keep off: so long that a turn ends before, and so short that a note which was left behind keeps
/// nobody from its log until a request is refused for it. By the database's clock alone.
const NOTE: &str = "1.5 seconds";

/// Whether one of the keys of this parameter is waited for. A note that ends later than one made now was made by another
/// clock, that of the server before a failover, and is not waited for.
pub(super) fn awaited(ids: &str) -> String {
    format!(
        "EXISTS (SELECT id FROM awaited_keys WHERE id = ANY({ids}) \
         AND until > now() AND until <= now() + interval '{NOTE}')"
    )
}

fn bytes(keys: &BTreeSet<KeyId>) -> Vec<Vec<u8>> {
    keys.iter().map(|id| id.as_bytes().to_vec()).collect()
}

/// Says that a change waits for these keys.
pub(super) async fn announce(client: &Client, keys: &BTreeSet<KeyId>) -> Result<(), Failure> {
    let mut note = Statement::new(&format!(
        "INSERT INTO awaited_keys (id, until) SELECT u.id, now() + interval '{NOTE}' \
         FROM unnest($1::bytea[]) AS u (id) ORDER BY u.id ON CONFLICT (id) DO UPDATE SET until = excluded.until"
    ));
    note.bind(bytes(keys), Type::BYTEA_ARRAY);
    match note.run(client).await {
        Err(lost @ Failure::Lost(_)) => Err(lost),
        Err(failure) => {
            tracing::debug!(why = failure.why(), "a change of a key waits without a note");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Takes that back: within the change's own commit, or once it was refused.
pub(super) fn withdraw(keys: &BTreeSet<KeyId>) -> Statement<'static> {
    let mut gone = Statement::new("DELETE FROM awaited_keys WHERE id = ANY($1)");
    gone.bind(bytes(keys), Type::BYTEA_ARRAY);
    gone
}
