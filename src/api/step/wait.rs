//! `wait`: until a condition on an object holds.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Beginning, Conditions, MAX_EXPRESSION_BYTES, ResourceRef, StepSpec};

/// Waits until a condition on an object holds. It ends on the watch event that makes it true.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitStep {
    /// The role or target that it works on (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// The object that is watched.
    pub resource: ResourceRef,
    /// CEL over `object` that ends the wait well. `object` is null while there is none, so `object == null` waits for a deletion.
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub until: String,
    /// CEL over `object` that fails the step at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub fail_when: Option<String>,
}

impl StepSpec for WaitStep {
    const BEGINNING: Beginning = Beginning::Looks;

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    fn templates(&self) -> Value {
        let Self { target: _, resource, until: _, fail_when: _ } = self;
        json!({ "resource": resource })
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            success: Some(("until", &self.until)),
            failure: self.fail_when.as_deref().map(|text| ("failWhen", text)),
            subject: Some("object"),
        }
    }
}
