//! Honeytokens: tokens that nobody has reason to use, and how each instance knows them.
//!
//! ```text
//! place    honeytoken, of its tenant, token(16)       content  version(1)=1 | protobuf
//! place    honeytoken, of no tenant, "generation"     content  version(1)=1
//! ```
//!
//! Every honeytoken that comes or goes also changes the row `generation`: one row tells whether there is anything new. The first
//! touch of one changes its own row alone, in the commit of the entry of the request that touched it; an instance that does not
//! know of that yet learns of it by a conflict.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prost::Message as _;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::{
    ClassName, Entity, EntityKind, EntityName, EntityPlace, EntityScope, PrincipalId, TenantId, Timestamp,
    Token,
};
use crate::store::{Store, StoreError};

const VERSION: u8 = 1;
/// No token has so few bytes.
const GENERATION: &[u8] = b"generation";
/// How often it is looked whether there is anything new, and how long one look may take.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);
/// Rows that are read at once.
const PAGE: usize = 1000;

/// A honeytoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Honeytoken {
    /// Whose it is.
    pub tenant: TenantId,
    /// The token.
    pub token: Token,
    /// What the invented value is.
    pub class: ClassName,
    /// Where it was planted, for people.
    pub label: String,
    /// When it was planted.
    pub planted: Timestamp,
    /// Who planted it.
    pub planted_by: PrincipalId,
    /// When it was touched for the first time, and by whom.
    pub touched: Option<(Timestamp, PrincipalId)>,
    /// The revision of its row.
    pub revision: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(string, tag = "1")]
    class: String,
    #[prost(string, tag = "2")]
    label: String,
    #[prost(uint64, tag = "3")]
    planted: u64,
    #[prost(string, tag = "4")]
    planted_by: String,
    #[prost(message, optional, tag = "5")]
    touched: Option<TouchRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TouchRow {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(string, tag = "2")]
    by: String,
}

impl Honeytoken {
    /// Where the honeytoken of a token stands.
    pub fn place_of(tenant: &TenantId, token: Token) -> EntityPlace {
        let name = EntityName::new(token.as_bytes()).expect("16 bytes");
        EntityPlace { kind: EntityKind::Honeytoken, tenant: Some(tenant.clone()), name }
    }

    /// Where it stands.
    pub fn place(&self) -> EntityPlace {
        Self::place_of(&self.tenant, self.token)
    }

    /// As it is kept.
    pub fn entity(&self) -> Entity {
        let touch = |(at, by): &(Timestamp, PrincipalId)| TouchRow { at: at.0, by: by.to_string() };
        let row = Row {
            class: self.class.to_string(),
            label: self.label.clone(),
            planted: self.planted.0,
            planted_by: self.planted_by.to_string(),
            touched: self.touched.as_ref().map(touch),
        };
        let mut content = vec![VERSION];
        content.extend_from_slice(&row.encode_to_vec());
        Entity { place: self.place(), revision: self.revision, content }
    }

    /// From its row; `None` if that is none of one.
    pub fn read(entity: &Entity) -> Option<Self> {
        let (&VERSION, bytes) = entity.content.split_first()? else { return None };
        let row = Row::decode(bytes).ok()?;
        let touched = match row.touched {
            Some(touch) => Some((Timestamp(touch.at), PrincipalId::parse(&touch.by).ok()?)),
            None => None,
        };
        Some(Self {
            tenant: entity.place.tenant.clone()?,
            token: Token::from_bytes(entity.place.name.as_bytes().try_into().ok()?),
            class: ClassName::parse(&row.class).ok()?,
            label: row.label,
            planted: Timestamp(row.planted),
            planted_by: PrincipalId::parse(&row.planted_by).ok()?,
            touched,
            revision: entity.revision,
        })
    }

    /// After its first touch.
    #[must_use]
    pub fn touched(&self, at: Timestamp, by: PrincipalId) -> Self {
        Self { touched: Some((at, by)), revision: self.revision + 1, ..self.clone() }
    }
}

/// The honeytokens, as they were when it was looked last.
pub struct Honeytokens {
    store: Arc<dyn Store>,
    known: ArcSwap<HashMap<Token, Honeytoken>>,
    /// The generation that is in force, counted from 1; 0: there never was one.
    seen: Mutex<Option<u64>>,
}

