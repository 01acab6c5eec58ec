//! What the access layer keeps: changed from what was read, and from nothing else.

use std::sync::Arc;

use super::{Backend, CONFLICT, all_entries, change, get, record, write};
use crate::domain::{Entity, EntityKind, EntityName, EntityPlace, EntityScope};
use crate::store::{EntityRow, Store, StoreError, Write, keys};

pub(crate) fn entity_place(kind: EntityKind, tenant: Option<&str>, name: &[u8]) -> EntityPlace {
    EntityPlace { kind, tenant: tenant.map(super::tenant), name: EntityName::new(name).unwrap() }
}

pub(crate) fn entity(place: &EntityPlace, revision: u64) -> Entity {
    Entity { place: place.clone(), revision, content: format!("change {revision}").into_bytes() }
}

fn put(place: &EntityPlace, revision: u64) -> Write {
    Write::PutEntity(entity(place, revision))
}

fn gone(place: &EntityPlace, revision: u64) -> Write {
    Write::DropEntity { place: place.clone(), revision }
}

fn stands(place: &EntityPlace, revision: impl Into<Option<u64>>) -> Write {
    Write::Stands { place: place.clone(), revision: revision.into() }
}

fn refused(write: usize) -> Result<(), StoreError> {
    Err(StoreError::Conflict { write })
}

pub(crate) async fn an_entity_is_changed_from_the_revision_before(backend: &impl Backend) {
    let store = backend.open();
    let ann = entity_place(EntityKind::Principal, Some("st-mary"), b"ann");
    assert_eq!(store.entity(&ann).await, Ok(None));
    assert_eq!(write(&store, [put(&ann, 1)]).await, CONFLICT);
    write(&store, [put(&ann, 0)]).await.unwrap();
    for wrong in [0, 2, u64::MAX] {
        assert_eq!(write(&store, [put(&ann, wrong)]).await, CONFLICT, "{wrong}");
    }
    for twice in [[put(&ann, 1), put(&ann, 2)], [put(&ann, 1), gone(&ann, 0)], [gone(&ann, 0), put(&ann, 1)]]
    {
        assert_eq!(write(&store, twice).await, refused(1), "a row is written once");
    }
    write(&store, [put(&ann, 1)]).await.unwrap();
    assert_eq!(store.entity(&ann).await, Ok(Some(entity(&ann, 1))));
    let others = [
        entity_place(EntityKind::Identity, Some("st-mary"), b"ann"),
        entity_place(EntityKind::Principal, Some("st-mar"), b"ann"),
        entity_place(EntityKind::Principal, None, b"ann"),
        entity_place(EntityKind::Principal, Some("st-mary"), b"ann\0"),
    ];
    for other in others {
        assert_eq!(store.entity(&other).await, Ok(None));
        write(&store, [put(&other, 0)]).await.unwrap();
        assert_eq!(store.entity(&other).await, Ok(Some(entity(&other, 0))));
    }
    assert_eq!(store.entity(&ann).await, Ok(Some(entity(&ann, 1))));
}

pub(crate) async fn an_entity_is_dropped_at_its_revision_and_may_come_anew(backend: &impl Backend) {
    let store = backend.open();
    let session = entity_place(EntityKind::Session, None, &[0; 16]);
    let scope = EntityScope::Kind(EntityKind::Session);
    assert_eq!(write(&store, [gone(&session, 0)]).await, CONFLICT);
    write(&store, [put(&session, 0)]).await.unwrap();
    write(&store, [put(&session, 1)]).await.unwrap();
    for wrong in [0, 2, u64::MAX] {
        assert_eq!(write(&store, [gone(&session, wrong)]).await, CONFLICT, "{wrong}");
    }
    assert_eq!(write(&store, [gone(&session, 1), gone(&session, 1)]).await, refused(1));
    write(&store, [gone(&session, 1)]).await.unwrap();
    assert_eq!((store.entity(&session).await, store.entities(&scope, None, 9).await), (Ok(None), Ok(vec![])));
    assert_eq!(write(&store, [gone(&session, 1)]).await, CONFLICT);
    assert_eq!(write(&store, [put(&session, 2)]).await, CONFLICT, "it counts from the first again");
    write(&store, [put(&session, 0)]).await.unwrap();
    assert_eq!(store.entities(&scope, None, 9).await, Ok(vec![entity(&session, 0)]));
}

