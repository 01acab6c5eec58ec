use super::*;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::tree::Hash;

const VAULT: &str = "phi-vault/dev/0";

fn signer(seed: u8) -> Signer {
    Signer::from_seed(VAULT, &[seed; 32]).unwrap()
}

fn key(seed: u8) -> Verifier {
    signer(seed).verifier().clone()
}

fn next(version: u8) -> String {
    succession(version.into(), &signer(version - 1), &signer(version)).unwrap()
}

fn mark(version: u8, by: u8) -> String {
    compromised(version.into(), &key(version), &signer(by)).unwrap()
}

fn three() -> String {
    next(2) + &next(3)
}

fn accepted(history: &History) -> Vec<Verifier> {
    history.of_log(VAULT).unwrap().accepted
}

/// The format, which verifiers elsewhere read. When this changes, histories in the field stop to be accepted.
#[test]
fn statements_are_the_committed_vector() {
    assert_eq!(mark(1, 3) + &three(), include_str!("history_vector.txt"));
}

#[test]
fn every_key_leads_to_all_others() {
    for trusted in 1..=3 {
        let history = History::read(&three(), &key(trusted)).unwrap();
        assert_eq!(accepted(&history), [key(1), key(2), key(3)]);
        assert_eq!((history.newest(), history.versions()), (&key(3), 3));
    }
    let alone = History::read("", &key(9)).unwrap();
    assert_eq!((accepted(&alone), alone.newest()), (vec![key(9)], &key(9)));
}

#[test]
fn a_key_of_another_vault_leads_nowhere() {
    assert_eq!(History::read(&three(), &key(9)), Err(HistoryError::Untrusted));
    let elsewhere = key(1).named("phi-vault/prod/0").unwrap();
    assert_eq!(History::read(&three(), &elsewhere), Err(HistoryError::Malformed { number: 1 }));
}

#[test]
fn a_succession_that_the_old_key_or_the_new_one_has_not_signed_is_refused() {
    let text = succession_text(2, &key(1), &key(2));
    let unsigned = |number| Err(HistoryError::Signature { number, source: NoteError::Unsigned });
    for (signers, refused) in [
        (vec![signer(9), signer(2)], unsigned(1)),
        (vec![signer(1), signer(9)], unsigned(1)),
        (vec![signer(1)], Err(HistoryError::Malformed { number: 1 })),
        (vec![signer(1), signer(2), signer(9)], Err(HistoryError::Malformed { number: 1 })),
    ] {
        let signers: Vec<&Signer> = signers.iter().collect();
        assert_eq!(History::read(&note::sign(&text, &signers).unwrap(), &key(1)), refused);
    }
    // The control: as it must be.
    let both = note::sign(&text, &[&signer(1), &signer(2)]).unwrap();
    assert!(History::read(&both, &key(1)).is_ok());
}

#[test]
fn statements_that_are_reordered_repeated_or_left_out_are_refused() {
    let four = || next(2) + &next(3) + &next(4);
    for bad in [
        next(3) + &next(2),
        next(2) + &next(2),
        next(3),
        next(2) + &next(4),
        next(2) + &next(3) + &next(2),
        four() + "\n",
        four() + "x",
        four() + &mark(1, 3),
        next(2) + &mark(1, 2),
        mark(1, 2),
        mark(1, 2) + &mark(1, 2) + &next(2),
        // A key that comes again, and a version that another key has.
        next(2) + &succession(3, &signer(2), &signer(1)).unwrap(),
        next(2) + &succession(4, &signer(2), &signer(3)).unwrap(),
    ] {
        let refused = History::read(&bad, &key(1));
        assert!(
            matches!(refused, Err(HistoryError::Malformed { .. } | HistoryError::Untrusted)),
            "{refused:?}\n{bad}"
        );
    }
    assert!(History::read(&four(), &key(1)).is_ok());
}

