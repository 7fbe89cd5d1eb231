//! One phase: its stages of steps, in order, and its own limits.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::api::{
    names::reason,
    status::{Failure, HeldObject, Outcome, PhaseStatus, StepState, StepStatus},
};

use super::{
    Context, StepKey,
    expr::Scope,
    plan::{Leaf, PhasePlan, Stage},
    step, targets,
};

/// What a phase needs to know of the pass that it belongs to.
pub(super) struct Surroundings<'a> {
    /// Coordinates of its steps, but for step and attempt.
    pub key: StepKey,
    /// What expressions see.
    pub scope: &'a Scope,
    /// The target that plays each role.
    pub roles: &'a BTreeMap<String, String>,
    /// Why the pass must stop, if it must.
    pub halt: Option<&'a Failure>,
    /// Nothing new may begin.
    pub suspended: bool,
}

/// The status of a phase that begins at `at`.
pub(super) fn new(plan: &PhasePlan, at: DateTime<Utc>) -> PhaseStatus {
    PhaseStatus {
        name: plan.name.clone(),
        attempt: 1,
        first_started_at: at,
        started_at: at,
        deadline: plan.timeout.map(|timeout| at + timeout.as_chrono()),
        finished_at: None,
        outcome: None,
        failure: None,
        steps: plan.leaves.iter().map(|leaf| StepStatus { name: leaf.path.clone(), ..StepStatus::default() }).collect(),
    }
}

/// Makes a failed phase ready for its next attempt at `at`. Attempt numbers of steps go on, so that no pod name comes twice.
pub(super) fn again(plan: &PhasePlan, phase: &mut PhaseStatus, at: DateTime<Utc>) {
    phase.attempt += 1;
    phase.started_at = at;
    phase.deadline = plan.timeout.map(|timeout| at + timeout.as_chrono());
    (phase.finished_at, phase.outcome, phase.failure) = (None, None, None);
    for status in &mut phase.steps {
        let past = std::mem::take(&mut status.past);
        *status = StepStatus {
            name: std::mem::take(&mut status.name),
            attempt: status.attempt,
            past,
            ..StepStatus::default()
        };
    }
}

/// Moves a phase as far as it goes.
pub(super) fn advance(
    plan: &PhasePlan,
    phase: &mut PhaseStatus,
    held: &mut Vec<HeldObject>,
    around: &Surroundings<'_>,
    context: &mut Context<'_>,
) {
    let key = |path: &str| StepKey { phase: plan.name.clone(), step: path.to_owned(), ..around.key.clone() };
    for (leaf, status) in plan.leaves.iter().zip(&mut phase.steps) {
        step::observe(leaf, status, &key(&leaf.path), around.scope, context);
    }
    if phase.failure.is_none() {
        phase.failure = failure(plan, phase, around, context);
        plan.rules.classify_new(phase.failure.as_mut());
    }
    if phase.failure.is_some() {
        for (leaf, status) in plan.leaves.iter().zip(&mut phase.steps) {
            step::stop(leaf, status, &key(&leaf.path), around.scope, context);
        }
        if phase.steps.iter().all(|status| status.state.is_final()) {
            let outcome = if is_inconclusive(phase.failure.as_ref()) { Outcome::Inconclusive } else { Outcome::Failed };
            finish(phase, outcome, context);
        }
        return;
    }
    if !context.reached(phase.started_at) {
        return;
    }
    let mut complete = true;
    for stage in &plan.stages {
        for index in stage.leaves.clone() {
            let (leaf, status) = (&plan.leaves[index], &mut phase.steps[index]);
            if status.state == StepState::Waiting
                && !around.suspended
                && is_due(leaf, status, phase.started_at, around, context)
            {
                let target = targets::resolve(leaf, around.roles);
                step::begin(leaf, status, &key(&leaf.path), target, around.scope, held, context);
                // Some kinds end as soon as they begin.
                step::observe(leaf, status, &key(&leaf.path), around.scope, context);
            }
        }
        if !stage.beside && !is_complete(stage, &phase.steps, plan.keep_going) {
            complete = false;
            break;
        }
    }
    if !complete {
        return;
    }
    // Only background steps can still be at work here.
    for (leaf, status) in plan.leaves.iter().zip(&mut phase.steps) {
        step::stop(leaf, status, &key(&leaf.path), around.scope, context);
        step::observe(leaf, status, &key(&leaf.path), around.scope, context);
    }
    if phase.steps.iter().all(|status| status.state.is_final()) {
        let failed = phase.steps.iter().find(|status| status.state == StepState::Failed);
        phase.failure = failed.map(named_failure);
        let outcome = if phase.failure.is_some() { Outcome::Failed } else { Outcome::Succeeded };
        finish(phase, outcome, context);
    }
}

