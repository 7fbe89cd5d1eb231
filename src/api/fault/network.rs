//! `network`: a pod that does not reach others.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};

/// What keeps the packets back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PartitionMeans {
    /// A helper on the node, in the pod's own network. It works on every cluster whose administrator allows helpers.
    #[default]
    Node,
    /// A NetworkPolicy. It works where the cluster's network enforces policies; the injection says so where it does not.
    NetworkPolicy,
}

/// Cuts pods off from others. Both directions stop: what is sent to the others is dropped, so nothing that they ask is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkFault {
    /// `Node` (default) or `NetworkPolicy`.
    #[serde(default)]
    pub means: PartitionMeans,
    /// Pods in the target's namespace that are not reached any more, by labels, as in `app=etcd,role!=witness`. The target itself is
    /// never among them. Without this and `addresses`, nobody is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub peers: Option<String>,
    /// Of the peers, so many, chosen at random with the injection's seed (default all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub peer_count: Option<u32>,
    /// Addresses or ranges that are not reached any more, such as `10.0.0.7` or `10.1.0.0/16`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub addresses: Vec<String>,
    /// Addresses or ranges that stay in reach when everybody else is cut off, such as the node's for its probes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub except: Vec<String>,
}

impl NetworkFault {
    /// Whether everybody is cut off.
    pub fn isolates(&self) -> bool {
        self.peers.is_none() && self.addresses.is_empty()
    }
}

impl FaultSpec for NetworkFault {
    const HITS: Option<(&'static str, &'static str)> = Some(("v1", "Pod"));

    fn lasting(&self) -> Lasting {
        Lasting::UntilUndone
    }

    fn problem(&self) -> Option<(&'static str, String)> {
        if self.peer_count.is_some() && self.peers.is_none() {
            return Some(("peerCount", "there are no peers to choose from: set peers as well".into()));
        }
        if !self.except.is_empty() && !self.isolates() {
            return Some((
                "except",
                "only what is cut off from everybody can have exceptions: leave peers and addresses out".into(),
            ));
        }
        if self.means == PartitionMeans::NetworkPolicy && self.peer_count.is_some() {
            return Some((
                "peerCount",
                "a NetworkPolicy can't choose among pods of equal labels: use means: Node".into(),
            ));
        }
        None
    }
}
