use std::path::PathBuf;

use tempfile::TempDir;
use vault_proto::v1::AuditItem;

use super::*;
use crate::export::{DirWriter, ExportError};
use crate::note::Signer;

fn signer() -> Signer {
    Signer::from_seed("phi-vault/test/log", &[3; 32]).unwrap()
}

fn entry(i: u64) -> AuditEntry {
    let mut request_id = [0xAB; 16];
    request_id[..8].copy_from_slice(&i.to_be_bytes());
    AuditEntry {
        version: 1,
        time_us: 1_700_000_000_000_000 + i,
        request_id: request_id.to_vec().into(),
        parts: 1,
        action: 2,
        decision: 1,
        tenant: "st-mary".into(),
        purpose: "TREAT".into(),
        items: vec![AuditItem { token: vec![i as u8; 16].into(), outcome: 1, ..AuditItem::default() }],
        ..AuditEntry::default()
    }
}

fn leaves(n: u64) -> Vec<Vec<u8>> {
    (0..n).map(|i| entry(i).encode_to_vec()).collect()
}

fn sign(leaves: &[Vec<u8>]) -> String {
    let mut edge = Edge::new();
    for leaf in leaves {
        edge.push(Hash::leaf(leaf), |_, _| ());
    }
    let origin = signer().verifier().name().to_owned();
    Checkpoint { origin, size: edge.size(), root: edge.root() }.sign(&signer()).unwrap()
}

/// An export of these leaves, under a checkpoint of them.
fn export(leaves: &[Vec<u8>]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut writer = DirWriter::create(dir.path()).unwrap();
    for leaf in leaves {
        writer.push(leaf).unwrap();
    }
    writer.finish(&sign(leaves), signer().verifier()).unwrap();
    dir
}

/// What who rewrites the whole log can make: all of it anew, but for the signature.
fn forge(leaves: &[Vec<u8>], signed: &str) -> TempDir {
    let dir = export(leaves);
    fs::write(dir.path().join("checkpoint"), signed).unwrap();
    dir
}

fn verify(dir: &TempDir) -> Result<Report, VerifyError> {
    verify_dir(dir.path(), signer().verifier(), &Options::default())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn an_export_verifies_at_every_kind_of_size() {
    for size in [0, 1, 2, 255, 256, 257, 512, 700] {
        let dir = export(&leaves(size));
        let report = verify(&dir).unwrap();
        assert_eq!(report.checkpoint.size, size);
        assert_eq!(report.files, files(dir.path()).len() as u64);
    }
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    let dir = export(&leaves(258));
    for file in files(dir.path()) {
        let good = fs::read(&file).unwrap();
        // Every byte of the small files; of the large ones those around every border of a hash.
        for at in (0..good.len()).filter(|at| good.len() < 1000 || at % 32 < 2 || at % 97 == 0) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, &bad).unwrap();
            let result = verify(&dir);
            assert!(result.is_err(), "{} byte {at}", file.display());
        }
        for bad in
            [&good[..good.len() - 1], &good[..0], &[&good[..], b"\n"].concat(), &[&good[..], b"\0"].concat()]
        {
            fs::write(&file, bad).unwrap();
            assert!(verify(&dir).is_err(), "{} with {} bytes", file.display(), bad.len());
        }
        fs::remove_file(&file).unwrap();
        assert!(matches!(verify(&dir), Err(VerifyError::Missing { .. })), "{} removed", file.display());
        fs::write(&file, &good).unwrap();
    }
    verify(&dir).unwrap();
}

#[test]
fn a_changed_entry_is_named_by_its_number() {
    let dir = export(&leaves(300));
    let bundle = dir.path().join("tile/entries/001.p/44");
    let good = fs::read(&bundle).unwrap();
    let each = good.len() / 44;
    for entry in 256..300_u64 {
        let mut bad = good.clone();
        // The last byte but two of an entry's token: it still decodes.
        bad[(entry as usize - 255) * each - 4] ^= 1;
        fs::write(&bundle, &bad).unwrap();
        let error = verify(&dir).unwrap_err();
        assert!(
            matches!(&error, VerifyError::Tile { entry: at, file } if *at == entry && file == "tile/0/001.p/44"),
            "{error}"
        );
    }
}

