//! The reconcile of a `SoakRun`: observe, decide, write, perform, and again while that moves something.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{SubsecRound, Utc};
use futures::FutureExt;
use kube::{ResourceExt, runtime::controller::Action};
use tracing::{Instrument, info, info_span, warn};

use crate::{
    api::{SoakRun, status::SoakRunStatus},
    engine::{self, Effect},
    telemetry::{ErrorClass, StatusWrite},
};

use super::{Shell, memory::Memory, observe, perform, plans::Parsed, series, write};

/// Most rounds of deciding and performing before other runs have their turn.
const MAX_ROUNDS: usize = 64;
/// How long a round waits for what it began. What takes longer wakes the run when it is done.
const PATIENCE: Duration = Duration::from_millis(100);
/// A run is looked at this often though nothing woke it, so that a lost event costs time and nothing else (L4).
const RELIST: Duration = Duration::from_mins(5);

/// Why a reconcile did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Somebody wrote before; the new state is looked at next.
    #[error("the run was changed meanwhile; it is looked at again")]
    Conflict,
    /// The API server refused or did not answer.
    #[error("writing the run: {0}")]
    Api(#[source] kube::Error),
    /// A bug. Other runs go on.
    #[error("the reconcile panicked: {0}")]
    Panic(String),
}

/// Looks at a run. A panic is caught, counted and tried again like an error.
pub async fn reconcile(run: Arc<SoakRun>, shell: Arc<Shell>) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let status = run.status.as_ref();
    let position = status.and_then(|status| status.current.as_ref());
    let span = info_span!(
        "reconcile",
        namespace = run.namespace().unwrap_or_default(),
        run = run.name_any(),
        cycle = position.map_or(0, |pass| pass.cycle),
        phase = position.and_then(|pass| pass.phases.last()).map_or("", |phase| phase.name.as_str()),
    );
    shell.health.tick();
    let result = AssertUnwindSafe(visit(run, &shell)).catch_unwind().instrument(span).await;
    shell.metrics.observe_reconcile(began.elapsed());
    result.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(ReconcileError::Panic(text.unwrap_or_else(|| "without a message".into())))
    })
}

/// How long a run rests after an error: by itself, without delaying others.
pub fn after_error(run: &SoakRun, error: &ReconcileError, shell: &Shell) -> Action {
    let memory = shell.memories.of(&run.uid().unwrap_or_default());
    memory.doubt();
    let class = match error {
        ReconcileError::Conflict => ErrorClass::Conflict,
        ReconcileError::Api(_) => ErrorClass::Transient,
        ReconcileError::Panic(_) => ErrorClass::Panic,
    };
    shell.metrics.reconcile_failed(class);
    if matches!(error, ReconcileError::Conflict) {
        return Action::requeue(Duration::from_millis(50));
    }
    let pause = memory.error_pause();
    warn!(namespace = run.namespace(), run = run.name_any(), %error, pause_seconds = pause.as_secs_f64(), "reconcile failed");
    Action::requeue(pause)
}

async fn visit(run: Arc<SoakRun>, shell: &Arc<Shell>) -> Result<Action, ReconcileError> {
    let memory = shell.memories.of(&run.uid().unwrap_or_default());
    let mut run = memory.newest(run);
    for _ in 0..MAX_ROUNDS {
        let plan = shell.plans.get(&run);
        let seen = observe::observe(shell, &plan, &run, &memory);
        // The status keeps milliseconds: finer times would differ after being read back.
        let now = Utc::now().trunc_subsecs(3);
        let decision = engine::decide(plan.as_deref().map_err(|error| &**error), &run, &seen, now);
        if run.status.as_ref() != Some(&decision.status) && decision.status != SoakRunStatus::default() {
            run = store(shell, &plan, &run, &decision.status, &memory).await?;
        }
        let mut moved = false;
        if let Some(wanted) = finalizer(&decision.effects) {
            run = change_finalizer(shell, &run, wanted, &memory).await?;
            if run.metadata.deletion_timestamp.is_some() && !wanted {
                return Ok(forget(shell, &run));
            }
            moved = true;
        }
        moved |= perform::perform(shell, &plan, &run, &memory, decision.effects, PATIENCE).await;
        if !moved {
            return Ok(rest(shell, &run, &memory, decision.wake_at));
        }
    }
    Ok(Action::requeue(Duration::ZERO))
}

async fn store(
    shell: &Shell,
    plan: &Parsed,
    run: &SoakRun,
    status: &SoakRunStatus,
    memory: &Memory,
) -> Result<Arc<SoakRun>, ReconcileError> {
    let written = write::status(&shell.client, run, status).await;
    let outcome = match &written {
        Ok(_) => StatusWrite::Ok,
        Err(error) if is_conflict(error) => StatusWrite::Conflict,
        Err(_) => StatusWrite::Error,
    };
    shell.metrics.status_written(outcome);
    let stored = Arc::new(written.map_err(api_error)?);
    let before = run.status.clone().unwrap_or_default();
    if before.phase != status.phase {
        info!(
            from = before.phase.as_str(),
            to = status.phase.as_str(),
            reason = status.reason,
            detail = status.message,
            "phase changed"
        );
    }
    series::follow(&shell.metrics, plan, run, &before, status);
    memory.written(stored.clone());
    Ok(stored)
}

async fn change_finalizer(
    shell: &Shell,
    run: &SoakRun,
    wanted: bool,
    memory: &Memory,
) -> Result<Arc<SoakRun>, ReconcileError> {
    match write::finalizer(&shell.client, run, wanted).await {
        Ok(stored) => {
            let stored = Arc::new(stored);
            memory.written(stored.clone());
            Ok(stored)
        }
        // Gone is as good as released.
        Err(kube::Error::Api(status)) if status.code == 404 && !wanted => {
            let mut gone = run.clone();
            gone.metadata.finalizers = None;
            Ok(Arc::new(gone))
        }
        Err(error) => Err(api_error(error)),
    }
}

fn finalizer(effects: &[Effect]) -> Option<bool> {
    effects.iter().find_map(|effect| match effect {
        Effect::AddFinalizer => Some(true),
        Effect::RemoveFinalizer => Some(false),
        _ => None,
    })
}

fn rest(shell: &Shell, run: &SoakRun, memory: &Memory, wake_at: Option<chrono::DateTime<Utc>>) -> Action {
    let finished = run.status.as_ref().is_some_and(|status| status.phase.is_final());
    let by_time = wake_at.into_iter().chain(observe::gives_up_at(shell, run)).min();
    let by_time = by_time.map(|at| (at - Utc::now()).to_std().unwrap_or(Duration::from_millis(1)));
    let next = by_time.into_iter().chain(memory.next_try()).min();
    match next {
        None if finished => Action::await_change(),
        next => Action::requeue(next.map_or(RELIST, |next| next.min(RELIST))),
    }
}

/// Drops everything that is kept for a run that is gone.
pub fn forget(shell: &Shell, run: &SoakRun) -> Action {
    shell.memories.forget(&run.uid().unwrap_or_default());
    shell.metrics.forget_run(&run.namespace().unwrap_or_default(), &run.name_any());
    Action::await_change()
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn api_error(error: kube::Error) -> ReconcileError {
    if is_conflict(&error) { ReconcileError::Conflict } else { ReconcileError::Api(error) }
}
