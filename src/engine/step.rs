//! One step: its attempts, from the written intent to the end that was seen.

use chrono::{DateTime, TimeDelta, Utc};

use crate::api::{
    names::reason,
    status::{Failure, HeldObject, MAX_HELD, PastAttempt, StepState, StepStatus},
    step::{Action, Beginning},
};

use super::{Context, Effect, StepEnd, StepKey, StepSeen, backoff, expr::Scope, plan::Leaf, text};

/// Lost attempts in a row that are forgiven; one more and the harness is at fault.
const MAX_LOST: u32 = 10;
/// Past attempts that are remembered.
const MAX_PAST: usize = 5;
/// Most outputs of one step.
const MAX_OUTPUTS: usize = 16;
/// How long an attempt that was asked to stop may take before it is given up.
const STOP_LIMIT: TimeDelta = TimeDelta::minutes(5);
/// What the kubelet may need beyond a pod's own deadline before the engine acts on a timeout itself.
const KUBELET_GRACE: TimeDelta = TimeDelta::seconds(10);

/// Codes with which a process ends that was asked to: by SIGINT, SIGKILL, SIGTERM.
const STOPPED_EXIT_CODES: [i32; 3] = [130, 137, 143];

/// Begins the next attempt: writes the intent into the status and asks for its effect.
pub(super) fn begin(
    leaf: &Leaf,
    step: &mut StepStatus,
    key: &StepKey,
    target: Option<String>,
    scope: &Scope,
    held: &mut Vec<HeldObject>,
    context: &mut Context<'_>,
) {
    if let Some(at) = step.not_before
        && !context.reached(at)
    {
        return;
    }
    if let Some(away) = target.as_deref().and_then(|target| context.seen.away(target)) {
        let problem = format!("waits for target {}: {}", target.unwrap_or_default(), away.message);
        return block(leaf, step, &problem, context);
    }
    // The intent names the cluster: what swaps the roles later does not move it.
    step.target = target;
    step.blocked_at = None;
    step.attempt += 1;
    let key = StepKey { attempt: step.attempt, ..key.clone() };
    step.state = StepState::Active;
    step.started_at = Some(context.now);
    (step.running_at, step.stopping_at, step.finished_at, step.not_before) = (None, None, None, None);
    (step.transient, step.class, step.pod, step.node, step.exit_code) = (None, None, None, None, None);
    step.reason.clear();
    step.message.clear();
    step.outputs.clear();
    let place = step.target.as_deref().filter(|_| !leaf.action.works_here());
    match super::objects::held_object(leaf, &key, place, scope, context.run) {
        Ok(Some(object)) => {
            if held.len() >= MAX_HELD {
                return fail(
                    step,
                    "TooManyObjects",
                    &format!("steps already hold {MAX_HELD} objects: let some go earlier with deleteAfter"),
                    context.now,
                );
            }
            // A second attempt holds the same object under the same name.
            if !held.iter().any(|other| super::held_name(other) == super::held_name(&object)) {
                held.push(object);
            }
        }
        Ok(None) => {}
        Err(message) => return fail(step, "InvalidExpression", &message, context.now),
    }
    if matches!(leaf.action, Action::Sleep(_)) {
        step.running_at = Some(context.now);
    } else {
        context.ask(Effect::Begin(key));
    }
}

/// Lets a step wait whose target can't be reached, for at most as long as it may run.
fn block(leaf: &Leaf, step: &mut StepStatus, problem: &str, context: &mut Context<'_>) {
    let since = *step.blocked_at.get_or_insert(context.now);
    step.reason = reason::TARGET_UNREACHABLE.into();
    step.message = text::cut(problem, text::MESSAGE);
    if context.reached(since + leaf.timeout.as_chrono()) {
        step.state = StepState::Failed;
        step.transient = Some(true);
        step.finished_at = Some(context.now);
        classify(leaf, step);
    }
}

/// Takes in what was seen of a live step.
pub(super) fn observe(leaf: &Leaf, step: &mut StepStatus, key: &StepKey, scope: &Scope, context: &mut Context<'_>) {
    if !step.state.is_live() {
        return;
    }
    let key = StepKey { attempt: step.attempt, ..key.clone() };
    if let Action::Sleep(sleep) = &leaf.action {
        let started = step.started_at.unwrap_or(context.now);
        if step.state == StepState::Stopping || context.reached(started + sleep.duration.as_chrono()) {
            end(leaf, step, StepEnd::succeeded(), scope, context);
        }
        return;
    }
    let unknown = StepSeen::Unknown;
    match context.seen.steps.get(&key).unwrap_or(&unknown) {
        StepSeen::Ended(seen) => return end(leaf, step, seen.clone(), scope, context),
        StepSeen::Absent => return absent(leaf, step, &key, scope, context),
        StepSeen::Running { since, message } => {
            step.running_at = step.running_at.or(*since).or(Some(context.now));
            explain(step, "", message);
        }
        StepSeen::Pending { reason, message } => explain(step, reason, message),
        StepSeen::Unknown => {}
    }
    context.ask(Effect::Observe(key.clone()));
    if step.state == StepState::Stopping {
        return stopping(step, key, context);
    }
    time_out(leaf, step, &key, scope, context);
}

