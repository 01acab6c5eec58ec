use super::*;

/// From when to when, what was asked, what was answered.
fn history<Q: Copy, A: Copy>(operations: &[(u64, Option<u64>, Q, A)]) -> Vec<Operation<Q, A>> {
    let of = |(begun, end, asked, answer): &(u64, Option<u64>, Q, A)| Operation {
        begun: *begun,
        asked: *asked,
        ended: end.map(|end| (end, *answer)),
    };
    operations.iter().map(of).collect()
}

use LeaseAsked as L;
use OnceAnswer::{Is, Lost, Won};
use OnceAsked::{Claim, Read};
use RegisterAsked as R;

#[test]
fn of_two_who_claim_at_once_one_wins() {
    let both = |first, second| history(&[(0, Some(3), Claim(1), first), (1, Some(2), Claim(2), second)]);
    assert!(is_linearizable::<Once>(&both(Won, Lost)));
    assert!(is_linearizable::<Once>(&both(Lost, Won)));
    assert!(!is_linearizable::<Once>(&both(Won, Won)));
    assert!(!is_linearizable::<Once>(&both(Lost, Lost)));
}

#[test]
fn who_comes_later_loses() {
    let later = |first, second| history(&[(0, Some(1), Claim(1), first), (2, Some(3), Claim(2), second)]);
    assert!(is_linearizable::<Once>(&later(Won, Lost)));
    assert!(!is_linearizable::<Once>(&later(Lost, Won)));
}

#[test]
fn a_read_does_not_go_back() {
    let reads = |first, second| {
        history(&[(0, Some(9), Claim(1), Won), (1, Some(2), Read, Is(first)), (3, Some(4), Read, Is(second))])
    };
    assert!(is_linearizable::<Once>(&reads(None, Some(1))));
    assert!(is_linearizable::<Once>(&reads(Some(1), Some(1))));
    assert!(!is_linearizable::<Once>(&reads(Some(1), None)));
    assert!(!is_linearizable::<Once>(&reads(None, Some(2))));
}

#[test]
fn what_was_acknowledged_and_then_lost_is_found() {
    let lost = history(&[(0, Some(1), Claim(1), Won), (2, Some(3), Claim(2), Won)]);
    assert!(!is_linearizable::<Once>(&lost));
    let gone = history(&[(0, Some(1), Claim(1), Won), (2, Some(3), Read, Is(None))]);
    assert!(!is_linearizable::<Once>(&gone));
}

#[test]
fn what_failed_may_have_been_done_then_or_later_or_never() {
    let then = |at: u64, who| history(&[(0, None, Claim(1), Won), (at, Some(at + 1), Read, Is(who))]);
    assert!(is_linearizable::<Once>(&then(1, Some(1))));
    assert!(is_linearizable::<Once>(&then(1, None)));
    let later = history(&[
        (0, None, Claim(1), Won),
        (1, Some(2), Read, Is(None)),
        (3, Some(4), Read, Is(Some(1))),
        (5, Some(6), Claim(2), Lost),
    ]);
    assert!(is_linearizable::<Once>(&later));
    let twice =
        history(&[(0, None, Claim(1), Won), (1, Some(2), Read, Is(Some(1))), (3, Some(4), Read, Is(None))]);
    assert!(!is_linearizable::<Once>(&twice), "it is not undone");
    let before = history(&[(0, Some(1), Read, Is(Some(1))), (2, None, Claim(1), Won)]);
    assert!(!is_linearizable::<Once>(&before), "it is not done before it is asked for");
}

#[test]
fn a_register_loses_no_update() {
    use RegisterAnswer::{Conflict, Is, Written};
    let write = |revision, value| R::Write { revision, value };
    let race = |second, read| {
        history(&[
            (0, Some(1), write(0, 7), Written),
            (2, Some(5), write(1, 8), Written),
            (3, Some(4), write(1, 9), second),
            (6, Some(7), R::Read, Is(Some(read))),
        ])
    };
    assert!(is_linearizable::<Register>(&race(Conflict, (1, 8))));
    assert!(!is_linearizable::<Register>(&race(Written, (1, 8))), "two changes of one revision");
    assert!(!is_linearizable::<Register>(&race(Conflict, (0, 7))), "a stale read");
    assert!(!is_linearizable::<Register>(&race(Conflict, (1, 9))), "the loser's value");
}

#[test]
fn a_write_under_an_old_fence_is_found() {
    use LeaseAnswer::{Conflict, Done, Is};
    let taken = |old| {
        history(&[
            (0, Some(1), L::Put { revision: 0, fence: 1 }, Done),
            (2, Some(3), L::Write { fence: 1 }, Done),
            (4, Some(7), L::Put { revision: 1, fence: 2 }, Done),
            (5, Some(6), L::Write { fence: 2 }, Done),
            (8, Some(9), L::Write { fence: 1 }, old),
            (10, Some(11), L::Read, Is(Some((1, 2)))),
        ])
    };
    assert!(is_linearizable::<Lease>(&taken(Conflict)));
    assert!(!is_linearizable::<Lease>(&taken(Done)));
    // It overlaps with the taking: before it, or after it.
    let overlapping = |newer_wrote_before| {
        let end = if newer_wrote_before { 3 } else { 9 };
        history(&[
            (0, Some(1), L::Put { revision: 0, fence: 1 }, Done),
            (2, Some(10), L::Put { revision: 1, fence: 2 }, Done),
            (end - 1, Some(end), L::Write { fence: 2 }, Done),
            (5, Some(6), L::Write { fence: 1 }, Done),
        ])
    };
    assert!(is_linearizable::<Lease>(&overlapping(false)));
    assert!(!is_linearizable::<Lease>(&overlapping(true)));
}

#[test]
fn two_holders_of_one_lease_are_found() {
    use LeaseAnswer::Done;
    let both = history(&[
        (0, Some(2), L::Put { revision: 0, fence: 1 }, Done),
        (1, Some(3), L::Put { revision: 0, fence: 1 }, Done),
    ]);
    assert!(!is_linearizable::<Lease>(&both));
}

#[test]
fn a_history_with_much_that_is_not_known_is_searched_in_time() {
    let mut operations: Vec<_> = (0..20).map(|who| (who, None, Claim(who), Won)).collect();
    operations.extend((0..40).map(|at| (100 + 2 * at, Some(101 + 2 * at), Read, Is(Some(13)))));
    assert!(is_linearizable::<Once>(&history(&operations)));
    operations.push((300, Some(301), Read, Is(Some(14))));
    assert!(!is_linearizable::<Once>(&history(&operations)));
}

#[tokio::test]
async fn a_recorder_takes_down_what_overlaps_and_what_fails() {
    let recorder = Recorder::<Once>::default();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let slow = recorder.record(Claim(1), async { receiver.await.ok() });
    let fast = async {
        recorder.record(Claim(2), async { Some(Won) }).await;
        recorder.record(Read, async { None }).await;
        sender.send(Lost).unwrap();
    };
    tokio::join!(slow, fast);
    let history = recorder.history();
    assert_eq!(history.iter().map(|operation| operation.begun).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(
        history.iter().map(|operation| operation.ended).collect::<Vec<_>>(),
        [Some((4, Lost)), Some((2, Won)), None]
    );
    assert!(is_linearizable::<Once>(&history));
}
