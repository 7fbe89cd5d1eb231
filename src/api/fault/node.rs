//! `node`: a node that takes no further pods.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};
use crate::api::step::is_false;

/// Cordons a node; it is uncordoned when the fault ends, unless it was cordoned before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFault {
    /// Evicts the pods as well, as `kubectl drain` does: disruption budgets are kept, pods of DaemonSets and mirror pods stay.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
    /// Only pods with these labels are evicted, as in `app=web` (default all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pods: Option<String>,
}

impl FaultSpec for NodeFault {
    const HITS: Option<(&'static str, &'static str)> = Some(("v1", "Node"));

    fn lasting(&self) -> Lasting {
        Lasting::UntilUndone
    }
}
