//! The distribution of many numbers in a few bytes.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::codec;

/// Most buckets of a sketch, of both signs together.
pub const MAX_BUCKETS: usize = 64;
/// Relative error of quantiles while the numbers lie close enough together.
pub const BASE_ERROR: f64 = 0.01;
/// Collapses that bring the whole range of doubles into [`MAX_BUCKETS`]: after 12, all numbers of one sign fit 20.
pub(super) const MAX_LEVEL: u32 = 12;
/// No double has a bucket further from zero than this, before any collapse.
pub(super) const MAX_INDEX: i64 = 40_000;

/// A quantile sketch with a bounded relative error: `DDSketch` (Masson, Rim and Lee 2019, PVLDB 12, 2195-2205) with the
/// uniform collapse of `UDDSketch` (Epicoco, Melle, Cafaro, Pulimeno and Morleo 2020, IEEE Access 8, 147604-147617).
///
/// Numbers of each sign are counted in buckets whose borders grow by a constant factor, so a bucket's middle is off by
/// at most [`relative_error`](Self::relative_error). When there are more than [`MAX_BUCKETS`], pairs of neighbours are
/// joined, which about doubles that error; it starts at [`BASE_ERROR`], which holds while the largest number is within
/// 3.5 times the smallest (12 times for 2 %, 150 times for 4 %), and more if there are gaps between them.
///
/// The buckets depend on the numbers only, not on their order or on how sketches of parts of them were merged. Count,
/// minimum and maximum are exact, the sum is so but for rounding.
///
/// Its text form ([`Display`](fmt::Display), [`FromStr`], serde) has about 220 characters with all buckets in use and
/// some ten thousand numbers, and never more than [`MAX_TEXT_BYTES`](Self::MAX_TEXT_BYTES).
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch {
    /// How often pairs of buckets were joined.
    pub(super) level: u32,
    pub(super) zeros: u64,
    pub(super) positive: BTreeMap<i64, u64>,
    pub(super) negative: BTreeMap<i64, u64>,
    pub(super) sum: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            level: 0,
            zeros: 0,
            positive: BTreeMap::new(),
            negative: BTreeMap::new(),
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Sketch {
    /// Longest text form, in bytes.
    pub const MAX_TEXT_BYTES: usize = 1_200;

    /// A sketch of no numbers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a number in. False: it is infinite or no number, and was not taken.
    pub fn record(&mut self, value: f64) -> bool {
        if !value.is_finite() {
            return false;
        }
        if let Some(index) = bucket_of(value, self.level) {
            let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
            add(side, index, 1);
        } else {
            self.zeros = self.zeros.saturating_add(1);
        }
        self.sum = bounded(self.sum + value);
        // Zero has two signs; they shall not make equal sketches differ.
        self.min = self.min.min(value + 0.0);
        self.max = self.max.max(value + 0.0);
        self.collapse_to_fit();
        true
    }

    /// Takes in all that another sketch holds.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        let level = self.level.max(other.level);
        self.collapse_to(level);
        other.collapse_to(level);
        for (index, count) in other.positive {
            add(&mut self.positive, index, count);
        }
        for (index, count) in other.negative {
            add(&mut self.negative, index, count);
        }
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.sum = bounded(self.sum + other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.collapse_to_fit();
    }

    /// How many numbers were taken in.
    pub fn count(&self) -> u64 {
        let buckets = self.positive.values().chain(self.negative.values());
        buckets.fold(self.zeros, |sum, count| sum.saturating_add(*count))
    }

    /// Whether no number was taken in.
    pub fn is_empty(&self) -> bool {
        self.zeros == 0 && self.positive.is_empty() && self.negative.is_empty()
    }

    /// Their sum, held within the range of finite doubles.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The smallest. None: there is none.
    pub fn min(&self) -> Option<f64> {
        (!self.is_empty()).then_some(self.min)
    }

    /// The largest. None: there is none.
    pub fn max(&self) -> Option<f64> {
        (!self.is_empty()).then_some(self.max)
    }

    /// Their mean. None: there are none.
    #[allow(clippy::cast_precision_loss, reason = "a mean of so many numbers has no more digits")]
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum / self.count() as f64)
    }

    /// An estimate of the `q` quantile by nearest rank: of the smallest number that at least `q * count` are not above.
    /// (The percentile of few numbers is one of them, and the 99th of three is the largest.)
    /// It is off by at most [`relative_error`](Self::relative_error) of that number; the ends are exact.
    ///
    /// None: no numbers, or a `q` outside of 0 to 1.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is within the count"
    )]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.is_empty() || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let last = self.count() - 1;
        let rank = ((q * self.count() as f64).ceil() as u64).saturating_sub(1).min(last);
        if rank == 0 || rank == last {
            return Some(if rank == 0 { self.min } else { self.max });
        }
        let middle = |index: i64| middle_of(index, self.level);
        let ascending = self
            .negative
            .iter()
            .rev()
            .map(|(index, count)| (-middle(*index), *count))
            .chain([(0.0, self.zeros)])
            .chain(self.positive.iter().map(|(index, count)| (middle(*index), *count)));
        let mut seen = 0_u64;
        for (value, count) in ascending {
            seen = seen.saturating_add(count);
            if seen > rank {
                return Some(value.clamp(self.min, self.max));
            }
        }
        Some(self.max)
    }

    /// The bound of a quantile's relative error: [`BASE_ERROR`] at first, up to 1 for numbers of all magnitudes.
    pub fn relative_error(&self) -> f64 {
        // (g - 1) / (g + 1) for a growth of g, written so that it does not overflow.
        (log_growth(self.level) / 2.0).tanh()
    }

    pub(super) fn buckets(&self) -> usize {
        self.positive.len() + self.negative.len()
    }

    fn collapse_to_fit(&mut self) {
        while self.buckets() > MAX_BUCKETS && self.level < MAX_LEVEL {
            self.collapse_to(self.level + 1);
        }
    }

    fn collapse_to(&mut self, level: u32) {
        while self.level < level {
            for side in [&mut self.positive, &mut self.negative] {
                for (index, count) in std::mem::take(side) {
                    add(side, half_up(index), count);
                }
            }
            self.level += 1;
        }
    }
}

