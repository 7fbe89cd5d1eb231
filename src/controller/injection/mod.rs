//! The reconcile of a `FailureInjection`: observe, decide, write, perform, and again while that moves something.

mod cluster;
mod current;
mod memory;
mod write;

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{SubsecRound, Utc};
use futures::{FutureExt, StreamExt, future::join_all};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::DeleteParams,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config},
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::mpsc;
use tracing::{Instrument, info, info_span, warn};

use crate::{
    api::{
        FailureInjection, FailureInjectionStatus,
        failureinjection::EntryState,
        names::{self, reason},
    },
    cluster::Cluster,
    engine::{
        PlanError,
        injection::{self, EntrySeen, Found, Health, InjectionDecision, InjectionEffect, InjectionPlan, InjectionSeen},
    },
    faults::{self, FaultContext, HealthWatch, InjectionIdentity},
    telemetry::{ErrorClass, StatusWrite},
};

use super::{Shell, soakrun::ReconcileError};
use memory::{Memories, Memory};

/// Most rounds of deciding and performing before others have their turn.
const MAX_ROUNDS: usize = 16;
/// Injections that are looked at at the same time; each may wait for the API server.
const CONCURRENCY: u16 = 32;
/// A failed effect is tried again after this, doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Undoing must not wait long after what stood against it is gone (L2).
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a system is asked whether it is healthy, where no watch tells.
const LOOK: Duration = Duration::from_millis(500);
/// An active injection is looked at this often though nothing woke it (L4).
const RELIST: Duration = Duration::from_secs(30);

type Guarded = DeserializeGuard<FailureInjection>;

/// What every reconcile of an injection shares.
pub(super) struct Injections {
    shell: Arc<Shell>,
    settings: faults::Settings,
    memories: Memories,
    store: Store<Guarded>,
    /// Every injection that this operator is about, past the cache.
    api: Api<Guarded>,
    halt: super::halt::Halt,
}

/// Reconciles injections until `shutdown` completes.
pub(super) async fn run(
    shell: Arc<Shell>,
    client: Client,
    settings: &super::Settings,
    woken: mpsc::UnboundedReceiver<ObjectRef<FailureInjection>>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<Guarded> = match &settings.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (store, writer) = reflector::store();
    let watched = watcher(api.clone(), watcher::Config::default().streaming_lists().timeout(super::WATCH_SECONDS))
        .default_backoff()
        .reflect(writer);
    let changed = super::changes::changes(watched);
    let wakes = futures::stream::unfold(woken, |mut woken| async { woken.recv().await.map(|it| (it, woken)) })
        .map(|it| ObjectRef::<Guarded>::new(&it.name).within(it.namespace.as_deref().unwrap_or_default()));
    let (halted, halt) = super::halt::watch(client, &settings.own_namespace);
    let all = store.clone();
    // Everything is looked at when the switch is turned: what is active is undone at once.
    let on_halt = halted.flat_map(move |()| {
        let active: Vec<_> = all.state().iter().map(|it| ObjectRef::from_obj(&**it)).collect();
        futures::stream::iter(active)
    });
    let context = Injections {
        shell,
        settings: settings.faults.clone(),
        memories: Memories::default(),
        store: store.clone(),
        api,
        halt,
    };
    Controller::for_stream(changed, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(wakes)
        .reconcile_on(on_halt)
        .graceful_shutdown_on(shutdown)
        .run(reconcile, after_error, Arc::new(context))
        .for_each(|result| async move {
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
                warn!(%error, "the watch of injections failed and is started again");
            }
        })
        .await;
}

async fn reconcile(guarded: Arc<Guarded>, all: Arc<Injections>) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    all.shell.health.tick();
    let cached = match &guarded.0 {
        Ok(injection) => injection,
        Err(invalid) => {
            let metadata = &invalid.metadata;
            warn!(namespace = metadata.namespace, injection = metadata.name, error = %invalid.error, "an injection can't be read and is left alone until it changes");
            all.shell.metrics.reconcile_failed(ErrorClass::Terminal);
            return Ok(Action::await_change());
        }
    };
    let metadata = &cached.metadata;
    let memory = all.memories.of(metadata.uid.as_deref().unwrap_or_default());
    let injection = memory.newest(cached);
    let span = info_span!("injection", namespace = metadata.namespace, injection = metadata.name);
    let visit = Visit { all: &all, memory: &memory, injection, confirmed: false }.go();
    let result = AssertUnwindSafe(visit).catch_unwind().instrument(span).await;
    all.shell.metrics.observe_reconcile(began.elapsed());
    result.unwrap_or_else(|panic| Err(ReconcileError::from_panic(panic.as_ref())))
}

