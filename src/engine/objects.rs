//! What steps leave in a cluster: objects held until their scope ends, pods kept until their record is stored.

use chrono::TimeDelta;
use serde_json::Value;

use crate::api::{
    SoakRun,
    status::{HeldObject, RunPhase, Section, SoakRunStatus},
    step::{DeleteAfter, Made},
};

use super::{
    Context, Effect, NoteType, StepKey,
    expr::{Scope, render_json},
    names::attempt_name,
    plan::Leaf,
};

/// How long the deletion of a held object is tried.
const RELEASE_LIMIT: TimeDelta = TimeDelta::minutes(2);
/// How long it is tried while the object's target can't be reached: such an outage may be a control plane's upgrade.
const AWAY_LIMIT: TimeDelta = TimeDelta::minutes(15);
/// How long an ended run waits for pods on targets that no owner reference takes away.
const PODS_LIMIT: TimeDelta = TimeDelta::minutes(10);

/// Asks for the deletion of held objects whose scope has ended; true when none is left.
pub(super) fn release(scopes: &[DeleteAfter], status: &mut SoakRunStatus, context: &mut Context<'_>) -> bool {
    let mut abandoned = Vec::new();
    status.held.retain_mut(|object| {
        if !scopes.contains(&object.until) {
            return true;
        }
        let name = held_name(object);
        if context.seen.released.contains(&name) {
            return false;
        }
        let since = *object.releasing_at.get_or_insert(context.now);
        let limit = if context.seen.away(&object.target).is_some() { AWAY_LIMIT } else { RELEASE_LIMIT };
        if context.reached(since + limit) {
            abandoned.push(name);
            return false;
        }
        context.ask(Effect::Release(object.clone()));
        true
    });
    for name in abandoned {
        context.note(
            NoteType::Warning,
            "ReleaseFailed",
            format!("{name} could not be deleted in time and is left behind"),
        );
    }
    !status.held.iter().any(|object| scopes.contains(&object.until))
}

/// How a held object is named in observations and messages.
pub fn held_name(object: &HeldObject) -> String {
    let HeldObject { api_version, kind, namespace, name, target, until: _, releasing_at: _ } = object;
    let place = if target.is_empty() { String::new() } else { format!(" on {target}") };
    format!("{api_version} {kind} {namespace}/{name}{place}")
}

/// The object that a step will make and that has to go when its scope ends.
pub(super) fn held_object(
    leaf: &Leaf,
    key: &StepKey,
    target: Option<&str>,
    scope: &Scope,
    run: &SoakRun,
) -> Result<Option<HeldObject>, String> {
    let namespace = run.metadata.namespace.clone().unwrap_or_default();
    let derived = || {
        attempt_name(
            run.metadata.name.as_deref().unwrap_or_default(),
            run.metadata.uid.as_deref().unwrap_or_default(),
            key,
        )
    };
    let Some(Made { head, until, named_by_attempt }) = leaf.action.made() else { return Ok(None) };
    if until == DeleteAfter::Never {
        return Ok(None);
    }
    let head = render_json(&head, scope).map_err(|error| format!("{}: {error}", leaf.field))?;
    let text = |field: &str| head.get(field).and_then(Value::as_str).map(str::to_owned);
    let name = text("name")
        .or_else(|| named_by_attempt.then(derived))
        .ok_or_else(|| format!("{}: the manifest has no metadata.name", leaf.field))?;
    Ok(Some(HeldObject {
        api_version: text("apiVersion").ok_or_else(|| format!("{}: the manifest has no apiVersion", leaf.field))?,
        kind: text("kind").ok_or_else(|| format!("{}: the manifest has no kind", leaf.field))?,
        namespace: text("namespace").unwrap_or(namespace),
        name,
        target: target.unwrap_or_default().to_owned(),
        until,
        releasing_at: None,
    }))
}

/// Asks for the deletion of pods that no longer belong to the pass at work, or whose attempt was superseded.
pub(super) fn retire_pods(status: &SoakRunStatus, context: &mut Context<'_>) {
    let pods = &context.seen.pods;
    let retired: Vec<Effect> = pods
        .iter()
        .filter(|pod| !pod.deleting && !is_needed(status, pod.key.as_ref(), pod.ended))
        .map(|pod| Effect::DeletePod { name: pod.name.clone(), uid: pod.uid.clone(), target: pod.target.clone() })
        .collect();
    for effect in retired {
        context.ask(effect);
    }
}

/// Whether pods of an ended run may be left on targets, where the garbage collector does not know their owner.
pub(super) fn are_pods_left(status: &SoakRunStatus, context: &mut Context<'_>) -> bool {
    let left = context.seen.pods.iter().any(|pod| !pod.target.is_empty())
        || context.seen.targets.values().any(|target| target.pods_unknown);
    left && !context.reached(status.finished_at.unwrap_or(context.now) + PODS_LIMIT)
}

fn is_needed(status: &SoakRunStatus, key: Option<&StepKey>, ended: bool) -> bool {
    // A pod without coordinates is not the run's to delete.
    let Some(key) = key else { return true };
    // An intent is stored before its pod is made, so a pod from further on tells that the status is an old one from a cache.
    if key.run_attempt != status.attempt {
        return key.run_attempt > status.attempt;
    }
    let Some(pass) = &status.current else {
        return !status.phase.is_final() && last_pass(status).is_none_or(|last| (key.section, key.cycle) > last);
    };
    if (key.section, key.cycle) != (pass.section, pass.cycle) {
        return (key.section, key.cycle) > (pass.section, pass.cycle);
    }
    let phase = pass.phases.iter().find(|phase| phase.name == key.phase);
    let step = phase.and_then(|phase| phase.steps.iter().find(|step| step.name == key.step));
    // An ended pod stays until the record has its log.
    ended || step.is_none_or(|step| step.attempt <= key.attempt)
}

/// Whether an object was made by a later attempt or cycle than a status tells of: then the status is an old one from a cache, and the
/// object is not the one that it lets go. `cycle`: none for what belongs to no cycle.
pub fn is_from_further_on(status: &SoakRunStatus, attempt: u32, cycle: Option<u32>) -> bool {
    let reached = status.current.as_ref().map_or(0, |pass| pass.cycle).max(status.cycles.completed);
    (attempt, cycle.unwrap_or(0)) > (status.attempt, reached)
}

/// The pass that was the last to be over, of a run between two passes; none before its setup is over.
fn last_pass(status: &SoakRunStatus) -> Option<(Section, u32)> {
    match (status.phase, status.cycles.completed) {
        (RunPhase::Pending | RunPhase::Validating | RunPhase::SettingUp, _) => None,
        (_, 0) => Some((Section::Setup, 0)),
        (_, completed) => Some((Section::Cycle, completed)),
    }
}
