//! Where a percentile of what was sampled lies.

use super::binomial;

/// The ends of a percentile's confidence interval. An end is absent where the sample is too small to tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QuantileInterval {
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// The distribution-free interval of the `q` quantile between two order statistics (Hahn and Meeker 1991, Statistical
/// Intervals, section 5.2; Conover 1999, Practical Nonparametric Statistics, section 3.2). `sorted` is in ascending order.
///
/// Each end is wrong with a chance of at most `(1 - confidence) / 2`, whatever the distribution, if the values do not
/// influence each other. Few values tell nothing of what is rare: the 99th percentile has an upper end from 368 values on
/// (at 0.95 confidence), the median has both ends from 6 on. What can't be told is absent, not guessed.
pub fn interval(sorted: &[f64], q: f64, confidence: f64) -> QuantileInterval {
    let n = sorted.len() as u64;
    if n == 0 || !(q > 0.0 && q < 1.0) || !(confidence > 0.0 && confidence < 1.0) {
        return QuantileInterval::default();
    }
    let tail = (1.0 - confidence) / 2.0;
    let (first, chances) = binomial::distribution(n, q);
    // The number of values below the quantile is binomial. The k-th value (from 0) is above the quantile if at most k are below.
    let mut sum = 0.0;
    let below = chances.iter().take_while(|chance| {
        sum += **chance;
        sum <= tail
    });
    let low = (first + below.count() as u64).checked_sub(1);
    let mut sum = 0.0;
    let above = chances.iter().rev().take_while(|chance| {
        sum += **chance;
        sum <= tail
    });
    let last = first + chances.len() as u64 - 1;
    // The k-th value (from 0) is below the quantile if more than k are below it.
    let high = last - (above.count() as u64).min(last);
    let at = |index: u64| usize::try_from(index).ok().and_then(|index| sorted.get(index)).copied();
    QuantileInterval { low: low.and_then(at), high: at(high) }
}
