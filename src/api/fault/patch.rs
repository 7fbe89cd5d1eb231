//! `patch`: changes fields of an object.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FaultSpec, Lasting};
use crate::api::step::{PatchType, schema};

/// Changes fields of an object of any kind; each field gets its old value back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchFault {
    /// `Merge` (default), `Json` or `Strategic`.
    #[serde(default, rename = "type")]
    pub type_: PatchType,
    /// The patch: an object, or a list of operations for `Json`.
    #[schemars(schema_with = "schema::anything")]
    pub patch: Value,
}

impl FaultSpec for PatchFault {
    const HITS: Option<(&'static str, &'static str)> = None;

    fn lasting(&self) -> Lasting {
        Lasting::UntilUndone
    }

    fn problem(&self) -> Option<(&'static str, String)> {
        let fits = if self.type_ == PatchType::Json { self.patch.is_array() } else { self.patch.is_object() };
        let wanted = if self.type_ == PatchType::Json { "a list of operations" } else { "an object" };
        (!fits).then(|| ("patch", format!("not {wanted}, as its type needs")))
    }
}
