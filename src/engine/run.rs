//! The run: from its first visit over setup, cycles and cleanup to its verdict.
//!
//! Edges of `status.phase` (S2), beside those that stay:
//!
//! | from | to |
//! | --- | --- |
//! | Pending | Validating, and what follows it when it takes no time |
//! | Validating | SettingUp, Running, Succeeded (dry run), Failed, Aborted |
//! | SettingUp | Running, CleaningUp and what ends a run |
//! | Running | CoolingDown, Running, CleaningUp and what ends a run |
//! | CoolingDown | Running, CleaningUp and what ends a run |
//! | CleaningUp | Succeeded, Failed, Inconclusive, Aborted |
//! | any end | Pending, by a changed `spec.rerun` only |

use chrono::TimeDelta;

use crate::api::{
    SoakRun,
    names::{self, reason},
    soakrun::SuspendedTime,
    status::{Ending, RunPhase, Section, SoakRunStatus},
    step::DeleteAfter,
};

use super::{
    Context, Effect, NoteType, Plan, PlanError, RecordSeen, StepKey, Validation, conditions, lock, monitor, objects,
    pass, records, targets, text, verdict,
};

/// How long a run waits for rights, accounts and kinds that it needs before it gives up.
const VALIDATION_PATIENCE: TimeDelta = TimeDelta::minutes(5);
/// How often passes may follow each other in one decision. It bounds a decision of cycles that take no time.
const MAX_ROUNDS: usize = 64;

/// Moves the run as far as it goes without anything from outside.
pub(super) fn advance(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let attempt = status.attempt;
    if !accept(&plan.digest, status, context) {
        return;
    }
    if status.attempt != attempt {
        status.roles.clone_from(&plan.targets.roles);
        if attempt > 0 {
            // What was found out so far is about the attempt before.
            status.phase = RunPhase::Validating;
            context.ask(Effect::Validate);
            return conditions::describe(Some(plan), status, context);
        }
    }
    targets::observe(plan, status, context);
    monitor::advance(plan, status, context);
    let waiting = status.records.waiting.len();
    records::arrived(status, context);
    for round in 0..=MAX_ROUNDS {
        let before = status.clone();
        turn(plan, status, context);
        if *status == before {
            break;
        }
        if round == MAX_ROUNDS {
            context.wake(context.now);
        }
    }
    records::forward(waiting, status, context);
    objects::retire_pods(status, context);
    keep_live_effects(status, context);
    conditions::describe(Some(plan), status, context);
}

/// Ends a run whose spec can't be parsed. One that has begun with another spec is cleaned up by nobody: its plan is gone.
pub(super) fn refuse(error: &PlanError, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    if !accept("", status, context) {
        return;
    }
    if status.ending.is_none() {
        end_run(status, reason::INVALID_SPEC, &error.to_string(), context);
    }
    finish(RunPhase::Failed, status, context);
    objects::retire_pods(status, context);
    conditions::describe(None, status, context);
}

/// The first visit of an attempt, and what is left to do for an ended one. False when nothing more is to be decided.
fn accept(digest: &str, status: &mut SoakRunStatus, context: &mut Context<'_>) -> bool {
    let spec = &context.run.spec;
    let has_finalizer = context.run.metadata.finalizers.iter().flatten().any(|it| it == names::FINALIZER);
    if status.phase.is_final() {
        if status.rerun == spec.rerun || context.deleting() {
            after_the_end(status, has_finalizer, context);
            return false;
        }
        if !has_finalizer {
            // The old end stands until the new attempt can begin: a status between the two would tell neither.
            context.ask(Effect::AddFinalizer);
            return false;
        }
        let attempt = status.attempt;
        *status =
            SoakRunStatus { attempt, conditions: std::mem::take(&mut status.conditions), ..SoakRunStatus::default() };
    }
    if context.deleting() && (!has_finalizer || status.started_at.is_none()) {
        // Nothing was done for it that would have to be undone.
        if has_finalizer && lock::release(status, context) {
            context.ask(Effect::RemoveFinalizer);
        }
        return false;
    }
    if !has_finalizer {
        context.ask(Effect::AddFinalizer);
        return false;
    }
    if status.accepted_at.is_none() {
        status.attempt += 1;
        status.rerun.clone_from(&spec.rerun);
        digest.clone_into(&mut status.spec_digest);
        status.accepted_at = Some(context.now);
    }
    true
}

/// An ended run costs nothing but its pods' deletion, its finalizer's and, at its time, its own.
fn after_the_end(status: &SoakRunStatus, has_finalizer: bool, context: &mut Context<'_>) {
    objects::retire_pods(status, context);
    let is_clean = !has_finalizer || (lock::release(status, context) && !objects::are_pods_left(status, context));
    if has_finalizer && is_clean {
        context.ask(Effect::RemoveFinalizer);
    }
    if let (Some(ttl), Some(finished)) = (context.run.spec.ttl_after_finished, status.finished_at)
        && !context.deleting()
        && context.reached(finished + ttl.as_chrono())
    {
        context.ask(Effect::DeleteRun);
    }
}

