//! `resource`: an object that another controller turns into a fault.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FaultSpec, Lasting};
use crate::api::step::{MAX_EXPRESSION_BYTES, schema};

/// Creates an object, such as a Chaos Mesh experiment, and deletes it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceFault {
    /// The object. Without metadata.name it gets one of its own, without metadata.namespace it is made in the injection's.
    #[schemars(schema_with = "schema::object")]
    pub manifest: Value,
    /// CEL over `object`: the fault is there (default: as soon as the object is).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub injected_when: Option<String>,
    /// CEL over `object`: it will never be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub failed_when: Option<String>,
}

impl FaultSpec for ResourceFault {
    const HITS: Option<(&'static str, &'static str)> = None;

    fn lasting(&self) -> Lasting {
        Lasting::UntilUndone
    }

    fn selects(&self) -> bool {
        false
    }

    fn problem(&self) -> Option<(&'static str, String)> {
        let text = |field: &str| self.manifest.get(field).and_then(Value::as_str).is_some();
        (!text("apiVersion") || !text("kind")).then(|| ("manifest", "it needs apiVersion and kind".into()))
    }
}
