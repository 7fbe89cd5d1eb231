//! How a record that is too long becomes short enough (S11).
//!
//! Detail goes in the order in which people miss it least: the samples of monitors and snapshots, names of artifacts, the logs of steps that succeeded, other logs, long messages, outputs,
//! earlier attempts, at last steps and phases. What is left always fits, so a record can always be stored and a run can always end.

use serde::Serialize;

use crate::api::status::Outcome;

use super::{
    manifest::Snapshot,
    record::{CycleRecord, Environment, LogRecord, RunRef, StepRecord},
    summary::SummaryRecord,
    text::{cut, digest, json, tail},
};

/// A record that can give up detail.
pub(super) trait Shorten: Clone + Serialize {
    /// How many cuts there are.
    const CUTS: usize;
    /// Makes it such that all of it can be written.
    fn tidy(&mut self) {}
    /// Makes a cut; each goes further than the one before.
    fn cut(&mut self, number: usize);
    /// Notes that something is missing of a record with that digest.
    fn mark(&mut self, full_digest: String);
}

/// The text of a record within the limit, and whether something was left out.
pub(super) fn bounded<R: Shorten>(record: &R, limit: usize) -> (String, bool) {
    let mut record = record.clone();
    record.tidy();
    let mut text = json(&record);
    if text.len() <= limit {
        return (text, false);
    }
    record.mark(digest(&text));
    for number in 0..R::CUTS {
        record.cut(number);
        text = json(&record);
        if text.len() <= limit {
            break;
        }
    }
    (text, true)
}

/// One way to make a record of a pass smaller. Limits are in bytes.
#[derive(Clone, Copy)]
enum Cut {
    Samples,
    Artifacts(usize),
    LogsOfSuccess(usize),
    Logs(usize),
    Messages(usize),
    Outputs,
    Parameters(usize),
    PastAttempts,
    Steps,
    Rest,
}

const CUTS: [Cut; 23] = [
    Cut::Samples,
    Cut::Artifacts(4),
    Cut::LogsOfSuccess(4_096),
    Cut::Logs(32_768),
    Cut::LogsOfSuccess(1_024),
    Cut::Logs(16_384),
    Cut::LogsOfSuccess(256),
    Cut::Logs(8_192),
    Cut::Logs(4_096),
    Cut::Logs(2_048),
    Cut::Logs(1_024),
    Cut::Logs(256),
    Cut::Logs(0),
    Cut::Artifacts(0),
    Cut::Messages(1_024),
    Cut::Messages(256),
    Cut::Messages(128),
    Cut::Parameters(1_024),
    Cut::Outputs,
    Cut::Parameters(128),
    Cut::PastAttempts,
    Cut::Steps,
    Cut::Rest,
];

impl Shorten for CycleRecord {
    const CUTS: usize = CUTS.len();

