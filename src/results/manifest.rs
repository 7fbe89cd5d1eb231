//! What a run was asked to do, by whom and with what, and what was there.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of a custom resource definition that a run uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrdVersion {
    /// Such as `restores.velero.io`.
    pub name: String,
    /// Versions that it serves.
    pub served: Vec<String>,
    /// Its generation, which grows with each change of the definition.
    pub generation: i64,
    /// Labels and annotations that name a version, such as `app.kubernetes.io/version`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, String>,
}

/// What a run was asked to do, by whom and with what. It is written before the run's first step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Who asked: the annotation `soak.dev/requested-by`, else the field manager that wrote the spec.
    pub requested_by: String,
    /// The commit that the run was made from, if an annotation names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Annotations of GitOps tools, and the one that names the commit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Digest of the spec that the attempt runs.
    pub spec_digest: String,
    /// That spec, with what a template gave; absent when it is longer than 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub spec: Option<Value>,
    /// The template that it was resolved from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Version of the operator.
    pub operator_version: String,
    /// Version of the API server at the start.
    pub kubernetes_version: String,
    /// Custom resource definitions of the kinds that the spec names, as far as the operator may read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crds: Vec<CrdVersion>,
    /// When it was written.
    pub written_at: DateTime<Utc>,
}

/// When a snapshot was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Moment {
    /// Before the run's first step.
    #[default]
    Start,
    /// After a pass that did not succeed.
    Failure,
    /// After the cleanup.
    End,
}

/// An object as it was: what says its version and how it is, never its content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectState {
    /// API version and kind, such as `apps/v1 Deployment`.
    pub kind: String,
    /// Its namespace; empty for cluster-scoped ones.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
    /// Its generation, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// It is being deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Images of its containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Its status; only phase and conditions of one that is longer than 2 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub status: Option<Value>,
}

/// Chosen objects at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Which moment.
    pub moment: Moment,
    /// When it was taken.
    pub at: DateTime<Utc>,
    /// The objects.
    pub objects: Vec<ObjectState>,
    /// Some objects did not fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({})
}
