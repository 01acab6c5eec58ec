//! Answers that are remembered for a while.

use super::{Backend, CONFLICT, answer, write};
use crate::domain::Timestamp;
use crate::store::Write;

pub(crate) async fn an_answer_is_remembered_until_it_expires(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Remember(answer(1, 10, 20))]).await.unwrap();
    assert_eq!(write(&store, [Write::Remember(answer(1, 19, 30))]).await, CONFLICT);
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(answer(1, 10, 20))));
    assert_eq!(store.remembered(&[2; 32]).await, Ok(None));
    write(&store, [Write::Remember(answer(1, 20, 30))]).await.unwrap();
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(answer(1, 20, 30))));
}

pub(crate) async fn forget_takes_expired_answers_only(backend: &impl Backend) {
    let store = backend.open();
    let answers = [answer(1, 1, 10), answer(2, 1, 11), answer(3, 1, 12), answer(4, 1, 13)];
    write(&store, answers.map(Write::Remember)).await.unwrap();
    assert_eq!(store.forget(Timestamp(10), 9).await, Ok(0));
    assert_eq!(store.forget(Timestamp(13), 2).await, Ok(2));
    assert_eq!(store.forget(Timestamp(13), 9).await, Ok(1));
    assert_eq!(store.forget(Timestamp(13), 9).await, Ok(0));
    for number in 1..=3 {
        assert_eq!(store.remembered(&[number; 32]).await, Ok(None));
    }
    assert_eq!(store.remembered(&[4; 32]).await, Ok(Some(answer(4, 1, 13))));
}

pub(crate) async fn a_renewed_answer_is_not_forgotten_by_its_first_expiry(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Remember(answer(1, 10, 20))]).await.unwrap();
    write(&store, [Write::Remember(answer(1, 25, 90))]).await.unwrap();
    assert_eq!(store.forget(Timestamp(50), 9).await, Ok(0));
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(answer(1, 25, 90))));
    assert_eq!(store.forget(Timestamp(91), 9).await, Ok(1));
}
