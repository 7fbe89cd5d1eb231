//! `delete`: an object, and by default until it is gone.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{Beginning, ResourceRef, StepSpec, yes};

/// Deletes an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteStep {
    /// The role or target that it works on (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// The object that is deleted.
    pub resource: ResourceRef,
    /// Ends only when the object is gone (default true).
    #[serde(default = "yes")]
    pub wait: bool,
    /// An object that is not there counts as deleted (default true).
    #[serde(default = "yes")]
    pub ignore_not_found: bool,
}

impl StepSpec for DeleteStep {
    const BEGINNING: Beginning = Beginning::Repeatable;

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }
}