#[expect(clippy::needless_pass_by_value, reason = "kube's signature")]
fn after_error(guarded: Arc<Guarded>, error: &ReconcileError, all: Arc<Injections>) -> Action {
    let metadata = guarded.meta();
    all.shell.metrics.reconcile_failed(error.class());
    if matches!(error, ReconcileError::Conflict) {
        return Action::requeue(Duration::from_millis(50));
    }
    let pause = all.memories.of(metadata.uid.as_deref().unwrap_or_default()).pause();
    warn!(namespace = metadata.namespace, injection = metadata.name, %error, pause_seconds = pause.as_secs_f64(), "reconcile failed");
    Action::requeue(pause)
}

/// One visit.
struct Visit<'a> {
    all: &'a Injections,
    memory: &'a Arc<Memory>,
    injection: FailureInjection,
    /// Whether it is known to be what the server has.
    confirmed: bool,
}

impl Visit<'_> {
    async fn go(mut self) -> Result<Action, ReconcileError> {
        let mut known = InjectionSeen { halted: self.all.halt.reason(), ..InjectionSeen::default() };
        let seed = self.seed();
        let plan = InjectionPlan::parse(&self.injection.spec, &seed);
        self.let_go();
        for _ in 0..MAX_ROUNDS {
            let decided_at = Instant::now();
            // The status keeps milliseconds: finer times would differ after being read back.
            let now = Utc::now().trunc_subsecs(3);
            let InjectionDecision { status, effects, wake_at } =
                injection::decide(plan.as_ref(), &self.injection, &known, now);
            let moved = if crate::switches::without("journal-before-effect") {
                let stored = self.injection.status.replace(status);
                let moved = self.perform(&plan, &seed, effects, &mut known, decided_at).await?;
                let status = std::mem::replace(&mut self.injection.status, stored).unwrap_or_default();
                self.store(status).await?;
                moved
            } else {
                self.store(status).await?;
                self.perform(&plan, &seed, effects, &mut known, decided_at).await?
            };
            match moved {
                Moved::Yes => {}
                Moved::No => {
                    self.let_go();
                    return Ok(self.rest(wake_at, &known));
                }
                Moved::Gone => {
                    self.all.memories.forget(&self.injection.uid().unwrap_or_default());
                    return Ok(Action::await_change());
                }
            }
        }
        Ok(Action::requeue(Duration::ZERO))
    }

    fn seed(&self) -> String {
        self.injection.spec.seed.clone().or_else(|| self.injection.uid()).unwrap_or_default()
    }

    /// What is not journaled (any more) is not held.
    fn let_go(&self) {
        if self.status().journal.iter().all(|entry| entry.state.is_final()) {
            self.memory.release();
        }
    }

    fn status(&self) -> FailureInjectionStatus {
        self.injection.status.clone().unwrap_or_default()
    }

    /// Writes the status if it is another one than the server has.
    async fn store(&mut self, status: FailureInjectionStatus) -> Result<(), ReconcileError> {
        let before = self.status();
        if before == status {
            return Ok(());
        }
        let phase = (before.phase, status.phase);
        let journaled = before.journal.is_empty() && !status.journal.is_empty();
        self.injection.status = Some(status);
        let written = write::status(&self.all.shell.client, &self.injection).await;
        self.all.shell.metrics.status_written(match &written {
            Ok(_) => StatusWrite::Ok,
            Err(error) if super::soakrun::is_conflict(error) => StatusWrite::Conflict,
            Err(_) => StatusWrite::Error,
        });
        self.injection.metadata = written.map_err(super::soakrun::api_error)?;
        self.memory.written(self.injection.clone());
        self.confirmed = true;
        if journaled {
            self.memory.journaled();
        }
        if phase.0 != phase.1 {
            let status = self.injection.status.as_ref();
            let (reason, detail) = status.map_or(("", ""), |it| (it.reason.as_str(), it.message.as_str()));
            info!(from = phase.0.as_str(), to = phase.1.as_str(), reason, detail, "phase changed");
            let others = self.all.store.state().iter().filter(|it| self.is_another_active(it)).count();
            self.all.shell.metrics.set_active_injections(others + usize::from(phase.1.is_active()));
            if phase.1.is_final() {
                self.all.shell.metrics.injection_ended(phase.1.as_str());
            }
        }
        Ok(())
    }

    fn is_another_active(&self, cached: &Guarded) -> bool {
        let Ok(cached) = &cached.0 else { return false };
        let active = cached.status.as_ref().is_some_and(|status| status.phase.is_active());
        active && cached.metadata.uid != self.injection.metadata.uid
    }

    async fn perform(
        &mut self,
        plan: &Result<InjectionPlan, PlanError>,
        seed: &str,
        effects: Vec<InjectionEffect>,
        known: &mut InjectionSeen,
        decided_at: Instant,
    ) -> Result<Moved, ReconcileError> {
        let mut moved = Moved::No;
        let mut entries = Vec::new();
        for effect in effects {
            match effect {
                InjectionEffect::AddFinalizer => {
                    self.change_finalizer(true).await?;
                    moved = Moved::Yes;
                }
                InjectionEffect::RemoveFinalizer => {
                    self.change_finalizer(false).await?;
                    if self.injection.metadata.deletion_timestamp.is_some() {
                        return Ok(Moved::Gone);
                    }
                }
                InjectionEffect::Notify(note) => self.all.shell.notes.tell(self.injection.object_ref(&()), note),
                InjectionEffect::Delete => self.delete().await?,
                InjectionEffect::Find => {
                    if self.memory.rests("find") {
                        continue;
                    }
                    let found = self.find(plan, seed, decided_at).await;
                    self.memory.tried("find", matches!(found, Found::NotYet { .. } | Found::Nothing { .. }), None);
                    known.found = Some(found);
                    moved = Moved::Yes;
                }
                InjectionEffect::Look => {
                    let health = self.look(plan, seed, decided_at).await;
                    let news = health != known.health;
                    known.health = health;
                    if news {
                        moved = Moved::Yes;
                    }
                }
                InjectionEffect::Inject(index) => entries.push((index, true)),
                InjectionEffect::Revert(index) => entries.push((index, false)),
            }
        }
        if entries.iter().any(|(index, inject)| *inject && !self.memory.rests(&task(*index, true))) {
            self.confirm().await?;
            if let Some(why) = self.forestalled().await? {
                if self.memory.is_untried() {
                    self.memory.tried("find", true, None);
                    known.yields = Some(why);
                } else {
                    let broken = EntrySeen::Broken { reason: names::reason::CONFLICT.into(), message: why };
                    known.entries.extend(entries.into_iter().map(|(index, _)| (index, broken.clone())));
                }
                return Ok(Moved::Yes);
            }
        }
        if !entries.is_empty() && self.entries(plan, seed, entries, known, decided_at).await {
            moved = Moved::Yes;
        }
        Ok(moved)
    }

    /// Makes or undoes the faults of journal entries, side by side. True if something new is known.
    async fn entries(
        &self,
        plan: &Result<InjectionPlan, PlanError>,
        seed: &str,
        entries: Vec<(usize, bool)>,
        known: &mut InjectionSeen,
        decided_at: Instant,
    ) -> bool {
        let (identity, journal, deadline) = (self.identity(), self.status().journal, self.status().deadline);
        let undoes = entries.iter().any(|(_, inject)| !inject);
        let cluster = self.cluster(&identity, undoes);
        let lost = match &cluster {
            Err(message) => Some(self.without_cluster(&identity, plan, seed, message).await),
            Ok(_) => None,
        };
        let due = entries.into_iter().filter(|(index, inject)| !self.memory.rests(&task(*index, *inject)));
        let work = due.filter_map(|(index, inject)| journal.get(index).map(|entry| (index, inject, entry)));
        let done = join_all(work.map(|(index, inject, entry)| {
            let (identity, cluster, lost) = (&identity, cluster.as_ref().ok(), lost.clone());
            async move {
                let Some(cluster) = cluster else {
                    let failing = EntrySeen::Failing { message: String::new() };
                    return (index, inject, lost.unwrap_or(failing), None);
                };
                // What was seen there is certain; only what was merely planned may still come.
                let open_until = (entry.state == EntryState::Planned).then(|| self.memory.open_until(index));
                let context = FaultContext {
                    deadline: deadline.filter(|_| inject),
                    open_until,
                    ..self.context(identity, plan, seed, decided_at, cluster)
                };
                let outcome = if inject {
                    self.memory.opens(index);
                    let outcome = faults::inject(&context, entry).await;
                    if !matches!(outcome, EntrySeen::Failing { .. }) {
                        self.memory.closes(index);
                    }
                    outcome
                } else {
                    faults::revert(&context, entry).await
                };
                (index, inject, outcome, open_until.filter(|_| !inject))
            }
        }))
        .await;
        let mut news = false;
        for (index, inject, what, open_until) in done {
            self.memory.tried(&task(index, inject), matches!(what, EntrySeen::Failing { .. }), open_until);
            if let EntrySeen::Failing { message } = &what {
                info!(entry = index, message, "a fault is not there yet or not undone yet");
            }
            news |= known.entries.get(&index) != Some(&what);
            known.entries.insert(index, what);
        }
        news
    }

    /// What an effect without a journal entry is performed with.
    fn context<'a>(
        &'a self,
        identity: &'a InjectionIdentity,
        plan: &'a Result<InjectionPlan, PlanError>,
        seed: &'a str,
        decided_at: Instant,
        cluster: &'a Cluster,
    ) -> FaultContext<'a> {
        FaultContext {
            injection: identity,
            plan: plan.as_ref().ok(),
            seed,
            cluster,
            settings: &self.all.settings,
            decided_at,
            deadline: None,
            open_until: None,
        }
    }

    /// Finds out what would be hit, and takes hold of it.
    async fn find(&self, plan: &Result<InjectionPlan, PlanError>, seed: &str, decided_at: Instant) -> Found {
        let identity = self.identity();
        let cluster = match self.cluster(&identity, false) {
            Ok(cluster) => cluster,
            Err(message) => return Found::NotYet { reason: reason::TARGET_UNREACHABLE.into(), message },
        };
        let context = self.context(&identity, plan, seed, decided_at, &cluster);
        let found = faults::find(&context).await;
        let Found::Targets { journal, .. } = &found else { return found };
        if self.injection.spec.dry_run {
            return found;
        }
        self.all
            .memories
            .hold(
                &identity.uid,
                journal,
                self.all.settings.guard_rails.max_active,
                self.all.store.state().iter().filter_map(|it| it.0.as_ref().ok()),
            )
            .unwrap_or(found)
    }

    async fn look(&self, plan: &Result<InjectionPlan, PlanError>, seed: &str, decided_at: Instant) -> Health {
        let identity = self.identity();
        let cluster = match self.cluster(&identity, false) {
            Ok(cluster) => cluster,
            Err(message) => return Health::NotYet { message },
        };
        let context = self.context(&identity, plan, seed, decided_at, &cluster);
        let mut watch: HealthWatch = self.memory.take_health();
        let health = faults::health(&context, &mut watch).await;
        self.memory.keep_health(watch);
        health
    }

    async fn change_finalizer(&mut self, wanted: bool) -> Result<(), ReconcileError> {
        match write::finalizer(&self.all.shell.client, &self.injection, wanted).await {
            Ok(metadata) => {
                self.injection.metadata = metadata;
                self.memory.written(self.injection.clone());
            }
            // Gone is as good as released.
            Err(kube::Error::Api(status)) if status.code == 404 && !wanted => {
                self.injection.metadata.finalizers = None;
            }
            Err(error) => return Err(super::soakrun::api_error(error)),
        }
        Ok(())
    }

    /// Deletes an injection whose time to live is over.
    ///
    /// Errors: it may still be there, and nothing but another try will tell.
    async fn delete(&self) -> Result<(), ReconcileError> {
        let namespace = self.injection.namespace().unwrap_or_default();
        let api: Api<FailureInjection> = Api::namespaced(self.all.shell.client.clone(), &namespace);
        let parameters = DeleteParams {
            preconditions: Some(kube::api::Preconditions { uid: self.injection.uid(), resource_version: None }),
            ..DeleteParams::background()
        };
        match api.delete(&self.injection.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(error) => Err(super::soakrun::api_error(error)),
        }
    }

    fn identity(&self) -> InjectionIdentity {
        InjectionIdentity {
            name: self.injection.name_any(),
            namespace: self.injection.namespace().unwrap_or_default(),
            uid: self.injection.uid().unwrap_or_default(),
            service_account: self.injection.spec.service_account_name.clone(),
        }
    }

    /// When it is looked at again.
    fn rest(&self, wake_at: Option<chrono::DateTime<Utc>>, known: &InjectionSeen) -> Action {
        let finished = self.status().phase.is_final();
        if finished {
            // An ended injection needs nothing that is remembered.
            self.all.memories.forget(&self.injection.uid().unwrap_or_default());
        }
        let by_time = wake_at.map(|at| (at - Utc::now()).to_std().unwrap_or(Duration::from_millis(1)));
        let by_health = matches!(known.health, Health::NotYet { .. }).then_some(LOOK);
        match by_time.into_iter().chain(self.memory.next_try()).chain(by_health).min() {
            None if finished => Action::await_change(),
            next => Action::requeue(next.map_or(RELIST, |next| next.min(RELIST))),
        }
    }
}

/// Whether performing has moved something.
enum Moved {
    Yes,
    No,
    /// The injection is gone.
    Gone,
}

fn task(index: usize, inject: bool) -> String {
    format!("{} {index}", if inject { "inject" } else { "revert" })
}

/// The field manager of the operator's own writes.
const MANAGER: &str = names::OPERATOR_FIELD_MANAGER;
