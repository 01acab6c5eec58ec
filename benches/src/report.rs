//! Prints figures as ratios.

use crate::load::{Case, Figures};

/// One case: the median round by ratio.
pub(crate) struct Row {
    case: Case,
    bare: Figures,
    real: Figures,
    ratio: f64,
    spread: (f64, f64),
}

impl Row {
    pub(crate) fn new(case: Case, mut pairs: Vec<(Figures, Figures)>) -> Self {
        let ratio = |(bare, real): &(Figures, Figures)| real.items_per_second / bare.items_per_second;
        pairs.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let spread = (pairs.first().map_or(0.0, ratio), pairs.last().map_or(0.0, ratio));
        let (bare, real) = pairs.swap_remove(pairs.len() / 2);
        let middle = real.items_per_second / bare.items_per_second;
        Self { case, bare, real, ratio: middle, spread }
    }
}

pub(crate) fn print(rows: &[Row], head: bool) {
    if head {
        println!(
            "{:<28} {:>12} {:>12} {:>7} {:>13} {:>22} {:>22}",
            "case", "echo /s", "vault /s", "ratio", "min..max", "echo p50 / p99", "vault p50 / p99"
        );
    }
    for row in rows {
        println!(
            "{:<28} {:>12.0} {:>12.0} {:>6.2}x {:>5.2}x..{:<5.2}x {:>9.2?} / {:>9.2?} {:>9.2?} / {:>9.2?}",
            row.case.name(),
            row.bare.items_per_second,
            row.real.items_per_second,
            row.ratio,
            row.spread.0,
            row.spread.1,
            row.bare.p50,
            row.bare.p99,
            row.real.p50,
            row.real.p99,
        );
    }
}
