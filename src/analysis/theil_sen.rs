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
/// ([`mann_kendall`](super::mann_kendall) tells it); 1 for the plain interval. Numbers must be finite. The work grows with the square of the number of points.
///
/// None: fewer than two different times, slices of different length, or a `confidence` that is not between 0 and 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks are clamped to the slopes"
)]
pub fn theil_sen(times: &[f64], values: &[f64], confidence: f64, inflation: f64) -> Option<Slope> {
    if times.len() != values.len() {
        return None;
    }
    let n = times.len();
    let mut slopes = Vec::with_capacity(n * n.saturating_sub(1) / 2);
    for i in 0..n {
        for j in i + 1..n {
            let time = times[j] - times[i];
            if time != 0.0 {
                slopes.push((values[j] - values[i]) / time);
            }
        }
    }
    let last = slopes.len().checked_sub(1)?;
    slopes.sort_unstable_by(f64::total_cmp);
    let estimate = percentile(&slopes, 0.5)?;
    let z = -normal::quantile((1.0 - confidence) / 2.0)?;
    let count = slopes.len() as f64;
    let half = z * ((s_variance(n) - tied(times) - tied(values)) * inflation).max(0.0).sqrt();
    let low = ((count - half) / 2.0).round_ties_even() - 1.0;
    let high = f64::midpoint(count, half).round_ties_even();
    let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(last)];
    let intercept = median(values)? - median(times)? * estimate;
    Some(Slope { estimate, low: at(low), high: at(high), intercept })
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
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    percentile(&sorted, 0.5)
}
