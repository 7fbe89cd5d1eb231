//! A time series of bounded size: buckets of equal width, whose width doubles when they become too many.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Samples that fell into one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Its number: it begins at `number * width` milliseconds after 1970.
    pub number: i64,
    /// How many samples it holds.
    pub count: u32,
    /// The smallest.
    pub min: f32,
    /// Their mean.
    pub mean: f32,
    /// The largest.
    pub max: f32,
}

impl Bucket {
    fn merge(&mut self, other: &Self) {
        let count = self.count.saturating_add(other.count);
        let share = f64::from(other.count) / f64::from(count.max(1));
        let mean = f64::from(self.mean) + (f64::from(other.mean) - f64::from(self.mean)) * share;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        #[expect(clippy::cast_possible_truncation, reason = "a mean lies between the samples, which are f32")]
        let mean = mean as f32;
        self.mean = mean.clamp(self.min, self.max);
        self.count = count;
    }
}

/// A series of at most `limit` buckets, oldest first. All values are kept with the precision of an `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    limit: usize,
    width: u64,
    buckets: Vec<Bucket>,
}

/// Widths stay below 139 years.
const WIDEST: u64 = 1 << 42;

impl Series {
    /// An empty series of at most `limit` buckets (at least 2), each at least `width` milliseconds wide (at least 1).
    pub fn new(limit: usize, width: u64) -> Self {
        Self { limit: limit.max(2), width: width.clamp(1, WIDEST), buckets: Vec::new() }
    }

    /// The width of each bucket, in milliseconds.
    pub const fn width(&self) -> u64 {
        self.width
    }

