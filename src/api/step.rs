//! What a step can do: one struct a kind. [`StepBody`](super::phase::StepBody) is the list of them.
//!
//! Text fields may hold CEL in `${...}`; conditions are bare CEL (see docs/expressions.md).

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Duration;

/// The longest expression that is accepted, in bytes.
pub const MAX_EXPRESSION_BYTES: u32 = 4_096;

/// A pod that is created, run to its end and judged by its first container's exit code.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.image) || has(self.template)", "give the image, or a template whose first container has one")
)]
pub struct PodStep {
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
    #[schemars(schema_with = "objects")]
    pub env: Vec<Value>,
    /// Requests and limits of the container, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object")]
    pub resources: Option<Value>,
    /// Small text files by name, mounted read-only and executable at `/soak/files`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub files: BTreeMap<String, String>,
    /// File in the container that holds the outputs, a JSON object of at most 4,096 bytes; default `/dev/termination-log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub results_file: Option<String>,
    /// A pod template (`metadata`, `spec`) that is merged over what the fields above give, its first container over theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object")]
    pub template: Option<Value>,
}

/// An object in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRef {
    /// `v1`, `apps/v1`, …
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// `ConfigMap`, `StatefulSet`, …
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The object's name.
    #[schemars(length(min = 1, max = 1024))]
    pub name: String,
    /// The object's namespace; the run's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace: Option<String>,
}

/// Waits until a condition on an object holds. It ends on the watch event that makes it true.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitStep {
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

/// When something that a step made is deleted again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeleteAfter {
    /// When the phase ends.
    Phase,
    /// When the cycle ends.
    Cycle,
    /// When the run ends, after its cleanup.
    #[default]
    Run,
    /// Never.
    Never,
}

/// Applies an object by server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplyStep {
    /// The object, complete with apiVersion, kind and metadata.name.
    #[schemars(schema_with = "object")]
    pub manifest: Value,
    /// When the object is deleted again, if this step created it: `Phase`, `Cycle`, `Run` (default) or `Never`.
    #[serde(default)]
    pub delete_after: DeleteAfter,
    /// Takes over fields that another field manager owns.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

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
    /// The object that is patched.
    pub resource: ResourceRef,
    /// `Merge` (default), `Json` or `Strategic`.
    #[serde(default, rename = "type")]
    pub type_: PatchType,
    /// The patch: an object, or a list of operations for `Json`.
    #[schemars(schema_with = "anything")]
    pub patch: Value,
    /// `status`, to patch that subresource instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub subresource: Option<String>,
}

/// Sets the replicas of anything with a scale subresource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleStep {
    /// The object that is scaled.
    pub resource: ResourceRef,
    /// The number of replicas, or an expression that gives it.
    #[schemars(schema_with = "int_or_string")]
    pub replicas: Value,
    /// Ends only when the status reports so many ready replicas (default true).
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Deletes an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteStep {
    /// The object that is deleted.
    pub resource: ResourceRef,
    /// Ends only when the object is gone (default true).
    #[serde(default = "yes")]
    pub wait: bool,
    /// An object that is not there counts as deleted (default true).
    #[serde(default = "yes")]
    pub ignore_not_found: bool,
}

/// Creates an object of any kind, waits for its success or failure and deletes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStep {
    /// The object. Without metadata.name it gets a name of its own in every attempt.
    #[schemars(schema_with = "object")]
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

/// A `Job`, for steps that need completions, parallelism or pod failure policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStep {
    /// Labels and annotations of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object")]
    pub metadata: Option<Value>,
    /// The Job's spec.
    #[schemars(schema_with = "object")]
    pub spec: Value,
}

/// One header of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Header {
    /// The header's name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The header's value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// A request over HTTP from the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpStep {
    /// Where to; `http` or `https`.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The method (default GET).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(GET|HEAD|POST|PUT|PATCH|DELETE)$"))]
    pub method: Option<String>,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<Header>,
    /// Body of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<String>,
    /// CEL over `response` (`status`, `headers`, `body`, `json`, `millis`); default `response.status < 400`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub expect: Option<String>,
    /// PEM certificates of the authorities that the server's certificate is checked against, beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// Waits for a length of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct SleepStep {
    /// How long.
    pub duration: Duration,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) const fn is_false(value: &bool) -> bool {
    !*value
}

fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

fn objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 128,
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    })
}

fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true, "minimum": 0, "maxLength": 1024})
}
