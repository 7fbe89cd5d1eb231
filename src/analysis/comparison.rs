//! Two runs against each other, over all their metrics.

use super::{
    false_discovery, percentile,
    rank_sum::{self, rank_sum},
    shift::{Shift, shift},
};

/// What counts as a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Highest expected share of false alarms among the changes that are told.
    pub false_discovery_rate: f64,
    /// Confidence of the shift's interval.
    pub confidence: f64,
    /// Smallest shift that matters, as a share of the median before.
    pub smallest_share: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { false_discovery_rate: 0.05, confidence: 0.95, smallest_share: 0.05 }
    }
}

/// What the samples say about a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Its values are larger, by as much as matters.
    Higher,
    /// Its values are smaller, by as much as matters.
    Lower,
    /// If it moved, then by less than matters: the whole interval of the shift says so.
    Same,
    /// It may have moved or not.
    Unclear,
    /// No result of so few values could be significant.
    InsufficientData,
}

/// One metric before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Values before.
    pub count_before: usize,
    /// Values after.
    pub count_after: usize,
    /// Median before.
    pub median_before: Option<f64>,
    /// Median after.
    pub median_after: Option<f64>,
    /// By how much the values after are larger.
    pub shift: Option<Shift>,
    /// The chance that a value after is larger than one before (Vargha and Delaney's A12).
    pub superiority: Option<f64>,
    /// The p-value of the rank-sum test.
    pub p_value: Option<f64>,
    /// The p-value, adjusted for the number of metrics.
    pub adjusted: Option<f64>,
    /// What follows.
    pub change: Change,
}

/// Compares metrics, each with its values before and after: the rank-sum test, the Hodges-Lehmann shift, and
/// Benjamini-Hochberg over all metrics that have enough values. Numbers that are not finite are left out.
///
/// `Higher` and `Lower` need both an adjusted p-value of at most the false discovery rate and a shift that matters, so of
/// all changes told, a share of at most that rate is expected to be none. Samples too small to be significant at all
/// (fewer than four against four at 0.05) are `InsufficientData`.
pub fn compare(metrics: &[(&[f64], &[f64])], thresholds: &Thresholds) -> Vec<Comparison> {
    let mut comparisons: Vec<Comparison> =
        metrics.iter().map(|(before, after)| described(&finite(before), &finite(after), thresholds)).collect();
    let p_values: Vec<f64> = comparisons.iter().filter_map(|comparison| comparison.p_value).collect();
    let tested = comparisons.iter_mut().filter(|comparison| comparison.p_value.is_some());
    for (comparison, adjusted) in tested.zip(false_discovery::adjusted(&p_values)) {
        comparison.adjusted = Some(adjusted);
        comparison.change = judged(comparison, adjusted, thresholds);
    }
    comparisons
}

/// A sample in ascending order, without what is no number.
fn finite(sample: &[f64]) -> Vec<f64> {
    let mut sample: Vec<f64> = sample.iter().copied().filter(|value| value.is_finite()).collect();
    sample.sort_unstable_by(f64::total_cmp);
    sample
}

fn described(before: &[f64], after: &[f64], thresholds: &Thresholds) -> Comparison {
    let enough =
        rank_sum::smallest_p_value(before.len(), after.len()) <= thresholds.false_discovery_rate.clamp(0.0, 1.0);
    let test = rank_sum(before, after);
    Comparison {
        count_before: before.len(),
        count_after: after.len(),
        median_before: percentile::percentile(before, 0.5),
        median_after: percentile::percentile(after, 0.5),
        shift: shift(before, after, thresholds.confidence),
        superiority: test.map(|test| test.superiority),
        p_value: test.filter(|_| enough).map(|test| test.p_value),
        adjusted: None,
        change: Change::InsufficientData,
    }
}

fn judged(comparison: &Comparison, adjusted: f64, thresholds: &Thresholds) -> Change {
    let Some((shift, median)) = comparison.shift.zip(comparison.median_before) else { return Change::Unclear };
    let matters = thresholds.smallest_share * median.abs();
    let moved = adjusted <= thresholds.false_discovery_rate && shift.estimate != 0.0;
    if moved && shift.estimate.abs() >= matters {
        return if shift.estimate > 0.0 { Change::Higher } else { Change::Lower };
    }
    match shift.interval {
        Some((low, high)) if low >= -matters && high <= matters => Change::Same,
        _ => Change::Unclear,
    }
}