/// Asks a live step to stop. A step that has not begun is skipped; one that runs nothing in a cluster ends at once.
pub(super) fn stop(leaf: &Leaf, step: &mut StepStatus, key: &StepKey, scope: &Scope, context: &mut Context<'_>) {
    match step.state {
        StepState::Waiting => {
            step.state = StepState::Skipped;
            step.not_before = None;
        }
        StepState::Active => {
            step.state = StepState::Stopping;
            step.stopping_at = Some(context.now);
            if leaf.action.beginning() == Beginning::Runs {
                context.ask(Effect::Stop(StepKey { attempt: step.attempt, ..key.clone() }));
            } else if stopped_for_a_failure(step) {
                finish_failed(leaf, step, scope, context);
            } else {
                succeed(step, context.now);
            }
        }
        _ => {}
    }
}

fn stopping(step: &mut StepStatus, key: StepKey, context: &mut Context<'_>) {
    context.ask(Effect::Stop(key));
    let since = step.stopping_at.unwrap_or(context.now);
    if context.reached(since + STOP_LIMIT) {
        fail(
            step,
            "StopTimeout",
            "it did not end within five minutes of being asked to; the pod is left to its deletion",
            context.now,
        );
    }
}

fn time_out(leaf: &Leaf, step: &mut StepStatus, key: &StepKey, scope: &Scope, context: &mut Context<'_>) {
    let started = step.started_at.unwrap_or(context.now);
    let (limit, from, what) = match (&leaf.action, step.running_at) {
        (Action::Pod(_), None) => (leaf.pending_timeout, started, "was not running"),
        // The kubelet ends the pod at its deadline by itself; the engine acts only when nobody did.
        (Action::Pod(_), Some(running)) => (leaf.timeout, running + KUBELET_GRACE, "had not ended"),
        (_, _) => (leaf.timeout, started, "had not ended"),
    };
    if !context.reached(from + limit.as_chrono()) {
        return;
    }
    let detail = if step.message.is_empty() { String::new() } else { format!("; last seen: {}", step.message) };
    // A cause that was named while it was pending says more than the timeout does.
    let reason =
        if step.running_at.is_none() && !step.reason.is_empty() { step.reason.clone() } else { reason::TIMEOUT.into() };
    let message = format!("{what} after {limit}{detail}");
    step.reason = reason;
    step.message = text::cut(&message, text::MESSAGE);
    step.transient = Some(step.running_at.is_none());
    stop(leaf, step, key, scope, context);
}

fn absent(leaf: &Leaf, step: &mut StepStatus, key: &StepKey, scope: &Scope, context: &mut Context<'_>) {
    if step.state == StepState::Stopping {
        if stopped_for_a_failure(step) {
            finish_failed(leaf, step, scope, context);
        } else {
            succeed(step, context.now);
        }
        return;
    }
    if matches!(leaf.action.beginning(), Beginning::Looks | Beginning::Repeatable) {
        // It is begun again once its cluster can be asked.
        if step.target.as_deref().is_some_and(|target| context.seen.away(target).is_some()) {
            return time_out(leaf, step, key, scope, context);
        }
        return context.ask(Effect::Begin(key.clone()));
    }
    remember(step, "Lost", "its intent was written, but nothing came of it", true, context.now);
    step.lost += 1;
    if step.lost > MAX_LOST {
        return fail(
            step,
            "InfraError",
            &format!(
                "{MAX_LOST} attempts in a row left nothing behind: see the operator's log for what the API server answered"
            ),
            context.now,
        );
    }
    step.state = StepState::Waiting;
    step.not_before = (step.lost > 1).then(|| context.now + backoff(TimeDelta::seconds(1), step.lost - 1));
}

