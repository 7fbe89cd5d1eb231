//! `pod`: a pod that is created, run to its end and judged by its first container's exit code.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Artifacts, Beginning, StepSpec, schema};

/// A pod that is created, run to its end and judged by its first container's exit code.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.image) || has(self.template)", "give the image, or a template whose first container has one")
)]
pub struct PodStep {
    /// The role or target that it works on (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// Image of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// Entrypoint; the image's own when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 32768)))]
    pub command: Vec<String>,
    /// Arguments of the entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 32768)))]
    pub args: Vec<String>,
    /// Environment variables, as in a pod: `name` with `value` or `valueFrom`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::objects")]
    pub env: Vec<Value>,
    /// Requests and limits of the container, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object")]
    pub resources: Option<Value>,
    /// Small text files by name, mounted read-only and executable at `/soak/files`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub files: BTreeMap<String, String>,
    /// File in the container that holds the outputs, a JSON object of at most 4,096 bytes; default `/dev/termination-log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub results_file: Option<String>,
    /// Files that it leaves behind, kept in the object store (`results.objectStore`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// A pod template (`metadata`, `spec`) that is merged over what the fields above give, its first container over theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object")]
    pub template: Option<Value>,
}

impl StepSpec for PodStep {
    const BEGINNING: Beginning = Beginning::Runs;

    fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }
}
