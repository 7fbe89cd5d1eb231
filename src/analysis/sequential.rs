//! Success rates that may be looked at after every trial.

use super::{binomial::ln_beta, verdict::Verdict, wilson::Interval};

/// Halvings that bring an end of an interval to a double's precision.
const BISECTIONS: u32 = 60;

/// An interval for a success rate that holds at every look: the chance that it ever misses the true rate, after any
/// number of trials, is at most `1 - confidence`. Robbins' mixture (Robbins 1970, Annals of Mathematical Statistics 41,
/// 1397-1409; for rates Howard, Ramdas, `McAuliffe` and Sekhon 2021, Annals of Statistics 49, 1055-1080) with a beta prior.
///
/// The likelihood under the prior over that under a rate is a martingale where that rate is the true one, so it exceeds
/// `1 / (1 - confidence)` with a chance of at most `1 - confidence` ever (Ville 1939). The interval holds the rates for which it did
/// not. `expected` says where the prior is, and must be chosen before the first trial: rates near it are told apart soonest.
/// The guarantee does not depend on it.
///
/// None: more successes than trials, or an `expected` or a `confidence` that is not between 0 and 1.
pub fn anytime_interval(successes: u64, trials: u64, expected: f64, confidence: f64) -> Option<Interval> {
    let evidence = Evidence::new(successes, trials, expected, confidence)?;
    if trials == 0 {
        return Some(Interval { low: 0.0, high: 1.0 });
    }
    // Evidence against a rate grows with its distance from the share seen, to infinity at 0 and 1 or to what is there.
    let end = |outside: f64| {
        if !evidence.refutes(outside) {
            return outside;
        }
        let (mut out, mut inside) = (outside, evidence.share());
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(out, inside);
            if evidence.refutes(middle) { out = middle } else { inside = middle }
        }
        out
    };
    Some(Interval { low: end(0.0), high: end(1.0) })
}

/// The verdict on a success rate that may be asked for after every trial, to stop at the first that is not `Inconclusive`.
///
/// The chance of ever giving a wrong verdict is at most `1 - confidence`, however long it goes on; asking
/// [`success_verdict`](super::success_verdict) again and again has no such bound. The price: with 0.95 confidence and no failure,
/// a rate of 0.9 takes 40 trials (35 with one look at the end), 0.95 takes 81 (73), 0.99 takes 410 (381).
///
/// As there, a `min_rate` of 1 is refuted by one failure and never shown.
pub fn anytime_verdict(successes: u64, trials: u64, min_rate: f64, confidence: f64) -> Verdict {
    let valid = (0.0..=1.0).contains(&min_rate) && confidence > 0.0 && confidence < 1.0;
    if !valid || trials == 0 || successes > trials {
        return Verdict::Inconclusive;
    }
    if min_rate <= 0.0 {
        return Verdict::Passed;
    }
    if min_rate >= 1.0 {
        return if successes < trials { Verdict::Failed } else { Verdict::Inconclusive };
    }
    match Evidence::new(successes, trials, min_rate, confidence) {
        Some(evidence) if evidence.refutes(min_rate) => {
            if evidence.share() > min_rate {
                Verdict::Passed
            } else {
                Verdict::Failed
            }
        }
        _ => Verdict::Inconclusive,
    }
}

/// What trials say against a rate.
struct Evidence {
    successes: f64,
    failures: f64,
    /// The logarithm of the mixture's likelihood.
    mixture: f64,
    /// The logarithm of what refutes.
    bound: f64,
}

impl Evidence {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn new(successes: u64, trials: u64, expected: f64, confidence: f64) -> Option<Self> {
        let within = |value: f64| value > 0.0 && value < 1.0;
        if successes > trials || !within(expected) || !within(confidence) {
            return None;
        }
        let (successes, failures) = (successes as f64, (trials - successes) as f64);
        // The mean is the expected rate; one half on the rarer side, as in the Jeffreys prior, keeps both tails heavy.
        let rarer = expected.min(1.0 - expected);
        let (a, b) = (expected / rarer / 2.0, (1.0 - expected) / rarer / 2.0);
        Some(Self {
            successes,
            failures,
            mixture: ln_beta(a + successes, b + failures) - ln_beta(a, b),
            bound: -(1.0 - confidence).ln(),
        })
    }

    fn share(&self) -> f64 {
        self.successes / (self.successes + self.failures)
    }

    fn refutes(&self, rate: f64) -> bool {
        let likelihood = log_power(rate, self.successes) + log_power(1.0 - rate, self.failures);
        self.mixture - likelihood >= self.bound
    }
}

/// The logarithm of `base` to the power of `count`, where nothing to the power of nothing is 1.
fn log_power(base: f64, count: f64) -> f64 {
    if count == 0.0 { 0.0 } else { count * base.ln() }
}
