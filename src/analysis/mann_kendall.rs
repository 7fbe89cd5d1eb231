//! Whether a series rises or falls.

use super::{
    normal,
    theil_sen::{median_slope, s_variance, tied},
};

/// The level at which an autocorrelation is taken into account.
const LAG_SIGNIFICANCE: f64 = 0.05;

/// The result of a Mann-Kendall test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Pairs that rise less pairs that fall: Kendall's S.
    pub s: f64,
    /// S over the number of pairs, from -1 to 1.
    pub tau: f64,
    /// By how much autocorrelation inflates the variance of S; 1 or more.
    pub inflation: f64,
    /// The chance of an S as far from 0 without a trend; two-sided.
    pub p_value: f64,
}

/// The trend test of Mann 1945 (Econometrica 13, 245-259) and Kendall 1975 with the variance correction for
/// autocorrelation of Hamed and Rao 1998 (J. Hydrology 204, 182-196): values that follow each other closely, as memory or
/// the state of a cache do, would otherwise show trends that are none.
///
/// Autocorrelations of the ranks, without the Theil-Sen trend, count where they are significant at 0.05. A correction
/// below 1, from values that swing to and fro, is taken as 1: it would make the test bolder than on independent values.
/// Values must be finite and equally far apart in time.
///
/// None: fewer than three values.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn mann_kendall(values: &[f64]) -> Option<Trend> {
    let n = values.len();
    if n < 3 {
        return None;
    }
    let mut s = 0.0_f64;
    for (index, earlier) in values.iter().enumerate() {
        for later in &values[index + 1..] {
            s += f64::from(i8::from(later > earlier) - i8::from(later < earlier));
        }
    }
    let inflation = inflation(values)?;
    let variance = (s_variance(n) - tied(values)) * inflation;
    // One less, because S moves in steps of two.
    let z = if variance > 0.0 { (s.abs() - 1.0).max(0.0) / variance.sqrt() } else { 0.0 };
    let pairs = (n * (n - 1)) as f64 / 2.0;
    Some(Trend { s, tau: s / pairs, inflation, p_value: (2.0 * normal::upper_tail(z)).min(1.0) })
}

/// The factor `n / n*` of Hamed and Rao, at least 1.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn inflation(values: &[f64]) -> Option<f64> {
    let times: Vec<f64> = (1..=values.len()).map(|index| index as f64).collect();
    let slope = median_slope(&times, values)?;
    let without_trend: Vec<f64> = values.iter().zip(&times).map(|(value, time)| value - time * slope).collect();
    let ranks = ranks(&without_trend);
    let n = values.len() as f64;
    let mean = f64::midpoint(n, 1.0);
    let covariance = |lag: usize| -> f64 {
        let later = &ranks[lag..];
        ranks.iter().zip(later).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let variance = covariance(0);
    if variance <= 0.0 {
        return Some(1.0);
    }
    let significant = normal::quantile(1.0 - LAG_SIGNIFICANCE / 2.0)? / n.sqrt();
    let sum: f64 = (1..values.len())
        .map(|lag| {
            let correlation = covariance(lag) / variance;
            let left = n - lag as f64;
            if correlation.abs() > significant { left * (left - 1.0) * (left - 2.0) * correlation } else { 0.0 }
        })
        .sum();
    Some((1.0 + 2.0 / (n * (n - 1.0) * (n - 2.0)) * sum).max(1.0))
}

/// The rank of each value, from 1; equal values share their mean.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    #[expect(clippy::float_cmp, reason = "ties are equal values")]
    for tie in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = before as f64 + (tie.len() + 1) as f64 / 2.0;
        for index in tie {
            ranks[*index] = rank;
        }
        before += tie.len();
    }
    ranks
}
