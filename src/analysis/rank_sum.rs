//! Whether the values of one sample tend to be larger than those of another.

use super::{binomial::ln_choose, normal};

/// So many values in all are few enough for the exact distribution, whatever their split.
const EXACT_TOTAL: usize = 40;
/// So many values in one sample are too few for the normal approximation.
const EXACT_SMALL: usize = 8;
/// Beyond so many values in all the exact distribution takes too long.
const EXACT_LIMIT: usize = 200;

/// The result of a Mann-Whitney test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankSum {
    /// How many pairs have the larger value in the second sample, ties counting one half: U.
    pub u: f64,
    /// The chance of a U at least that far from the middle if both samples came from one distribution; two-sided.
    pub p_value: f64,
    /// Whether it is exact; otherwise it comes from the normal approximation.
    pub exact: bool,
    /// The chance that a value of the second sample is larger than one of the first, ties counting one half: the effect
    /// size A12 of Vargha and Delaney 2000 (J. Educational and Behavioral Statistics 25, 101-132). Cliff's delta is `2 A12 - 1`.
    pub superiority: f64,
}

/// The rank-sum test of Mann and Whitney 1947 (Annals of Mathematical Statistics 18, 50-60), two-sided.
///
/// Small samples (40 values in all, or 8 in one of them and 200 in all) get the exact conditional distribution, ties
/// included, by the shift algorithm of Streitberg and Roehmel 1986 (Statistical Software Newsletter 12, 10-17); larger ones the normal
/// approximation with corrections for ties and continuity. Values must be finite.
///
/// None: an empty sample.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn rank_sum(first: &[f64], second: &[f64]) -> Option<RankSum> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let (n, m) = (first.len(), second.len());
    let ranked = Ranked::new(first, second);
    let pairs = n as f64 * m as f64;
    // Ranks are doubled, to be whole numbers with ties as well.
    let u = (ranked.second_sum as f64 - (m * (m + 1)) as f64) / 2.0;
    let total = n + m;
    let exact = total <= EXACT_TOTAL || (n.min(m) <= EXACT_SMALL && total <= EXACT_LIMIT);
    let p_value = if exact { ranked.exact(n, m) } else { ranked.approximate(u, n, m) };
    Some(RankSum { u, p_value, exact, superiority: u / pairs })
}

/// The smallest p-value that samples of these sizes can give: nothing can be shown where it is above the level asked for.
pub fn smallest_p_value(n: usize, m: usize) -> f64 {
    (2.0_f64.ln() - ln_choose((n + m) as u64, n as u64)).exp().min(1.0)
}

struct Ranked {
    /// Twice the rank of each value of both samples, ascending; equal values share their mean.
    doubled: Vec<usize>,
    /// The sum of those of the second sample.
    second_sum: usize,
    /// The sum of `t^3 - t` over the sizes of ties.
    ties: f64,
}

impl Ranked {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn new(first: &[f64], second: &[f64]) -> Self {
        let of = |sample: &[f64], second: bool| sample.iter().map(|value| (*value, second)).collect::<Vec<_>>();
        let mut all = [of(first, false), of(second, true)].concat();
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut this = Self { doubled: Vec::with_capacity(all.len()), second_sum: 0, ties: 0.0 };
        // Zero has two signs, which are equal but sorted apart; `==` joins them.
        #[expect(clippy::float_cmp, reason = "ties are equal values")]
        for tie in all.chunk_by(|a, b| a.0 == b.0) {
            let before = this.doubled.len();
            let rank = 2 * before + tie.len() + 1;
            this.doubled.extend(std::iter::repeat_n(rank, tie.len()));
            this.second_sum += rank * tie.iter().filter(|(_, second)| *second).count();
            let size = tie.len() as f64;
            this.ties += size * size * size - size;
        }
        this
    }

    /// Twice the smaller tail of the exact distribution.
    fn exact(&self, n: usize, m: usize) -> f64 {
        let all: usize = self.doubled.iter().sum();
        // The distribution of the smaller sample takes less work, and tells the same.
        let (size, sum) = if m <= n { (m, self.second_sum) } else { (n, all - self.second_sum) };
        let ways = subset_sums(&self.doubled, size);
        let total: f64 = ways.iter().sum();
        let below: f64 = ways[..=sum].iter().sum();
        let above: f64 = ways[sum..].iter().sum();
        (2.0 * below.min(above) / total).min(1.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn approximate(&self, u: f64, n: usize, m: usize) -> f64 {
        let (pairs, total) = (n as f64 * m as f64, (n + m) as f64);
        let variance = pairs / 12.0 * (total + 1.0 - self.ties / (total * (total - 1.0)));
        if variance <= 0.0 {
            return 1.0;
        }
        let distance = (u - pairs / 2.0).abs() - 0.5;
        (2.0 * normal::upper_tail(distance / variance.sqrt())).min(1.0)
    }
}

/// In how many ways `size` of the numbers add up to each sum, from sum 0 on.
pub(super) fn subset_sums(numbers: &[usize], size: usize) -> Vec<f64> {
    let most: usize = numbers.iter().rev().take(size).sum();
    // ways[j][s]: subsets of j numbers with the sum s. Counts stay below 2^53, so they are exact.
    let mut ways = vec![vec![0.0; most + 1]; size + 1];
    ways[0][0] = 1.0;
    for (seen, number) in numbers.iter().enumerate() {
        for j in (1..=size.min(seen + 1)).rev() {
            let (fewer, more) = ways.split_at_mut(j);
            let from = &fewer[j - 1];
            for (to, ways) in more[0].iter_mut().skip(*number).zip(from) {
                *to += ways;
            }
        }
    }
    ways.swap_remove(size)
}
