//! What a stored status tells the metrics. Counted after the write, so that a rejected one counts nothing.

use std::time::{Duration, SystemTime};

use kube::ResourceExt;
use tracing::warn;

use super::plans::Parsed;
use crate::{
    api::{
        SoakRun,
        monitor::Severity,
        status::{AlertState, Outcome, OutputValue, Pass, Section, SoakRunStatus, StepState, StepStatus},
    },
    telemetry::Metrics,
};

/// Follows a run from one stored status to the next.
pub fn follow(metrics: &Metrics, plan: &Parsed, run: &SoakRun, before: &SoakRunStatus, after: &SoakRunStatus) {
    let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
    let cycle = after.current.as_ref().map_or(after.cycles.completed, |pass| pass.cycle.max(after.cycles.completed));
    metrics.set_current_cycle(&namespace, &name, cycle);
    if after.attempt == before.attempt && after.cycles.completed > before.cycles.completed {
        for ended in after.recent.iter().filter(|ended| ended.number > before.cycles.completed) {
            metrics.cycle_ended(&namespace, &name, ended.outcome.as_str());
            if ended.outcome == Outcome::Succeeded {
                let ended_at = ended.started_at + chrono::TimeDelta::milliseconds(ended.millis);
                metrics.cycle_succeeded_at(&namespace, &name, SystemTime::from(ended_at));
            }
        }
    }
    alerts(metrics, &namespace, &name, before, after);
    let (Some(now), section) = (&after.current, before.current.as_ref().map(|pass| (pass.section, pass.cycle))) else {
        return;
    };
    let earlier = before.current.as_ref().filter(|_| section == Some((now.section, now.cycle)));
    phases(metrics, &namespace, &name, earlier, now);
    failures(metrics, plan, earlier, now);
    if now.outcome.is_some() && earlier.is_none_or(|pass| pass.outcome.is_none()) && now.section == Section::Cycle {
        let outputs: Vec<(String, f64)> = steps(now)
            .flat_map(|step| {
                step.outputs.iter().filter_map(move |(output, value)| {
                    Some((format!("{}.{output}", step.name), OutputValue::as_number(value)?))
                })
            })
            .collect();
        metrics.set_outputs(&namespace, &name, outputs.iter().map(|(output, value)| (output.as_str(), *value)));
    }
}

fn alerts(metrics: &Metrics, namespace: &str, name: &str, before: &SoakRunStatus, after: &SoakRunStatus) {
    let Some(now) = &after.alerts else { return };
    let earlier: Vec<_> = before.alerts.iter().flat_map(|alerts| &alerts.list).collect();
    for severity in Severity::ALL {
        let firing = now.list.iter().filter(|alert| alert.severity == severity && alert.state == AlertState::Firing);
        metrics.set_alerts_firing(
            namespace,
            name,
            severity.as_str(),
            u32::try_from(firing.count()).unwrap_or(u32::MAX),
        );
    }
    for alert in now.list.iter().filter(|alert| alert.fired_at.is_some()) {
        let known = earlier.iter().any(|old| {
            (&old.monitor, &old.alert, &old.subject, old.fired_at)
                == (&alert.monitor, &alert.alert, &alert.subject, alert.fired_at)
        });
        if !known {
            metrics.alert_fired(namespace, name, alert.severity.as_str());
        }
    }
}

fn phases(metrics: &Metrics, namespace: &str, name: &str, earlier: Option<&Pass>, now: &Pass) {
    for (index, phase) in now.phases.iter().enumerate() {
        let was_ended = earlier.and_then(|pass| pass.phases.get(index)).is_some_and(|phase| phase.outcome.is_some());
        if let (Some(finished), Some(Outcome::Succeeded), false) = (phase.finished_at, phase.outcome, was_ended) {
            let took = (finished - phase.first_started_at).to_std().unwrap_or(Duration::ZERO);
            metrics.observe_phase(namespace, name, &phase.name, took);
        }
    }
}

/// Counts and tells attempts that failed since, those that were tried again included.
fn failures(metrics: &Metrics, plan: &Parsed, earlier: Option<&Pass>, now: &Pass) {
    for phase in &now.phases {
        // Names of steps are unique within a phase only.
        let old_phase = earlier.and_then(|pass| pass.phases.iter().find(|old| old.name == phase.name));
        for step in &phase.steps {
            let old = old_phase.and_then(|phase| phase.steps.iter().find(|old| old.name == step.name));
            let leaf = plan.as_ref().ok().and_then(|plan| plan.leaf(now.section, &phase.name, &step.name));
            let kind = leaf.map_or("unknown", |leaf| leaf.action.kind());
            let failed = |attempt: u32, reason: &str, detail: &str| {
                metrics.step_failed(kind, reason);
                let (cycle, phase, step) = (now.cycle, &phase.name, &step.name);
                warn!(cycle, phase, step, attempt, reason, detail, "an attempt of a step failed");
            };
            let was_failed = old.filter(|old| old.state == StepState::Failed);
            let counted = old.and_then(|old| old.past.last()).map_or(0, |past| past.attempt);
            let counted = was_failed.map_or(counted, |old| counted.max(old.attempt));
            for past in step.past.iter().filter(|past| past.attempt > counted) {
                failed(past.attempt, &past.reason, &past.message);
            }
            if step.state == StepState::Failed && was_failed.is_none() {
                failed(step.attempt, &step.reason, &step.message);
            }
        }
    }
}

fn steps(pass: &Pass) -> impl Iterator<Item = &StepStatus> {
    pass.phases.iter().flat_map(|phase| &phase.steps)
}
