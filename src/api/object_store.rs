//! The object store that a run's results go to.
#![expect(
    clippy::struct_field_names,
    reason = "what is made of a retention is a list of limits, which are called so in manifests"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// Records that may wait for the store when the spec does not say how many.
pub const DEFAULT_MAX_WAITING: u32 = 20;

/// A bucket, a container or a volume, and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.secretName) || !has(self.endpoint)",
    "an endpoint needs a secretName: the operator shows its own identity to no other server"
))]
pub struct ObjectStore {
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://ACCOUNT/CONTAINER/PREFIX`, or `file:///PREFIX` on the operator's volume.
    #[schemars(length(max = 512), regex(pattern = r"^((s3|gs)://[^/?#]+|az://[^/?#]+/[^/?#]+|file://)(/[^?#]*)?$"))]
    pub url: String,
    /// Another server of the same interface, such as an S3-compatible one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = "^https?://"))]
    pub endpoint: Option<String>,
    /// The region of an S3 bucket (default us-east-1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub region: Option<String>,
    /// A Secret with the credentials, read as the service account. Absent: the operator's own identity, where that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret_name: Option<String>,
    /// Records that wait in ConfigMaps while the store is out; with so many, no cycle begins (default 20).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 200))]
    pub max_waiting: Option<u32>,
    /// Which ended runs below the url are kept (default all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<ArchiveRetention>,
}

/// Which ended runs stay in the store. A run that ends deletes those in its namespace that are beyond a limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveRetention {
    /// None that ended longer ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// So many, the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_runs: Option<u32>,
    /// As many of the newest as fit into so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991u64))]
    pub max_bytes: Option<u64>,
}
