//! The reconcile of a `SoakRun`: observe, decide, write, perform, and again while that moves something.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{SubsecRound, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt, runtime::controller::Action};
use tracing::{Instrument, info, info_span, warn};

use crate::{
    api::{SoakRun, status::SoakRunStatus},
    engine::{self, Decision, Effect, Note},
};

use super::{
    Shell, artifacts,
    cached::CachedRun,
    conflict,
    memory::Memory,
    observe, perform,
    plans::Parsed,
    reconcile::{self, ReconcileError, api_error, outcome},
    series, streams,
    template::{self, Unresolved},
    write,
};

/// Most rounds of deciding and performing before other runs have their turn.
const MAX_ROUNDS: usize = 64;
/// What is validated within this time needs no status that says so.
const SOON: Duration = Duration::from_secs(3);
/// A run is looked at this often though nothing woke it, so that a lost event costs time and nothing else (L4).
const RELIST: Duration = Duration::from_mins(5);

/// Looks at a run.
pub async fn visit(cached: Arc<CachedRun>, shell: Arc<Shell>) -> Result<Action, ReconcileError> {
    let metadata = cached.meta();
    let memory = shell.memories.of(metadata.uid.as_deref().unwrap_or_default());
    let result = reconcile::guarded(&shell, look(&cached, &memory, &shell)).await;
    memory.rest(metadata);
    result
}

async fn look(cached: &CachedRun, memory: &Arc<Memory>, shell: &Arc<Shell>) -> Result<Action, ReconcileError> {
    let metadata = cached.meta();
    let run = match memory.newest(metadata) {
        Some(run) => run,
        None => match cached.read() {
            Ok(run) => Arc::new(run),
            Err(error) => return Ok(reconcile::unreadable(shell, "run", metadata, &error)),
        },
    };
    let position = run.status.as_ref().and_then(|status| status.current.as_ref());
    let span = info_span!(
        "reconcile",
        namespace = metadata.namespace,
        run = metadata.name,
        cycle = position.map_or(0, |pass| pass.cycle),
        phase = position.and_then(|pass| pass.phases.last()).map_or("", |phase| phase.name.as_str()),
    );
    let visit = async {
        let (run, plan) = match template::resolve(shell, run.clone(), memory, || cached.emptied()).await {
            Ok(run) => (run.clone(), shell.plans.get(&run)),
            Err(Unresolved::Wrong(error)) => (run, Err(Arc::new(error))),
            Err(Unresolved::NotYet) => return Ok(Action::requeue(template::AGAIN)),
            Err(Unresolved::Api(error)) => return Err(api_error(error)),
            Err(Unresolved::Store(error)) => return Err(ReconcileError::Store(error)),
        };
        let visit = Visit { shell, plan, memory, run, stored: None, as_of: None, notes: Vec::new() };
        match visit.go().await {
            Err(ReconcileError::Conflict) => {
                let take_in = |stored: CachedRun| Some(memory.conflicted(stored.read().ok()?));
                conflict::look_again(shell, metadata, take_in).await
            }
            result => result,
        }
    };
    visit.instrument(span).await
}

/// How long a run rests after an error: by itself, without delaying others.
pub fn after_error(cached: &CachedRun, error: &ReconcileError, shell: &Shell) -> Action {
    let metadata = cached.meta();
    let memory = shell.memories.of(metadata.uid.as_deref().unwrap_or_default());
    memory.doubt();
    shell.metrics.reconcile_failed(error.class());
    let pause = memory.error_pause();
    warn!(namespace = metadata.namespace, run = metadata.name, %error, pause_seconds = pause.as_secs_f64(), "reconcile failed");
    Action::requeue(pause)
}

/// One visit. Several decisions may come before one write: what only looks needs no stored intent.
struct Visit<'a> {
    shell: &'a Arc<Shell>,
    plan: Parsed,
    memory: &'a Arc<Memory>,
    /// The run as it was decided.
    run: Arc<SoakRun>,
    /// The status that the server has, where another one was decided since.
    stored: Option<SoakRunStatus>,
    /// When the run was certainly what the server had: when the last write of this visit was sent.
    as_of: Option<Instant>,
    /// To be told once that status is stored.
    notes: Vec<Note>,
}