#[test]
fn any_changed_byte_is_refused() {
    let good = mark(1, 3) + &three();
    assert!(History::read(&good, &key(3)).is_ok());
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        if let Ok(text) = String::from_utf8(bytes) {
            assert!(History::read(&text, &key(3)).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_mark_cuts_off_the_key_and_those_before_it() {
    let history = next(2) + &mark(2, 3) + &next(3) + &next(4);
    for trusted in [1, 2] {
        assert_eq!(History::read(&history, &key(trusted)), Err(HistoryError::Compromised { version: 2 }));
    }
    for trusted in [3, 4] {
        assert_eq!(accepted(&History::read(&history, &key(trusted)).unwrap()), [key(3), key(4)]);
    }
}

#[test]
fn a_mark_by_the_key_itself_by_an_older_one_or_by_a_stranger_is_refused() {
    for by in [1, 2, 9] {
        let refused = History::read(&(next(2) + &mark(2, by) + &next(3)), &key(3));
        let unsigned = HistoryError::Signature { number: 2, source: NoteError::Unsigned };
        assert_eq!(refused, Err(unsigned), "{by}");
    }
}

#[test]
fn a_checkpoint_counts_by_any_accepted_key_and_by_no_marked_one() {
    let checkpoint = Checkpoint { origin: VAULT.into(), size: 7, root: Hash::leaf(b"x") };
    let signed = |by: &[u8]| {
        let signers: Vec<Signer> = by.iter().map(|seed| signer(*seed)).collect();
        note::sign(&checkpoint.text(), &signers.iter().collect::<Vec<_>>()).unwrap()
    };
    let history = History::read(&(mark(1, 2) + &three()), &key(3)).unwrap();
    let by = history.of_log(VAULT).unwrap();
    for good in [&[3][..], &[2], &[2, 3], &[1, 2]] {
        assert_eq!(Checkpoint::open_strict(&signed(good), &by), Ok(checkpoint.clone()), "{good:?}");
    }
    assert_eq!(Checkpoint::open_strict(&signed(&[1]), &by), Err(CheckpointError::Compromised));
    assert_eq!(Checkpoint::open(&signed(&[1, 9]), &by), Err(CheckpointError::Compromised));
    assert_eq!(Checkpoint::open_strict(&signed(&[1]), by.as_before_the_mark()), Ok(checkpoint.clone()));
    let unknown = Err(CheckpointError::UnknownSignatures { count: 1 });
    for bad in [&[3, 9][..], &[3, 3], &[2, 3, 3]] {
        assert_eq!(Checkpoint::open_strict(&signed(bad), &by), unknown, "{bad:?}");
    }
    assert_eq!(Checkpoint::open(&signed(&[3, 9]), &by), Ok(checkpoint.clone()));
    let unsigned = Err(CheckpointError::Note(NoteError::Unsigned));
    assert_eq!(Checkpoint::open(&signed(&[9]), &by), unsigned);
    // A signature by a known key that does not hold is not passed over for one that does.
    let other =
        Checkpoint { origin: VAULT.into(), size: 8, root: Hash::leaf(b"x") }.sign(&signer(2)).unwrap();
    let bad = signed(&[3]) + other.lines().last().unwrap() + "\n";
    let refused = CheckpointError::Note(NoteError::BadSignature { name: VAULT.into() });
    assert_eq!(Checkpoint::open(&bad, &by), Err(refused));
}

#[test]
fn keys_of_a_further_log_have_its_name() {
    let by = History::read(&three(), &key(1)).unwrap().of_log("phi-vault/dev/0/3").unwrap();
    let checkpoint = Checkpoint { origin: "phi-vault/dev/0/3".into(), size: 7, root: Hash::leaf(b"x") };
    let signed = checkpoint.sign(&signer(2).named("phi-vault/dev/0/3").unwrap()).unwrap();
    assert_eq!(Checkpoint::open_strict(&signed, &by), Ok(checkpoint));
}
