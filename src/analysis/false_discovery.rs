//! Many tests at once.

/// The p-values, adjusted so that of all that are at most `a`, a share of at most `a` is expected to be false alarms
/// (Benjamini and Hochberg 1995, J. Royal Statistical Society B 57, 289-300). In the order that they were given.
///
/// That holds for independent tests and those that depend on each other positively, as durations of one run do.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn adjusted(p_values: &[f64]) -> Vec<f64> {
    let count = p_values.len() as f64;
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_unstable_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut result = vec![1.0; p_values.len()];
    let mut least: f64 = 1.0;
    for (rank, index) in order.into_iter().enumerate().rev() {
        least = least.min(p_values[index] * count / (rank + 1) as f64);
        result[index] = least;
    }
    result
}