fn add(side: &mut BTreeMap<i64, u64>, index: i64, count: u64) {
    let bucket = side.entry(index).or_default();
    *bucket = bucket.saturating_add(count);
}

fn bounded(sum: f64) -> f64 {
    sum.clamp(f64::MIN, f64::MAX)
}

/// `ceil(index / 2)`: the bucket that a pair is joined to.
fn half_up(index: i64) -> i64 {
    (index + 1).div_euclid(2)
}

/// The logarithm of the factor by which borders grow: doubled by each collapse.
fn log_growth(level: u32) -> f64 {
    let growth = (1.0 + BASE_ERROR) / (1.0 - BASE_ERROR);
    growth.ln() * f64::from(1_u32 << level.min(31))
}

/// The bucket of a number's magnitude; None for zero. Always by way of level 0, so that a number that comes after a
/// collapse gets the bucket that it would have got before.
#[allow(clippy::cast_possible_truncation, reason = "logarithms of doubles are below 745")]
pub(super) fn bucket_of(value: f64, level: u32) -> Option<i64> {
    (value != 0.0).then(|| {
        let index = (value.abs().ln() / log_growth(0)).ceil() as i64;
        (0..level).fold(index, |index, _| half_up(index))
    })
}

/// The number whose relative distance to both borders of a bucket is the same: `2 g^index / (g + 1)`.
#[allow(clippy::cast_precision_loss, reason = "an index has at most six digits")]
fn middle_of(index: i64, level: u32) -> f64 {
    let log = log_growth(level);
    // By logarithms, since the upper border of the outermost buckets is beyond the largest double.
    (log * index as f64 + std::f64::consts::LN_2 - log.exp().ln_1p()).exp()
}

/// A text that is no sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSketchError(pub(super) &'static str);

impl fmt::Display for ParseSketchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a sketch: {}", self.0)
    }
}

impl std::error::Error for ParseSketchError {}

impl fmt::Display for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&codec::encode(self))
    }
}

impl FromStr for Sketch {
    type Err = ParseSketchError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        codec::decode(text)
    }
}

impl serde::Serialize for Sketch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Sketch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
