//! Files that a step leaves behind.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where a container finds its artifacts' folder when the step names none.
pub const DEFAULT_DIRECTORY: &str = "/soak/artifacts";
/// How much of an attempt's files is kept when the step does not say, in bytes.
pub const DEFAULT_MAX_BYTES: u64 = 5 * 1024 * 1024;
/// The most that a step may ask for, in bytes before they are packed.
pub const LARGEST_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Files that a pod leaves behind and that are kept in the object store, whether the step passed or failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifacts {
    /// The folder in the first container, an emptyDir that `SOAK_ARTIFACTS` tells (default /soak/artifacts).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub directory: Option<String>,
    /// Which files below it: `*` and `?` within a folder, `**` across folders (default all).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub paths: Vec<String>,
    /// Most bytes in all (default 5242880). Packed, they must fit into as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 33_554_432))]
    pub max_bytes: Option<u64>,
}

impl Artifacts {
    /// The most bytes that are kept in all.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or(DEFAULT_MAX_BYTES).min(LARGEST_MAX_BYTES)
    }
}