pub(crate) async fn what_must_stand_is_asked_and_not_written(backend: &impl Backend) {
    let store = backend.open();
    let ann = entity_place(EntityKind::Principal, None, b"ann");
    let bob = entity_place(EntityKind::Principal, None, b"bob");
    write(&store, [stands(&ann, None)]).await.unwrap();
    assert_eq!(store.entity(&ann).await, Ok(None));
    assert_eq!(write(&store, [stands(&ann, 0)]).await, CONFLICT);
    write(&store, [stands(&bob, None), put(&ann, 0)]).await.unwrap();
    assert_eq!(write(&store, [put(&bob, 0), stands(&ann, None)]).await, refused(1));
    assert_eq!(write(&store, [put(&bob, 0), stands(&ann, 1)]).await, refused(1));
    assert_eq!(store.entity(&bob).await, Ok(None));
    write(&store, [stands(&ann, 0), stands(&ann, 0), put(&bob, 0)]).await.unwrap();
    // It is about what is there before the change, which may be of the same row.
    write(&store, [stands(&ann, 0), put(&ann, 1), stands(&ann, 0)]).await.unwrap();
    assert_eq!(write(&store, [stands(&ann, 1), put(&ann, 3)]).await, refused(1));
    write(&store, [gone(&ann, 1), stands(&ann, 1), stands(&bob, 0)]).await.unwrap();
    write(&store, [stands(&ann, None), put(&ann, 0), stands(&bob, 0)]).await.unwrap();
    assert_eq!(write(&store, [stands(&ann, None)]).await, CONFLICT);
    let scope = EntityScope::Kind(EntityKind::Principal);
    assert_eq!(store.entities(&scope, None, 9).await, Ok(vec![entity(&ann, 0), entity(&bob, 0)]));
}

pub(crate) async fn a_conflict_about_an_entity_leaves_nothing_of_its_change(backend: &impl Backend) {
    let store = backend.open();
    let ann = entity_place(EntityKind::Grant, None, b"ann");
    let bob = entity_place(EntityKind::Grant, None, b"bob");
    write(&store, [put(&ann, 0)]).await.unwrap();
    for lost in [put(&ann, 0), gone(&ann, 1), stands(&ann, None), stands(&ann, 7)] {
        let writes = [Write::Insert(record(1)), put(&bob, 0), lost];
        let refused = store.commit(change(writes, &["lost"])).await;
        assert_eq!(refused, Err(StoreError::Conflict { write: 2 }));
    }
    assert_eq!((store.entity(&ann).await, store.entity(&bob).await), (Ok(Some(entity(&ann, 0))), Ok(None)));
    assert_eq!(get(&store, 1).await, None);
    let writes = [Write::Insert(record(1)), put(&bob, 0), gone(&ann, 0)];
    assert_eq!(store.commit(change(writes, &["kept"])).await.unwrap().first_sequence, 0);
    assert_eq!(all_entries(&store).await, ["kept"]);
    assert_eq!((store.entity(&ann).await, store.entity(&bob).await), (Ok(None), Ok(Some(entity(&bob, 0)))));
}

pub(crate) async fn concurrent_changes_of_an_entity_have_one_winner(backend: &impl Backend) {
    let store = backend.open();
    let counter = entity_place(EntityKind::Counter, Some("st-mary"), b"exports");
    for revision in 0..8 {
        let racers = (0..16_u8).map(|racer| {
            let store = Arc::clone(&store);
            let mine = Entity { content: vec![racer; 9], ..entity(&counter, revision) };
            tokio::spawn(async move { (racer, write(&store, [Write::PutEntity(mine)]).await) })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                (racer, Ok(())) => winners.push(vec![racer; 9]),
                (_, lost) => assert_eq!(lost, CONFLICT),
            }
        }
        let there = store.entity(&counter).await.unwrap().unwrap();
        assert_eq!((winners, there.revision), (vec![there.content], revision));
    }
    let racers = (0..16).map(|racer| {
        let (store, next) =
            (Arc::clone(&store), if racer % 2 == 0 { gone(&counter, 7) } else { put(&counter, 8) });
        tokio::spawn(async move { write(&store, [next]).await })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(()) => won += 1,
            lost => assert_eq!(lost, CONFLICT),
        }
    }
    assert_eq!(won, 1);
}

/// Of two changes that each need the other's row as it is, one loses, whichever shares a commit with which.
pub(crate) async fn of_changes_that_stand_on_each_other_one_wins(backend: &impl Backend) {
    let store = backend.open();
    stand_on_each_other([&store, &store], 24).await;
}

