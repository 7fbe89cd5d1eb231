//! `dns`: name lookups that time out.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};

/// Keeps a pod from reaching the name servers of its `/etc/resolv.conf`, so that each lookup times out. Connections that are
/// open go on. Made by a helper on the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsFault {
    /// Name servers that are cut off (default: all of the pod's).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    pub servers: Vec<String>,
}

impl FaultSpec for DnsFault {
    const HITS: Option<(&'static str, &'static str)> = Some(("v1", "Pod"));

    fn lasting(&self) -> Lasting {
        Lasting::UntilUndone
    }
}
