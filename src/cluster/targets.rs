//! Other clusters that runs work on: a connection for each kubeconfig, kept for as long as a run wants it.
//!
//! The Secret is watched as the run's service account; what is done over there is done as the kubeconfig's own user.
//! Changed credentials give a new [`Cluster`], and whoever followed something on the old one takes it up anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{
    Cluster, OnWatchFailure, RunRef, Wake,
    client::Account,
    error::{ApiFailure, Class},
    pods::AbortOnDrop,
    remote,
};

/// Where a kubeconfig is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KubeconfigAt {
    /// The Secret's name, in the account's namespace.
    pub secret: String,
    /// The key in its data.
    pub key: String,
}

/// What is known of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The API server answers to the credentials.
    pub reachable: bool,
    /// A stable word.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// The server's version, once it was told.
    pub version: Option<String>,
    /// How long the last answer took.
    pub latency_millis: Option<i64>,
}

/// What a connection's task and those who use it share.
#[derive(Default)]
pub(super) struct Link {
    pub(super) cluster: Option<Cluster>,
    pub(super) health: Health,
    pub(super) wants_pods: bool,
    interested: HashMap<String, (usize, RunRef)>,
}

impl Link {
    /// The runs that use it.
    pub(super) fn users(&self) -> Vec<RunRef> {
        self.interested.values().map(|(_, run)| run.clone()).collect()
    }
}

pub(super) type SharedLink = Arc<Mutex<Link>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Remote {
    link: SharedLink,
    _task: AbortOnDrop,
}

type RemoteKey = (Account, KubeconfigAt);

struct Inner {
    own: Cluster,
    wake: Wake,
    failed: OnWatchFailure,
    local: bool,
    remotes: Mutex<HashMap<RemoteKey, Weak<Remote>>>,
}

/// The operator's own cluster and all that runs have named. A clone is the same.
#[derive(Clone)]
pub struct Clusters(Arc<Inner>);

/// A run's use of another cluster. The connection ends with the last of them.
pub struct RemoteLease {
    remote: Arc<Remote>,
    uid: String,
}

impl Clusters {
    /// No other cluster yet. `local` allows servers on the operator's own host or link.
    pub fn new(own: Cluster, wake: Wake, failed: OnWatchFailure, local: bool) -> Self {
        Self(Arc::new(Inner { own, wake, failed, local, remotes: Mutex::default() }))
    }

    /// The cluster that the operator runs in.
    pub fn own(&self) -> &Cluster {
        &self.0.own
    }

    /// Connects a run to a cluster, over a connection that all runs of the account share. Must be called inside a tokio
    /// runtime. With `pods`, pods of runs are watched there.
    pub fn lease(&self, account: &Account, at: &KubeconfigAt, run: &RunRef, pods: bool) -> RemoteLease {
        let key = (account.clone(), at.clone());
        let mut remotes = lock(&self.0.remotes);
        remotes.retain(|_, remote| remote.strong_count() > 0);
        let remote = remotes.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let link = SharedLink::default();
            let keeper = remote::Keeper {
                own: self.0.own.clone(),
                account: account.clone(),
                at: at.clone(),
                wake: self.0.wake.clone(),
                failed: self.0.failed.clone(),
                local: self.0.local,
                link: link.clone(),
            };
            let task = tokio::spawn(keeper.keep());
            Arc::new(Remote { link, _task: AbortOnDrop(task.abort_handle()) })
        });
        remotes.insert(key, Arc::downgrade(&remote));
        drop(remotes);
        let mut link = lock(&remote.link);
        link.interested.entry(run.uid.clone()).or_insert_with(|| (0, run.clone())).0 += 1;
        link.wants_pods |= pods;
        if let Some(cluster) = link.cluster.as_ref().filter(|_| link.wants_pods) {
            cluster.pods.ensure();
        }
        drop(link);
        RemoteLease { remote, uid: run.uid.clone() }
    }
}

impl RemoteLease {
    /// What is known of the connection.
    pub fn health(&self) -> Health {
        lock(&self.remote.link).health.clone()
    }

    /// The cluster, as long as there are credentials for it; it need not be reachable.
    pub fn cluster(&self) -> Option<Cluster> {
        lock(&self.remote.link).cluster.clone()
    }
}

impl Drop for RemoteLease {
    fn drop(&mut self) {
        let mut link = lock(&self.remote.link);
        if let Some((uses, _)) = link.interested.get_mut(&self.uid) {
            *uses -= 1;
            if *uses == 0 {
                link.interested.remove(&self.uid);
            }
        }
    }
}

/// The clusters of one run at one moment, by the names of its targets.
#[derive(Clone)]
pub struct RunClusters {
    /// The cluster that the operator runs in.
    pub own: Cluster,
    /// The targets that are this one.
    pub own_names: BTreeSet<String>,
    /// The targets that are other clusters; none while there are no credentials.
    pub remotes: BTreeMap<String, (Option<Cluster>, Health)>,
}

impl RunClusters {
    /// The cluster of a target; an empty name is the one that the operator runs in.
    ///
    /// Errors: there are no credentials for it, or it is not connected to. A name that is not known never means the
    /// operator's own cluster.
    pub fn get(&self, target: &str) -> Result<&Cluster, ApiFailure> {
        match self.remotes.get(target) {
            None if target.is_empty() || self.own_names.contains(target) => Ok(&self.own),
            None => Err(ApiFailure::definite(Class::Transient, format!("target {target} is not connected to"))),
            Some((Some(cluster), _)) => Ok(cluster),
            Some((None, health)) => {
                Err(ApiFailure::definite(Class::Transient, format!("target {target}: {}", health.message)))
            }
        }
    }

    /// Every cluster that can be asked, with the name of its target; the own one has an empty name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Cluster)> {
        let remotes = self.remotes.iter().filter_map(|(name, (cluster, _))| Some((name.as_str(), cluster.as_ref()?)));
        std::iter::once(("", &self.own)).chain(remotes)
    }
}
