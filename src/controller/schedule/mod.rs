//! The reconcile of a `SoakSchedule`: observe, decide, write, perform, and again while that moves something.

mod effects;
mod memory;
mod owned;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound, Utc};
use futures::{StreamExt, TryStreamExt, future};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::PostParams,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config},
        reflector,
        watcher::Event,
    },
};
use tokio::sync::mpsc;
use tracing::{Instrument, info_span, warn};

use crate::{
    api::{SoakSchedule, SoakScheduleStatus, names},
    engine::schedule::{self, RunSeen, ScheduleDecision, ScheduleSeen},
    telemetry::ScheduleState,
};

use super::{
    Shell,
    cached::CachedRun,
    reconcile::{self, ReconcileError},
};
use memory::{Memories, Memory, Task};

pub(super) use owned::{Owned, Woken};

/// Most rounds of deciding and performing before others have their turn.
const MAX_ROUNDS: usize = 16;
/// Schedules that are looked at at the same time.
const CONCURRENCY: u16 = 8;
/// A schedule is looked at this often though nothing woke it (L4).
const RELIST: Duration = Duration::from_mins(5);
/// Pause before another look while the watch of runs has not told of all of them.
const INCOMPLETE: Duration = Duration::from_millis(100);

type Guarded = DeserializeGuard<SoakSchedule>;

/// What every reconcile of a schedule shares.
struct Schedules {
    shell: Arc<Shell>,
    owned: Owned,
    memories: Arc<Memories>,
}

/// Reconciles schedules until `shutdown` completes.
pub(super) async fn run(
    shell: Arc<Shell>,
    client: Client,
    settings: &super::Settings,
    owned: Owned,
    woken: mpsc::UnboundedReceiver<Woken>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<Guarded> = match &settings.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let memories = Arc::new(Memories::default());
    let (store, writer) = reflector::store::<Guarded>();
    let (known, forgetful, metrics) = (store.clone(), memories.clone(), shell.metrics.clone());
    let watched = super::watching::watch(api).reflect(writer).inspect_ok(move |event| {
        if matches!(event, Event::Delete(_) | Event::InitDone) {
            let schedules = known.state();
            forgetful.keep(|uid| schedules.iter().any(|it| it.meta().uid.as_deref() == Some(uid)));
            metrics.keep_schedules(|namespace, name| {
                let is = |it: &Guarded| {
                    (it.meta().namespace.as_deref(), it.meta().name.as_deref()) == (Some(namespace), Some(name))
                };
                schedules.iter().any(|it| is(it))
            });
        }
    });
    let wakes = futures::stream::unfold(woken, |mut woken| async { woken.recv().await.map(|it| (it, woken)) });
    Controller::for_stream(super::changes::changes(watched, "schedules"), store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(wakes)
        .graceful_shutdown_on(shutdown)
        .run(visit, after_error, Arc::new(Schedules { shell, owned, memories }))
        // Errors of a reconcile are told by `after_error`, those of the watch by `changes`.
        .for_each(|_| future::ready(()))
        .await;
}

async fn visit(guarded: Arc<Guarded>, all: Arc<Schedules>) -> Result<Action, ReconcileError> {
    let schedule = match &guarded.0 {
        Ok(schedule) => schedule.clone(),
        Err(invalid) => return Ok(reconcile::unreadable(&all.shell, "schedule", &invalid.metadata, &invalid.error)),
    };
    let memory = all.memories.of(&schedule.uid().unwrap_or_default());
    let span = info_span!("schedule", namespace = schedule.metadata.namespace, schedule = schedule.metadata.name);
    let visit = Visit { all: &all, memory: &memory, schedule, found: Vec::new(), accepted: false, written: None }.go();
    reconcile::guarded(&all.shell, visit.instrument(span)).await
}

#[expect(clippy::needless_pass_by_value, reason = "kube's signature")]
fn after_error(guarded: Arc<Guarded>, error: &ReconcileError, all: Arc<Schedules>) -> Action {
    let metadata = guarded.meta();
    all.shell.metrics.reconcile_failed(error.class());
    let (_, pause) = all.memories.of(metadata.uid.as_deref().unwrap_or_default()).failed(Task::Visit, None);
    // Somebody else's write is no failure; the watch tells of it.
    if !matches!(error, ReconcileError::Conflict) {
        warn!(namespace = metadata.namespace, schedule = metadata.name, %error, pause_seconds = pause.as_secs_f64(), "reconcile failed");
    }
    Action::requeue(pause)
}

/// One visit.
struct Visit<'a> {
    all: &'a Schedules,
    memory: &'a Arc<Memory>,
    schedule: SoakSchedule,
    /// Runs that the server has told of and that the watch has not, with the version of each.
    found: Vec<(RunSeen, String)>,
    /// The server has accepted the run template as it is.
    accepted: bool,
    /// When the status was sent last.
    written: Option<Instant>,
}

