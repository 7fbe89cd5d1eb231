//! Where a series of runs changes.

use fastrand::Rng;

/// How change points are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Fewest values between two change points, at least 2.
    pub min_size: usize,
    /// Chance that a series without any change is said to have one.
    pub significance: f64,
    /// How many permutations a change point is held against. `1 / (permutations + 1)` is the smallest p-value.
    pub permutations: u32,
    /// The seed of the permutations: the same seed gives the same answer.
    pub seed: u64,
}

impl Default for Search {
    fn default() -> Self {
        Self { min_size: 5, significance: 0.05, permutations: 199, seed: 1 }
    }
}

/// Only so many of the newest values are looked at: the work grows with the square of their number.
pub const MAX_LENGTH: usize = 1_000;

/// A change in a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangePoint {
    /// The index of the first value that is different.
    pub index: usize,
    /// How rarely the same values in another order show a change as large.
    pub p_value: f64,
}

/// What was found in a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Changes {
    /// There are too few values for two segments.
    InsufficientData,
    /// The changes, in the order of the series; none if it stayed as it was.
    Found(Vec<ChangePoint>),
}

/// E-divisive with a permutation test (Matteson and James 2014, J. American Statistical Association 109, 334-345), with
/// exponent 1. Any change of the distribution is seen, not only of its mean. Daly and others 2020 (ICPE, 67-75) use it for
/// nightly performance runs.
///
/// The series is divided where the energy distance between its parts is largest; the division counts if at most the share
/// `significance` of the permutations inside of the segments has one as large. The observed order counts as one of them (Phipson
/// and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9, article 39), so that the p-value is never
/// 0 and the chance of a false alarm on a series without a change is at most `significance`. Values must be finite, and the
/// values of one segment independent of each other: nightly runs are, cycles of one run often are not.
pub fn change_points(series: &[f64], search: &Search) -> Changes {
    let skipped = series.len().saturating_sub(MAX_LENGTH);
    let series = &series[skipped..];
    let min_size = search.min_size.max(2);
    if series.len() < 2 * min_size {
        return Changes::InsufficientData;
    }
    let mut rng = Rng::with_seed(search.seed);
    let mut values = series.to_vec();
    let mut borders = vec![0, series.len()];
    let mut found: Vec<ChangePoint> = Vec::new();
    let mut segments: Vec<Option<Division>> = vec![divide(series, min_size)];
    while let Some((segment, division)) = largest(&segments) {
        let Some(p_value) = significance(&mut values, &borders, &division, search, min_size, &mut rng) else { break };
        let begin = borders[segment];
        let index = begin + division.at;
        found.push(ChangePoint { index: index + skipped, p_value });
        let end = borders[segment + 1];
        borders.insert(segment + 1, index);
        segments[segment] = divide(&series[begin..index], min_size);
        segments.insert(segment + 1, divide(&series[index..end], min_size));
    }
    found.sort_unstable_by_key(|change| change.index);
    Changes::Found(found)
}

/// A place to divide a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Division {
    /// Index of the first value of the second part.
    pub(super) at: usize,
    /// The scaled energy distance of the parts: Q of the paper.
    pub(super) distance: f64,
}

fn largest(segments: &[Option<Division>]) -> Option<(usize, Division)> {
    let divisions = segments.iter().enumerate().filter_map(|(index, division)| Some((index, (*division)?)));
    divisions.max_by(|(_, a), (_, b)| a.distance.total_cmp(&b.distance))
}

/// The p-value of a division, if it is significant. `values` are permuted in place, inside of their segments.
fn significance(
    values: &mut [f64],
    borders: &[usize],
    observed: &Division,
    search: &Search,
    min_size: usize,
    rng: &mut Rng,
) -> Option<f64> {
    let total = f64::from(search.permutations) + 1.0;
    let mut as_large = 1.0;
    for _ in 0..search.permutations {
        let mut most = f64::NEG_INFINITY;
        for border in borders.windows(2) {
            let segment = &mut values[border[0]..border[1]];
            rng.shuffle(segment);
            most = divide(segment, min_size).map_or(most, |division| most.max(division.distance));
        }
        // Sums in another order round differently; equal ones count against the change.
        if most >= observed.distance * (1.0 - 1e-12) {
            as_large += 1.0;
            // More permutations can't make it significant any more.
            if as_large / total > search.significance {
                return None;
            }
        }
    }
    let p_value = as_large / total;
    (p_value <= search.significance).then_some(p_value)
}

/// The division of a segment with the largest energy distance between what lies before it and a stretch after it.
///
/// The stretch may end before the segment does, so that a change that goes back later is not averaged away.
#[expect(clippy::cast_precision_loss, reason = "a segment has at most a thousand values")]
pub(super) fn divide(segment: &[f64], min_size: usize) -> Option<Division> {
    let n = segment.len();
    if n < 2 * min_size {
        return None;
    }
    // within[k]: the sum of distances inside of the first k values. before[k]: of the k-th value to all before it.
    let sums = PrefixSums::new(segment);
    let mut best = Division { at: 0, distance: f64::NEG_INFINITY };
    for at in min_size..=n - min_size {
        let left = sums.within(0, at);
        for end in at + min_size..=n {
            let right = sums.within(at, end);
            let between = sums.within(0, end) - left - right;
            let (a, b) = (at as f64, (end - at) as f64);
            let energy = 2.0 / (a * b) * between - left * 2.0 / (a * (a - 1.0)) - right * 2.0 / (b * (b - 1.0));
            let distance = a * b / (a + b) * energy;
            if distance > best.distance {
                best = Division { at, distance };
            }
        }
    }
    Some(best)
}

/// Sums of distances between the values of any stretch, each answered at once.
struct PrefixSums {
    n: usize,
    /// Row `i`, column `j >= i`: the sum of distances between all pairs of the values from `i` to before `j`.
    within: Vec<f64>,
}

impl PrefixSums {
    fn new(segment: &[f64]) -> Self {
        let n = segment.len();
        let width = n + 1;
        let mut within = vec![0.0; width * width];
        // Pairs of i..j are those of i+1..j and of i with each; from the last row up.
        for i in (0..n).rev() {
            let mut to_first = 0.0;
            for j in i + 1..n {
                to_first += (segment[i] - segment[j]).abs();
                within[i * width + j + 1] = within[(i + 1) * width + j + 1] + to_first;
            }
        }
        Self { n, within }
    }

    fn within(&self, begin: usize, end: usize) -> f64 {
        self.within[begin * (self.n + 1) + end]
    }
}
