//! `patch`: changes an object that is there.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Beginning, Conditions, ResourceRef, StepSpec, schema};

/// How a patch is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PatchType {
    /// JSON merge patch (RFC 7386).
    #[default]
    Merge,
    /// JSON patch (RFC 6902): a list of operations.
    Json,
    /// Strategic merge patch; for built-in kinds only.
    Strategic,
}

/// Patches an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchStep {
    /// The role or target that it works on (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// The object that is patched.
    pub resource: ResourceRef,
    /// `Merge` (default), `Json` or `Strategic`.
    #[serde(default, rename = "type")]
    pub type_: PatchType,
    /// The patch: an object, or a list of operations for `Json`.
    #[schemars(schema_with = "schema::anything")]
    pub patch: Value,
    /// `status`, to patch that subresource instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub subresource: Option<String>,
}

impl StepSpec for PatchStep {
    const BEGINNING: Beginning = Beginning::Repeatable;

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions::over("object")
    }
}
