//! Latencies of any number of writes in a fixed amount of memory.

use std::time::Duration;

/// Each power of two of microseconds is cut into this many buckets, so a percentile is at most 3.2 % too high.
const STEPS: u64 = 32;

/// A histogram of latencies.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; 64 * 32], count: 0 }
    }
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[index(micros)] += 1;
        self.count += 1;
    }

    /// The latency in milliseconds that this share of all is not above; `None` without any.
    pub fn percentile_millis(&self, share: f64) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        #[allow(clippy::cast_precision_loss)]
        Some(upper_bound(bucket as u64) as f64 / 1000.0)
    }
}

fn index(micros: u64) -> usize {
    let index = if micros < STEPS {
        micros
    } else {
        let power = u64::from(micros.ilog2());
        let step = (micros >> (power - 5)) - STEPS;
        (power - 4) * STEPS + step
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn upper_bound(index: u64) -> u64 {
    if index < STEPS {
        return index;
    }
    let (power, step) = (index / STEPS + 4, index % STEPS);
    ((STEPS + step + 1) << (power - 5)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_its_bucket_and_the_bucket_is_narrow() {
        for micros in (0..5_000).chain([123_456, 7_200_000_000, u64::MAX / 2]) {
            let bound = upper_bound(index(micros) as u64);
            assert!(bound >= micros && bound - micros <= micros / 31, "{micros}: {bound}");
        }
        assert!(index(u64::MAX) < Latencies::default().buckets.len());
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile_millis(0.99), None);
        for millis in 1..=1000 {
            latencies.add(Duration::from_millis(millis));
        }
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = latencies.percentile_millis(share).expect("some");
            assert!(found >= exact && found <= exact * 1.033, "{share}: {found}");
        }
    }
}
