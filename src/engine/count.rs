//! What a pass whose record is stored adds to the run: counters, distributions, the list of recent cycles.

use crate::{
    analysis::Sketch,
    api::status::{
        CycleSummary, MAX_METRICS, Metric, Outcome, OutputValue, Pass, RECENT_CYCLES, Section, SoakRunStatus, StepState,
    },
};

use super::{Context, Effect, NoteType, Plan, monitor, targets, text};

/// Takes the pass into account. Its record must have been seen stored.
pub(super) fn count(plan: &Plan, pass: Pass, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let outcome = pass.outcome.unwrap_or(Outcome::Inconclusive);
    monitor::retire(plan, pass.finished_at.unwrap_or(context.now), status, context);
    match pass.section {
        Section::Setup => {
            status.set_up = outcome == Outcome::Succeeded;
            if !status.set_up && status.ending.is_none() {
                let failure = pass.failure.unwrap_or_default();
                super::run::end_run(
                    status,
                    crate::api::names::reason::SETUP_FAILED,
                    &format!("the setup failed: {}: {}", failure.reason, failure.message),
                    context,
                );
            }
        }
        Section::Cleanup => {
            status.cleaned_up = true;
            status.cleanup_failure = pass.failure;
        }
        Section::Cycle => cycle(plan, &pass, outcome, status, context),
    }
}

fn cycle(plan: &Plan, pass: &Pass, outcome: Outcome, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let Some(digest) = context.seen.record.digest().map(str::to_owned) else { return };
    let counts = &mut status.cycles;
    counts.completed += 1;
    match outcome {
        Outcome::Succeeded => {
            counts.passed += 1;
            counts.consecutive_failures = 0;
        }
        Outcome::Failed => {
            counts.failed += 1;
            counts.consecutive_failures += 1;
            counts.transient_failures += u32::from(pass.failure.as_ref().is_some_and(|failure| failure.transient));
        }
        Outcome::Inconclusive => counts.inconclusive += 1,
    }
    let finished = pass.finished_at.unwrap_or(context.now);
    if status.recent.len() >= RECENT_CYCLES {
        status.recent.remove(0);
    }
    status.recent.push(CycleSummary {
        number: pass.cycle,
        outcome,
        reason: pass.failure.as_ref().map_or_else(String::new, |failure| {
            text::cut(&format!("{}: {}", failure.reason, failure.message), text::MESSAGE)
        }),
        started_at: pass.started_at,
        millis: (finished - pass.started_at).num_milliseconds().max(0),
        digest,
    });
    measure(pass, outcome, finished, status);
    targets::rotate(plan, outcome, status, context);
    keep(plan, pass.cycle, outcome, status, context);
    status.next_cycle_at = Some(finished + plan.cooldown.as_chrono());
    if outcome == Outcome::Succeeded {
        // Said in the same words each time, so that a long run's events are one series.
        context.note(NoteType::Normal, "CyclePassed", "A cycle passed and its record is stored");
    }
}

/// Adds durations of what succeeded and numeric outputs of every step that ended.
fn measure(pass: &Pass, outcome: Outcome, finished: chrono::DateTime<chrono::Utc>, status: &mut SoakRunStatus) {
    if outcome == Outcome::Succeeded {
        record(status, "cycle", seconds(finished - pass.started_at));
    }
    for phase in &pass.phases {
        if let (Some(Outcome::Succeeded), Some(finished)) = (phase.outcome, phase.finished_at) {
            record(status, &format!("phases.{}", phase.name), seconds(finished - phase.first_started_at));
        }
    }
    for step in pass
        .phases
        .iter()
        .flat_map(|phase| &phase.steps)
        .filter(|step| matches!(step.state, StepState::Succeeded | StepState::Failed))
    {
        for (name, value) in
            step.outputs.iter().filter_map(|(name, value)| OutputValue::as_number(value).map(|value| (name, value)))
        {
            record(status, &format!("steps.{}.outputs.{name}", step.name), value);
        }
    }
}

fn seconds(span: chrono::TimeDelta) -> f64 {
    span.as_seconds_f64().max(0.0)
}

fn record(status: &mut SoakRunStatus, name: &str, value: f64) {
    let metric = match status.metrics.iter_mut().position(|metric| metric.name == name) {
        Some(index) => &mut status.metrics[index],
        None if status.metrics.len() < MAX_METRICS => {
            status.metrics.push(Metric { name: text::cut(name, 160), sketch: Sketch::default().to_string() });
            let last = status.metrics.len() - 1;
            &mut status.metrics[last]
        }
        None => return,
    };
    // A sketch that somebody damaged begins anew; the record of each cycle still has the values.
    let mut sketch: Sketch = metric.sketch.parse().unwrap_or_default();
    sketch.record(value);
    metric.sketch = sketch.to_string();
}

/// Applies the retention to the list of kept records and asks for the deletion of what falls out. An object store keeps all.
fn keep(plan: &Plan, cycle: u32, outcome: Outcome, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    if plan.max_waiting.is_some() {
        return;
    }
    let (kept, limit) = match outcome {
        Outcome::Succeeded => (&mut status.records.passed, plan.retention.passed),
        Outcome::Failed | Outcome::Inconclusive => (&mut status.records.failed, plan.retention.failed),
    };
    kept.push(cycle);
    let excess = kept.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    let dropped: Vec<u32> = kept.drain(..excess).collect();
    if !dropped.is_empty() {
        context.ask(Effect::PruneRecords(dropped));
    }
}
