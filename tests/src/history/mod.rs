//! Whether what concurrent callers were told could have come from one thing that does one operation at a time
//! (linearizability: Herlihy and Wing, 1990).
//!
//! An order of the operations is looked for (Wing and Gong, 1993; with a memory of what was tried, Lowe, 2017) in which
//! each answer is right and no operation comes before one that had ended when it began. An operation that failed, or was
//! given up, may have been done at any time after it began, or never. Histories are of one row and small: the search is
//! exponential in what overlaps.

mod models;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::models::{Lease, LeaseAnswer, LeaseAsked, Once, OnceAnswer, OnceAsked};
pub use self::models::{Register, RegisterAnswer, RegisterAsked};

/// What a row does, one operation at a time.
pub trait Model {
    /// What is in the row.
    type State: Clone + Eq + Hash;
    /// What is asked of it.
    type Asked: Debug;
    /// What it answers.
    type Answer: PartialEq + Debug;

    /// Before the first operation.
    fn begin() -> Self::State;

    /// What it answers to an operation, and what is in it then.
    fn step(state: &Self::State, asked: &Self::Asked) -> (Self::Answer, Self::State);
}

/// One operation as its caller saw it. Times are of one counter.
#[derive(Debug, Clone)]
pub struct Operation<Q, A> {
    /// When it began.
    pub begun: u64,
    /// What was asked.
    pub asked: Q,
    /// When it ended, and what was answered; `None` if that is not known.
    pub ended: Option<(u64, A)>,
}

/// The most operations of a history.
pub const MOST: usize = 128;

/// Whether there is an order in which every answer is right.
///
/// # Panics
/// If the history is too long.
pub fn is_linearizable<M: Model>(history: &[Operation<M::Asked, M::Answer>]) -> bool {
    assert!(history.len() <= MOST, "a history of {} operations", history.len());
    let mut tried = HashSet::new();
    let mut todo = vec![(0_u128, M::begin())];
    while let Some((done, state)) = todo.pop() {
        let left = || history.iter().enumerate().filter(move |(at, _)| done & (1 << at) == 0);
        let first_end =
            left().filter_map(|(_, operation)| operation.ended.as_ref()).map(|(end, _)| *end).min();
        let Some(first_end) = first_end else { return true };
        // What began after another had ended comes after it.
        for (at, operation) in left().filter(|(_, operation)| operation.begun < first_end) {
            let (answer, next) = M::step(&state, &operation.asked);
            let may_be = match &operation.ended {
                Some((_, told)) => *told == answer,
                // One that changes nothing may as well never have been done.
                None => next != state,
            };
            let step = (done | 1 << at, next);
            if may_be && tried.insert(step.clone()) {
                todo.push(step);
            }
        }
    }
    false
}

/// Takes down what callers of one row ask and are told.
pub struct Recorder<M: Model> {
    clock: AtomicU64,
    operations: Mutex<Vec<Operation<M::Asked, M::Answer>>>,
}

impl<M: Model> Default for Recorder<M> {
    fn default() -> Self {
        Self { clock: AtomicU64::new(0), operations: Mutex::new(Vec::new()) }
    }
}

impl<M: Model> Recorder<M> {
    /// Does an operation. `None`: it is not known whether it was done, or what it would have answered.
    pub async fn record(&self, asked: M::Asked, work: impl Future<Output = Option<M::Answer>>)
    where
        M::Answer: Clone,
    {
        let at = {
            let mut operations = self.operations.lock();
            let begun = self.clock.fetch_add(1, Ordering::SeqCst);
            operations.push(Operation { begun, asked, ended: None });
            operations.len() - 1
        };
        if let Some(answer) = work.await {
            let mut operations = self.operations.lock();
            operations[at].ended = Some((self.clock.fetch_add(1, Ordering::SeqCst), answer));
        }
    }

    /// All that was taken down.
    pub fn history(self) -> Vec<Operation<M::Asked, M::Answer>> {
        self.operations.into_inner()
    }
}
