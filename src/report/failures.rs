//! What failed, how often, and what it depends on.

use std::collections::BTreeMap;

use chrono::Timelike;

use crate::{
    analysis::{Association, Failures, associations},
    api::status::{Outcome, Section, StepState},
    results::{ArtifactRecord, CycleRecord, StepRecord},
};

use super::{
    document::{DependenceReport, FailureGroup, StepReport},
    records::{RunRecords, culprit, injected},
    statistics::share,
};

/// Cycles of a group that are named.
const MAX_CYCLES: usize = 50;
/// Lines of a log that are shown.
const LOG_LINES: usize = 20;
/// The level at which a dependence is told.
const SIGNIFICANCE: f64 = 0.05;

/// Failures by section, phase, step, reason and message but for its numbers; the most frequent first.
pub(super) fn groups(run: &RunRecords) -> Vec<FailureGroup> {
    let mut groups: BTreeMap<(Section, String, String, String, String), FailureGroup> = BTreeMap::new();
    for pass in run.passes().filter(|pass| pass.outcome == Outcome::Failed) {
        let found = described(pass);
        let key =
            (found.section, found.phase.clone(), found.step.clone(), found.reason.clone(), pattern(&found.message));
        let group = groups.entry(key).or_default();
        let (count, mut cycles) = (group.count + 1, std::mem::take(&mut group.cycles));
        if pass.section == Section::Cycle {
            cycles.push(pass.cycle);
        }
        // The newest is shown.
        *group = FailureGroup { count, cycles, ..found };
    }
    let ended = run.cycles.iter().filter(|cycle| cycle.outcome != Outcome::Inconclusive).count();
    let mut groups: Vec<FailureGroup> = groups.into_values().collect();
    for group in &mut groups {
        let dropped = group.cycles.len().saturating_sub(MAX_CYCLES);
        group.cycles.drain(..dropped);
        if group.section == Section::Cycle && run.is_complete() {
            group.share = share(group.count, ended);
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

fn described(pass: &CycleRecord) -> FailureGroup {
    let (phase, step) = culprit(pass).unwrap_or_default();
    let failure = pass.failure.clone().unwrap_or_default();
    let mut group = FailureGroup {
        section: pass.section,
        phase: phase.to_owned(),
        reason: failure.reason,
        message: failure.message,
        started_at: Some(pass.started_at),
        exit_code: failure.exit_code,
        ..FailureGroup::default()
    };
    if let Some(step) = step {
        take_step(&mut group, step);
    }
    group
}

fn take_step(group: &mut FailureGroup, step: &StepRecord) {
    group.step.clone_from(&step.name);
    for (to, from) in [(&mut group.reason, &step.reason), (&mut group.message, &step.message)] {
        if !from.is_empty() {
            to.clone_from(from);
        }
    }
    group.started_at = step.started_at.or(group.started_at);
    group.attempts = step.attempts;
    group.pod.clone_from(&step.pod);
    group.node.clone_from(&step.node);
    group.exit_code = step.exit_code.or(group.exit_code);
    if let Some(log) = &step.log {
        let lines: Vec<&str> = log.text.lines().collect();
        group.log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    }
    if let Some(artifacts) = &step.artifacts {
        let path = |file: &ArtifactRecord| format!("{}/{}", artifacts.folder, file.path);
        group.artifacts = artifacts.files.iter().map(path).collect();
    }
}

/// A message with each word replaced that holds a digit, so that `took 12s` and `took 13s` are one.
fn pattern(message: &str) -> String {
    let words = message.split_inclusive(|c: char| !c.is_alphanumeric());
    words
        .map(|word| {
            let end = word.trim_end_matches(|c: char| !c.is_alphanumeric()).len();
            if word[..end].contains(|c: char| c.is_ascii_digit()) {
                format!("#{}", &word[end..])
            } else {
                word.to_owned()
            }
        })
        .collect()
}

/// Steps that failed, or succeeded only after another attempt, in at least one cycle; the worst first.
pub(super) fn steps(run: &RunRecords) -> Vec<StepReport> {
    let mut steps: BTreeMap<(&str, &str), StepReport> = BTreeMap::new();
    for cycle in &run.cycles {
        for phase in &cycle.phases {
            for step in &phase.steps {
                let failed = step.outcome == Some(Outcome::Failed);
                let succeeded = step.state == StepState::Succeeded;
                let report = steps.entry((&phase.name, &step.name)).or_default();
                report.ended += usize::from(failed || succeeded);
                report.failed += usize::from(failed);
                report.retried += usize::from(succeeded && step.attempts > 1);
            }
        }
    }
    let bad = steps.into_iter().filter(|(_, report)| report.failed + report.retried > 0);
    let mut reports: Vec<StepReport> = bad
        .map(|((phase, step), report)| StepReport {
            phase: phase.to_owned(),
            step: step.to_owned(),
            share: run.is_complete().then(|| share(report.failed, report.ended)).flatten(),
            ..report
        })
        .collect();
    reports.sort_by_key(|report| std::cmp::Reverse((report.failed, report.retried)));
    reports
}

/// Whether failures depend on the hour of the day, on who played which role, on an injection in the cycle, or on the node.
///
/// Records that the retention has removed do no harm here: odds ratios and the exact test stay what they are when passed
/// and failed cycles are sampled differently.
pub(super) fn dependences(run: &RunRecords) -> Vec<DependenceReport> {
    let told = |cycle: &&CycleRecord| cycle.outcome != Outcome::Inconclusive;
    let failed = |cycle: &CycleRecord| cycle.outcome == Outcome::Failed;
    let cycles = || run.cycles.iter().filter(told);
    let hours: Vec<(u32, bool)> = cycles().map(|cycle| (cycle.started_at.hour(), failed(cycle))).collect();
    let roles: Vec<(_, bool)> = cycles().map(|cycle| (&cycle.environment.roles, failed(cycle))).collect();
    let injections: Vec<(bool, bool)> = cycles().map(|cycle| (injected(cycle), failed(cycle))).collect();
    let steps = run.cycles.iter().flat_map(|cycle| &cycle.phases).flat_map(|phase| &phase.steps);
    let nodes: Vec<(&str, bool)> = steps
        .filter_map(|step| Some((step.node.as_deref()?, step.outcome?)))
        .filter(|(_, outcome)| *outcome != Outcome::Inconclusive)
        .map(|(node, outcome)| (node, outcome == Outcome::Failed))
        .collect();
    let mut found = rows("hour", &associations(&hours), |hour| format!("{hour:02}:00 UTC"));
    // Roles that swap have two assignments, which are two sides of one question: the worse is told.
    let worse: Vec<_> = associations(&roles).into_iter().filter(|it| rate(it.inside) > rate(it.outside)).collect();
    found.extend(rows("roles", &worse, |roles| {
        let players: Vec<String> = roles.iter().map(|(role, target)| format!("{role} {target}")).collect();
        players.join(", ")
    }));
    // As are with and without.
    let with: Vec<_> = associations(&injections).into_iter().filter(|it| it.group).collect();
    found.extend(rows("injection", &with, |_| "cycles with an injection".to_owned()));
    found.extend(rows("node", &associations(&nodes), |node| (*node).to_owned()));
    found.sort_by(|a, b| a.p_value.total_cmp(&b.p_value));
    found
}

#[expect(clippy::cast_precision_loss, reason = "runs have far fewer cycles")]
fn rate(of: Failures) -> f64 {
    of.failed as f64 / of.trials.max(1) as f64
}

fn rows<K>(on: &str, found: &[Association<K>], name: impl Fn(&K) -> String) -> Vec<DependenceReport> {
    let significant = found.iter().filter(|association| association.adjusted <= SIGNIFICANCE);
    significant
        .map(|association| DependenceReport {
            on: on.to_owned(),
            group: name(&association.group),
            failed: association.inside.failed,
            trials: association.inside.trials,
            failed_else: association.outside.failed,
            trials_else: association.outside.trials,
            p_value: association.p_value,
            adjusted: association.adjusted,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_differ_in_numbers_are_one() {
        assert_eq!(pattern("took 12s of 100 in pod-7f3c"), pattern("took 9s of 8 in pod-1d44e"));
        assert_ne!(pattern("timeout"), pattern("refused"));
    }
}
