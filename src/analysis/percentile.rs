//! Percentiles of a sample that is known in full.

/// The `q` quantile (`0 <= q <= 1`) of a sample in ascending order, linear between its neighbours: type 7 of Hyndman and
/// Fan 1996 (The American Statistician 50, 361-365), the default of numpy, R and spreadsheets.
///
/// None: an empty sample, or a `q` outside of its range. The sample must be sorted and free of NaN; otherwise the
/// result is one of its values or between two of them, and means nothing.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the position lies within the slice"
)]
pub fn percentile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    if !(0.0..=1.0).contains(&q) {
        return None;
    }
    let position = q * last as f64;
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let share = position - below as f64;
    let (low, high) = (sorted[below], sorted[above]);
    // Weighing both overflows for no values, unlike adding a share of the difference; rounding must not leave the range.
    Some((low * (1.0 - share) + high * share).max(low).min(high))
}
