//! `scale`: sets the replicas of an object.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};

/// Sets `spec.replicas`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleFault {
    /// So many replicas while the fault lasts.
    #[schemars(range(max = 10_000))]
    pub replicas: u32,
}

impl FaultSpec for ScaleFault {
    const HITS: Option<(&'static str, &'static str)> = None;

    fn lasting(&self) -> Lasting {
        Lasting::UntilUndone
    }
}