/// The same, each change through a store of its own.
pub(crate) async fn stand_on_each_other(stores: [&Arc<dyn Store>; 2], rounds: u8) {
    let store = stores[0];
    for round in 0..rounds {
        let [ann, bob] = [b"ann", b"bob"].map(|name| {
            let name = [&name[..], &[round]].concat();
            entity_place(EntityKind::SecurityKey, Some("st-mary"), &name)
        });
        // In each third round there are none before; in the others the second one is changed, or goes.
        if round % 3 > 0 {
            write(store, [put(&ann, 0), put(&bob, 0)]).await.unwrap();
        }
        let [first, second] = match round % 3 {
            0 => [[stands(&ann, None), put(&bob, 0)], [stands(&bob, None), put(&ann, 0)]],
            1 => [[stands(&ann, 0), put(&bob, 1)], [stands(&bob, 0), put(&ann, 1)]],
            _ => [[stands(&ann, 0), gone(&bob, 0)], [stands(&bob, 0), gone(&ann, 0)]],
        };
        let race = |store: &Arc<dyn Store>, writes: [Write; 2]| {
            let store = Arc::clone(store);
            tokio::spawn(async move { write(&store, writes).await })
        };
        let (first, second) = (race(stores[0], first), race(stores[1], second));
        let told = [first.await.unwrap(), second.await.unwrap()];
        assert!(told == [Ok(()), CONFLICT] || told == [CONFLICT, Ok(())], "round {round}: {told:?}");
    }
}

/// Reads a scope page by page.
async fn paged(store: &Arc<dyn Store>, of: &EntityScope, limit: usize) -> Vec<EntityPlace> {
    let mut places: Vec<EntityPlace> = Vec::new();
    while let more = store.entities(of, places.last(), limit).await.unwrap()
        && !more.is_empty()
    {
        assert!(more.len() <= limit);
        for one in &more {
            assert_eq!(*one, entity(&one.place, 0));
        }
        places.extend(more.into_iter().map(|one| one.place));
    }
    places
}

pub(crate) async fn entities_page_by_kind_and_by_tenant(backend: &impl Backend) {
    let store = backend.open();
    // Names that are the beginning of another, or that a language's order or one by length would put otherwise.
    let tenants = [None, Some("0"), Some("a"), Some("a-b"), Some("a0"), Some("aa"), Some("ab"), Some("b")];
    let names = [&b"\0"[..], b"\0\0", b"\0a", b"A", b"B", b"a", b"a\0", b"ab", b"\xff", &[u8::MAX; 64]];
    let kinds = [EntityKind::Principal, EntityKind::Identity, EntityKind::Alert];
    let mut all = Vec::new();
    for (kind, tenant) in kinds.into_iter().flat_map(|kind| tenants.map(|tenant| (kind, tenant))) {
        all.extend(names.map(|name| entity_place(kind, tenant, name)));
    }
    assert!(all.is_sorted());
    for some in all.chunks(50) {
        write(&store, some.iter().rev().map(|place| put(place, 0)).collect::<Vec<_>>()).await.unwrap();
    }
    for kind in kinds {
        let expected: Vec<_> = all.iter().filter(|place| place.kind == kind).cloned().collect();
        for limit in [1, 7, 80, 99] {
            assert_eq!(paged(&store, &EntityScope::Kind(kind), limit).await, expected, "{kind:?} {limit}");
        }
        for tenant in tenants.map(|tenant| tenant.map(super::tenant)) {
            let of = EntityScope::Tenant(kind, tenant.clone());
            let expected: Vec<_> = expected.iter().filter(|place| place.tenant == tenant).cloned().collect();
            for limit in [1, 3, 99] {
                assert_eq!(paged(&store, &of, limit).await, expected, "{of:?} {limit}");
            }
        }
    }
    let of_a = EntityScope::Tenant(EntityKind::Identity, Some(super::tenant("a")));
    let identity = |tenant, name: &[u8]| entity_place(EntityKind::Identity, tenant, name);
    let next = async |after: EntityPlace| {
        let found = store.entities(&of_a, Some(&after), 1).await.unwrap();
        found.first().map(|found| found.place.clone())
    };
    let first = Some(identity(Some("a"), b"\0"));
    assert_eq!(next(identity(Some("a"), b"a\0\0")).await, Some(identity(Some("a"), b"ab")), "one not there");
    assert_eq!(next(identity(Some("0"), b"z")).await, first, "one of a tenant before");
    assert_eq!(next(identity(Some("a-b"), b"\0")).await, None, "one of a tenant behind");
    assert_eq!(
        next(entity_place(EntityKind::Principal, Some("b"), b"z")).await,
        first,
        "one of a kind before"
    );
    assert_eq!(next(entity_place(EntityKind::Alert, None, b"\0")).await, None, "one of a kind behind");
    let none = [EntityScope::Kind(EntityKind::Grant), EntityScope::Tenant(EntityKind::Grant, None)];
    for of in none {
        assert_eq!(store.entities(&of, None, 9).await, Ok(vec![]));
    }
    assert_eq!(store.entities(&of_a, None, 0).await, Ok(vec![]));
}

