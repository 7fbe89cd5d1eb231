//! One pass: the setup, a cycle or the cleanup, from its first phase to its stored record.

use chrono::TimeDelta;

use crate::api::{
    names::reason,
    status::{Failure, Outcome, Pass, Section, SoakRunStatus},
    step::DeleteAfter,
};

use super::{
    Context, NoteType, Plan, RecordSeen, Rules, StepKey, backoff, count,
    expr::Scope,
    monitor, objects,
    phase::{self, Surroundings},
    records, run, scope, step,
};

/// How long storing a record is tried; a run must end some day.
pub(super) const RECORD_PATIENCE: TimeDelta = TimeDelta::hours(1);

/// Begins a pass. It becomes the run's current one.
pub(super) fn begin(plan: &Plan, section: Section, cycle: u32, status: &mut SoakRunStatus, context: &Context<'_>) {
    status.current = Some(Pass {
        section,
        cycle,
        started_at: context.now,
        deadline: context.now + plan.section_timeout(section).as_chrono(),
        phases: Vec::new(),
        outcome: None,
        failure: None,
        finished_at: None,
    });
}

/// Moves the current pass as far as it goes. Does nothing if there is none.
pub(super) fn advance(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let Some(mut pass) = status.current.take() else { return };
    if pass.outcome.is_none() {
        let scope = scope::in_pass(plan, context.run, status, &pass);
        run_phases(plan, &mut pass, &scope, status, context);
    }
    if pass.outcome.is_some() && record(plan, &pass, status, context) {
        count::count(plan, pass, status, context);
        return;
    }
    status.current = Some(pass);
}

fn run_phases(plan: &Plan, pass: &mut Pass, scope: &Scope, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let plans = plan.section(pass.section);
    let halt = halt(pass, status, context);
    let suspended = status.suspended_at.is_some();
    if pass.phases.is_empty() {
        if halt.is_some() {
            return end(pass, halt, &plan.rules, status, context);
        }
        let Some(first) = plans.first() else { return end(pass, None, &plan.rules, status, context) };
        pass.phases.push(phase::new(first, context.now));
    }
    let index = pass.phases.len() - 1;
    let (Some(phase_plan), Some(current)) = (plans.get(index), pass.phases.last_mut()) else {
        return end(pass, None, &plan.rules, status, context);
    };
    let key = StepKey {
        run_attempt: status.attempt,
        section: pass.section,
        cycle: pass.cycle,
        phase: String::new(),
        step: String::new(),
        attempt: 0,
    };
    if current.outcome.is_none() {
        let around = Surroundings { key, scope, roles: &status.roles, halt: halt.as_ref(), suspended };
        phase::advance(phase_plan, current, &mut status.held, &around, context);
    }
    let Some(outcome) = current.outcome else { return };
    // What was made for the phase goes with it, whatever came of it.
    if !objects::release(&[DeleteAfter::Phase], status, context) {
        return;
    }
    if outcome == Outcome::Succeeded {
        match plans.get(index + 1) {
            None => return end(pass, None, &plan.rules, status, context),
            Some(_) if halt.is_some() => return end(pass, halt, &plan.rules, status, context),
            Some(next) => pass.phases.push(phase::new(next, context.now)),
        }
        return;
    }
    let failure = current.failure.clone().unwrap_or_default();
    let again = phase_plan.retry.as_ref().filter(|retry| {
        halt.is_none() && current.attempt <= retry.limit && step::holds(retry.when.as_ref(), &failure, scope)
    });
    if let Some(retry) = again {
        let at = context.now + backoff(retry.backoff.as_chrono(), current.attempt);
        phase::again(phase_plan, current, at);
        let _ = context.reached(at);
        return;
    }
    let failure = Failure { message: format!("{}: {}", current.name, failure.message), ..failure };
    end(pass, Some(failure), &plan.rules, status, context);
}

/// Why the pass must stop now, if it must.
fn halt(pass: &Pass, status: &SoakRunStatus, context: &mut Context<'_>) -> Option<Failure> {
    if pass.section != Section::Cleanup
        && let Some(ending) = status.ending.as_ref()
    {
        return Some(Failure { reason: ending.reason.clone(), message: ending.message.clone(), ..Failure::default() });
    }
    // It stands still while the run is suspended, and is moved when that ends.
    (status.suspended_at.is_none() && context.reached(pass.deadline)).then(|| {
        let what = match pass.section {
            Section::Setup => "the setup",
            Section::Cycle => "the cycle",
            Section::Cleanup => "the cleanup",
        };
        let busy = pass.phases.last().map(phase::at_work).unwrap_or_default();
        let limit = crate::api::Duration::from_millis(
            u64::try_from((pass.deadline - pass.started_at).num_milliseconds()).unwrap_or(0),
        );
        Failure {
            reason: reason::TIMEOUT.into(),
            message: format!("{what} did not end within {limit}{busy}"),
            ..Failure::default()
        }
    })
}

fn end(pass: &mut Pass, failure: Option<Failure>, rules: &Rules, status: &SoakRunStatus, context: &mut Context<'_>) {
    let mut failure = failure.or_else(|| monitor::cycle_failure(pass, status, context.now));
    pass.finished_at = Some(context.now);
    pass.outcome = Some(match &failure {
        None => Outcome::Succeeded,
        failure if phase::is_inconclusive(failure.as_ref()) => Outcome::Inconclusive,
        Some(_) => Outcome::Failed,
    });
    rules.classify_new(failure.as_mut());
    if let Some(failure) = &failure {
        let what = match pass.section {
            Section::Setup => "Setup".to_owned(),
            Section::Cycle => format!("Cycle {}", pass.cycle),
            Section::Cleanup => "Cleanup".to_owned(),
        };
        context.note(
            NoteType::Warning,
            "PassFailed",
            format!("{what} did not pass: {}: {}", failure.reason, failure.message),
        );
    }
    pass.failure = failure;
}

/// Whether the record of the ended pass is stored; asks for that if it is not. Objects that were made for the cycle go first.
fn record(plan: &Plan, pass: &Pass, status: &mut SoakRunStatus, context: &mut Context<'_>) -> bool {
    let scopes: &[DeleteAfter] = match pass.section {
        Section::Cycle => &[DeleteAfter::Phase, DeleteAfter::Cycle],
        _ => &[DeleteAfter::Phase],
    };
    if !objects::release(scopes, status, context) {
        return false;
    }
    let about_this = context.seen.record_of == (pass.section, pass.cycle);
    match &context.seen.record {
        RecordSeen::Stored { .. } if about_this => return true,
        RecordSeen::Kept { .. } if about_this => {
            records::waits(pass, status);
            return true;
        }
        // A namespace that is going away takes no more records, and must not wait for one.
        RecordSeen::Failing { .. } if about_this && context.deleting() => return true,
        RecordSeen::Failing { message } if about_this => {
            let message = message.clone();
            if context.reached(pass.finished_at.unwrap_or(context.now) + RECORD_PATIENCE) {
                run::end_run(
                    status,
                    reason::INFRA_ERROR,
                    &format!("a record could not be stored for an hour: {message}"),
                    context,
                );
                return true;
            }
        }
        _ => {}
    }
    let failing = about_this && matches!(context.seen.record, RecordSeen::Failing { .. });
    let effect = records::storing(plan, failing, status);
    context.ask(effect);
    false
}
