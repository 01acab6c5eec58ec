//! The rows of a [`Derived`].

use crate::store::embedded::engine::{Rows, View};
use crate::store::embedded::read;
use crate::store::keys::{self, Space, meta};
use crate::store::{Derived, StoreError};

/// Neither how far derived rows go nor the checkpoint goes back.
pub(crate) fn rows(view: &impl View, derived: &Derived) -> Result<Rows, StoreError> {
    let there = read::derived(view)?;
    derived.joins(there.upto)?;
    let mut rows = Rows::default();
    for (id, tile) in &derived.tiles {
        rows.put(Space::Tiles, &keys::tile(*id), tile);
    }
    for posting in &derived.postings {
        let mut key = keys::postings(&posting.key).ok_or_else(|| StoreError::Unavailable {
            why: "a log-index key is longer than 255 bytes".to_owned(),
        })?;
        key.extend_from_slice(&posting.sequence.to_be_bytes());
        rows.put(Space::Postings, &key, &[]);
    }
    if derived.upto > there.upto {
        rows.put(Space::Meta, meta::DERIVED, &derived.upto.to_be_bytes());
    }
    if let Some((size, text)) = &derived.checkpoint
        && there.checkpoint.is_none_or(|(there, _)| *size >= there)
    {
        rows.put_with(Space::Meta, meta::CHECKPOINT, |out| {
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        });
    }
    Ok(rows)
}
