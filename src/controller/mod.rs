//! The shell around the engine: it observes, asks for a decision, writes the status and performs what was asked for.

mod leader;
mod memory;
mod notes;
mod observe;
mod perform;
mod plans;
mod records;
mod series;
mod soakrun;
mod write;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::Config,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    api::{SoakRun, status::RunPhase},
    cluster::Cluster,
    telemetry::{ErrorClass, Health, Metrics},
};

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
    /// Requests of `http` steps may go to loopback and link-local addresses.
    pub allow_local_http: bool,
}

/// What every reconcile shares.
pub(crate) struct Shell {
    client: Client,
    cluster: Arc<Cluster>,
    plans: plans::Plans,
    memories: memory::Memories,
    notes: notes::Notes,
    metrics: Metrics,
    health: Health,
    wake: mpsc::UnboundedSender<ObjectRef<SoakRun>>,
    kubernetes_version: String,
}
