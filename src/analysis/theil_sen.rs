//! The slope of a series, whatever its outliers.

use super::{normal, percentile::percentile};

/// A line through points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Change of the value for a step of 1 in time.
    pub estimate: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The line's value at time 0.
    pub intercept: f64,
}

/// The median of the slopes between all pairs of points (Theil 1950, Indagationes Mathematicae 12, 85-91), with the
/// interval of Sen 1968 (J. American Statistical Association 63, 1379-1389), ties included.
///
/// `inflation` is the factor by which the variance of Kendall's S exceeds that of independent values
/// ([`mann_kendall`](super::mann_kendall) tells it); 1 for the plain interval. Numbers must be finite. Memory and work grow
/// with the square of the number of points, and no faster: the slopes are selected from (Hoare 1961, Communications of the
/// ACM 4, 321-322), not sorted.
///
/// None: fewer than two different times, slices of different length, or a `confidence` that is not between 0 and 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks are clamped to the slopes"
)]
pub fn theil_sen(times: &[f64], values: &[f64], confidence: f64, inflation: f64) -> Option<Slope> {
    let mut slopes = slopes(times, values)?;
    let z = -normal::quantile((1.0 - confidence) / 2.0)?;
    let count = slopes.len() as f64;
    let last = slopes.len() - 1;
    let half = z * ((s_variance(times.len()) - tied(times) - tied(values)) * inflation).max(0.0).sqrt();
    let low = ((count - half) / 2.0).round_ties_even() - 1.0;
    let high = f64::midpoint(count, half).round_ties_even();
    let rank = |rank: f64| (rank.max(0.0) as usize).min(last);
    // The middle first: what it leaves below and above itself holds the ends of the interval.
    let estimate = middle(&mut slopes);
    let (low, high) = (at(&mut slopes, rank(low)), at(&mut slopes, rank(high)));
    let intercept = median(values)? - median(times)? * estimate;
    Some(Slope { estimate, low, high, intercept })
}

/// The median of the slopes alone.
pub(super) fn median_slope(times: &[f64], values: &[f64]) -> Option<f64> {
    Some(middle(&mut slopes(times, values)?))
}

/// The slopes between all pairs of points of different times; none if there are no such pairs.
fn slopes(times: &[f64], values: &[f64]) -> Option<Vec<f64>> {
    if times.len() != values.len() {
        return None;
    }
    let mut slopes = Vec::with_capacity(times.len() * times.len().saturating_sub(1) / 2);
    for (index, (first_time, first)) in times.iter().zip(values).enumerate() {
        for (time, value) in times[index + 1..].iter().zip(&values[index + 1..]) {
            let time = time - first_time;
            if time != 0.0 {
                slopes.push((value - first) / time);
            }
        }
    }
    (!slopes.is_empty()).then_some(slopes)
}

/// The value of that rank, from 0, of an unsorted slice.
fn at(values: &mut [f64], rank: usize) -> f64 {
    *values.select_nth_unstable_by(rank, f64::total_cmp).1
}

/// The median of an unsorted slice that is not empty.
fn middle(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let upper = *upper;
    let lower = below.iter().copied().max_by(f64::total_cmp).filter(|_| even);
    percentile(&[lower.unwrap_or(upper), upper], 0.5).unwrap_or(upper)
}

/// The variance of Kendall's S of `n` independent values without ties.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn s_variance(n: usize) -> f64 {
    let n = n as f64;
    n * (n - 1.0) * (2.0 * n + 5.0) / 18.0
}

/// By how much ties lessen that variance.
pub(super) fn tied(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::float_cmp, reason = "ties are equal values")]
    sorted.chunk_by(|a, b| a == b).map(|tie| if tie.len() > 1 { s_variance(tie.len()) } else { 0.0 }).sum()
}

fn median(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| middle(&mut values.to_vec()))
}
