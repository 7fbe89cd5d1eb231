//! `jobTemplate`: a Job, for who needs completions, parallelism or pod failure policies.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Beginning, DeleteAfter, Made, StepSpec, schema};

/// A `Job`, for steps that need completions, parallelism or pod failure policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStep {
    /// The role or target that it works on (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// Labels and annotations of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object")]
    pub metadata: Option<Value>,
    /// The Job's spec.
    #[schemars(schema_with = "schema::object")]
    pub spec: Value,
}

impl StepSpec for JobStep {
    const BEGINNING: Beginning = Beginning::Runs;

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    fn made(&self) -> Option<Made> {
        let head = json!({"apiVersion": "batch/v1", "kind": "Job"});
        Some(Made { head, until: DeleteAfter::Cycle, named_by_attempt: true })
    }
}
