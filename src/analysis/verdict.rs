//! Whether a success rate is high enough, as far as the trials can tell.

use super::wilson;

/// What the trials say about a success rate that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Verdict {
    /// The rate is high enough.
    Passed,
    /// The rate is too low.
    Failed,
    /// The trials do not tell.
    Inconclusive,
}

/// Compares the Wilson interval of a success rate with the lowest rate that passes.
///
/// `Passed` when all of the interval is at or above `min_rate`, `Failed` when all of it is below, `Inconclusive` while it
/// holds both, and always without trials: zero samples never succeed. Arguments that make no sense (more successes than
/// trials, a confidence or rate outside of 0 to 1) are `Inconclusive` too.
///
/// The interval has two sides, so a wrong `Passed` and a wrong `Failed` each have a chance of about
/// `(1 - confidence) / 2`, for one look at the end. No number of successes shows a rate of exactly 1: with a `min_rate`
/// of 1 the verdict is `Failed` after the first failure and `Inconclusive` before. What passes at all takes trials: with
/// 0.95 confidence and no failure, 35 for a rate of 0.9, 73 for 0.95, 381 for 0.99.
pub fn success_verdict(successes: u64, trials: u64, min_rate: f64, confidence: f64) -> Verdict {
    if !(0.0..=1.0).contains(&min_rate) {
        return Verdict::Inconclusive;
    }
    match wilson::interval(successes, trials, confidence) {
        Some(interval) if interval.low >= min_rate => Verdict::Passed,
        Some(interval) if interval.high < min_rate => Verdict::Failed,
        _ => Verdict::Inconclusive,
    }
}

/// The verdict at the end, if the trials that are left can't change it any more.
///
/// This looks only at what is still possible, so it may be asked after every trial without making errors more likely;
/// stopping at the first [`success_verdict`] that is not `Inconclusive` would.
pub fn settled_verdict(successes: u64, trials: u64, remaining: u64, min_rate: f64, confidence: f64) -> Option<Verdict> {
    let total = trials.checked_add(remaining)?;
    let worst = success_verdict(successes, total, min_rate, confidence);
    let best = success_verdict(successes.checked_add(remaining)?, total, min_rate, confidence);
    // Both ends of the interval grow with the successes, so all outcomes lie between these two.
    (worst == best).then_some(worst)
}
