//! `podKill`: deletes pods.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};
use crate::api::{Duration, step::is_false};

/// Deletes pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodKillFault {
    /// How long the pod may take to end by itself (default: its own `terminationGracePeriodSeconds`); whole seconds count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Duration>,
    /// Kills without any grace and without waiting for the node, as `kubectl delete --force` does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

impl FaultSpec for PodKillFault {
    const HITS: Option<(&'static str, &'static str)> = Some(("v1", "Pod"));

    fn lasting(&self) -> Lasting {
        Lasting::AtOnce
    }

    fn problem(&self) -> Option<(&'static str, String)> {
        (self.force && self.grace_period.is_some_and(|grace| !grace.is_zero()))
            .then(|| ("force", "there is no grace period in a forced kill: leave one of the two out".into()))
    }
}
