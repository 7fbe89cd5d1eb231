//! The verdict over all cycles, and the figures that back it.

use crate::{
    analysis::{self, Sketch, Verdict},
    api::{
        criteria::EarlyStop,
        names::reason,
        status::{Outcome, RunPhase, SoakRunStatus},
    },
};

use super::Plan;

/// Confidence of the interval that is shown when the spec asks for none.
const SHOWN_CONFIDENCE: f64 = 0.95;

/// The figures of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Share of ended cycles that passed; none before the first.
    pub success_rate: Option<f64>,
    /// Its Wilson score interval, low and high.
    pub interval: Option<(f64, f64)>,
    /// The interval's confidence.
    pub confidence: f64,
    /// Share and interval as they are when cycles that failed transiently are left out; none without such.
    pub without_transient: Option<(f64, f64, f64)>,
    /// The distribution of each duration (in seconds) and numeric output.
    pub metrics: Vec<(String, Sketch)>,
}

/// Gathers the figures from a status.
pub fn summarize(plan: &Plan, status: &SoakRunStatus) -> Summary {
    let confidence = plan.criteria.confidence.unwrap_or(SHOWN_CONFIDENCE);
    let (passed, trials) = (u64::from(status.cycles.passed), trials(status));
    Summary {
        success_rate: rate(passed, trials),
        interval: analysis::wilson_interval(passed, trials, confidence).map(|interval| (interval.low, interval.high)),
        confidence,
        without_transient: without_transient(status, confidence),
        metrics: status
            .metrics
            .iter()
            .filter_map(|metric| Some((metric.name.clone(), metric.sketch.parse().ok()?)))
            .collect(),
    }
}

/// The success rate as the status shows it.
pub(super) fn shown_rate(plan: &Plan, status: &SoakRunStatus) -> String {
    let summary = summarize(plan, status);
    match (summary.success_rate, summary.interval) {
        (Some(rate), Some((low, high))) => {
            let without = summary.without_transient.map_or_else(String::new, |(rate, low, high)| {
                let failures = status.cycles.transient_failures;
                format!("; {rate:.3} ({low:.3}-{high:.3}) without {failures} transient")
            });
            format!("{rate:.3} ({low:.3}-{high:.3}){without}")
        }
        _ => String::new(),
    }
}

/// Judges a run whose cycles or time are used up: a reason and a sentence.
pub(super) fn judge(plan: &Plan, status: &SoakRunStatus) -> (&'static str, String) {
    let counts = &status.cycles;
    let (passed, trials) = (u64::from(counts.passed), trials(status));
    let told = format!("{} of {} cycles passed", counts.passed, counts.completed);
    if counts.passed == 0 && counts.failed == 0 {
        return (reason::INCONCLUSIVE, "no cycle ended with a result, so nothing was shown".into());
    }
    let Some(wanted) = plan.criteria.min_success_rate else {
        return if counts.failed > 0 {
            (reason::THRESHOLD_FAILED, format!("{told}; all had to{}", last_failure(status)))
        } else if counts.inconclusive > 0 {
            (reason::INCONCLUSIVE, format!("{told}, {} could not tell; all had to pass", counts.inconclusive))
        } else {
            (reason::PASSED, told)
        };
    };
    let Some(confidence) = plan.criteria.confidence else {
        return if rate(passed, trials).is_some_and(|rate| rate >= wanted) {
            (reason::PASSED, format!("{told}; a rate of at least {wanted} was wanted"))
        } else {
            let last = last_failure(status);
            (reason::THRESHOLD_FAILED, format!("{told}; a rate of at least {wanted} was wanted{last}"))
        };
    };
    let interval = interval(plan, status, wanted, confidence);
    let told = format!("{told}: {interval} at {confidence} confidence");
    match rate_verdict(plan, passed, trials, wanted, confidence) {
        Verdict::Passed => (reason::PASSED, format!("{told}, at least {wanted} was wanted")),
        Verdict::Failed => {
            (reason::THRESHOLD_FAILED, format!("{told}, at least {wanted} was wanted{}", last_failure(status)))
        }
        Verdict::Inconclusive => (reason::INCONCLUSIVE, format!("{told} still holds {wanted}; more cycles would tell")),
    }
}

/// Judges a run that has cycles and time left, where its spec asks for that and the verdict is known already.
pub(super) fn judge_early(plan: &Plan, status: &SoakRunStatus) -> Option<(&'static str, String)> {
    if trials(status) == 0 {
        return None;
    }
    let settled = match plan.criteria.early_stop {
        EarlyStop::Never => return None,
        EarlyStop::WhenSettled => Some(settled(plan, status)?),
        // Made to be asked after each trial.
        EarlyStop::Sequential => None,
    };
    let (reason, message) = judge(plan, status);
    let known = settled.map_or(reason != reason::INCONCLUSIVE, |settled| settled == reason);
    known.then(|| (reason, format!("{message}; ended early: the verdict is known")))
}