#[test]
fn removing_entries_is_found_even_when_everything_else_is_made_anew() {
    let all = leaves(12);
    let signed = sign(&all);
    for cut in 0..all.len() {
        let forged = forge(&all[..cut], &signed);
        assert!(matches!(verify(&forged), Err(VerifyError::Missing { .. })), "suffix from {cut}");
        let mut without = all.clone();
        without.remove(cut);
        assert!(
            matches!(verify(&forge(&without, &signed)), Err(VerifyError::Missing { .. })),
            "without {cut}"
        );
    }
}

#[test]
fn editing_reordering_and_inventing_is_found_even_when_the_tiles_are_made_anew() {
    let all = leaves(12);
    let signed = sign(&all);
    for at in 0..all.len() {
        let mut edited = all.clone();
        edited[at] = AuditEntry { purpose: "HRESCH".into(), ..entry(at as u64) }.encode_to_vec();
        assert!(
            matches!(verify(&forge(&edited, &signed)), Err(VerifyError::Root { size: 12, .. })),
            "edit {at}"
        );
        let mut swapped = all.clone();
        swapped.swap(at, (at + 1) % all.len());
        assert!(matches!(verify(&forge(&swapped, &signed)), Err(VerifyError::Root { .. })), "swap {at}");
        let mut invented = all.clone();
        invented.insert(at, entry(99).encode_to_vec());
        assert!(verify(&forge(&invented, &signed)).is_err(), "invented {at}");
    }
}

#[test]
fn a_log_signed_by_another_key_is_refused() {
    let all = leaves(3);
    let dir = export(&all);
    let other = Signer::from_seed("phi-vault/test/log", &[4; 32]).unwrap();
    let forged = Checkpoint::open(&sign(&all), signer().verifier()).unwrap().sign(&other).unwrap();
    fs::write(dir.path().join("checkpoint"), forged).unwrap();
    assert!(matches!(verify(&dir), Err(VerifyError::Checkpoint(_))));
}

#[test]
fn files_that_do_not_belong_are_refused() {
    let dir = export(&leaves(258));
    for file in
        ["README", "tile/0/002", "tile/0/001.p/1", "tile/2/000.p/1", "tile/entries/001", "tile/0/000.bak"]
    {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"x").unwrap();
        let error = verify(&dir).unwrap_err();
        assert!(matches!(&error, VerifyError::Unexpected { file: named } if named == file), "{error}");
        fs::remove_file(&path).unwrap();
    }
    verify(&dir).unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_does_not_pass_for_a_file() {
    let dir = export(&leaves(2));
    let tile = dir.path().join("tile/0/000.p/2");
    let elsewhere = TempDir::new().unwrap();
    fs::rename(&tile, elsewhere.path().join("tile")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("tile"), &tile).unwrap();
    assert!(matches!(verify(&dir), Err(VerifyError::Unexpected { .. })));
}

#[test]
fn the_log_must_begin_with_the_older_log() {
    let all = leaves(300);
    let dir = export(&all);
    let with = |old: String| {
        let options = Options { old_checkpoint: Some(old), ..Options::default() };
        verify_dir(dir.path(), signer().verifier(), &options)
    };
    for old in [0, 1, 255, 256, 299, 300] {
        let report = with(sign(&all[..old])).unwrap();
        assert_eq!(report.old_checkpoint.unwrap().size, old as u64);
    }
    let mut other = all.clone();
    other[100] = entry(7).encode_to_vec();
    assert!(matches!(with(sign(&other[..200])), Err(VerifyError::Rewritten { old: 200 })));
    assert!(matches!(with(sign(&leaves(301))), Err(VerifyError::Shorter { size: 300, old: 301 })));
    assert!(matches!(with("nothing".into()), Err(VerifyError::OldCheckpoint(_))));
}