/// One move.
fn turn(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    suspend(status, context);
    if status.ending.is_none() {
        interrupt(plan, status, context);
    }
    if !status.validated && status.ending.is_none() {
        return validate(status, context);
    }
    if status.current.is_some() {
        return pass::advance(plan, status, context);
    }
    if status.started_at.is_none() {
        if status.ending.is_some() {
            return finish_by_ending(status, context);
        }
        if status.suspended_at.is_some() {
            return;
        }
        if !lock::acquire(plan, status, context) {
            return;
        }
        status.started_at = Some(context.now);
        context.note(NoteType::Normal, "Started", "All that the run needs was accepted by the server; it begins");
    }
    if status.ending.is_none() && !status.set_up {
        if plan.setup.is_some() {
            status.phase = RunPhase::SettingUp;
            return pass::begin(plan, Section::Setup, 0, status, context);
        }
        status.set_up = true;
    }
    if status.ending.is_none() {
        conclude(plan, status, context);
    }
    if status.ending.is_none() {
        return next_cycle(plan, status, context);
    }
    if !status.cleaned_up {
        status.phase = RunPhase::CleaningUp;
        status.next_cycle_at = None;
        if plan.cleanup.is_some() && !cannot_clean_up(context.run) {
            return pass::begin(plan, Section::Cleanup, 0, status, context);
        }
        status.cleaned_up = true;
    }
    if !objects::release(&[DeleteAfter::Phase, DeleteAfter::Cycle, DeleteAfter::Run], status, context) {
        return;
    }
    finish_by_ending(status, context);
}

/// A foreground deletion takes the run's children at once, so cleanup pods would be collected as they come.
fn cannot_clean_up(run: &SoakRun) -> bool {
    run.metadata.finalizers.iter().flatten().any(|it| it == "foregroundDeletion")
}

/// Follows `spec.suspend`, and moves the deadlines of what stood still.
fn suspend(status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let wanted = context.run.spec.suspend && status.ending.is_none();
    match status.suspended_at {
        None if wanted => {
            status.suspended_at = Some(context.now);
            context.note(NoteType::Normal, reason::SUSPENDED, "No further step begins until spec.suspend is unset");
        }
        Some(since) if !wanted => {
            let pause = (context.now - since).max(TimeDelta::zero());
            status.suspended_at = None;
            status.suspended_millis += pause.num_milliseconds();
            if let Some(pass) = &mut status.current {
                pass.deadline += pause;
                if let Some(deadline) = pass.phases.last_mut().and_then(|phase| phase.deadline.as_mut()) {
                    *deadline += pause;
                }
            }
            context.note(NoteType::Normal, "Resumed", "Steps begin again");
        }
        _ => {}
    }
}

/// Ends the run for what somebody did to it.
fn interrupt(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    if context.deleting() {
        end_run(status, reason::DELETED, "the run was deleted while it ran", context);
    } else if context.run.spec.abort {
        end_run(status, reason::ABORTED, "spec.abort was set", context);
    } else if status.spec_digest != plan.digest {
        end_run(
            status,
            reason::SPEC_CHANGED,
            "the spec was changed while the run ran: change rerun as well, to begin a new attempt with it",
            context,
        );
    }
}

fn validate(status: &mut SoakRunStatus, context: &mut Context<'_>) {
    status.phase = RunPhase::Validating;
    match context.seen.validation.clone() {
        None => context.ask(Effect::Validate),
        Some(Validation::Accepted) => {
            status.validated = true;
            if context.run.spec.dry_run {
                end_run(
                    status,
                    reason::DRY_RUN_PASSED,
                    "the server would accept everything; nothing was performed",
                    context,
                );
                finish(RunPhase::Succeeded, status, context);
            }
        }
        Some(Validation::Invalid { reason, message }) => {
            end_run(status, &reason, &message, context);
            finish(RunPhase::Failed, status, context);
        }
        Some(Validation::NotYet { reason, message }) => {
            let since = status.accepted_at.unwrap_or(context.now);
            if context.reached(since + VALIDATION_PATIENCE) {
                end_run(status, &reason, &message, context);
                finish(RunPhase::Failed, status, context);
            } else {
                status.reason = text::cut(&reason, text::REASON);
                status.message = text::cut(&message, 1_024);
                context.ask(Effect::Validate);
            }
        }
    }
}