/// Whether a step may begin. One whose gate is shut in this cycle is skipped.
fn is_due(
    leaf: &Leaf,
    status: &mut StepStatus,
    started: DateTime<Utc>,
    around: &Surroundings<'_>,
    context: &mut Context<'_>,
) -> bool {
    let Some(gate) = &leaf.gate else { return true };
    if !gate.opens(super::seed(context.run), around.key.cycle, &leaf.path) {
        status.state = StepState::Skipped;
        return false;
    }
    context.reached(started + gate.offset.as_chrono())
}

fn failure(
    plan: &PhasePlan,
    phase: &PhaseStatus,
    around: &Surroundings<'_>,
    context: &mut Context<'_>,
) -> Option<Failure> {
    if let Some(halt) = around.halt {
        return Some(halt.clone());
    }
    if !plan.keep_going
        && let Some(failed) = phase.steps.iter().find(|status| status.state == StepState::Failed)
    {
        return Some(named_failure(failed));
    }
    // Deadlines stand still while nothing may begin; they are moved when it may again.
    if let Some(deadline) = phase.deadline.filter(|_| !around.suspended)
        && context.reached(deadline)
    {
        let limit = plan.timeout.map_or_else(String::new, |timeout| timeout.to_string());
        return Some(Failure {
            reason: reason::TIMEOUT.into(),
            message: format!("phase {} did not end within {limit}{}", phase.name, at_work(phase)),
            ..Failure::default()
        });
    }
    None
}

/// Names what a phase was busy with, for a message.
pub(super) fn at_work(phase: &PhaseStatus) -> String {
    phase.steps.iter().find(|status| status.state.is_live()).map_or_else(String::new, |status| {
        let detail = if status.message.is_empty() { String::new() } else { format!(" ({})", status.message) };
        format!("; step {} was at work{detail}", status.name)
    })
}

/// A pass that is stopped by an ending tells nothing about the system under test.
pub(super) fn is_inconclusive(failure: Option<&Failure>) -> bool {
    failure.is_some_and(|failure| {
        [reason::ABORTED, reason::DELETED, reason::SPEC_CHANGED].contains(&failure.reason.as_str())
    })
}

fn named_failure(status: &StepStatus) -> Failure {
    let failure = step::failure_of(status);
    Failure {
        message: super::text::cut(&format!("step {}: {}", status.name, failure.message), super::text::MESSAGE),
        ..failure
    }
}

fn is_complete(stage: &Stage, steps: &[StepStatus], keep_going: bool) -> bool {
    steps[stage.leaves.clone()].iter().all(|status| match status.state {
        StepState::Succeeded | StepState::Skipped | StepState::Stopping => true,
        StepState::Failed => keep_going,
        StepState::Active => stage.background && status.running_at.is_some(),
        StepState::Waiting => false,
    })
}

fn finish(phase: &mut PhaseStatus, outcome: Outcome, context: &Context<'_>) {
    phase.outcome = Some(outcome);
    phase.finished_at = Some(context.now);
}