#[test]
fn parts_must_be_complete_and_follow_each_other() {
    let part = |request: u64, part, parts| AuditEntry { part, parts, ..entry(request) }.encode_to_vec();
    let good = [part(1, 0, 1), part(2, 0, 3), part(2, 1, 3), part(2, 2, 3), part(3, 0, 1)];
    verify(&export(&good)).unwrap();
    for (bad, at) in [
        (vec![part(1, 1, 2)], 0),
        (vec![part(1, 0, 0)], 0),
        (vec![part(1, 2, 2)], 0),
        (vec![part(1, 0, 2)], 1),
        (vec![part(1, 0, 2), part(2, 0, 1)], 1),
        (vec![part(1, 0, 2), part(2, 1, 2)], 1),
        (vec![part(1, 0, 3), part(1, 2, 3)], 1),
        (vec![part(1, 0, 2), part(1, 1, 3)], 1),
        (vec![part(1, 0, 2), part(1, 0, 2)], 1),
    ] {
        let error = verify(&export(&bad)).unwrap_err();
        assert!(matches!(error, VerifyError::Entry { entry, .. } if entry == at), "{error}");
    }
}

#[test]
fn an_entry_must_be_one_of_version_1_in_its_canonical_encoding() {
    let good = entry(1).encode_to_vec();
    let unknown_field = [&good[..], &[0xA0, 0x06, 1]].concat();
    let twice = [&good[..], &good[..2]].concat();
    let version = AuditEntry { version: 2, ..entry(1) }.encode_to_vec();
    let request = AuditEntry { request_id: vec![1; 15].into(), ..entry(1) }.encode_to_vec();
    for bad in [vec![], b"not protobuf".to_vec(), unknown_field, twice, version, request] {
        let error = verify(&export(&[entry(0).encode_to_vec(), bad])).unwrap_err();
        assert!(matches!(error, VerifyError::Entry { entry: 1, .. }), "{error}");
    }
    let mut details = entry(1);
    details.details = (0..9).map(|i| (format!("name{i}"), "value".to_owned())).collect();
    verify(&export(&[details.encode_to_vec()])).unwrap();
}

#[test]
fn signatures_that_are_not_checked_are_accepted_only_when_asked_for() {
    let all = leaves(2);
    let witness = Signer::from_seed("witness", &[9; 32]).unwrap();
    let by_witness = Checkpoint::open(&sign(&all), signer().verifier()).unwrap().sign(&witness).unwrap();
    let dir = forge(&all, &(sign(&all) + by_witness.rsplit_once("\n\n").unwrap().1));
    let refused = VerifyError::Checkpoint(CheckpointError::UnknownSignatures { count: 1 });
    assert_eq!(verify(&dir).unwrap_err().to_string(), refused.to_string());
    let options = Options { other_signatures: true, ..Options::default() };
    verify_dir(dir.path(), signer().verifier(), &options).unwrap();
}

#[test]
fn other_logs_are_let_be_at_their_one_place_and_only_when_asked_for() {
    let dir = export(&leaves(3));
    let (beside, within) = (dir.path().join(LOGS), dir.path().join("tile").join(LOGS));
    let options = Options { logs_beside: true, ..Options::default() };
    let look = |options: &Options| verify_dir(dir.path(), signer().verifier(), options);
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("anything"), "").unwrap();
    assert!(matches!(verify(&dir), Err(VerifyError::Unexpected { .. })));
    assert_eq!(look(&options).unwrap().files, 3);
    fs::create_dir(&within).unwrap();
    fs::write(within.join("anything"), "").unwrap();
    assert!(matches!(look(&options), Err(VerifyError::Unexpected { .. })));
    fs::remove_dir_all(&within).unwrap();
    fs::remove_dir_all(&beside).unwrap();
    fs::write(&beside, "").unwrap();
    assert!(matches!(look(&options), Err(VerifyError::Unexpected { .. })));
}

#[test]
fn an_export_is_refused_under_a_checkpoint_of_other_entries() {
    let all = leaves(5);
    for signed in [sign(&all[..4]), sign(&leaves(6))] {
        let dir = TempDir::new().unwrap();
        let mut writer = DirWriter::create(dir.path()).unwrap();
        for leaf in &all {
            writer.push(leaf).unwrap();
        }
        let refused = writer.finish(&signed, signer().verifier());
        assert!(matches!(refused, Err(ExportError::OtherEntries { size: 5, .. })));
        assert!(!dir.path().join("checkpoint").exists());
    }
    let dir = export(&all);
    assert!(matches!(DirWriter::create(dir.path()), Err(ExportError::NotEmpty(_))));
}
