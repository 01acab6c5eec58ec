//! Replaces the PHI of a CSV or NDJSON file by tokens, and tokens by values: the engine of `vaultctl import` and
//! `vaultctl export`, without the network.
//!
//! * Every byte that is not of a replaced value stays as it was: quotes, line ends, a byte order mark, a missing last
//!   line end, white space in JSON. Exporting what was imported gives the original file, byte for byte.
//! * Memory is bounded by the limits of a chunk and by the largest record ([`MAX_RECORD`]), whatever the file's size.
//! * A row of which one value is refused goes whole, as it came, to the rejects file: no row is half replaced. What
//!   cannot be restored byte for byte is refused rather than changed ([`Reason`]).
//! * A broken-off run goes on where it was: after each chunk the outputs are synced, then a state beside the output
//!   (`<out>.resume`) says how far they are good.
//! * Values are wiped when dropped, and neither errors nor the state hold any: they name rows and columns.
//!
//! Rows are counted from 1: of CSV the header is row 1, of NDJSON they are the lines.
//!
//! ```
//! # use vault_client::bulk::{Answer, Chunk, Format, Paths, Plan, Run};
//! # fn tokenize(_key: &str, chunk: &Chunk) -> Vec<Answer> { Vec::new() }
//! # let dir = tempfile::tempdir()?;
//! # let (input, output) = (dir.path().join("in.csv"), dir.path().join("out.csv"));
//! # std::fs::write(&input, "ID,SSN,FIRST\n")?;
//! let plan = Plan::import(Format::CSV, &["SSN=ssn", "FIRST=name"], Some("ID"))?;
//! let mut run = Run::open(plan, Paths::beside(input, output))?;
//! while let Some(chunk) = run.next_chunk()? {
//!     // One answer for each of `chunk.cells()`, in order. The key makes a repeated chunk harmless.
//!     let answers = tokenize(&run.idempotency_key(), &chunk);
//!     for row in run.finish_chunk(chunk, answers)? {
//!         eprintln!("{row}");
//!     }
//! }
//! let done = run.complete()?;
//! println!("{} values replaced, {} rows rejected", done.counts.cells, done.counts.rejected);
//! for entry in done.unmatched {
//!     eprintln!("{entry} matched nothing");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Reader`] and [`Chunk`] work without files of their own, on anything that reads.

mod chunk;
mod csv;
mod error;
mod files;
mod json;
mod ndjson;
mod path;
mod plan;
mod progress;
mod reader;
mod row;
mod run;
mod secret;
mod source;
#[cfg(test)]
mod tests;

pub use chunk::{Answer, Cell, Chunk, Counts, Reason, RejectedRow, Rejection, Rendered};
pub use error::{BulkError, MapError};
pub use plan::{Format, Limits, Plan};
pub use reader::{Position, Reader};
pub use run::{Done, Paths, Run};
pub use secret::Secret;
pub use source::MAX_RECORD;
