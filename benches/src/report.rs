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

/// `names`: of what stands below in the ratio, and of what stands above.
pub(crate) fn print(names: [&str; 2], rows: &[Row], head: bool) {
    if head {
        let [bare, real] = names;
        let (bare_rate, real_rate) = (format!("{bare} /s"), format!("{real} /s"));
        let (bare_times, real_times) = (format!("{bare} p50 / p99"), format!("{real} p50 / p99"));
        println!(
            "{:<28} {bare_rate:>12} {real_rate:>12} {:>7} {:>13} {bare_times:>22} {real_times:>22}",
            "case", "ratio", "min..max"
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
