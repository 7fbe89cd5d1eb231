//! Access to a cluster: clients that act as tenants, shared watches, what the server serves and allows.
//!
//! Nothing here knows what a step is. Reads for the operator's own bookkeeping are done as the operator; everything
//! that a run's spec asks for is done as the run's service account.

pub mod access;
pub mod client;
pub mod error;
pub mod kinds;
pub mod object;
pub mod pod_summary;
pub mod pods;
pub mod recent;
pub mod targets;
pub mod watches;

mod follow;
mod kubeconfig;
mod remote;

pub use follow::{WATCH_SECONDS, pauses};

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

use self::{
    access::Right,
    client::{Account, Tenants},
    error::ApiFailure,
    kinds::Kinds,
    pods::Pods,
    recent::Recent,
    watches::Watches,
};

/// What is woken by a change in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Woken {
    /// A `SoakRun`.
    Run,
    /// A `FailureInjection`.
    Injection,
}

/// Names a run, or an injection, for being woken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunRef {
    /// Which of them it is.
    pub what: Woken,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Called when something that concerns a run has changed. It must not block, and should merge what comes twice.
pub type Wake = Arc<dyn Fn(&RunRef) + Send + Sync>;

/// Called for each failure of a watch, with `pods` or `shared`: for counting.
pub type OnWatchFailure = Arc<dyn Fn(&'static str, &ApiFailure) + Send + Sync>;

/// Everything that is shared by all who work on one cluster. A clone is the same cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Clients.
    pub tenants: Tenants,
    /// Kinds that the server serves.
    pub kinds: Arc<Kinds>,
    /// Watches of what steps wait for.
    pub watches: Watches,
    /// Pods of runs.
    pub pods: Pods,
    /// Rights that accounts have.
    pub granted: Arc<Recent<(Account, Right)>>,
    /// Accounts that are there.
    pub accounts: Arc<Recent<Account>>,
    /// It is not the one that the operator runs in: nothing there knows the runs, and the kubeconfig's user acts.
    pub remote: bool,
}

impl Cluster {
    /// Starts the watch of pods, in one namespace or in all. `client` is one that [`client::connect`] made. Must be called inside a tokio runtime.
    pub fn start(client: &Client, namespace: Option<&str>, wake: &Wake, failed: &OnWatchFailure) -> Self {
        let tenants = Tenants::new(client.clone());
        Self {
            kinds: Arc::new(Kinds::new(client.clone())),
            watches: Watches::new(tenants.clone(), wake.clone(), failed.clone()),
            pods: Pods::start(client, namespace, wake.clone(), failed.clone()),
            granted: Arc::default(),
            accounts: Arc::default(),
            tenants,
            remote: false,
        }
    }

    /// Whether a namespace is gone or being deleted, as far as that can be found out. Asked as the operator: an account's own
    /// rights go with the namespace.
    pub async fn namespace_is_going(&self, name: &str) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.tenants.operator().clone());
        match namespaces.get_metadata_opt(name).await {
            Ok(namespace) => namespace.is_none_or(|it| it.metadata.deletion_timestamp.is_some()),
            Err(_) => false,
        }
    }

    /// Asks anew what was answered lately.
    pub fn forget_answers(&self) {
        self.granted.forget();
        self.accounts.forget();
    }

    /// Another cluster, on which everything is done as the client's own user. Pods are watched in that namespace once
    /// [`Pods::ensure`] was called.
    pub(crate) fn remote(client: &Client, namespace: &str, wake: &Wake, failed: &OnWatchFailure) -> Self {
        let tenants = Tenants::itself(client.clone());
        Self {
            kinds: Arc::new(Kinds::new(client.clone())),
            watches: Watches::new(tenants.clone(), wake.clone(), failed.clone()),
            pods: Pods::prepare(client, namespace, wake.clone(), failed.clone()),
            granted: Arc::default(),
            accounts: Arc::default(),
            tenants,
            remote: true,
        }
    }
}
