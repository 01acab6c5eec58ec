use super::*;
use crate::domain::{EntityKind, EntityName};
use crate::store::conformance::{Backend, change, conformance_tests, entity, entity_place, row_key};
use crate::store::memory::MemoryStore;

fn sealed(engine: &MemoryStore) -> SealedStore {
    SealedStore::new(Arc::new(engine.clone()), row_key(1))
}

/// An engine, whose store is sealed under the same key each time.
struct Sealed(MemoryStore);

impl Backend for Sealed {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(sealed(&self.0))
    }

    fn longest_entity(&self) -> usize {
        crate::domain::MAX_ENTITY
    }

    fn malform(&self, key: &[u8]) {
        Backend::malform(&self.0, key);
    }
}

conformance_tests!(Sealed(MemoryStore::new()));

async fn put(store: &dyn Store, entity: Entity) {
    store.commit(change([Write::PutEntity(entity)], &[])).await.unwrap();
}

fn ann() -> EntityPlace {
    entity_place(EntityKind::Principal, None, b"ann")
}

fn of_kind(kind: EntityKind) -> EntityScope {
    EntityScope::Kind(kind)
}

/// The error of a row, and what is told of it, which is never its content.
fn refused(found: Result<Option<Entity>, StoreError>, place: &EntityPlace, why: &str) {
    let Err(StoreError::Corrupt { what }) = found else { panic!("{found:?}") };
    assert!(
        what.contains(place.kind.as_str()) && what.contains(&hex::encode(place.name.as_bytes())),
        "{what}"
    );
    assert!(what.contains(why) && !what.contains("change"), "{what}");
}

#[tokio::test]
async fn a_row_is_sealed_in_the_engine_and_plain_above_it() {
    let engine = MemoryStore::new();
    put(&sealed(&engine), entity(&ann(), 0)).await;
    let kept = engine.entity(&ann()).await.unwrap().unwrap();
    assert_eq!(kept.content, row_key(1).seal(&ann(), &entity(&ann(), 0).content));
    assert_eq!(sealed(&engine).entity(&ann()).await, Ok(Some(entity(&ann(), 0))));
}

#[tokio::test]
async fn a_row_that_the_vault_did_not_write_is_refused_and_named() {
    let engine = MemoryStore::new();
    put(&engine, entity(&ann(), 0)).await;
    refused(sealed(&engine).entity(&ann()).await, &ann(), "has no seal");
    let of_another = row_key(2).seal(&ann(), &entity(&ann(), 1).content);
    put(&engine, Entity { content: of_another, ..entity(&ann(), 1) }).await;
    refused(sealed(&engine).entity(&ann()).await, &ann(), "is not the vault's");
    let page = sealed(&engine).entities(&of_kind(EntityKind::Principal), None, 9).await;
    assert!(matches!(page, Err(StoreError::Corrupt { .. })), "{page:?}");
}

#[tokio::test]
async fn a_row_that_was_moved_or_swapped_is_refused() {
    let engine = MemoryStore::new();
    let own = entity_place(EntityKind::Grant, Some("st-mary"), b"grant");
    put(&sealed(&engine), entity(&own, 0)).await;
    let content = engine.entity(&own).await.unwrap().unwrap().content;
    for other in [
        entity_place(EntityKind::Grant, Some("st-luke"), b"grant"),
        entity_place(EntityKind::Grant, None, b"grant"),
        entity_place(EntityKind::Session, Some("st-mary"), b"grant"),
        entity_place(EntityKind::Grant, Some("st-mary"), b"grant2"),
    ] {
        put(&engine, Entity { place: other.clone(), revision: 0, content: content.clone() }).await;
        refused(sealed(&engine).entity(&other).await, &other, "is not the vault's");
    }
    assert_eq!(sealed(&engine).entity(&own).await, Ok(Some(entity(&own, 0))));
}

#[tokio::test]
async fn every_altered_byte_of_a_row_is_found() {
    let engine = MemoryStore::new();
    put(&sealed(&engine), entity(&ann(), 0)).await;
    let good = engine.entity(&ann()).await.unwrap().unwrap().content;
    for (revision, byte) in (1..).zip(0..good.len()) {
        let mut content = good.clone();
        content[byte] ^= 0x10;
        put(&engine, Entity { content, ..entity(&ann(), revision) }).await;
        refused(sealed(&engine).entity(&ann()).await, &ann(), "seal");
    }
}

#[tokio::test]
async fn a_forged_row_is_handed_out_as_one_and_is_in_the_way_of_no_other() {
    let engine = MemoryStore::new();
    let places = [&b"a"[..], b"b", b"c", b"d"].map(|name| entity_place(EntityKind::Alert, None, name));
    for place in [&places[0], &places[2]] {
        put(&sealed(&engine), entity(place, 0)).await;
    }
    for place in [&places[1], &places[3]] {
        put(&engine, entity(place, 0)).await;
    }
    let scope = of_kind(EntityKind::Alert);
    let rows = sealed(&engine).entity_rows(&scope, None, 9).await.unwrap();
    let forged = |place: &EntityPlace| EntityRow::Forged { place: place.clone(), revision: Some(0) };
    let good = |place: &EntityPlace| EntityRow::Sound(entity(place, 0));
    let [a, b, c, d] = &places;
    assert_eq!(rows, [good(a), forged(b), good(c), forged(d)]);
    assert_eq!(rows.iter().map(EntityRow::place).collect::<Vec<_>>(), places.iter().collect::<Vec<_>>());
    // A page may end with one, and it can be dropped.
    assert_eq!(sealed(&engine).entity_rows(&scope, Some(a), 1).await.unwrap(), [forged(b)]);
    let gone = Write::DropEntity { place: b.clone(), revision: 0 };
    sealed(&engine).commit(change([gone], &[])).await.unwrap();
    assert_eq!(sealed(&engine).entity(b).await, Ok(None));
}

/// What is left: said in docs/access.md.
#[tokio::test]
async fn a_row_that_was_the_vaults_once_opens_again_where_it_stood() {
    let engine = MemoryStore::new();
    put(&sealed(&engine), entity(&ann(), 0)).await;
    let old = engine.entity(&ann()).await.unwrap().unwrap();
    put(&sealed(&engine), entity(&ann(), 1)).await;
    put(&engine, Entity { revision: 2, ..old }).await;
    let found = sealed(&engine).entity(&ann()).await.unwrap().unwrap();
    assert_eq!(found.content, entity(&ann(), 0).content);
}

#[tokio::test]
async fn a_place_that_holds_no_text_is_named_all_the_same() {
    let engine = MemoryStore::new();
    let name = EntityName::new(&[0xff, 0, b'\n']).unwrap();
    let place = EntityPlace { kind: EntityKind::Challenge, tenant: None, name };
    put(&engine, Entity { place: place.clone(), revision: 0, content: Vec::new() }).await;
    refused(sealed(&engine).entity(&place).await, &place, "has no seal");
}
