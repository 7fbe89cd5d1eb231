//! `stress`: CPU, memory or disk that is used up.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};

/// Uses up CPU, memory or disk beside a pod: by a pod on the same node, in the pod's namespace, which ends by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.cpuWorkers) || has(self.memoryMegabytes) || has(self.diskMegabytes)",
    "set what is used up: cpuWorkers, memoryMegabytes or diskMegabytes"
))]
pub struct StressFault {
    /// So many threads compute without a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub cpu_workers: Option<u32>,
    /// So much memory is held and touched, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub memory_megabytes: Option<u32>,
    /// So much of the node's ephemeral storage is written, again and again, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub disk_megabytes: Option<u32>,
}

impl FaultSpec for StressFault {
    const HITS: Option<(&'static str, &'static str)> = Some(("v1", "Pod"));

    fn lasting(&self) -> Lasting {
        Lasting::UntilUndone
    }
}
