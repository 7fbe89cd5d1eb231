//! The connections to other clusters that a run's spec names.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::{
    cluster::{
        RunRef,
        client::Account,
        targets::{Clusters, KubeconfigAt, RemoteLease, RunClusters},
    },
    engine::{Plan, plan::TargetPlan},
};

/// The connections of one run.
#[derive(Default)]
pub struct Connections(Mutex<Connected>);

/// The connections, and the digest of the spec that names them.
#[derive(Default)]
struct Connected {
    digest: String,
    own_names: BTreeSet<String>,
    leases: BTreeMap<String, RemoteLease>,
    /// What was told of each connection when it was last looked at.
    told: Vec<(bool, String)>,
}

impl Connections {
    /// Connects the run to the other clusters that its spec names.
    pub fn connect(&self, clusters: &Clusters, plan: &Plan, account: &Account, run: &RunRef) {
        let mut connected = self.0.lock();
        let needs_none = connected.digest.is_empty() && plan.targets.targets.is_empty();
        if needs_none || connected.digest == plan.digest {
            return;
        }
        connected.digest.clone_from(&plan.digest);
        let lease = |target: &TargetPlan| {
            let secret = target.secret.as_ref()?;
            let at = KubeconfigAt { secret: secret.name.clone(), key: secret.key.clone() };
            Some((target.name.clone(), clusters.lease(account, &at, run, target.runs_pods)))
        };
        let targets = &plan.targets.targets;
        connected.own_names =
            targets.iter().filter(|target| target.secret.is_none()).map(|target| target.name.clone()).collect();
        connected.leases = targets.iter().filter_map(lease).collect();
    }

    /// Lets the connections go.
    pub fn disconnect(&self) {
        *self.0.lock() = Connected::default();
    }

    /// Whether anything else is told of the connections than when this was last asked.
    pub fn hears_news(&self, clusters: &RunClusters) -> bool {
        let told: Vec<_> =
            clusters.remotes.values().map(|(_, health)| (health.reachable, health.message.clone())).collect();
        let mut connected = self.0.lock();
        let news = connected.told != told;
        connected.told = told;
        news
    }

    /// The clusters of the run as they are now.
    pub fn clusters(&self, clusters: &Clusters) -> RunClusters {
        let connected = self.0.lock();
        let remotes = connected.leases.iter().map(|(name, lease)| (name.clone(), (lease.cluster(), lease.health())));
        let own_names = connected.own_names.clone();
        RunClusters { own: clusters.own().clone(), own_names, remotes: remotes.collect() }
    }
}