/// The reason word that no outcome of the cycles that are left can change.
fn settled(plan: &Plan, status: &SoakRunStatus) -> Option<&'static str> {
    let (passed, trials) = (u64::from(status.cycles.passed), trials(status));
    let Some(wanted) = plan.criteria.min_success_rate else {
        return (status.cycles.failed > 0).then_some(reason::THRESHOLD_FAILED);
    };
    let remaining = u64::from(plan.cycles?.saturating_sub(status.cycles.completed));
    let Some(confidence) = plan.criteria.confidence else {
        let reaches = |passed, trials| rate(passed, trials).is_some_and(|rate| rate >= wanted);
        let (worst, best) = (reaches(passed, trials + remaining), reaches(passed + remaining, trials + remaining));
        let word = if worst { reason::PASSED } else { reason::THRESHOLD_FAILED };
        return (worst == best).then_some(word);
    };
    Some(match analysis::settled_verdict(passed, trials, remaining, wanted, confidence)? {
        Verdict::Passed => reason::PASSED,
        Verdict::Failed => reason::THRESHOLD_FAILED,
        Verdict::Inconclusive => reason::INCONCLUSIVE,
    })
}

/// What the trials say, by a method whose error rate holds for how often it is asked.
fn rate_verdict(plan: &Plan, passed: u64, trials: u64, wanted: f64, confidence: f64) -> Verdict {
    match plan.criteria.early_stop {
        EarlyStop::Sequential => analysis::anytime_verdict(passed, trials, wanted, confidence),
        EarlyStop::Never | EarlyStop::WhenSettled => analysis::success_verdict(passed, trials, wanted, confidence),
    }
}

/// The rate and the interval that [`rate_verdict`] rests on.
fn interval(plan: &Plan, status: &SoakRunStatus, wanted: f64, confidence: f64) -> String {
    let (passed, trials) = (u64::from(status.cycles.passed), trials(status));
    let anytime = match plan.criteria.early_stop {
        EarlyStop::Sequential => analysis::anytime_interval(passed, trials, wanted, confidence),
        EarlyStop::Never | EarlyStop::WhenSettled => None,
    };
    match anytime.zip(rate(passed, trials)) {
        Some((it, rate)) => format!("{rate:.3} ({:.3}-{:.3}), an interval for every look,", it.low, it.high),
        None => shown_rate(plan, status),
    }
}

/// The newest failed cycle that is remembered, for the end of a sentence.
pub(super) fn last_failure(status: &SoakRunStatus) -> String {
    let last = status.recent.iter().rev().find(|cycle| cycle.outcome == Outcome::Failed);
    last.map_or_else(String::new, |cycle| format!("; cycle {}: {}", cycle.number, cycle.reason))
}

/// How a run ends, as far as its status decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The final phase.
    pub phase: RunPhase,
    /// A reason word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Tells how a run ends whose ending is decided.
pub fn ending(status: &SoakRunStatus) -> End {
    let (reason, message) = final_words(status);
    End { phase: final_phase(status), reason, message }
}

/// The phase that a run ends in.
pub(super) fn final_phase(status: &SoakRunStatus) -> RunPhase {
    let ending = status.ending.as_ref().map_or("", |ending| ending.reason.as_str());
    match ending {
        reason::ABORTED | reason::DELETED => RunPhase::Aborted,
        reason::PASSED | reason::DRY_RUN_PASSED if status.cleanup_failure.is_none() => RunPhase::Succeeded,
        reason::INCONCLUSIVE if status.cleanup_failure.is_none() => RunPhase::Inconclusive,
        _ => RunPhase::Failed,
    }
}

/// The reason and the sentence that an ended run shows.
pub(super) fn final_words(status: &SoakRunStatus) -> (String, String) {
    let (mut reason_word, mut message) = status.ending.as_ref().map_or_else(
        || (reason::INFRA_ERROR.to_owned(), String::new()),
        |ending| (ending.reason.clone(), ending.message.clone()),
    );
    if let Some(failure) = &status.cleanup_failure {
        if [reason::PASSED, reason::INCONCLUSIVE].contains(&reason_word.as_str()) {
            reason::CLEANUP_FAILED.clone_into(&mut reason_word);
        }
        message = format!("{message}; the cleanup failed: {}: {}", failure.reason, failure.message);
    }
    (reason_word, super::text::cut(&message, 1_024))
}

/// Cycles that told something. Those that were stopped count neither way.
fn trials(status: &SoakRunStatus) -> u64 {
    u64::from(status.cycles.passed) + u64::from(status.cycles.failed)
}

fn without_transient(status: &SoakRunStatus, confidence: f64) -> Option<(f64, f64, f64)> {
    let transient = u64::from(status.cycles.transient_failures);
    let (passed, trials) = (u64::from(status.cycles.passed), trials(status).saturating_sub(transient));
    let interval = analysis::wilson_interval(passed, trials, confidence)?;
    (transient > 0).then(|| rate(passed, trials)).flatten().map(|rate| (rate, interval.low, interval.high))
}

fn rate(passed: u64, trials: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "cycles number at most a million")]
    (trials > 0).then(|| passed as f64 / trials as f64)
}
