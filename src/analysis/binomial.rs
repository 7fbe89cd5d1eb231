//! Binomial and hypergeometric chances, from logarithms of factorials.

/// Terms below this share of the largest one are left out; all of them together are far below a double's precision.
const NEGLIGIBLE: f64 = 1e-22;

/// The logarithm of `n` choose `k`; minus infinity where there is no such choice.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn ln_choose(n: u64, k: u64) -> f64 {
    if k > n {
        return f64::NEG_INFINITY;
    }
    let ln_factorial = |count: u64| libm::lgamma(count as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// The logarithm of the beta function.
pub(super) fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// The binomial distribution of `n` trials with success rate `0 < p < 1`, as far as it is not negligible.
///
/// The answer is the first count and the chances of it and of those that follow. They come from their neighbours,
/// beginning at the most likely count, so the work grows with the square root of `n` only.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the mode is a count of at most n"
)]
pub(super) fn distribution(n: u64, p: f64) -> (u64, Vec<f64>) {
    let odds = p / (1.0 - p);
    let mode = (((n + 1) as f64 * p).floor() as u64).min(n);
    let mut below = Vec::new();
    let (mut k, mut weight) = (mode, 1.0);
    while k > 0 && weight > NEGLIGIBLE {
        weight *= k as f64 / ((n - k + 1) as f64 * odds);
        k -= 1;
        below.push(weight);
    }
    let first = k;
    below.reverse();
    let mut weights = below;
    weights.push(1.0);
    let (mut k, mut weight) = (mode, 1.0);
    while k < n && weight > NEGLIGIBLE {
        weight *= (n - k) as f64 * odds / (k + 1) as f64;
        k += 1;
        weights.push(weight);
    }
    let total: f64 = weights.iter().sum();
    for weight in &mut weights {
        *weight /= total;
    }
    (first, weights)
}
