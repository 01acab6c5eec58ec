//! Long work on keys: workers that take jobs by lease, do them in small steps that each stand for themselves, and prove at
//! the end that they are done.
//!
//! * A job is a row; whoever holds its lease works on it, and every write carries the lease's fence. A worker that stood
//!   still and is woken writes nothing.
//! * What is done is told by the records themselves (which key they are sealed under), not by a cursor: after a crash
//!   the next worker goes on with what is left, and does nothing twice.
//! * A record changes by compare-and-set: a concurrent erase wins.
//! * A step commits under the condition that the key it seals under is active: after a rotation it goes on under the
//!   new one.
//! * Pausing or cancelling changes the job's row, which the worker's next report of its progress finds.

mod agreement;
mod ended;
mod grants;
mod mandate;
mod pace;
mod rewrap;
mod schedule;
mod shift;
mod steps;
mod tally;
mod walk;
mod work;
mod worker;

#[cfg(test)]
mod tests;

pub use grants::end_grants;
pub use schedule::Schedule;
pub use steps::{CAN_DIE, DIE_AT, Step};
pub use tally::{JobStats, Tally};
pub use worker::{Options, Parts, Workers};
