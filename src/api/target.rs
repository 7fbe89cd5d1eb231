//! The clusters that a run works on, and the roles that they play.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Most targets of a run.
pub const MAX_TARGETS: u32 = 16;
/// Most roles of a run.
const MAX_ROLES: u32 = 16;

/// A key of a Secret in the run's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in its data (default `kubeconfig`).
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_key() -> String {
    "kubeconfig".into()
}

/// A cluster that steps may work on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The name by which steps and roles refer to it.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Where its kubeconfig is, read as the run's service account. Absent: it is the cluster that the operator runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret_ref: Option<SecretKeyRef>,
}

/// When the two roles of a run swap their targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rotate {
    /// Never.
    #[default]
    Never,
    /// When a cycle that passed is counted.
    AfterSuccess,
    /// When a cycle that passed or failed is counted.
    AfterEveryCycle,
}

/// Which role is played by which target at the beginning, and when that changes.
///
/// In a manifest roles and `rotate` stand side by side: `{primary: hub-a, secondary: hub-b, rotate: AfterSuccess}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// When the roles swap.
    #[serde(default, skip_serializing_if = "is_never")]
    pub rotate: Rotate,
    /// The target of each role.
    #[serde(flatten)]
    pub targets: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_never(rotate: &Rotate) -> bool {
    *rotate == Rotate::Never
}

impl JsonSchema for Roles {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Roles".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// A structural schema has either named or arbitrary fields, so `rotate` is told apart by rules.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Role names that steps use, each with the name of its target at the beginning. `rotate` beside them says when the two roles swap: `Never` (default), `AfterSuccess` or `AfterEveryCycle`.",
            "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 40},
            "maxProperties": MAX_ROLES + 1,
            "x-kubernetes-validations": [
                {
                    "rule": "!('rotate' in self) || self['rotate'] in ['Never', 'AfterSuccess', 'AfterEveryCycle']",
                    "message": "rotate says when the roles swap: Never, AfterSuccess or AfterEveryCycle",
                },
                {
                    "rule": "!('rotate' in self) || self['rotate'] == 'Never' || self.size() == 3",
                    "message": "roles that swap are exactly two; give steps the name of a target that keeps its role",
                },
            ],
        })
    }
}

/// Runs that exclude each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Exclusive {
    /// Of all runs in the namespace with the same key one works at a time; the others wait before they begin.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub key: String,
}
