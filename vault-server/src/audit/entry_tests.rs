use proptest::prelude::*;
use prost::Message as _;
use vault_proto::v1::AuditItem;

use super::*;
use crate::access::testing::test_credential;
use crate::audit::testing::{draft, items, record};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn decode(entries: &[Bytes]) -> Vec<AuditEntry> {
    entries.iter().map(|entry| AuditEntry::decode(&entry[..]).unwrap()).collect()
}

#[test]
fn an_entry_is_what_the_protobuf_library_would_write() {
    let mut items = items(&[record(1), record(2)]);
    items.push(Item::of_token(Token::from_bytes([9; 16]), Outcome::ForeignTenant));
    items.push(Item::invalid());
    items.push(Item { outcome: Outcome::Unspecified, matches: 1_000_000, ..Item::invalid() });
    let draft = Draft { reason: "x".into(), details: vec![("name", "value".into())], ..draft(1) };
    let entries = draft.encode(NOW, &items).unwrap();
    let decoded = decode(&entries);
    assert_eq!(entries.len(), 1);
    assert_eq!(decoded[0].encode_to_vec(), entries[0]);
    let wired = &decoded[0].items;
    assert_eq!(wired.len(), 5);
    assert_eq!(wired[0].token, record(1).token.as_bytes()[..]);
    assert_eq!(wired[0].data_class, "member_id");
    assert_eq!(wired[0].subject, record(1).subject.unwrap().to_bytes()[..]);
    assert_eq!(wired[0].key_id, record(1).key_id().unwrap().as_bytes()[..]);
    assert_eq!(wired[2].outcome(), Outcome::ForeignTenant);
    assert_eq!(wired[3].outcome(), Outcome::Invalid);
    assert_eq!(wired[4].matches, 1_000_000);
}

#[test]
fn an_entry_says_who_what_whose_and_why() {
    let draft = Draft { policies: ["b".into(), "a".into()].into(), ticket: "T-1".into(), ..draft(7) };
    let entry = decode(&draft.encode(NOW, &[]).unwrap()).remove(0);
    assert_eq!((entry.version, entry.time_us, entry.part, entry.parts), (1, NOW.0, 0, 1));
    assert_eq!(entry.request_id[..], [7; 16]);
    assert_eq!(entry.action(), AuditAction::Detokenize);
    assert_eq!(entry.decision(), wire::audit_entry::Decision::Allow);
    assert_eq!(entry.policies, ["a", "b"]);
    assert_eq!((&*entry.purpose, &*entry.accounting_exclusion), ("TREAT", "treatment"));
    assert_eq!(entry.ticket, "T-1");
    let actor = entry.actor.unwrap();
    assert_eq!((&*actor.principal, actor.kind()), ("service", wire::actor::Kind::Service));
    assert_eq!(actor.roles, ["service"]);
    assert_eq!(actor.credential[..], [7; 32]);
    assert_eq!(actor.factors, ["mtls"]);
}

#[test]
fn a_purpose_that_must_be_accounted_for_has_no_exclusion() {
    let draft = Draft { purpose: Some(Purpose::Research), ..draft(1) };
    assert_eq!(decode(&draft.encode(NOW, &[]).unwrap())[0].accounting_exclusion, "");
}