pub(crate) async fn an_entity_holds_so_much_and_no_more(backend: &impl Backend) {
    let (store, most) = (backend.open(), backend.longest_entity());
    let of = |len: usize, revision| Entity {
        place: entity_place(EntityKind::Alert, None, b"long"),
        revision,
        content: (0..len).map(|number| (number % 251) as u8).collect(),
    };
    for (revision, len) in [0, most, 1, most, 0].into_iter().enumerate() {
        let one = of(len, revision as u64);
        write(&store, [Write::PutEntity(one.clone())]).await.unwrap();
        assert_eq!(store.entity(&one.place).await, Ok(Some(one.clone())), "{len}");
        assert_eq!(store.entities(&EntityScope::Kind(EntityKind::Alert), None, 9).await, Ok(vec![one]));
    }
    let long = change([Write::Insert(record(1)), Write::PutEntity(of(most + 1, 5))], &["long"]);
    let refused = store.commit(long).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!((get(&store, 1).await, all_entries(&store).await.len()), (None, 0));
    assert_eq!(store.entity(&of(0, 4).place).await, Ok(Some(of(0, 4))));
}

pub(crate) async fn an_entity_is_there_after_a_reopen(backend: &impl Backend) {
    let store = backend.open();
    let [ann, bob, eve] =
        [b"ann", b"bob", b"eve"].map(|name| entity_place(EntityKind::Principal, Some("st-mary"), name));
    write(&store, [put(&ann, 0), put(&bob, 0), put(&eve, 0)]).await.unwrap();
    write(&store, [put(&ann, 1), gone(&bob, 0)]).await.unwrap();
    drop(store);
    let store = backend.open();
    let scope = EntityScope::Tenant(EntityKind::Principal, Some(super::tenant("st-mary")));
    assert_eq!(store.entities(&scope, None, 9).await, Ok(vec![entity(&ann, 1), entity(&eve, 0)]));
    assert_eq!(store.entity(&bob).await, Ok(None));
    write(&store, [put(&ann, 2), stands(&eve, 0), stands(&bob, None)]).await.unwrap();
    assert_eq!(store.entity(&ann).await, Ok(Some(entity(&ann, 2))));
}

pub(crate) async fn a_malformed_entity_is_handed_out_as_one_and_is_in_the_way_of_no_other(
    backend: &impl Backend,
) {
    let kind = EntityKind::Principal;
    let place = |name: u8| entity_place(kind, None, &[name]);
    let store = backend.open();
    let puts: Vec<_> = (b'a'..=b'g').map(|name| put(&place(name), 0)).collect();
    write(&store, puts).await.unwrap();
    drop(store);
    let malformed = b"bcg";
    for name in malformed {
        backend.malform(&keys::entity(&place(*name)));
    }
    // At no place of an entity: before all of them, between them, and behind them.
    let long = [&[kind.number(), 0][..], &[b'd'; EntityName::MAX_LEN + 1]].concat();
    for key in [&[kind.number(), 0][..], &long, &[kind.number(), b'Z', 0, 1], &[kind.number(), b'z']] {
        backend.malform(key);
    }

    let store = backend.open();
    let scope = EntityScope::Kind(kind);
    let row = |name: u8| {
        if malformed.contains(&name) {
            EntityRow::Forged { place: place(name), revision: None }
        } else {
            EntityRow::Sound(entity(&place(name), 0))
        }
    };
    let all: Vec<_> = (b'a'..=b'g').map(row).collect();
    for limit in 1..=9 {
        let mut rows: Vec<EntityRow> = Vec::new();
        loop {
            let page = store.entity_rows(&scope, rows.last().map(EntityRow::place), limit).await.unwrap();
            let is_last = page.len() < limit;
            rows.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(rows, all, "{limit}");
    }
    assert!(matches!(store.entities(&scope, None, 9).await, Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.entity(&place(b'b')).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.entity(&place(b'd')).await, Ok(Some(entity(&place(b'd'), 0))));
    // It is nobody's to write, and the others are.
    for refused in
        [put(&place(b'b'), 1), gone(&place(b'b'), 0), stands(&place(b'b'), 0), stands(&place(b'b'), None)]
    {
        let refused = write(&store, [refused]).await;
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    }
    write(&store, [put(&place(b'd'), 1), gone(&place(b'e'), 0)]).await.unwrap();
    assert_eq!(
        store.entity_rows(&scope, Some(&place(b'c')), 1).await,
        Ok(vec![EntityRow::Sound(entity(&place(b'd'), 1))])
    );
    let others = EntityScope::Tenant(kind, Some(super::tenant("st-mary")));
    assert_eq!(store.entity_rows(&others, None, 9).await, Ok(vec![]));
}