impl Honeytokens {
    /// None is known yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: ArcSwap::default(), seen: Mutex::new(None) }
    }

    /// Where the row stands that changes with every honeytoken that comes or goes.
    pub fn generation_place() -> EntityPlace {
        let name = EntityName::new(GENERATION).expect("1 to 64 bytes");
        EntityPlace { kind: EntityKind::Honeytoken, tenant: None, name }
    }

    /// The row of [`Honeytokens::generation_place`] with the change after `before`.
    pub fn next_generation(before: Option<&Entity>) -> Entity {
        let revision = before.map_or(0, |before| before.revision + 1);
        Entity { place: Self::generation_place(), revision, content: vec![VERSION] }
    }

    /// Those among tokens, each once.
    pub fn among(&self, tokens: impl Iterator<Item = Token>) -> Vec<Honeytoken> {
        let known = self.known.load();
        if known.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<_> = tokens.filter_map(|token| known.get(&token)).collect();
        found.sort_unstable_by_key(|honeytoken| honeytoken.token);
        found.dedup_by_key(|honeytoken| honeytoken.token);
        found.into_iter().cloned().collect()
    }

    /// Takes up what was just written.
    pub fn learn(&self, written: &[Honeytoken]) {
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            for honeytoken in written {
                let newer = |there: &Honeytoken| there.revision < honeytoken.revision;
                // One that went meanwhile does not come back.
                if known.get(&honeytoken.token).is_some_and(newer) {
                    known.insert(honeytoken.token, honeytoken.clone());
                }
            }
            known
        });
    }

    /// Reads rows anew.
    pub async fn refresh(&self, honeytokens: &[Honeytoken]) -> Result<(), StoreError> {
        for Honeytoken { tenant, token, .. } in honeytokens {
            let there = self.store.entity(&Honeytoken::place_of(tenant, *token)).await?;
            let there = there.as_ref().and_then(Honeytoken::read);
            self.known.rcu(|known| {
                let mut known = HashMap::clone(known);
                match &there {
                    Some(there) => known.insert(*token, there.clone()),
                    None => known.remove(token),
                };
                known
            });
        }
        Ok(())
    }

    /// Takes up what is new.
    pub async fn look(&self) -> Result<(), StoreError> {
        // They come one after another, and what differs is taken up: a store that was set back counts anew.
        let mut seen = self.seen.lock().await;
        let row = self.store.entity(&Self::generation_place()).await?;
        let generation = row.map_or(0, |row| row.revision + 1);
        if *seen != Some(generation) {
            // What is read now may be newer than the generation: then the next look reads it once more.
            self.known.store(Arc::new(self.read().await?));
            *seen = Some(generation);
        }
        Ok(())
    }

    /// Looks until it is told to stop.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut telling = true;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let trouble = match timeout(PATIENCE, self.look()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the store does not answer in time".to_owned()),
            };
            if let (Some(trouble), true) = (&trouble, telling) {
                tracing::warn!(%trouble, "can't look for changes of honeytokens");
            }
            telling = trouble.is_none();
        }
    }

    /// One that this instance knew before its row was altered goes on to be one.
    fn known_at(&self, place: &EntityPlace) -> Option<Honeytoken> {
        self.known.load().values().find(|honeytoken| honeytoken.place() == *place).cloned()
    }

    async fn read(&self) -> Result<HashMap<Token, Honeytoken>, StoreError> {
        let mut known = HashMap::new();
        let scope = EntityScope::Kind(EntityKind::Honeytoken);
        let mut after = None;
        loop {
            let page = self.store.entity_rows(&scope, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(known) };
            after = Some(last.place().clone());
            for row in page.into_iter().filter(|row| *row.place() != Self::generation_place()) {
                let place = row.place().clone();
                let read = row.sound().as_ref().and_then(Honeytoken::read);
                if read.is_none() {
                    tracing::error!(?place, "a honeytoken's row is not what was written");
                }
                let honeytoken = read.or_else(|| self.known_at(&place));
                known.extend(honeytoken.map(|honeytoken| (honeytoken.token, honeytoken)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Change, Write};

    /// Rows as they were written: they must open for ever.
    const VECTORS: &str = include_str!("vectors/honeytoken.txt");

    fn planted() -> Honeytoken {
        Honeytoken {
            tenant: TenantId::parse("st-mary").unwrap(),
            token: Token::from_bytes([0x44; 16]),
            class: ClassName::parse("ssn").unwrap(),
            label: "export of 2026".to_owned(),
            planted: Timestamp(7),
            planted_by: PrincipalId::parse("root").unwrap(),
            touched: None,
            revision: 0,
        }
    }

    #[test]
    fn rows_are_as_they_always_were() {
        let touched = planted().touched(Timestamp(9), PrincipalId::parse("ann").unwrap());
        let lines = VECTORS.lines().filter(|line| !line.starts_with('#'));
        for (row, line) in [planted(), touched].into_iter().zip(lines) {
            let entity = row.entity();
            assert_eq!(hex::encode(&entity.content), line);
            assert_eq!(Honeytoken::read(&entity), Some(row));
            let with = |content| Honeytoken::read(&Entity { content, ..entity.clone() });
            assert_eq!(with([&[2], &entity.content[1..]].concat()), None);
            assert_eq!(with(Vec::new()), None);
        }
    }

    async fn put(store: &MemoryStore, entities: Vec<Entity>) {
        let writes = entities.into_iter().map(Write::PutEntity).collect();
        store.commit(Change { writes, entries: Vec::new() }).await.unwrap();
    }

    #[tokio::test]
    async fn instances_learn_of_what_comes_what_goes_and_what_was_touched() {
        let store = MemoryStore::new();
        let honeytokens = Honeytokens::new(Arc::new(store.clone()));
        honeytokens.look().await.unwrap();
        let found =
            || honeytokens.among([Token::from_bytes([1; 16]), planted().token, planted().token].into_iter());
        assert_eq!(found(), []);
        put(&store, vec![Honeytokens::next_generation(None), planted().entity()]).await;
        honeytokens.look().await.unwrap();
        assert_eq!(found(), [planted()]);
        // A touch is learned of by a second look at the row, and what is older does not undo it.
        let touched = planted().touched(Timestamp(9), PrincipalId::parse("ann").unwrap());
        put(&store, vec![touched.entity()]).await;
        honeytokens.look().await.unwrap();
        assert_eq!(found(), [planted()]);
        honeytokens.refresh(&[planted()]).await.unwrap();
        honeytokens.learn(&[planted()]);
        assert_eq!(found(), std::slice::from_ref(&touched));
        let gone = Write::DropEntity { place: planted().place(), revision: 1 };
        store.commit(Change { writes: vec![gone], entries: Vec::new() }).await.unwrap();
        honeytokens.refresh(&[planted()]).await.unwrap();
        honeytokens.learn(&[touched]);
        assert_eq!(found(), []);
    }

    #[tokio::test]
    async fn what_was_just_written_is_known_unless_something_newer_is() {
        let store = MemoryStore::new();
        let honeytokens = Honeytokens::new(Arc::new(store.clone()));
        let known = || honeytokens.among([planted().token].into_iter());
        honeytokens.learn(&[planted()]);
        assert_eq!(known(), [], "one that nobody looked up may have gone meanwhile");
        put(&store, vec![Honeytokens::next_generation(None), planted().entity()]).await;
        honeytokens.look().await.unwrap();
        honeytokens.learn(&[Honeytoken { label: "of the same revision".to_owned(), ..planted() }]);
        assert_eq!(known(), [planted()]);
        let touched = planted().touched(Timestamp(9), PrincipalId::parse("ann").unwrap());
        honeytokens.learn(std::slice::from_ref(&touched));
        assert_eq!(known(), std::slice::from_ref(&touched));
        honeytokens.learn(&[planted()]);
        assert_eq!(known(), [touched]);
    }

    #[tokio::test]
    async fn one_whose_row_was_altered_goes_on_to_be_one_where_it_was_known() {
        let store = MemoryStore::new();
        let honeytokens = Honeytokens::new(Arc::new(store.clone()));
        let other = Honeytoken { token: Token::from_bytes([0x45; 16]), ..planted() };
        let first = Honeytokens::next_generation(None);
        put(&store, vec![first.clone(), planted().entity(), other.entity()]).await;
        honeytokens.look().await.unwrap();
        let known = || honeytokens.among([planted().token, other.token].into_iter());
        assert_eq!(known(), [planted(), other.clone()]);
        // One of them is altered, and one that nobody knew comes in the same way.
        let unknown = Honeytoken { token: Token::from_bytes([0x46; 16]), ..planted() };
        let altered = Entity { revision: 1, content: vec![9], ..other.entity() };
        let unread = Entity { content: vec![9], ..unknown.entity() };
        put(&store, vec![Honeytokens::next_generation(Some(&first)), altered, unread]).await;
        honeytokens.look().await.unwrap();
        assert_eq!(known(), [planted(), other.clone()]);
        assert_eq!(honeytokens.among([unknown.token].into_iter()), []);
        // Where it was not known before, it is none.
        let elsewhere = Honeytokens::new(Arc::new(store));
        elsewhere.look().await.unwrap();
        assert_eq!(elsewhere.among([planted().token, other.token].into_iter()), [planted()]);
    }

    #[test]
    fn each_change_has_a_generation_of_its_own() {
        let first = Honeytokens::next_generation(None);
        let second = Honeytokens::next_generation(Some(&first));
        let third = Honeytokens::next_generation(Some(&second));
        assert_eq!([&first, &second, &third].map(|row| row.revision), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_looked_for_until_it_is_told_to_stop() {
        let store = MemoryStore::new();
        let honeytokens = Arc::new(Honeytokens::new(Arc::new(store.clone())));
        let stopping = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&honeytokens).run(stopping.clone()));
        put(&store, vec![Honeytokens::next_generation(None), planted().entity()]).await;
        sleep(2 * LOOK_EVERY).await;
        assert_eq!(honeytokens.among([planted().token].into_iter()), [planted()]);
        stopping.cancel();
        timeout(LOOK_EVERY, running).await.unwrap().unwrap();
    }
}