    /// The buckets, oldest first; stretches without a sample have none.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Adds a sample taken `millis` after 1970. One that is not finite as an `f32` is left out; the answer tells.
    pub fn record(&mut self, millis: i64, value: f64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "the precision is documented; overflow becomes infinite")]
        let value = value as f32;
        if !value.is_finite() {
            return false;
        }
        self.add(Bucket { number: self.number(millis), count: 1, min: value, mean: value, max: value });
        true
    }

    /// Adds those buckets of `other` that end after `from` and not after `until` (milliseconds after 1970).
    pub fn take_in(&mut self, other: &Self, from: i64, until: i64) {
        while self.width < other.width && self.width < WIDEST {
            self.widen();
        }
        for bucket in &other.buckets {
            let width = i64::try_from(other.width).unwrap_or(i64::MAX);
            let start = bucket.number.saturating_mul(width);
            let end = start.saturating_add(width);
            if from < end && end <= until {
                self.add(Bucket { number: self.number(start), ..*bucket });
            }
        }
    }

    /// Drops the buckets that have ended by `millis` after 1970.
    pub fn forget(&mut self, millis: i64) {
        let width = i64::try_from(self.width).unwrap_or(i64::MAX);
        self.buckets.retain(|bucket| bucket.number.saturating_add(1).saturating_mul(width) > millis);
    }

    fn number(&self, millis: i64) -> i64 {
        millis.div_euclid(i64::try_from(self.width).unwrap_or(i64::MAX))
    }

    fn add(&mut self, new: Bucket) {
        match self.buckets.binary_search_by_key(&new.number, |bucket| bucket.number) {
            Ok(at) => self.buckets[at].merge(&new),
            Err(at) => self.buckets.insert(at, new),
        }
        while self.buckets.len() > self.limit && self.width < WIDEST {
            self.widen();
        }
        // Times so far apart are no series; the oldest go.
        let excess = self.buckets.len().saturating_sub(self.limit);
        self.buckets.drain(..excess);
    }

    fn widen(&mut self) {
        self.width *= 2;
        let mut merged: Vec<Bucket> = Vec::with_capacity(self.buckets.len());
        for bucket in self.buckets.drain(..) {
            let bucket = Bucket { number: bucket.number.div_euclid(2), ..bucket };
            match merged.last_mut().filter(|last| last.number == bucket.number) {
                Some(last) => last.merge(&bucket),
                None => merged.push(bucket),
            }
        }
        self.buckets = merged;
    }

    /// The text form: about 20 characters a bucket.
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::new();
        varint(&mut bytes, self.width);
        let mut before = 0_i64;
        for bucket in &self.buckets {
            varint(&mut bytes, u64::try_from(bucket.number.saturating_sub(before)).unwrap_or(0));
            before = bucket.number;
            // A bucket whose samples are all equal needs one number.
            let flat = bucket.min.to_bits() == bucket.max.to_bits();
            varint(&mut bytes, u64::from(bucket.count) << 1 | u64::from(flat));
            bytes.extend(bucket.mean.to_le_bytes());
            if !flat {
                bytes.extend(bucket.min.to_le_bytes());
                bytes.extend(bucket.max.to_le_bytes());
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the text form back. None: it is none.
    pub fn from_text(text: &str, limit: usize) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut rest = bytes.as_slice();
        let width = read_varint(&mut rest)?;
        if !(1..=WIDEST).contains(&width) {
            return None;
        }
        let mut series = Self::new(limit, width);
        let mut number = 0_i64;
        while !rest.is_empty() {
            number = number.checked_add(i64::try_from(read_varint(&mut rest)?).ok()?)?;
            let head = read_varint(&mut rest)?;
            let mean = read_f32(&mut rest)?;
            let (min, max) = if head & 1 == 1 { (mean, mean) } else { (read_f32(&mut rest)?, read_f32(&mut rest)?) };
            let count = u32::try_from(head >> 1).ok()?;
            if !(min <= mean && mean <= max && min.is_finite() && max.is_finite()) || count == 0 {
                return None;
            }
            series.add(Bucket {
                number: number.div_euclid(i64::try_from(series.width / width).ok()?),
                count,
                min,
                mean,
                max,
            });
        }
        Some(series)
    }
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or(0));
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn read_f32(bytes: &mut &[u8]) -> Option<f32> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(f32::from_le_bytes(*first))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "precision is what the tests are about")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_is_bounded_counted_and_read_back(
            samples in prop::collection::vec((0_i64..10_000_000_000, -1e6..1e6_f64), 0..400), limit in 2_usize..40,
        ) {
            let mut series = Series::new(limit, 1_000);
            for (at, value) in &samples {
                prop_assert!(series.record(*at, *value));
            }
            prop_assert!(series.buckets().len() <= limit);
            let count: u64 = series.buckets().iter().map(|bucket| u64::from(bucket.count)).sum();
            prop_assert_eq!(count, samples.len() as u64, "no sample is lost");
            prop_assert!(series.buckets().windows(2).all(|pair| pair[0].number < pair[1].number));
            if let Some(largest) = samples.iter().map(|(_, value)| *value as f32).reduce(f32::max) {
                let max = series.buckets().iter().map(|bucket| bucket.max).reduce(f32::max).unwrap();
                prop_assert_eq!(max.to_bits(), largest.to_bits(), "an extreme survives all merging");
            }
            let text = series.to_text();
            prop_assert!(text.len() <= 16 + limit * 26, "{} bytes for {} buckets", text.len(), limit);
            prop_assert_eq!(Series::from_text(&text, limit), Some(series));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[A-Za-z0-9_-]{0,80}") {
            let _ = Series::from_text(&text, 24);
        }

        #[test]
        fn parts_taken_in_one_after_the_other_are_the_whole(
            samples in prop::collection::vec((0_i64..1_000_000, 0.0..10.0_f64), 1..200), cut in 0_i64..1_000_000,
        ) {
            let mut source = Series::new(64, 1_000);
            for (at, value) in &samples {
                source.record(*at, *value);
            }
            let mut parts = Series::new(8, 1_000);
            parts.take_in(&source, i64::MIN, cut);
            parts.take_in(&source, cut, i64::MAX);
            let count: u64 = parts.buckets().iter().map(|bucket| u64::from(bucket.count)).sum();
            prop_assert_eq!(count, samples.len() as u64);
        }
    }

    #[test]
    fn the_mean_is_that_of_the_samples() {
        let mut series = Series::new(2, 1);
        for at in 0..1_000 {
            series.record(at, f64::from(u8::try_from(at % 10).unwrap()));
        }
        assert!(series.buckets().len() <= 2);
        let (sum, count) = series.buckets().iter().fold((0.0, 0), |(sum, count), bucket| {
            (sum + f64::from(bucket.mean) * f64::from(bucket.count), count + bucket.count)
        });
        assert_eq!(count, 1_000);
        assert!((sum / 1_000.0 - 4.5).abs() < 0.01, "{sum}");
        assert!(!series.record(5, f64::NAN));
    }
}
