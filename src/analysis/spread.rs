//! What a sample looks like: its middle, its spread, its outliers.

use super::percentile::percentile;

/// Values further from the box than so many times its height are outliers.
const FENCE: f64 = 1.5;

/// The figures of a box plot, and the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// How many values there are.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The first quartile.
    pub q1: f64,
    /// The median.
    pub median: f64,
    /// The third quartile.
    pub q3: f64,
    /// The largest.
    pub max: f64,
    /// The smallest value that is no outlier.
    pub whisker_low: f64,
    /// The largest value that is no outlier.
    pub whisker_high: f64,
}

impl Spread {
    /// Whether a value lies beyond Tukey's fences: more than 1.5 times the distance of the quartiles below the first or
    /// above the third of them.
    pub fn is_outlier(&self, value: f64) -> bool {
        let reach = FENCE * (self.q3 - self.q1);
        value < self.q1 - reach || value > self.q3 + reach
    }
}

/// Describes a sample in ascending order, as Tukey 1977 (Exploratory Data Analysis, chapter 2) does, with the quartiles of
/// [`percentile`]. Of normally distributed values, 0.7 % are called outliers; they are shown, and left out of nothing.
///
/// None: an empty sample.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn spread(sorted: &[f64]) -> Option<Spread> {
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let mut spread = Spread {
        count: sorted.len(),
        // Each value is divided first, so that the sum can't overflow.
        mean: sorted.iter().map(|value| value / sorted.len() as f64).sum(),
        min: first,
        q1: percentile(sorted, 0.25)?,
        median: percentile(sorted, 0.5)?,
        q3: percentile(sorted, 0.75)?,
        max: last,
        whisker_low: first,
        whisker_high: last,
    };
    let inside = |value: &&f64| !spread.is_outlier(**value);
    let (low, high) = (sorted.iter().find(inside).copied(), sorted.iter().rev().find(inside).copied());
    spread.whisker_low = low.unwrap_or(first);
    spread.whisker_high = high.unwrap_or(last);
    Some(spread)
}
