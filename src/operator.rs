//! The composition root: options, connections, servers, and the way out.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use serde_json::json;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinError,
};
use tracing::{error, info};

use crate::{
    cluster::client,
    controller::{CACHES, Leadership, Operator, Settings},
    engine::expr::aside,
    faults::{GuardRails, HelperSettings},
    helper, request,
    results::{StoreGuard, StoreSettings},
    telemetry::{self, Health, LogFormat, Metrics},
};

/// Without a turn of the main loop for so long, the liveness probe fails.
const MAX_SILENCE: Duration = Duration::from_mins(1);
/// How long one call to an object store may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long reconciles that are under way may take to end after a signal.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(4);

/// Drives soak runs through Kubernetes custom resources.
#[derive(Clone, Debug, Parser)]
#[command(name = "soak-operator", version)]
pub struct Options {
    /// Where metrics and probes are served.
    #[arg(long, env = "SOAK_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    metrics_address: SocketAddr,
    /// Work only while holding the lease `soak-operator` in the operator's namespace.
    #[arg(long, env = "SOAK_LEADER_ELECT", default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// The operator's own namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Drive only the runs of this namespace.
    #[arg(long, env = "SOAK_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// The name of this replica; the lease and events carry it.
    #[arg(long, env = "POD_NAME")]
    instance: Option<String>,
    /// Form of the log lines.
    #[arg(long, env = "SOAK_LOG_FORMAT", default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    /// Which log lines are written, as in `RUST_LOG`.
    #[arg(long, env = "RUST_LOG", default_value = "info,kube_lease_manager=warn")]
    log_level: String,
    /// How many runs are looked at at the same time.
    #[arg(long, env = "SOAK_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Threads that drive all runs (default: as many as there are cores). Whatever may take long has threads of its own.
    #[arg(long, env = "SOAK_WORKER_THREADS", value_parser = clap::value_parser!(u16).range(1..=64))]
    worker_threads: Option<u16>,
    /// Let `http` steps reach loopback and link-local addresses; meant for tests on one machine.
    #[arg(long, env = "SOAK_ALLOW_LOCAL_HTTP", default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    allow_local_http: bool,
    #[command(flatten)]
    stores: StoreOptions,
    #[command(flatten)]
    guard_rails: GuardRailOptions,
    #[command(flatten)]
    helpers: HelperOptions,
    /// Print the files that are made from the code, a JSON object a line with `path` and `content`, and end.
    #[arg(long, hide = true)]
    print_generated: bool,
    /// Be another program of this binary instead of the operator.
    #[command(subcommand)]
    command: Option<helper::Command>,
}

/// What object stores of results may be.
#[derive(Clone, Debug, clap::Args)]
struct StoreOptions {
    /// The folder that the `file:` urls of specs are below; absent: there are no such stores.
    #[arg(long, env = "SOAK_STORE_VOLUME")]
    store_volume: Option<PathBuf>,
    /// Urls of stores that every spec may use with the operator's own identity, with all below them; separated by commas.
    #[arg(long, env = "SOAK_STORE_IDENTITY", default_value = "", value_delimiter = ',')]
    store_identity: Vec<String>,
}

impl StoreOptions {
    fn settings(self, local_addresses: bool) -> Result<StoreSettings, StartError> {
        let client = request::bounded_client(STORE_TIMEOUT, local_addresses).map_err(StartError::Http)?;
        let refuses: fn(IpAddr) -> bool = if local_addresses { |_| false } else { request::is_local };
        Ok(StoreSettings {
            volume: self.store_volume.filter(|volume| !volume.as_os_str().is_empty()),
            identity: self.store_identity.into_iter().filter(|url| !url.is_empty()).collect(),
            guard: Some(StoreGuard { client, refuses }),
        })
    }
}

/// The label by which a namespace agrees to injections, if it has to.
#[derive(Clone, Debug)]
struct OptIn(Option<(String, String)>);

/// A label that is misspelt must not open every namespace.
fn parse_label(text: &str) -> Result<OptIn, String> {
    if text.is_empty() {
        return Ok(OptIn(None));
    }
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("write it as KEY=VALUE")?;
    Ok(OptIn(Some((key.to_owned(), value.to_owned()))))
}

