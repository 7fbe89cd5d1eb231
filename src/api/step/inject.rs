//! `inject`: a failure injection that is made, followed to its end and always undone.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Beginning, Conditions, DeleteAfter, Made, StepSpec, schema};
use crate::api::names::{GROUP, VERSION};

/// Makes a `FailureInjection` and follows it until the fault is undone and the system is healthy again. When the step is stopped the
/// fault is undone at once. It hands on `fault`, `targets`, `injectedAt`, `activeSeconds` and `timeToRecoverSeconds`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct InjectStep {
    /// The role or target whose cluster is hit. The injection itself is made beside the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// The spec of the injection; its service account is the run's where it names none. What only the injection itself knows, such
    /// as `object` in a probe's URL, is written `$${object...}`.
    #[schemars(schema_with = "schema::object")]
    pub template: Value,
}

impl InjectStep {
    /// The object that the step makes, but for its name.
    pub fn manifest(&self) -> Value {
        json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "FailureInjection", "spec": self.template})
    }
}

impl StepSpec for InjectStep {
    const BEGINNING: Beginning = Beginning::Runs;

    fn conditions(&self) -> Conditions<'_> {
        Conditions::over("object")
    }

    fn templates(&self) -> Value {
        json!({"template": self.template})
    }

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    fn works_here(&self) -> bool {
        true
    }

    fn made(&self) -> Option<Made> {
        // Only the head is of interest, and the template is no part of it.
        let head = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "FailureInjection"});
        Some(Made::by_manifest(&head, DeleteAfter::Cycle, true))
    }
}
