//! The reconcile of a `FailureInjection`: observe, decide, write, perform, and again while that moves something.

mod cluster;
mod current;
mod effects;
mod memory;
mod write;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{SubsecRound, Utc};
use futures::{StreamExt, future};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config},
        reflector::{self, ObjectRef, Store},
    },
};
use tokio::sync::mpsc;
use tracing::{Instrument, info, info_span, warn};

use crate::{
    api::{FailureInjection, FailureInjectionStatus, names},
    engine::injection::{self, Health, InjectionDecision, InjectionPlan, InjectionSeen},
    faults::{self, InjectionIdentity},
};

use super::{
    Shell, conflict,
    reconcile::{self, ReconcileError},
};
use effects::Moved;
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
    let watched = super::watching::watch(api.clone()).reflect(writer);
    let changed = super::changes::changes(watched, "injections");
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
        .run(visit, after_error, Arc::new(context))
        // Errors of a reconcile are told by `after_error`, those of the watch by `changes`.
        .for_each(|_| future::ready(()))
        .await;
}

async fn visit(guarded: Arc<Guarded>, all: Arc<Injections>) -> Result<Action, ReconcileError> {
    let cached = match &guarded.0 {
        Ok(injection) => injection,
        Err(invalid) => return Ok(reconcile::unreadable(&all.shell, "injection", &invalid.metadata, &invalid.error)),
    };
    let metadata = &cached.metadata;
    let memory = all.memories.of(metadata.uid.as_deref().unwrap_or_default());
    let injection = memory.newest(cached);
    let span = info_span!("injection", namespace = metadata.namespace, injection = metadata.name);
    let visit = async {
        let visit = Visit { all: &all, memory: &memory, injection, confirmed: false };
        match visit.go().await {
            Err(ReconcileError::Conflict) => {
                conflict::look_again(&all.shell, metadata, |stored| Some(memory.conflicted(stored))).await
            }
            result => result,
        }
    };
    reconcile::guarded(&all.shell, Box::pin(visit.instrument(span))).await
}

#[expect(clippy::needless_pass_by_value, reason = "kube's signature")]
fn after_error(guarded: Arc<Guarded>, error: &ReconcileError, all: Arc<Injections>) -> Action {
    let metadata = guarded.meta();
    all.shell.metrics.reconcile_failed(error.class());
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
        self.all.shell.metrics.status_written(reconcile::outcome(&written));
        self.injection.metadata = written.map_err(reconcile::api_error)?;
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

/// The field manager of the operator's own writes.
const MANAGER: &str = names::OPERATOR_FIELD_MANAGER;
