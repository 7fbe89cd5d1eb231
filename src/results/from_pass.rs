//! How a finished pass becomes its record.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::api::status::{
    Failure, Outcome, OutputValue, Pass, PastAttempt, PhaseStatus, Section, StepState, StepStatus,
};

use super::{
    record::{CycleRecord, CycleSchema, Environment, LogRecord, PhaseRecord, RunRef, StepRecord},
    text::cut,
};

/// Longest name, reason or other word that a record holds, in bytes: room for any name that Kubernetes allows.
const WORD: usize = 253;
/// Longest message.
const MESSAGE: usize = 4_096;

/// The end of the log of a pod, as it was read before the pod was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogTail {
    /// The last lines.
    pub text: String,
    /// Whether earlier lines are missing.
    pub truncated: bool,
    /// How long the log was, in bytes, as far as it was read.
    pub bytes: u64,
    /// Where all of it is in the object store.
    pub file: Option<String>,
}

impl CycleRecord {
    /// The record of a pass, with the logs of its pods by pod name.
    ///
    /// What the pass does not tell counts against it: a pass or phase without an outcome is inconclusive.
    pub fn from_pass(run: &RunRef, pass: &Pass, logs: &BTreeMap<String, LogTail>, environment: &Environment) -> Self {
        // Destructured in full: what the status learns to tell must be decided on here.
        let Pass { section, cycle, started_at, deadline: _, phases, outcome, failure, finished_at } = pass;
        let mut record = Self {
            schema: CycleSchema::V1,
            run: run.clone(),
            section: *section,
            cycle: *cycle,
            started_at: *started_at,
            finished_at: *finished_at,
            seconds: finished_at.map(|finished| seconds(finished - *started_at)),
            outcome: outcome.unwrap_or(Outcome::Inconclusive),
            failure: failure.as_ref().map(failure_record),
            truncated: false,
            full_digest: None,
            environment: environment.clone(),
            phases: phases.iter().map(|phase| phase_record(phase, logs)).collect(),
            snapshot: None,
            alerts: Vec::new(),
            monitors: Vec::new(),
        };
        for phase in &mut record.phases {
            for step in phase.steps.iter_mut().filter(|step| step.state == StepState::Failed) {
                step.rerun = Some(rerun(run, *section, *cycle, &phase.name, &step.name));
            }
        }
        record
    }
}

/// What a person types to see a step fail again without all that came before it.
fn rerun(run: &RunRef, section: Section, cycle: u32, phase: &str, step: &str) -> String {
    let RunRef { name, namespace, attempt, .. } = run;
    let which = if section == Section::Cycle { format!(" --cycle {cycle}") } else { String::new() };
    format!(
        "kubectl soak step {name} {phase}/{step} --namespace {namespace} --attempt {attempt}{which} | kubectl create -f -"
    )
}

fn phase_record(phase: &PhaseStatus, logs: &BTreeMap<String, LogTail>) -> PhaseRecord {
    let PhaseStatus {
        name,
        attempt,
        first_started_at,
        started_at: _,
        deadline: _,
        finished_at,
        outcome,
        failure,
        steps,
    } = phase;
    PhaseRecord {
        name: cut(name, WORD),
        attempts: *attempt,
        started_at: *first_started_at,
        finished_at: *finished_at,
        seconds: finished_at.map(|finished| seconds(finished - *first_started_at)),
        outcome: outcome.unwrap_or(Outcome::Inconclusive),
        failure: failure.as_ref().map(failure_record),
        steps: steps.iter().map(|step| step_record(step, logs)).collect(),
    }
}

fn step_record(step: &StepStatus, logs: &BTreeMap<String, LogTail>) -> StepRecord {
    let StepStatus {
        name,
        state,
        attempt,
        failures: _,
        lost: _,
        started_at,
        running_at,
        stopping_at: _,
        finished_at,
        not_before: _,
        reason,
        message,
        transient,
        class,
        target,
        blocked_at: _,
        pod,
        node,
        exit_code,
        outputs,
        past,
    } = step;
    let (ran, pending) = times(*started_at, *running_at, *finished_at, pod.is_some());
    StepRecord {
        name: cut(name, WORD),
        kind: None,
        state: *state,
        attempts: *attempt,
        outcome: outcome(*state),
        started_at: *started_at,
        running_at: *running_at,
        finished_at: *finished_at,
        seconds: ran.map(seconds),
        pending_seconds: pending.map(seconds),
        reason: cut(reason, WORD),
        message: cut(message, MESSAGE),
        transient: *transient,
        class: *class,
        target: target.as_deref().map(|target| cut(target, WORD)),
        outputs: outputs.iter().map(|(name, value)| (cut(name, WORD), output(value))).collect(),
        pod: pod.as_deref().map(|pod| cut(pod, WORD)),
        node: node.as_deref().map(|node| cut(node, WORD)),
        exit_code: *exit_code,
        log: pod.as_ref().and_then(|pod| logs.get(pod)).map(log_record),
        artifacts: None,
        rerun: None,
        past: past.iter().map(past_attempt).collect(),
    }
}