impl Visit<'_> {
    async fn go(mut self) -> Result<Action, ReconcileError> {
        for _ in 0..MAX_ROUNDS {
            let seen = observe::observe(self.shell, &self.plan, &self.run, self.memory);
            let clusters = self.memory.connections().clusters(&self.shell.clusters);
            streams::follow(self.memory.streams(), self.shell, &self.run, &clusters);
            artifacts::follow(self.memory.artifacts(), self.shell, &self.run, &clusters, false);
            // The status keeps milliseconds: finer times would differ after being read back.
            let now = Utc::now().trunc_subsecs(3);
            let plan = self.plan.as_deref().map_err(|error| &**error);
            let Decision { status, effects, wake_at } = engine::decide(plan, &self.run, &seen, now);
            let finalizer = finalizer(&effects);
            let (notes, effects): (Vec<_>, Vec<_>) =
                effects.into_iter().partition(|effect| matches!(effect, Effect::Notify(_)));
            self.notes.extend(notes.into_iter().filter_map(|effect| match effect {
                Effect::Notify(note) => Some(note),
                _ => None,
            }));
            self.take(status);
            if finalizer.is_some() || !effects.iter().all(|effect| self.only_looks(effect)) {
                self.store().await?;
            }
            if effects.iter().any(|effect| matches!(effect, Effect::Begin(_)) && !self.only_looks(effect)) {
                self.renew().await?;
            }
            let mut moved = false;
            if let Some(wanted) = finalizer {
                self.change_finalizer(wanted).await?;
                if self.run.metadata.deletion_timestamp.is_some() && !wanted {
                    return Ok(forget(self.shell, &self.run));
                }
                moved = true;
            }
            moved |= perform::perform(self.shell, &self.plan, &self.run, self.as_of, self.memory, effects).await;
            if !moved {
                if self.is_unwritten() && self.memory.is_validating(SOON) {
                    return Ok(Action::requeue(SOON));
                }
                self.store().await?;
                return Ok(rest(self.shell, &self.run, self.memory, wake_at));
            }
        }
        self.store().await?;
        Ok(Action::requeue(Duration::ZERO))
    }

    /// Whether the server has no status of the run yet.
    fn is_unwritten(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| *stored == SoakRunStatus::default())
    }

    /// Takes a decided status on.
    fn take(&mut self, status: SoakRunStatus) {
        if self.run.status.as_ref() == Some(&status) || status == SoakRunStatus::default() {
            return;
        }
        let before = Arc::make_mut(&mut self.run).status.replace(status);
        self.stored.get_or_insert_with(|| before.unwrap_or_default());
    }

    /// Whether an effect leaves no trace in the cluster. After a crash it is asked for again, whatever the status says.
    fn only_looks(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Observe(_) => true,
            // Of a further attempt the end of the one before is replaced first, for whoever waits for it.
            Effect::Validate => self.run.status.as_ref().is_some_and(|status| status.attempt <= 1),
            Effect::Begin(key) => self.plan.as_ref().is_ok_and(|plan| perform::begins_by_looking(plan, key)),
            _ => false,
        }
    }

    /// Makes sure that the stored intents are those of this visit, however long ago they were written: what can be done twice is
    /// begun again by an unchanged status after a crash, or after a call that failed. The server compares versions though
    /// nothing changes.
    async fn renew(&mut self) -> Result<(), ReconcileError> {
        if perform::is_recent(self.as_of) { Ok(()) } else { self.write().await }
    }

    async fn write(&mut self) -> Result<(), ReconcileError> {
        let asked = Instant::now();
        let written = write::status(&self.shell.client, &self.run).await;
        self.shell.metrics.status_written(outcome(&written));
        self.written(written.map_err(api_error)?, asked);
        Ok(())
    }

    /// Writes the status if another one was decided than the server has, and tells the notes.
    async fn store(&mut self) -> Result<(), ReconcileError> {
        if let Some(before) = self.stored.take() {
            self.write().await?;
            let after = self.run.status.as_ref().unwrap_or(&before);
            if before.phase != after.phase {
                info!(
                    from = before.phase.as_str(),
                    to = after.phase.as_str(),
                    reason = after.reason,
                    detail = after.message,
                    "phase changed"
                );
            }
            series::follow(&self.shell.metrics, &self.plan, &self.run, &before, after);
        }
        for note in self.notes.drain(..) {
            self.shell.notes.tell(self.run.object_ref(&()), note);
        }
        Ok(())
    }

    async fn change_finalizer(&mut self, wanted: bool) -> Result<(), ReconcileError> {
        let asked = Instant::now();
        match write::finalizer(&self.shell.client, &self.run, wanted).await {
            Ok(metadata) => self.written(metadata, asked),
            // Gone is as good as released.
            Err(kube::Error::Api(status)) if status.code == 404 && !wanted => {
                Arc::make_mut(&mut self.run).metadata.finalizers = None;
            }
            Err(error) => return Err(api_error(error)),
        }
        Ok(())
    }

    /// The server holds the run as it is here, at a new version: any other change would have been a conflict.
    fn written(&mut self, metadata: ObjectMeta, asked: Instant) {
        Arc::make_mut(&mut self.run).metadata = metadata;
        self.as_of = Some(asked);
        self.memory.written(self.run.clone());
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
    let by_time = wake_at.into_iter().chain(observe::gives_up_at(shell, memory, run)).min();
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