#[test]
fn a_large_batch_is_split_in_complete_parts() {
    let records: Vec<_> = (0..3000).map(record).collect();
    let draft = Draft { reason: "\u{202e}".repeat(512), ..draft(1) };
    let entries = draft.encode(NOW, &items(&records)).unwrap();
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().all(|entry| entry.len() <= MAX_ENTRY));
    assert!(
        entries[..entries.len() - 1].iter().all(|entry| entry.len() > MAX_ENTRY - 128),
        "parts are filled"
    );
    let decoded = decode(&entries);
    for (entry, part) in decoded.iter().zip(0..) {
        assert_eq!((entry.part, entry.parts), (part, entries.len() as u32));
        let same = AuditEntry { part: 0, items: Vec::new(), ..entry.clone() };
        assert_eq!(same, AuditEntry { items: Vec::new(), ..decoded[0].clone() });
    }
    let tokens: Vec<_> =
        decoded.iter().flat_map(|entry| &entry.items).map(|item| item.token.to_vec()).collect();
    assert_eq!(tokens, records.iter().map(|record| record.token.as_bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn what_can_not_be_an_entry_is_refused() {
    let draft = Draft { policies: (0..1000).map(|i| format!("{i:0100}")).collect(), ..draft(1) };
    assert_eq!(draft.encode(NOW, &[]), Err(TooLarge));
}

#[test]
fn details_are_in_order_of_their_names() {
    let details = vec![("b", "2".to_owned()), ("c", "3".to_owned()), ("a", "1\n".to_owned())];
    let bytes = Draft { details, ..draft(1) }.encode(NOW, &[]).unwrap().remove(0);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let places: Vec<_> =
        ["\n\u{1}a", "\n\u{1}b", "\n\u{1}c"].iter().map(|name| text.find(name).unwrap()).collect();
    assert!(places.is_sorted());
}

#[test]
fn a_credential_of_nobody_can_not_forge_a_line() {
    let draft = Draft { actor: Actor::unknown(&test_credential("x\n\u{1b}[0m")), ..draft(1) };
    let actor = decode(&draft.encode(NOW, &[]).unwrap()).remove(0).actor.unwrap();
    assert_eq!(actor.principal, "");
    assert_eq!(actor.identity, "spiffe://test.local/x\\u{a}\\u{1b}[0m");
    assert_eq!(actor.credential[..], [7; 32]);
}

#[test]
fn encoding_a_thousand_items_takes_well_under_a_millisecond() {
    let items = items(&(0..1000).map(record).collect::<Vec<_>>());
    let draft = draft(1);
    let fastest = (0..50)
        .map(|_| {
            let start = std::time::Instant::now();
            assert_eq!(draft.encode(NOW, &items).unwrap().len(), 2);
            start.elapsed()
        })
        .min();
    assert!(fastest < Some(std::time::Duration::from_millis(1)), "{fastest:?}");
}

proptest! {
    #[test]
    fn no_text_of_a_caller_changes_anything_but_its_own_field(reason in any::<String>(), ticket in any::<String>()) {
        let plain = decode(&draft(1).encode(NOW, &items(&[record(1)])).unwrap());
        let entries = Draft { reason, ticket, ..draft(1) }.encode(NOW, &items(&[record(1)])).unwrap();
        let said = decode(&entries);
        prop_assert_eq!(said.len(), 1);
        prop_assert!(entries[0].len() <= MAX_ENTRY);
        prop_assert!(!said[0].reason.chars().chain(said[0].ticket.chars()).any(char::is_control));
        prop_assert!(said[0].reason.len() <= 512 * 10 + 3 && said[0].ticket.len() <= 128 * 10 + 3);
        let without = AuditEntry { reason: String::new(), ticket: String::new(), ..said[0].clone() };
        prop_assert_eq!(&without, &plain[0]);
    }

    #[test]
    fn parts_lose_no_item_and_fit_whatever_their_sizes(kinds in proptest::collection::vec(0_u8..4, 0..3000)) {
        let items: Vec<_> = kinds.iter().zip(0..).map(|(kind, i)| match kind {
            0 => Item::invalid(),
            1 => Item::of_token(record(i).token, Outcome::Unknown),
            2 => Item { matches: u32::MAX, ..Item::of_record(&record(i), Outcome::Ok) },
            _ => Item::of_record(&record(i), Outcome::Denied),
        }).collect();
        let entries = draft(1).encode(NOW, &items).unwrap();
        prop_assert!(entries.iter().all(|entry| entry.len() <= MAX_ENTRY));
        let decoded = decode(&entries);
        prop_assert!(decoded.iter().zip(&entries).all(|(entry, bytes)| entry.encode_to_vec() == bytes[..]));
        let outcomes: Vec<_> = decoded.iter().flat_map(|entry| &entry.items).map(AuditItem::outcome).collect();
        prop_assert_eq!(outcomes, items.iter().map(|item| item.outcome).collect::<Vec<_>>());
    }
}