/// How long an attempt ran and how long it was pending. A pod that was never seen running was pending all the time.
fn times(
    started: Option<DateTime<Utc>>,
    running: Option<DateTime<Utc>>,
    finished: Option<DateTime<Utc>>,
    has_pod: bool,
) -> (Option<TimeDelta>, Option<TimeDelta>) {
    match (started, running, finished) {
        (Some(started), Some(running), finished) => {
            (finished.map(|finished| finished - running), Some(running - started))
        }
        (Some(started), None, Some(finished)) if has_pod => (Some(TimeDelta::zero()), Some(finished - started)),
        (Some(started), None, Some(finished)) => (Some(finished - started), None),
        _ => (None, None),
    }
}

/// A step that was left while it ran has not been seen to end: it tells nothing.
const fn outcome(state: StepState) -> Option<Outcome> {
    match state {
        StepState::Succeeded => Some(Outcome::Succeeded),
        StepState::Failed => Some(Outcome::Failed),
        StepState::Active | StepState::Stopping => Some(Outcome::Inconclusive),
        StepState::Waiting | StepState::Skipped => None,
    }
}

/// JSON has no NaN and no infinity; as text they stay readable and stay out of the statistics.
fn output(value: &OutputValue) -> OutputValue {
    match value {
        OutputValue::Number(number) if !number.is_finite() => OutputValue::Text(number.to_string()),
        OutputValue::Text(text) => OutputValue::Text(cut(text, MESSAGE)),
        other => other.clone(),
    }
}

fn past_attempt(past: &PastAttempt) -> PastAttempt {
    PastAttempt {
        reason: cut(&past.reason, WORD),
        message: cut(&past.message, MESSAGE),
        pod: past.pod.as_deref().map(|pod| cut(pod, WORD)),
        ..past.clone()
    }
}

fn failure_record(failure: &Failure) -> Failure {
    Failure { reason: cut(&failure.reason, WORD), message: cut(&failure.message, MESSAGE), ..failure.clone() }
}

fn log_record(tail: &LogTail) -> LogRecord {
    LogRecord { text: tail.text.clone(), truncated: tail.truncated, bytes: tail.bytes, file: tail.file.clone() }
}

/// A clock that was set back gives no negative time.
fn seconds(span: TimeDelta) -> f64 {
    span.as_seconds_f64().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::samples::{at, environment, pass, run};

    fn record() -> CycleRecord {
        let logs = BTreeMap::from([(
            "switchover-load-c12-a".to_owned(),
            LogTail { text: "done\n".into(), truncated: true, bytes: 70_000, file: None },
        )]);
        CycleRecord::from_pass(&run(), &pass(), &logs, &environment())
    }

    #[test]
    fn time_pending_is_not_time_running() {
        let step = &record().phases[0].steps[0];
        assert_eq!((step.pending_seconds, step.seconds), (Some(2.5), Some(30.0)));
        assert_eq!(step.log.as_ref().unwrap().bytes, 70_000);
        let never_ran = times(Some(at(0)), None, Some(at(9)), true);
        assert_eq!(never_ran, (Some(TimeDelta::zero()), Some(TimeDelta::seconds(9))));
        let no_pod = times(Some(at(0)), None, Some(at(9)), false);
        assert_eq!(no_pod, (Some(TimeDelta::seconds(9)), None));
    }

    #[test]
    fn what_is_not_known_is_inconclusive_and_what_never_began_has_no_outcome() {
        let record = record();
        assert_eq!(record.phases[1].outcome, Outcome::Inconclusive);
        assert_eq!(record.phases[1].steps[0].outcome, Some(Outcome::Inconclusive));
        assert_eq!(record.phases[1].steps[1].outcome, None);
        let unfinished = Pass { outcome: None, finished_at: None, ..pass() };
        let record = CycleRecord::from_pass(&run(), &unfinished, &BTreeMap::new(), &environment());
        assert_eq!((record.outcome, record.seconds), (Outcome::Inconclusive, None));
    }

    #[test]
    fn outputs_that_json_can_not_tell_become_text() {
        assert_eq!(output(&OutputValue::Number(f64::NAN)), OutputValue::Text("NaN".into()));
        assert_eq!(output(&OutputValue::Number(f64::NEG_INFINITY)), OutputValue::Text("-inf".into()));
        assert_eq!(output(&OutputValue::Number(0.5)), OutputValue::Number(0.5));
    }

    #[test]
    fn a_failed_step_tells_how_to_run_it_alone() {
        let mut failed = pass();
        failed.phases[0].steps[0].state = StepState::Failed;
        let record = CycleRecord::from_pass(&run(), &failed, &BTreeMap::new(), &environment());
        assert_eq!(
            record.phases[0].steps[0].rerun.as_deref(),
            Some(
                "kubectl soak step switchover activation/load --namespace soak --attempt 1 --cycle 12 | kubectl create -f -"
            )
        );
        assert_eq!(record.phases[1].steps[0].rerun, None);
    }

    #[test]
    fn kinds_come_from_whoever_knows_the_spec() {
        let record =
            record().with_kinds(|phase, step| (phase == "activation" && step == "load").then(|| "pod".to_owned()));
        assert_eq!(record.phases[0].steps[0].kind.as_deref(), Some("pod"));
        assert_eq!(record.phases[1].steps[0].kind, None);
    }
}