/// What failure injections may touch.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "the names are those of the options")]
struct GuardRailOptions {
    /// The label, as KEY=VALUE, that a namespace must have before anything in it is touched; empty: none is needed.
    #[arg(long, env = "SOAK_INJECTION_OPT_IN", default_value = "soak.dev/injection=allowed", value_parser = parse_label)]
    injection_opt_in: OptIn,
    /// Namespaces in which nothing is ever touched, beside the operator's own; separated by commas.
    #[arg(long, env = "SOAK_INJECTION_PROTECTED", default_value = "kube-system", value_delimiter = ',')]
    injection_protected: Vec<String>,
    /// Let injections touch objects outside of namespaces, such as nodes.
    #[arg(long, env = "SOAK_INJECTION_CLUSTER_SCOPED", default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    injection_cluster_scoped: bool,
    /// Most objects that one injection may hit.
    #[arg(long, env = "SOAK_INJECTION_MAX_TARGETS", default_value_t = 16)]
    injection_max_targets: usize,
    /// Most of the objects that fit an injection's target that it may hit, in percent.
    #[arg(long, env = "SOAK_INJECTION_MAX_PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    injection_max_percent: u8,
    /// Most injections that may be active at the same time.
    #[arg(long, env = "SOAK_INJECTION_MAX_ACTIVE", default_value_t = 16)]
    injection_max_active: usize,
}

impl GuardRailOptions {
    /// The guard rails of an operator in that namespace.
    fn rails(self, own_namespace: &str) -> GuardRails {
        let Self {
            injection_opt_in,
            injection_protected,
            injection_cluster_scoped,
            injection_max_targets,
            injection_max_percent,
            injection_max_active,
        } = self;
        let mut protected: BTreeSet<String> = injection_protected.into_iter().filter(|it| !it.is_empty()).collect();
        protected.insert(own_namespace.to_owned());
        GuardRails {
            opt_in: injection_opt_in.0,
            protected,
            cluster_scoped: injection_cluster_scoped,
            max_targets: injection_max_targets,
            max_percent: usize::from(injection_max_percent),
            max_active: injection_max_active,
        }
    }
}

/// Programs of the operator's own image that failure injections and steps run.
#[derive(Clone, Debug, clap::Args)]
struct HelperOptions {
    /// The operator's own image, for faults that use up resources or act on nodes, and for steps' artifacts; empty: there are none of these.
    #[arg(long, env = "SOAK_HELPER_IMAGE", default_value = "")]
    helper_image: String,
    /// The namespace of helpers on nodes. Its Pod Security must allow privileged pods. Empty: there are no such helpers.
    #[arg(long, env = "SOAK_NODE_HELPER_NAMESPACE", default_value = "")]
    node_helper_namespace: String,
    /// The service account in that namespace as which the helpers' pods are made; empty: there are no such helpers.
    #[arg(long, env = "SOAK_NODE_HELPER_SERVICE_ACCOUNT", default_value = "")]
    node_helper_service_account: String,
    /// Whether the cluster's network enforces NetworkPolicies (default: it is found out by what is installed).
    #[arg(long, env = "SOAK_NETWORK_POLICY_ENFORCED", num_args = 1, action = clap::ArgAction::Set)]
    network_policy_enforced: Option<bool>,
}

impl HelperOptions {
    fn image(&self) -> Option<String> {
        (!self.helper_image.is_empty()).then(|| self.helper_image.clone())
    }

    /// Where helpers run, if the administrator turned them on.
    fn node_helpers(&self) -> Option<HelperSettings> {
        let (namespace, service_account) = (&self.node_helper_namespace, &self.node_helper_service_account);
        let image = self.image().filter(|_| !namespace.is_empty() && !service_account.is_empty())?;
        Some(HelperSettings { namespace: namespace.clone(), service_account: service_account.clone(), image })
    }
}

