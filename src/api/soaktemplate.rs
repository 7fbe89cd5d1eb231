//! `SoakTemplate`: what runs have in common.
// Printer columns repeat their attributes' names; the lint takes each for a duplicate.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a parameter's value must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ParameterType {
    /// Any text.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A duration such as `1h30m`.
    Duration,
}

/// A parameter that runs give a value to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateParameter {
    /// Its name; expressions read it as `params.NAME`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// What its value must be (default `String`).
    #[serde(default, rename = "type")]
    pub type_: ParameterType,
    /// Its value where a run gives none. Without a default every run must give one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub default: Option<String>,
    /// The only values that it may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub values: Vec<String>,
    /// The smallest Integer, Number or Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub minimum: Option<String>,
    /// The largest Integer, Number or Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub maximum: Option<String>,
    /// CEL over `value` (a number for Integer and Number, else a text) that must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub rule: Option<String>,
}

/// What runs have in common: parameters, and the spec that they are for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "soak.dev",
    version = "v1alpha1",
    kind = "SoakTemplate",
    namespaced,
    shortname = "st",
    category = "soak",
    derive = "PartialEq",
    doc = "What soak runs have in common. A run refers to it by templateRef, and keeps what it resolved to.",
    printcolumn(name = "Parameters", type_ = "string", json_path = ".spec.parameters[*].name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SoakTemplateSpec {
    /// What runs may, or must, choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub parameters: Vec<TemplateParameter>,
    /// Fields of a SoakRun's spec, phases for example. What a run sets itself takes the place of the field here.
    #[schemars(schema_with = "super::step::schema::object")]
    pub run: serde_json::Value,
}
