//! The shell around the engine: it observes, asks for a decision, writes the status and performs what was asked for.

mod artifacts;
mod cached;
mod changes;
mod conflict;
mod definitions;
mod halt;
mod injection;
mod leader;
mod lock;
mod logs;
mod manifest;
mod memory;
mod monitors;
mod notes;
mod observe;
mod perform;
mod plans;
mod queue;
mod reconcile;
mod records;
mod redaction;
mod schedule;
mod series;
mod soakrun;
mod stores;
mod streams;
mod template;
mod uploads;
mod watching;
mod write;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, future, stream};
use kube::{
    Api, Client, Resource,
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config},
        reflector::{self, ObjectRef, Store},
    },
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    api::{FailureInjection, SoakRun, status::RunPhase},
    cluster::{Cluster, Woken, client::Account, recent::Recent, targets::Clusters},
    telemetry::{Health, Metrics},
};

use cached::CachedRun;
use changes::changes;

pub use leader::{LEASE, Leadership};

/// Readiness check: the caches of runs and pods are filled.
pub const CACHES: &str = "caches";
/// How often the gauges that count all runs are set.
const CENSUS: Duration = Duration::from_secs(5);

/// What an operator process is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name under which it writes events and holds the lease.
    pub instance: String,
    /// Reconciles at the same time.
    pub concurrency: u16,
    /// The only namespace whose runs it drives; none: all.
    pub namespace: Option<String>,
    /// The operator's own namespace, where the kill switch is.
    pub own_namespace: String,
    /// Requests of `http` steps may go to loopback and link-local addresses.
    pub allow_local_http: bool,
    /// What the administrator lets object stores be.
    pub stores: crate::results::StoreSettings,
    /// What the administrator decides about faults.
    pub faults: crate::faults::Settings,
}

/// What every reconcile shares.
pub(crate) struct Shell {
    client: Client,
    clusters: Clusters,
    waiting: lock::Waiting,
    plans: plans::Plans,
    /// Digests of specs that the server has accepted of an account.
    accepted: Recent<(String, Account)>,
    definitions: definitions::Definitions,
    stores: stores::Stores,
    memories: memory::Memories,
    notes: notes::Notes,
    queue: queue::Queue,
    metrics: Metrics,
    health: Health,
    wake: mpsc::UnboundedSender<ObjectRef<SoakRun>>,
    kubernetes_version: String,
    step_settings: crate::steps::Settings,
}

/// A running operator.
pub struct Operator {
    shell: Arc<Shell>,
    woken: mpsc::UnboundedReceiver<ObjectRef<SoakRun>>,
    woken_injections: mpsc::UnboundedReceiver<ObjectRef<FailureInjection>>,
    settings: Settings,
}

impl Operator {
    /// Connects everything. Must be called inside a tokio runtime.
    ///
    /// Errors: the API server does not tell its version.
    pub async fn start(client: Client, settings: Settings, metrics: Metrics, health: Health) -> kube::Result<Self> {
        let (wake, woken) = mpsc::unbounded_channel();
        let (wake_injection, woken_injections) = mpsc::unbounded_channel();
        let version = client.apiserver_version().await?;
        let for_cluster = wake.clone();
        let wake_run: crate::cluster::Wake = Arc::new(move |run| {
            // The receivers go only with the process.
            let _ = match run.what {
                Woken::Run => for_cluster.send(ObjectRef::new(&run.name).within(&run.namespace)).is_ok(),
                Woken::Injection => wake_injection.send(ObjectRef::new(&run.name).within(&run.namespace)).is_ok(),
            };
        });
        let restarts = metrics.clone();
        let restarted: crate::cluster::OnWatchFailure = Arc::new(move |kind, failure| {
            warn!(watch = kind, %failure, "a watch failed and is started again");
            restarts.watch_restarted(kind);
        });
        let own = Cluster::start(&client, settings.namespace.as_deref(), &wake_run, &restarted);
        let shell = Shell {
            clusters: Clusters::new(own, wake_run, restarted, settings.allow_local_http),
            waiting: lock::Waiting::default(),
            plans: plans::Plans::new(),
            accepted: Recent::default(),
            definitions: definitions::Definitions::new(),
            stores: stores::Stores::new(client.clone(), settings.stores.clone()),
            memories: memory::Memories::default(),
            notes: notes::Notes::start(client.clone(), settings.instance.clone()),
            queue: queue::Queue::new(metrics.clone()),
            kubernetes_version: version.git_version,
            client,
            metrics,
            health,
            wake,
            step_settings: crate::steps::Settings {
                http_local_addresses: settings.allow_local_http,
                helper_image: settings.faults.image.clone(),
            },
        };
        Ok(Self { shell: Arc::new(shell), woken, woken_injections, settings })
    }

