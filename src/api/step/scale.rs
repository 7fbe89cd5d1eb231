//! `scale`: the replicas of anything with a scale subresource.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Beginning, Conditions, ResourceRef, StepSpec, schema, yes};

/// Sets the replicas of anything with a scale subresource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleStep {
    /// The role or target that it works on (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// The object that is scaled.
    pub resource: ResourceRef,
    /// The number of replicas, or an expression that gives it.
    #[schemars(schema_with = "schema::int_or_string")]
    pub replicas: Value,
    /// Ends only when the status reports so many ready replicas (default true).
    #[serde(default = "yes")]
    pub wait: bool,
}

impl StepSpec for ScaleStep {
    const BEGINNING: Beginning = Beginning::Repeatable;

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions::over("object")
    }
}
