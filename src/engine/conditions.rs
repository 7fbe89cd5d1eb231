//! What people and tools read: conditions, reason, message, progress, position.

use crate::api::{
    Condition, ConditionStatus, condition,
    names::{condition_type, reason},
    status::{Pass, RunPhase, Section, SoakRunStatus, StepState},
};

use super::{Context, Plan, monitor, records, text, verdict};

/// Derives everything that is only told from everything that is known. It runs last in each decision.
pub(super) fn describe(plan: Option<&Plan>, status: &mut SoakRunStatus, context: &Context<'_>) {
    status.observed_generation = context.run.metadata.generation.unwrap_or(0);
    status.progress = progress(plan, status);
    status.position = status.current.as_ref().map(position).unwrap_or_default();
    if let Some(plan) = plan {
        status.success_rate = verdict::shown_rate(plan, status);
    }
    let (word, message) = words(plan, status, context);
    status.reason = word;
    status.message = message;
    let found = conditions(status);
    let alerting = status.alerts.as_ref().map(monitor::condition);
    let message = text::cut(&status.message, 1_024);
    let mut set = |type_: &str, holds: ConditionStatus, word: String, message: String| {
        let new = Condition {
            type_: type_.into(),
            status: holds,
            observed_generation: status.observed_generation,
            last_transition_time: context.now,
            reason: word,
            message,
        };
        condition::set(&mut status.conditions, new);
    };
    for (type_, holds, word) in found {
        set(type_, holds, word, message.clone());
    }
    if let Some((holds, word, message)) = alerting {
        set(condition_type::ALERTING, holds, word.into(), message);
    }
    if let Some(stored) = plan.and_then(|plan| records::condition(plan, status, context)) {
        condition::set(&mut status.conditions, stored);
    }
}