fn end(leaf: &Leaf, step: &mut StepStatus, seen: StepEnd, scope: &Scope, context: &mut Context<'_>) {
    let StepEnd { failure, outputs, exit_code, running_at, finished_at, pod, node } = seen;
    step.running_at = step.running_at.or(running_at);
    step.finished_at = Some(
        finished_at
            .unwrap_or(context.now)
            .clamp(step.started_at.unwrap_or(context.now), context.now.max(step.started_at.unwrap_or(context.now))),
    );
    step.exit_code = exit_code;
    step.pod = pod.or(step.pod.take());
    step.node = node;
    step.outputs = outputs
        .into_iter()
        .take(MAX_OUTPUTS)
        .map(|(name, value)| (text::cut(&name, text::REASON), bounded(value)))
        .collect();
    let Some(failure) = failure else {
        return if stopped_for_a_failure(step) {
            finish_failed(leaf, step, scope, context);
        } else {
            succeed(step, context.now);
        };
    };
    if step.state == StepState::Stopping {
        if stopped_for_a_failure(step) {
            return finish_failed(leaf, step, scope, context);
        }
        // Pods are stopped by their deadline, so one that went in peace tells of a timeout.
        let in_peace = exit_code == Some(0) && failure.reason == reason::TIMEOUT;
        if in_peace || exit_code.is_none_or(|code| STOPPED_EXIT_CODES.contains(&code)) {
            return succeed(step, context.now);
        }
    }
    step.reason = text::cut(&failure.reason, text::REASON);
    step.message = text::cut(&failure.message, text::MESSAGE);
    step.transient = Some(failure.transient);
    finish_failed(leaf, step, scope, context);
}

fn bounded(value: crate::api::status::OutputValue) -> crate::api::status::OutputValue {
    use crate::api::status::OutputValue;
    match value {
        OutputValue::Text(value) => OutputValue::Text(text::cut(&value, text::OUTPUT)),
        OutputValue::Number(value) if !value.is_finite() => OutputValue::Text(value.to_string()),
        other => other,
    }
}

/// A step that is stopping because it failed (a timeout) carries the reason already.
fn stopped_for_a_failure(step: &StepStatus) -> bool {
    step.state == StepState::Stopping && step.transient.is_some()
}

/// Ends the attempt as failed: tries again if the retry rule allows it.
fn finish_failed(leaf: &Leaf, step: &mut StepStatus, scope: &Scope, context: &mut Context<'_>) {
    step.failures += 1;
    step.lost = 0;
    step.finished_at = step.finished_at.or(Some(context.now));
    classify(leaf, step);
    let failure = failure_of(step);
    let again =
        leaf.retry.as_ref().filter(|retry| step.failures <= retry.limit && holds(retry.when.as_ref(), &failure, scope));
    let Some(retry) = again else {
        step.state = StepState::Failed;
        return;
    };
    remember(step, &failure.reason, &failure.message, failure.transient, step.finished_at.unwrap_or(context.now));
    step.state = StepState::Waiting;
    step.not_before = Some(context.now + backoff(retry.backoff.as_chrono(), step.failures));
}

/// Whether a retry rule's condition holds. One that can't be evaluated does not.
pub(super) fn holds(when: Option<&super::expr::Condition>, failure: &Failure, scope: &Scope) -> bool {
    when.is_none_or(|when| {
        let mut scope = scope.clone();
        scope.set("failure", serde_json::to_value(failure).unwrap_or_default());
        when.evaluate(&scope).unwrap_or(false)
    })
}

/// Why a step failed, as a value.
pub(super) fn failure_of(step: &StepStatus) -> Failure {
    Failure {
        reason: step.reason.clone(),
        message: step.message.clone(),
        transient: step.transient.unwrap_or(false),
        exit_code: step.exit_code,
        class: step.class,
    }
}

/// Notes what the failure of a step counts as.
fn classify(leaf: &Leaf, step: &mut StepStatus) {
    let mut failure = failure_of(step);
    leaf.rules.classify(&mut failure);
    step.class = failure.class;
    step.transient = Some(failure.transient);
}

fn fail(step: &mut StepStatus, reason: &str, message: &str, now: DateTime<Utc>) {
    step.state = StepState::Failed;
    step.reason = reason.into();
    step.message = text::cut(message, text::MESSAGE);
    step.transient = Some(false);
    step.finished_at = Some(now);
}

fn succeed(step: &mut StepStatus, now: DateTime<Utc>) {
    step.state = StepState::Succeeded;
    step.reason.clear();
    step.message.clear();
    (step.transient, step.class) = (None, None);
    step.lost = 0;
    step.finished_at = step.finished_at.or(Some(now));
}

fn explain(step: &mut StepStatus, reason: &str, message: &str) {
    // Once a failure is noted (a timeout), later observations do not replace it.
    if step.transient.is_none() {
        step.reason = text::cut(reason, text::REASON);
        step.message = text::cut(message, text::MESSAGE);
    }
}

fn remember(step: &mut StepStatus, reason: &str, message: &str, transient: bool, at: DateTime<Utc>) {
    if step.past.len() >= MAX_PAST {
        step.past.remove(0);
    }
    step.past.push(PastAttempt {
        attempt: step.attempt,
        reason: reason.into(),
        message: message.into(),
        transient,
        started_at: step.started_at.unwrap_or(at),
        finished_at: at,
        pod: step.pod.clone(),
        exit_code: step.exit_code,
    });
}
