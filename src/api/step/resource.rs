//! `resource`: an object of any kind that is created, followed to its success or failure, and deleted.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Beginning, Conditions, DeleteAfter, MAX_EXPRESSION_BYTES, Made, StepSpec, schema};

/// Creates an object of any kind, waits for its success or failure and deletes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStep {
    /// The role or target that it works on (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// The object. Without metadata.name it gets a name of its own in every attempt.
    #[schemars(schema_with = "schema::object")]
    pub manifest: Value,
    /// CEL over `object` that ends the step well.
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub success_condition: String,
    /// CEL over `object` that fails the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub failure_condition: Option<String>,
    /// When the object is deleted: `Phase`, `Cycle`, `Run` (default) or `Never`.
    #[serde(default)]
    pub delete_after: DeleteAfter,
}

impl StepSpec for ResourceStep {
    const BEGINNING: Beginning = Beginning::Runs;

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    fn templates(&self) -> Value {
        let Self { target: _, manifest, success_condition: _, failure_condition: _, delete_after: _ } = self;
        json!({ "manifest": manifest })
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            success: Some(("successCondition", &self.success_condition)),
            failure: self.failure_condition.as_deref().map(|text| ("failureCondition", text)),
            subject: Some("object"),
        }
    }

    fn made(&self) -> Option<Made> {
        Some(Made::by_manifest(&self.manifest, self.delete_after, true))
    }
}