    /// Reconciles until `shutdown` completes; reconciles that are under way then end first.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
        let Self { shell, woken, woken_injections, settings } = self;
        let shutdown = shutdown.shared();
        let client = shell.client.clone();
        let runs: Api<CachedRun> = match &settings.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let wakes = stream::unfold(woken, |mut woken| async { woken.recv().await.map(|run| (run, woken)) });
        let (queue_of_wakes, queue_of_changes) = (shell.clone(), shell.clone());
        let wakes = wakes
            .map(|run| ObjectRef::<CachedRun>::new(&run.name).within(run.namespace.as_deref().unwrap_or_default()))
            .inspect(move |run| queue_of_wakes.queue.joins(run.clone()));
        let specs = cached::Specs::default();
        let (store, writer) = reflector::store();
        let watched = watching::watch(runs).modify(move |run| specs.share(run)).reflect(writer);
        let (owned, woken_schedules) = schedule::Owned::new();
        let followed = owned.clone();
        let watched = watched.inspect_ok(move |event| followed.follow(event));
        let changed =
            changes(watched, "runs").inspect_ok(move |run| queue_of_changes.queue.joins(ObjectRef::from_obj(run)));
        let controller = Controller::for_stream(changed, store.clone())
            .with_config(Config::default().concurrency(settings.concurrency))
            .reconcile_on(wakes)
            .graceful_shutdown_on(shutdown.clone());
        let injections =
            injection::run(shell.clone(), shell.client.clone(), &settings, woken_injections, shutdown.clone());
        let schedules =
            schedule::run(shell.clone(), shell.client.clone(), &settings, owned, woken_schedules, shutdown.clone());
        let census = tokio::spawn(census(store, shell.clone()));
        let runs = controller
            .run(visit, after_error, shell)
            // Errors of a reconcile are told by `after_error`, those of the watch by `changes`.
            .for_each(|_| future::ready(()));
        futures::join!(runs, injections, schedules);
        census.abort();
        info!("all reconciles have ended");
    }
}

async fn visit(run: Arc<CachedRun>, shell: Arc<Shell>) -> Result<Action, reconcile::ReconcileError> {
    shell.queue.leaves(&ObjectRef::from_obj(&*run));
    soakrun::visit(run, shell).await
}

#[expect(clippy::needless_pass_by_value, reason = "kube's signature")]
fn after_error(run: Arc<CachedRun>, error: &reconcile::ReconcileError, shell: Arc<Shell>) -> Action {
    soakrun::after_error(&run, error, &shell)
}

/// Keeps what is told about all runs together: their number by phase, readiness, the pulse.
async fn census(store: Store<CachedRun>, shell: Arc<Shell>) {
    let mut ticks = tokio::time::interval(CENSUS);
    let mut known: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    let mut filled = false;
    loop {
        ticks.tick().await;
        shell.health.tick();
        filled = filled || futures::FutureExt::now_or_never(store.wait_until_ready()).is_some();
        shell.health.set_ready(CACHES, filled && shell.clusters.own().pods.synced());
        let mut counts: BTreeMap<&'static str, u64> = RunPhase::ALL.iter().map(|phase| (phase.as_str(), 0)).collect();
        let mut seen = BTreeMap::new();
        for run in store.state() {
            *counts.entry(run.phase().as_str()).or_default() += 1;
            let metadata = run.meta();
            seen.insert(metadata.uid.clone().unwrap_or_default(), (metadata.namespace.clone(), metadata.name.clone()));
        }
        shell.metrics.set_runs(&counts);
        shell.queue.keep(|run| store.get(run).is_some());
        if filled {
            for (uid, (namespace, name)) in &known {
                if !seen.contains_key(uid) {
                    shell.memories.forget(uid);
                    shell
                        .metrics
                        .forget_run(namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
                }
            }
            known = seen;
        }
    }
}
