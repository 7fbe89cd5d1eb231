//! `apply`: an object by server-side apply.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Beginning, Conditions, DeleteAfter, Made, StepSpec, is_false, schema};

/// Applies an object by server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplyStep {
    /// The role or target that it works on (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// The object, complete with apiVersion, kind and metadata.name.
    #[schemars(schema_with = "schema::object")]
    pub manifest: Value,
    /// When the object is deleted again, if this step created it: `Phase`, `Cycle`, `Run` (default) or `Never`.
    #[serde(default)]
    pub delete_after: DeleteAfter,
    /// Takes over fields that another field manager owns.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

impl StepSpec for ApplyStep {
    const BEGINNING: Beginning = Beginning::Repeatable;

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions::over("object")
    }

    fn made(&self) -> Option<Made> {
        Some(Made::by_manifest(&self.manifest, self.delete_after, false))
    }
}