fn conditions(status: &SoakRunStatus) -> [(&'static str, ConditionStatus, String); 4] {
    let truth = |holds: bool| if holds { ConditionStatus::True } else { ConditionStatus::False };
    let ended = status.phase.is_final();
    let good = status.phase == RunPhase::Succeeded;
    let succeeded = if ended { truth(good) } else { ConditionStatus::Unknown };
    let waiting_for_somebody = !ended && !status.validated && is_blocked(status);
    let stalled = (ended && !good && status.phase != RunPhase::Aborted) || waiting_for_somebody;
    let word = || status.reason.clone();
    [
        (condition_type::SUCCEEDED, succeeded, word()),
        (condition_type::COMPLETED, truth(ended), word()),
        (condition_type::RECONCILING, truth(!ended && status.started_at.is_none()), word()),
        (condition_type::STALLED, truth(stalled), word()),
    ]
}

fn is_blocked(status: &SoakRunStatus) -> bool {
    ![reason::VALIDATING, reason::SUSPENDED].contains(&status.reason.as_str())
}

fn words(plan: Option<&Plan>, status: &SoakRunStatus, context: &Context<'_>) -> (String, String) {
    if status.phase.is_final() {
        return verdict::final_words(status);
    }
    if let Some(ending) = &status.ending {
        return (ending.reason.clone(), format!("ending: {}", ending.message));
    }
    if status.suspended_at.is_some() {
        return (reason::SUSPENDED.into(), "suspended: no further step begins until spec.suspend is unset".into());
    }
    match status.phase {
        RunPhase::Pending | RunPhase::Validating => match &context.seen.validation {
            Some(super::Validation::NotYet { reason, message }) => {
                (text::cut(reason, text::REASON), text::cut(message, 1_024))
            }
            _ if status.validated => (reason::WAITING_FOR_KEY.into(), waiting(status)),
            _ => (reason::VALIDATING.into(), "the spec is tried on the server".into()),
        },
        _ => (reason::RUNNING.into(), activity(plan, status)),
    }
}

/// What a person would want to know first: what is waited for, and how it went last time.
fn activity(plan: Option<&Plan>, status: &SoakRunStatus) -> String {
    if let Some(pass) = &status.current {
        if pass.outcome.is_some() && plan.is_some_and(|plan| records::is_paused(plan, status)) {
            return "paused: no more records may wait for the object store".into();
        }
        if pass.outcome.is_some() {
            return "the record is being stored".into();
        }
        let busy = pass
            .phases
            .last()
            .and_then(|phase| phase.steps.iter().find(|step| !step.message.is_empty() && !step.state.is_final()));
        if let Some(step) = busy {
            let state = match step.state {
                StepState::Waiting if step.blocked_at.is_some() => "has not begun",
                StepState::Waiting => "is tried again",
                _ => "is at work",
            };
            return format!("step {} {state}: {}", step.name, step.message);
        }
    }
    status
        .recent
        .last()
        .filter(|last| !last.reason.is_empty())
        .map_or_else(String::new, |last| format!("cycle {}: {}", last.number, last.reason))
}

/// For whom a run waits that has not begun.
fn waiting(status: &SoakRunStatus) -> String {
    let Some(lock) = &status.lock else { return String::new() };
    lock.holder.as_ref().map_or_else(
        || format!("asks for the key {}", lock.key),
        |holder| format!("waits for run {holder}, which holds the key {}", lock.key),
    )
}

fn progress(plan: Option<&Plan>, status: &SoakRunStatus) -> String {
    match plan.and_then(|plan| plan.cycles) {
        Some(cycles) => format!("{}/{cycles}", status.cycles.completed),
        None => status.cycles.completed.to_string(),
    }
}

fn position(pass: &Pass) -> String {
    let Some(phase) = pass.phases.last() else { return String::new() };
    let step =
        phase.steps.iter().rfind(|step| step.state.is_live() || (step.state == StepState::Waiting && step.attempt > 0));
    let place = step.map_or_else(|| phase.name.clone(), |step| format!("{}/{}", phase.name, step.name));
    match pass.section {
        Section::Cycle => format!("{} {place}", pass.cycle),
        Section::Setup | Section::Cleanup => place,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: &str = "2026-11-24T00:00:00Z";

    fn stalled(phase: RunPhase, reason: &str, validated: bool) -> ConditionStatus {
        let status = SoakRunStatus { phase, reason: reason.into(), validated, ..SoakRunStatus::default() };
        let [.., (name, stalled, _)] = conditions(&status);
        assert_eq!(name, condition_type::STALLED);
        stalled
    }

    #[test]
    fn what_waits_for_somebody_or_has_failed_is_stalled() {
        let missing = "PermissionDenied";
        assert_eq!(stalled(RunPhase::Validating, missing, false), ConditionStatus::True);
        assert_eq!(stalled(RunPhase::Validating, missing, true), ConditionStatus::False);
        assert_eq!(stalled(RunPhase::Validating, reason::VALIDATING, false), ConditionStatus::False);
        assert_eq!(stalled(RunPhase::Validating, reason::SUSPENDED, false), ConditionStatus::False);
        assert_eq!(stalled(RunPhase::Failed, missing, false), ConditionStatus::True);
        assert_eq!(stalled(RunPhase::Aborted, missing, false), ConditionStatus::False);
        assert_eq!(stalled(RunPhase::Succeeded, "Passed", true), ConditionStatus::False);
    }

    #[test]
    fn a_step_that_does_not_go_on_says_why() {
        let told = |step: serde_json::Value| {
            let pass = json!({
                "section": "Cycle", "cycle": 1, "startedAt": AT, "deadline": AT,
                "phases": [{"name": "p", "attempt": 1, "firstStartedAt": AT, "startedAt": AT, "steps": [step]}],
            });
            let current = serde_json::from_value(pass).unwrap();
            activity(None, &SoakRunStatus { current: Some(current), ..SoakRunStatus::default() })
        };
        let step = |state: &str, blocked: Option<&str>| {
            told(json!({"name": "load", "state": state, "message": "no node", "blockedAt": blocked}))
        };
        assert_eq!(step("Waiting", None), "step load is tried again: no node");
        assert_eq!(step("Waiting", Some(AT)), "step load has not begun: no node");
        assert_eq!(step("Active", None), "step load is at work: no node");
        assert_eq!(step("Failed", None), "");
    }
}
