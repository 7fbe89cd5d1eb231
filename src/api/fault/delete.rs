//! `delete`: deletes an object of any kind.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};
use crate::api::step::is_false;

/// Deletes an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteFault {
    /// Creates the object again when the fault ends, with the spec, labels and annotations that it had, unless somebody else has by then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restore: bool,
}

impl FaultSpec for DeleteFault {
    const HITS: Option<(&'static str, &'static str)> = None;

    fn lasting(&self) -> Lasting {
        if self.restore { Lasting::UntilUndone } else { Lasting::AtOnce }
    }
}