/// Ends the run when its cycles, its time or its failures are used up.
fn conclude(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    if let Some(message) = status.alerts.as_ref().and_then(|alerts| alerts.failure.clone()) {
        return end_run(status, reason::ALERT_FIRING, &message, context);
    }
    let counts = &status.cycles;
    let policy = &plan.failure_policy;
    if (policy.stop_on_failure && counts.failed > 0) || policy.max_failures.is_some_and(|max| counts.failed > max) {
        let (failed, all, last) = (counts.failed, counts.completed, verdict::last_failure(status));
        let message = format!("{failed} of {all} cycles failed, more than the failure policy accepts{last}");
        return end_run(status, reason::FAILURE_POLICY_EXCEEDED, &message, context);
    }
    if policy.max_consecutive_failures.is_some_and(|max| counts.consecutive_failures > max) {
        let (failed, last) = (counts.consecutive_failures, verdict::last_failure(status));
        let message = format!("{failed} cycles in a row failed, more than the failure policy accepts{last}");
        return end_run(status, reason::FAILURE_POLICY_EXCEEDED, &message, context);
    }
    let all = plan.cycles.is_some_and(|cycles| counts.completed >= cycles);
    let late = !all
        && plan.duration.is_some_and(|duration| {
            let started = status.started_at.unwrap_or(context.now);
            let excluded = match context.run.spec.suspended_time {
                SuspendedTime::Counted => TimeDelta::zero(),
                SuspendedTime::Excluded => {
                    let now = status.suspended_at.map_or(TimeDelta::zero(), |since| context.now - since);
                    TimeDelta::milliseconds(status.suspended_millis) + now
                }
            };
            context.reached(started + duration.as_chrono() + excluded)
        });
    let judged = if all || late { Some(verdict::judge(plan, status)) } else { verdict::judge_early(plan, status) };
    if let Some((reason, message)) = judged {
        end_run(status, reason, &message, context);
    }
}

fn next_cycle(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    if let Some(at) = status.next_cycle_at
        && !context.reached(at)
    {
        status.phase = RunPhase::CoolingDown;
        return;
    }
    if status.suspended_at.is_some() {
        return;
    }
    status.phase = RunPhase::Running;
    status.next_cycle_at = None;
    pass::begin(plan, Section::Cycle, status.cycles.completed + 1, status, context);
}

/// Notes why the run ends. The first reason stays.
pub(super) fn end_run(status: &mut SoakRunStatus, reason: &str, message: &str, context: &Context<'_>) {
    if status.ending.is_none() {
        status.ending = Some(Ending {
            reason: text::cut(reason, text::REASON),
            message: text::cut(message, 1_024),
            at: context.now,
        });
    }
}

/// Stores the summary, then gives the verdict.
fn finish_by_ending(status: &mut SoakRunStatus, context: &mut Context<'_>) {
    if status.started_at.is_some() && !context.deleting() && !status.records.waiting.is_empty() {
        if !summary_is_overdue(status, context) {
            return;
        }
        let why = context.seen.forwarding.failure.clone().unwrap_or_default();
        let message =
            format!("{} records wait for the object store since an hour: {why}", status.records.waiting.len());
        status.ending =
            Some(Ending { reason: reason::INFRA_ERROR.into(), message: text::cut(&message, 1_024), at: context.now });
    } else if status.started_at.is_some() {
        match context.seen.summary.clone() {
            RecordSeen::Stored { digest } => status.records.summary = Some(digest),
            RecordSeen::Failing { message } if context.deleting() || summary_is_overdue(status, context) => {
                // What can't be shown does not pass. A namespace that is going away takes no summary, and must not wait for one.
                let (reason, why) = if context.deleting() {
                    (reason::DELETED, "the run was deleted before its summary could be stored")
                } else {
                    (reason::INFRA_ERROR, "the summary could not be stored for an hour")
                };
                status.ending = Some(Ending {
                    reason: reason.into(),
                    message: text::cut(&format!("{why}: {message}"), 1_024),
                    at: context.now,
                });
            }
            _ => return context.ask(Effect::StoreSummary),
        }
    }
    finish(verdict::final_phase(status), status, context);
}

fn summary_is_overdue(status: &SoakRunStatus, context: &mut Context<'_>) -> bool {
    let since = status.ending.as_ref().map_or(context.now, |ending| ending.at);
    context.reached(since + pass::RECORD_PATIENCE)
}

fn finish(phase: RunPhase, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    if status.phase.is_final() {
        return;
    }
    status.phase = phase;
    status.finished_at = Some(context.now);
    status.current = None;
    status.suspended_at = None;
    monitor::close(status);
    let (reason, message) = verdict::final_words(status);
    let type_ = if phase == RunPhase::Succeeded { NoteType::Normal } else { NoteType::Warning };
    context.note(type_, &reason, message);
}

/// Drops what was asked for a step that has ended since, in the same decision.
fn keep_live_effects(status: &SoakRunStatus, context: &mut Context<'_>) {
    let live = |key: &StepKey| {
        status.current.as_ref().is_some_and(|pass| {
            (pass.section, pass.cycle) == (key.section, key.cycle)
                && pass
                    .phases
                    .iter()
                    .filter(|phase| phase.name == key.phase)
                    .flat_map(|phase| &phase.steps)
                    .any(|step| step.name == key.step && step.attempt == key.attempt && step.state.is_live())
        })
    };
    context.effects.retain(|effect| match effect {
        Effect::Begin(key) | Effect::Observe(key) | Effect::Stop(key) => live(key),
        _ => true,
    });
}