impl Visit<'_> {
    async fn go(mut self) -> Result<Action, ReconcileError> {
        if self.schedule.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        if !self.all.owned.is_complete() {
            return Ok(Action::requeue(INCOMPLETE));
        }
        self.look_for_missing().await?;
        for _ in 0..MAX_ROUNDS {
            let seen = self.seen();
            // The status keeps milliseconds: finer times would differ after being read back.
            let now = Utc::now().trunc_subsecs(3);
            let ScheduleDecision { status, effects, wake_at } = schedule::decide(&self.schedule, &seen, now);
            self.store(status).await?;
            self.memory.keep(&effects::tasks(&effects));
            self.measure();
            if !self.perform(effects, &seen).await? {
                self.memory.done(&Task::Visit);
                let by_time = wake_at.map(|at| (at - Utc::now()).to_std().unwrap_or(Duration::from_millis(1)));
                let next = by_time.into_iter().chain(self.memory.next_try()).min();
                return Ok(Action::requeue(next.map_or(RELIST, |next| next.min(RELIST))));
            }
        }
        Ok(Action::requeue(Duration::ZERO))
    }

    fn measure(&self) {
        let Some(status) = &self.schedule.status else { return };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far from the limits of a double")]
        let seconds = |at: DateTime<Utc>| at.timestamp_millis() as f64 / 1_000.0;
        let state = ScheduleState {
            last_schedule: status.last_schedule_time.map(seconds),
            last_success: status.last_successful_time.map(seconds),
            next_schedule: status.next_schedule_time.map(seconds),
            active: status.active_runs,
            consecutive_failures: status.consecutive_failures,
        };
        let namespace = self.schedule.namespace().unwrap_or_default();
        self.all.shell.metrics.set_schedule(&namespace, &self.schedule.name_any(), state);
    }

    fn status(&self) -> SoakScheduleStatus {
        self.schedule.status.clone().unwrap_or_default()
    }

    /// The runs that the watch has told of, or that were found past it.
    fn runs(&self) -> Vec<(RunSeen, String)> {
        let mut runs = self.all.owned.of(&self.schedule.uid().unwrap_or_default());
        for found in &self.found {
            if !runs.iter().any(|(run, _)| run.uid == found.0.uid) {
                runs.push(found.clone());
            }
        }
        runs
    }

    fn seen(&self) -> ScheduleSeen {
        ScheduleSeen {
            runs: self.runs().into_iter().map(|(run, _)| run).collect(),
            trial: if self.accepted { Some(Ok(())) } else { self.memory.problem(&Task::Try).map(Err) },
            refused: self.memory.problem(&Task::Create),
            upkeep: self.memory.upkeep(),
        }
    }

    /// Asks the server for runs that the status names and the watch does not: one that was just made may not have reached it.
    async fn look_for_missing(&mut self) -> Result<(), ReconcileError> {
        let status = self.status();
        let known = self.runs();
        let named = status.active.iter().map(|run| &run.name).chain(status.starting.iter().map(|run| &run.name));
        for name in named.filter(|name| !known.iter().any(|(run, _)| run.name == **name)) {
            if let Some(run) = self.ask_for(name).await? {
                self.found.extend(self.ours(&run));
            }
        }
        Ok(())
    }

    async fn ask_for(&self, name: &str) -> Result<Option<CachedRun>, ReconcileError> {
        let namespace = self.schedule.namespace().unwrap_or_default();
        let runs: Api<CachedRun> = Api::namespaced(self.all.shell.client.clone(), &namespace);
        runs.get_opt(name).await.map_err(reconcile::api_error)
    }

    /// A run, if it is one of this schedule.
    fn ours(&self, run: &CachedRun) -> Option<(RunSeen, String)> {
        run.schedule().filter(|(_, uid)| self.schedule.uid().as_deref() == Some(*uid))?;
        Some((run.seen()?, run.meta().resource_version.clone().unwrap_or_default()))
    }

    /// Writes the status if it is another one than the server has.
    async fn store(&mut self, status: SoakScheduleStatus) -> Result<(), ReconcileError> {
        if self.schedule.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.schedule.status = Some(status);
        self.write().await
    }

    /// Replaces the status by the one of this visit.
    ///
    /// Errors: a conflict when the schedule has another resourceVersion by now; nothing is written then.
    async fn write(&mut self) -> Result<(), ReconcileError> {
        let asked = Instant::now();
        let namespace = self.schedule.namespace().unwrap_or_default();
        let api: Api<SoakSchedule> = Api::namespaced(self.all.shell.client.clone(), &namespace);
        let parameters =
            PostParams { field_manager: Some(names::OPERATOR_FIELD_MANAGER.into()), ..PostParams::default() };
        let written = api.replace_status(&self.schedule.name_any(), &parameters, &self.schedule).await;
        self.all.shell.metrics.status_written(reconcile::outcome(&written));
        match written {
            Ok(stored) => self.schedule.metadata = stored.metadata,
            // It was deleted meanwhile: nothing is made for it any more.
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(ReconcileError::Conflict),
            Err(error) => return Err(reconcile::api_error(error)),
        }
        self.written = Some(asked);
        Ok(())
    }
}
