//! The confidence interval of a success rate.

use super::normal;

/// Where a rate lies, with the confidence that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// Lower end, at least 0.
    pub low: f64,
    /// Upper end, at most 1.
    pub high: f64,
}

/// The two-sided score interval of a success rate, without continuity correction (Wilson 1927, J. Am. Stat. Assoc. 22,
/// 209-212; method 3 of Newcombe 1998, Statistics in Medicine 17, 857-872).
///
/// It holds the true rate in about `confidence` of all cases, also where few trials or rates near 0 or 1 make the
/// textbook interval fail. It supposes that trials do not influence each other.
///
/// None: no trials, more successes than trials, or a `confidence` that is not between 0 and 1.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts beyond 2^53 change a rate by less than the result's own rounding"
)]
pub fn interval(successes: u64, trials: u64, confidence: f64) -> Option<Interval> {
    if trials == 0 || successes > trials || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let z = -normal::quantile((1.0 - confidence) / 2.0)?;
    let n = trials as f64;
    let rate = successes as f64 / n;
    let z2 = z * z / n;
    let center = (rate + z2 / 2.0) / (1.0 + z2);
    // p(1-p) is taken from the counts, so that rates next to 1 keep their digits.
    let spread = rate * ((trials - successes) as f64 / n);
    let half = z / (1.0 + z2) * (spread / n + z2 / (4.0 * n)).sqrt();
    // At the ends of the scale the formula gives 0 and 1 but for rounding.
    let low = if successes == 0 { 0.0 } else { (center - half).max(0.0) };
    let high = if successes == trials { 1.0 } else { (center + half).min(1.0) };
    Some(Interval { low, high })
}
