//! How long the figures of a long run take.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use soak_operator::report;

use crate::{
    figures::{Figures, number, rounded},
    records::{METRICS, plain},
};

/// Cycles of either run when none are asked for.
const CYCLES: u64 = 10_000;

/// Measures, on one thread: everything that a report says about a run, its comparison with another as long included, from
/// records in memory. Reading records and writing files is not measured. `seconds` is what the thread had of its core, so
/// that it tells the same on a busy machine; `wall_seconds` is how long that took.
pub fn measure(cycles: Option<u64>) -> Result<Figures> {
    let cycles = cycles.unwrap_or(CYCLES);
    let (run, before) = (plain(cycles, 1), plain(cycles, 2));
    let mut figures = Figures::of("analysis");
    let (began, used) = (Instant::now(), processor_seconds()?);
    let report = report::report(&run, Some(&before));
    figures.at_most("seconds", processor_seconds()? - used, 2.0);
    figures.tell("wall_seconds", rounded(began.elapsed().as_secs_f64()));
    figures.tell("cycles", report.cycles.completed);
    figures.at_least("metrics", number(report.metrics.len()), number(METRICS));
    figures.tell("compared", report.baseline.map_or(0, |baseline| baseline.metrics.len()));
    Ok(figures)
}

/// What this thread has had of a core.
fn processor_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("the thread's time can't be read")?;
    let nanoseconds: u64 = text.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(number(nanoseconds) / 1e9)
}
