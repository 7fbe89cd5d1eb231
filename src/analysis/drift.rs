//! Leaks: whether a metric grows or shrinks over a run.

use super::{
    mann_kendall::mann_kendall,
    percentile::percentile,
    theil_sen::{Slope, theil_sen},
};

/// With fewer values nothing is said.
pub const MIN_VALUES: usize = 10;
/// A longer series is reduced to so many medians of neighbours.
pub const MAX_BLOCKS: usize = 400;

/// Which way a metric goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It grows.
    Rising,
    /// It shrinks.
    Falling,
    /// No drift was shown.
    Steady,
    /// There are too few values to tell.
    InsufficientData,
}

/// How a metric drifts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Which way.
    pub direction: Direction,
    /// The slope with its interval, in the metric's unit for a step of 1 in time.
    pub slope: Option<Slope>,
    /// The change over the whole series, as a share of its median; absent where the median is 0.
    pub growth: Option<f64>,
    /// The p-value of the trend, corrected for autocorrelation.
    pub p_value: Option<f64>,
}

/// Looks for a drift: the corrected Mann-Kendall test says whether there is one, the Theil-Sen slope how steep it is, with
/// an interval that is widened by the same correction. `times` ascend.
///
/// Direction `Rising` or `Falling` needs both a p-value of at most `1 - confidence` and an interval without 0. A series of
/// more than 400 values is reduced to 400 medians of neighbours first, with the mean of their times: a leak is slow, and the work grows with
/// the square of the number. Pairs with a number that is not finite are left out.
pub fn drift(times: &[f64], values: &[f64], confidence: f64) -> Drift {
    let nothing = Drift { direction: Direction::InsufficientData, slope: None, growth: None, p_value: None };
    let points: Vec<(f64, f64)> = times
        .iter()
        .zip(values)
        .filter(|(time, value)| time.is_finite() && value.is_finite())
        .map(|(time, value)| (*time, *value))
        .collect();
    if points.len() < MIN_VALUES {
        return nothing;
    }
    let (times, values) = thinned(&points);
    let Some(trend) = mann_kendall(&values) else { return nothing };
    let Some(slope) = theil_sen(&times, &values, confidence, trend.inflation) else { return nothing };
    let shown = trend.p_value <= 1.0 - confidence;
    let direction = if shown && slope.low > 0.0 {
        Direction::Rising
    } else if shown && slope.high < 0.0 {
        Direction::Falling
    } else {
        Direction::Steady
    };
    let mut sorted = values;
    sorted.sort_unstable_by(f64::total_cmp);
    let median = percentile(&sorted, 0.5).filter(|median| *median != 0.0);
    let span = times[times.len() - 1] - times[0];
    Drift {
        direction,
        slope: Some(slope),
        growth: median.map(|median| slope.estimate * span / median.abs()),
        p_value: Some(trend.p_value),
    }
}

/// Medians of neighbours, as many as [`MAX_BLOCKS`]; short series stay as they are.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn thinned(points: &[(f64, f64)]) -> (Vec<f64>, Vec<f64>) {
    let blocks = points.len().min(MAX_BLOCKS);
    (0..blocks)
        .filter_map(|block| {
            // Blocks differ by one value at most, and none is empty.
            let part = &points[block * points.len() / blocks..(block + 1) * points.len() / blocks];
            let mut values: Vec<f64> = part.iter().map(|(_, value)| *value).collect();
            values.sort_unstable_by(f64::total_cmp);
            let time = part.iter().map(|(time, _)| time).sum::<f64>() / part.len() as f64;
            Some((time, percentile(&values, 0.5)?))
        })
        .unzip()
}
