//! Claims about imports and exports, against a vault that is a map.

mod bad_input;
mod csv;
mod ndjson;
mod real_data;
mod resume;

use std::cell::RefCell;
use std::collections::HashMap;

use sha2::{Digest, Sha256};
use vault_format::environment::Environment;
use vault_format::token::Token;
use zeroize::Zeroizing;

use super::*;

/// A vault that gives the same value the same token, so that runs can be compared.
#[derive(Default)]
pub(super) struct FakeVault {
    values: RefCell<HashMap<String, String>>,
}

impl FakeVault {
    /// Tokens; values that hold `REFUSE` are refused.
    pub(super) fn tokenize(&self, cells: &[Cell]) -> Vec<Answer> {
        let dev = Environment::parse("dev").unwrap();
        let answer = |cell: &Cell| {
            let value = cell.value.expose();
            if value.contains("REFUSE") {
                return Err(Rejection { reason: "not of its class".to_owned() });
            }
            let digest = Sha256::digest(value);
            let token = Token::from_bytes(digest[..16].try_into().unwrap()).encode(&dev);
            self.values.borrow_mut().insert(token.clone(), value.to_owned());
            Ok(Zeroizing::new(token))
        };
        cells.iter().map(answer).collect()
    }

    pub(super) fn detokenize(&self, cells: &[Cell]) -> Vec<Answer> {
        let values = self.values.borrow();
        let answer = |cell: &Cell| {
            let unknown = || Rejection { reason: "unknown".to_owned() };
            values.get(cell.value.expose()).map(|v| Zeroizing::new(v.clone())).ok_or_else(unknown)
        };
        cells.iter().map(answer).collect()
    }
}

/// What came of a whole file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) out: Vec<u8>,
    pub(super) rejected: Vec<u8>,
    pub(super) reasons: Vec<String>,
    pub(super) counts: Counts,
}

pub(super) fn process(
    input: &[u8],
    plan: &Plan,
    vault: impl Fn(&[Cell]) -> Vec<Answer>,
) -> Result<Outcome, BulkError> {
    let mut reader = Reader::new(input, plan)?;
    let mut all =
        Outcome { out: reader.header().to_vec(), rejected: reader.header().to_vec(), ..Outcome::default() };
    while let Some(chunk) = reader.next_chunk()? {
        let answers = vault(chunk.cells());
        let rendered = chunk.render(answers)?;
        all.out.extend_from_slice(&rendered.out);
        all.rejected.extend_from_slice(&rendered.rejected);
        all.reasons.extend(rendered.reasons.iter().map(ToString::to_string));
        all.counts.add(&rendered.counts);
    }
    Ok(all)
}

pub(super) fn small(plan: Plan) -> Plan {
    plan.with_limits(Limits { rows: 3, cells: 8, bytes: 300 }).unwrap()
}

pub(super) fn import(input: &[u8], plan: &Plan) -> (FakeVault, Result<Outcome, BulkError>) {
    let vault = FakeVault::default();
    let outcome = process(input, plan, |cells| vault.tokenize(cells));
    (vault, outcome)
}

/// Imports and exports again; what the export gave.
pub(super) fn round_trip(input: &[u8], plan: &Plan) -> (Outcome, Outcome) {
    let (vault, imported) = import(input, plan);
    let imported = imported.unwrap();
    let back = Plan::export(plan.format).unwrap().with_limits(plan.limits).unwrap();
    let exported = process(&imported.out, &back, |cells| vault.detokenize(cells)).unwrap();
    (imported, exported)
}

pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