/// Why the operator ends before it was asked to.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("no cluster is configured: set KUBECONFIG, or run in a pod with a service account: {0}")]
    NoCluster(#[source] kube::config::InferConfigError),
    #[error("the API server can't be used: {0}")]
    Api(#[source] kube::Error),
    #[error("{address} can't be listened on: {source}; choose another --metrics-address")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the lease can't be used: {0}")]
    Lease(#[source] kube_lease_manager::LeaseManagerError),
    #[error("no HTTP client can be made: {0}")]
    Http(#[source] reqwest::Error),
    #[error("this replica lost its lease; another one works now")]
    LeaseLost,
    #[error("the main task panicked: {0}")]
    Panic(#[source] JoinError),
    #[error("signals can't be received: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs the operator until it is told to stop.
pub fn main(mut options: Options) -> ExitCode {
    if let Some(command) = options.command.take() {
        return helper::main(command);
    }
    if options.print_generated {
        print_generated();
        return ExitCode::SUCCESS;
    }
    if let Err(error) = telemetry::logging::init(options.log_format, &options.log_level) {
        eprintln!("soak-operator: {error}");
        return ExitCode::FAILURE;
    }
    aside::set(beside_others);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = options.worker_threads {
        builder.worker_threads(workers.into());
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "no threads to work with");
            return ExitCode::FAILURE;
        }
    };
    // As a task, so that the main thread has no part in it.
    let result = runtime
        .block_on(async { tokio::spawn(run(options)).await.unwrap_or_else(|error| Err(StartError::Panic(error))) });
    // Tasks that still talk to a server do not keep the process from ending; their effects are found again.
    runtime.shutdown_timeout(Duration::from_millis(500));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}

/// Does work that may take long in such a way that another thread takes over the tasks of this one meanwhile.
fn beside_others(work: &mut dyn FnMut()) {
    let others = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if others { tokio::task::block_in_place(work) } else { work() }
}

fn print_generated() {
    for crd in crate::api::crds() {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        println!("{}", json!({"path": format!("crds/{name}.yaml"), "content": crd}));
    }
    for (part, object) in ["policy", "policybinding"].iter().zip(crate::api::admission()) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        println!("{}", json!({"path": format!("crds/{name}-{part}.yaml"), "content": object}));
    }
    for (name, schema) in crate::results::schemas().into_iter().chain([crate::report::schema()]) {
        println!("{}", json!({"path": format!("docs/schemas/{name}"), "content": schema}));
    }
}

async fn run(options: Options) -> Result<(), StartError> {
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("asked to stop");
        let _ = stop.send(true);
    });
    let asked = || {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };

    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let health = Health::new(MAX_SILENCE);
    let address = options.metrics_address;
    let listener =
        tokio::net::TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    let server = tokio::spawn(telemetry::server::serve_on(listener, metrics.clone(), health.clone(), asked()));

    let config = kube::Config::infer().await.map_err(StartError::NoCluster)?;
    let client = client::connect(config).map_err(StartError::Api)?;
    let instance = options.instance.clone().unwrap_or_else(|| format!("soak-operator-{}", std::process::id()));
    let work = async {
        // A replica that waits for the lease is alive and ready to take over.
        let pulse = tokio::spawn(pulse(health.clone()));
        let leadership = if options.leader_elect {
            tokio::select! {
                won = Leadership::win(client.clone(), &options.namespace, &instance) => Some(won.map_err(StartError::Lease)?),
                () = asked() => return Ok(()),
            }
        } else {
            None
        };
        pulse.abort();
        health.register(CACHES);
        let own_namespace = options.namespace;
        let settings = Settings {
            instance,
            concurrency: options.concurrency,
            own_namespace: own_namespace.clone(),
            // An empty variable is how a manifest says "all".
            namespace: options.watch_namespace.filter(|namespace| !namespace.is_empty()),
            allow_local_http: options.allow_local_http,
            stores: options.stores.settings(options.allow_local_http)?,
            faults: crate::faults::Settings {
                guard_rails: options.guard_rails.rails(&own_namespace),
                local_addresses: options.allow_local_http,
                image: options.helpers.image(),
                helper: options.helpers.node_helpers(),
                network_policy_enforced: options.helpers.network_policy_enforced,
            },
        };
        let operator = Operator::start(client, settings, metrics, health).await.map_err(StartError::Api)?;
        info!(version = env!("CARGO_PKG_VERSION"), "the operator works");
        let lost = leadership.as_ref().map(Leadership::lost);
        let lost = async move {
            match lost {
                Some(lost) => lost.await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            () = operator.run(asked()) => Ok(()),
            () = lost => Err(StartError::LeaseLost),
        };
        if let Some(leadership) = leadership {
            leadership.resign().await;
        }
        result
    };
    let limit = async {
        asked().await;
        tokio::time::sleep(SHUTDOWN_LIMIT).await;
    };
    let result = tokio::select! {
        result = work => result,
        () = limit => Ok(()),
    };
    server.abort();
    result
}

async fn pulse(health: Health) {
    loop {
        health.tick();
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use serde_json::json;

    use crate::engine::expr::{Condition, Scope};

    use super::*;

    /// A tenant's expression that uses its whole budget.
    fn evaluate_for_long() {
        let scope = Scope::new().with("list", json!((0..3_000).collect::<Vec<_>>()));
        let condition = Condition::parse("list.all(a, list.all(b, a + b >= 0))", &scope.roots()).unwrap();
        assert!(condition.evaluate(&scope).is_err(), "it costs too much");
    }

    #[test]
    fn others_go_on_while_an_expression_takes_long() {
        aside::set(beside_others);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (evaluating, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (busy, counted) = (evaluating.clone(), turns.clone());
        runtime.block_on(async {
            let other = tokio::spawn(async move {
                loop {
                    counted.fetch_add(usize::from(busy.load(Ordering::SeqCst)), Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            });
            let long = tokio::spawn(async move {
                evaluating.store(true, Ordering::SeqCst);
                evaluate_for_long();
                evaluating.store(false, Ordering::SeqCst);
            });
            long.await.unwrap();
            other.abort();
        });
        assert!(turns.load(Ordering::SeqCst) > 0, "the only worker waited for the expression");
    }
}