    fn cut(&mut self, number: usize) {
        match CUTS[number] {
            Cut::Samples => {
                self.monitors.iter_mut().for_each(|monitor| monitor.buckets.clear());
                self.snapshot.iter_mut().for_each(forget_objects);
            }
            Cut::Artifacts(count) => {
                for artifacts in steps(self).filter_map(|step| step.artifacts.as_mut()) {
                    let more = artifacts.left_out.len().saturating_sub(count);
                    artifacts.more_left_out =
                        artifacts.more_left_out.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
                    artifacts.files.truncate(count);
                    artifacts.left_out.truncate(count);
                }
            }
            Cut::LogsOfSuccess(bytes) => {
                for step in steps(self).filter(|step| step.outcome == Some(Outcome::Succeeded)) {
                    shorten_log(step, bytes);
                }
            }
            Cut::Logs(bytes) => steps(self).for_each(|step| shorten_log(step, bytes)),
            Cut::Messages(bytes) => {
                let failures = self.phases.iter_mut().filter_map(|phase| phase.failure.as_mut());
                failures.chain(self.failure.as_mut()).for_each(|failure| shorten(&mut failure.message, bytes));
                for step in steps(self) {
                    shorten(&mut step.message, bytes);
                    step.artifacts.iter_mut().filter_map(|it| it.lost.as_mut()).for_each(|lost| shorten(lost, bytes));
                    step.past.iter_mut().for_each(|past| shorten(&mut past.message, bytes));
                }
            }
            Cut::Outputs => steps(self).for_each(|step| {
                step.outputs.clear();
                step.artifacts = None;
            }),
            Cut::Parameters(bytes) => self.environment.parameters.values_mut().for_each(|value| shorten(value, bytes)),
            Cut::PastAttempts => steps(self).for_each(|step| step.past.clear()),
            // No spec that the server accepts leads to the last two; they are here so that nothing ever fails to be stored.
            Cut::Steps => self.phases.iter_mut().for_each(|phase| phase.steps.clear()),
            Cut::Rest => {
                self.phases.clear();
                self.snapshot = None;
                self.alerts.clear();
                self.monitors.clear();
                self.failure.iter_mut().for_each(|failure| shorten(&mut failure.reason, 128));
                forget_most(&mut self.run, &mut self.environment);
            }
        }
    }

    fn mark(&mut self, full_digest: String) {
        self.truncated = true;
        self.full_digest = Some(full_digest);
    }
}

impl Shorten for SummaryRecord {
    const CUTS: usize = 4;

    fn tidy(&mut self) {
        self.keep_finite();
    }

    fn cut(&mut self, number: usize) {
        let bytes = [1_024, 256, 128, 128][number];
        self.monitors.iter_mut().for_each(|monitor| monitor.buckets.clear());
        self.snapshots.iter_mut().for_each(forget_objects);
        self.manifest.iter_mut().for_each(|manifest| manifest.spec = None);
        shorten(&mut self.verdict.message, bytes);
        let sections = self.setup.iter_mut().chain(&mut self.cleanup);
        sections
            .filter_map(|section| section.failure.as_mut())
            .for_each(|failure| shorten(&mut failure.message, bytes));
        self.recent.iter_mut().for_each(|cycle| shorten(&mut cycle.reason, bytes));
        self.environment.parameters.values_mut().for_each(|value| shorten(value, bytes));
        if number == 3 {
            self.metrics.clear();
            self.snapshots.clear();
            self.manifest = None;
            self.alerts.clear();
            self.monitors.clear();
            self.recent.clear();
            shorten(&mut self.verdict.reason, bytes);
            let sections = self.setup.iter_mut().chain(&mut self.cleanup);
            sections
                .filter_map(|section| section.failure.as_mut())
                .for_each(|failure| shorten(&mut failure.reason, bytes));
            forget_most(&mut self.run, &mut self.environment);
        }
    }

    fn mark(&mut self, full_digest: String) {
        self.truncated = true;
        self.full_digest = Some(full_digest);
    }
}

fn steps(record: &mut CycleRecord) -> impl Iterator<Item = &mut StepRecord> {
    record.phases.iter_mut().flat_map(|phase| &mut phase.steps)
}

fn forget_objects(snapshot: &mut Snapshot) {
    snapshot.objects.clear();
    snapshot.truncated = true;
}

fn shorten_log(step: &mut StepRecord, bytes: usize) {
    if let Some(LogRecord { text, truncated, .. }) = &mut step.log
        && text.len() > bytes
    {
        *text = tail(text, bytes).to_owned();
        *truncated = true;
    }
}

fn shorten(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        *text = cut(text, bytes);
    }
}

fn forget_most(run: &mut RunRef, environment: &mut Environment) {
    environment.parameters.clear();
    for text in [
        &mut run.name,
        &mut run.namespace,
        &mut run.uid,
        &mut environment.kubernetes_version,
        &mut environment.operator_version,
        &mut environment.spec_digest,
    ] {
        shorten(text, 253);
    }
}
