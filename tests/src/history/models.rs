//! What the rows of a store do.

use super::Model;

/// A row that is written once: the answer to an idempotency key, the first version of a tenant's key.
#[derive(Debug)]
pub enum Once {}

/// What is asked of [`Once`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnceAsked {
    /// To be the one.
    Claim(u64),
    /// Which one it is.
    Read,
}

/// What [`Once`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnceAnswer {
    /// It is.
    Won,
    /// Another was first.
    Lost,
    /// The one, if there is one.
    Is(Option<u64>),
}

impl Model for Once {
    type State = Option<u64>;
    type Asked = OnceAsked;
    type Answer = OnceAnswer;

    fn begin() -> Self::State {
        None
    }

    fn step(state: &Self::State, asked: &OnceAsked) -> (OnceAnswer, Self::State) {
        match (asked, state) {
            (OnceAsked::Claim(who), None) => (OnceAnswer::Won, Some(*who)),
            (OnceAsked::Claim(_), Some(_)) => (OnceAnswer::Lost, *state),
            (OnceAsked::Read, _) => (OnceAnswer::Is(*state), *state),
        }
    }
}

/// A record that is changed by its revision.
#[derive(Debug)]
pub enum Register {}

/// What is asked of [`Register`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterAsked {
    /// To write a revision with a value: the first, or the one after what is there.
    Write {
        /// Which revision.
        revision: u32,
        /// Its value.
        value: u64,
    },
    /// What is there.
    Read,
}

/// What [`Register`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterAnswer {
    /// Written.
    Written,
    /// Another revision is there.
    Conflict,
    /// The revision and its value, if there is one.
    Is(Option<(u32, u64)>),
}

impl Model for Register {
    type State = Option<(u32, u64)>;
    type Asked = RegisterAsked;
    type Answer = RegisterAnswer;

    fn begin() -> Self::State {
        None
    }

    fn step(state: &Self::State, asked: &RegisterAsked) -> (RegisterAnswer, Self::State) {
        match *asked {
            RegisterAsked::Write { revision, value } => {
                if state.map(|(there, _)| there) == revision.checked_sub(1) {
                    (RegisterAnswer::Written, Some((revision, value)))
                } else {
                    (RegisterAnswer::Conflict, *state)
                }
            }
            RegisterAsked::Read => (RegisterAnswer::Is(*state), *state),
        }
    }
}

/// A lease, and what is written under it.
#[derive(Debug)]
pub enum Lease {}

/// What is asked of [`Lease`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAsked {
    /// To take it, renew it or give it back.
    Put {
        /// The row's revision then.
        revision: u64,
        /// The fence then.
        fence: u64,
    },
    /// To write something under a fence.
    Write {
        /// Which.
        fence: u64,
    },
    /// Its revision and fence.
    Read,
}

/// What [`Lease`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// Done.
    Done,
    /// Somebody else was faster, or has it.
    Conflict,
    /// Its revision and fence, if it was ever taken.
    Is(Option<(u64, u64)>),
}

impl Model for Lease {
    type State = Option<(u64, u64)>;
    type Asked = LeaseAsked;
    type Answer = LeaseAnswer;

    fn begin() -> Self::State {
        None
    }

    fn step(state: &Self::State, asked: &LeaseAsked) -> (LeaseAnswer, Self::State) {
        match *asked {
            LeaseAsked::Put { revision, fence } => {
                if state.map(|(there, _)| there) == revision.checked_sub(1) {
                    (LeaseAnswer::Done, Some((revision, fence)))
                } else {
                    (LeaseAnswer::Conflict, *state)
                }
            }
            LeaseAsked::Write { fence } => {
                let holds = state.is_some_and(|(_, there)| there == fence);
                (if holds { LeaseAnswer::Done } else { LeaseAnswer::Conflict }, *state)
            }
            LeaseAsked::Read => (LeaseAnswer::Is(*state), *state),
        }
    }
}
