//! Monitors: what is watched beside the steps of a run, and when that is an alert.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Duration,
    step::{Header, MAX_EXPRESSION_BYTES},
};

/// Most monitors of a run.
pub const MAX_MONITORS: u32 = 16;
/// Most alerts of a monitor.
pub const MAX_RULES: u32 = 8;

/// How much an alert matters to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Somebody should look.
    #[default]
    Warning,
    /// Something is broken.
    Critical,
}

impl Severity {
    /// Every severity.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The word that is written into statuses, records and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
        }
    }
}

/// What an alert that fires does to the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AlertPolicy {
    /// It is told and recorded.
    #[default]
    #[serde(rename = "record")]
    Record,
    /// A cycle during which it fires has failed.
    #[serde(rename = "failCycle")]
    FailCycle,
    /// As `failCycle`, and the run fails when that cycle has ended.
    #[serde(rename = "failRun")]
    FailRun,
    /// The run is stopped at once, cleaned up, and ends as aborted.
    #[serde(rename = "abort")]
    Abort,
}

/// When a monitor raises an alert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertRule {
    /// Its name, such as `QueueStuck`.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub name: String,
    /// CEL over `value` and the monitor's `object`, `pod`, `labels` or `response`.
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub when: String,
    /// It fires once `when` has held for so long (default at once).
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
    /// It goes on firing for so long after `when` has held last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_firing_for: Option<Duration>,
    /// `Info`, `Warning` (default) or `Critical`.
    #[serde(default)]
    pub severity: Severity,
    /// `record` (default), `failCycle`, `failRun` or `abort`.
    #[serde(default)]
    pub policy: AlertPolicy,
}

/// Objects of one kind, followed by a watch. `object` is null where a named one is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceMonitor {
    /// `v1`, `apps/v1`, …
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// The kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// One object; absent: all that have the labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub name: Option<String>,
    /// The run's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace: Option<String>,
    /// Labels that they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Health of pods. Without `alerts`: `OOMKilled`, `CrashLoop`, `Restarted`, and `NotReady` for a minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodHealthMonitor {
    /// The run's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace: Option<String>,
    /// Labels that they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The policy of the default alerts.
    #[serde(default)]
    pub policy: AlertPolicy,
}

/// An instant query of a Prometheus; each series of its answer is judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromqlMonitor {
    /// Base URL of the Prometheus.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The query.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<Header>,
    /// PEM certificates that are trusted beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// A GET request. Without `alerts`: `Unavailable`, without an answer or with a status from 400.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMonitor {
    /// Where to.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<Header>,
    /// PEM certificates that are trusted beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// Something that is watched beside the steps, from the run's start to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.resource), has(self.podHealth), has(self.promql), has(self.http)].exists_one(it, it)",
    "a monitor watches exactly one of resource, podHealth, promql and http"
))]
#[x_kube(validation = ("!has(self.target) || has(self.resource) || has(self.podHealth)", "promql and http have no target"))]
pub struct Monitor {
    /// Its name.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The role or target of `resource` and `podHealth` (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// Pause between two samples (default 15s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('1s')", "the shortest interval is 1s"))]
    pub interval: Option<Duration>,
    /// Objects of one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceMonitor>,
    /// Health of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_health: Option<PodHealthMonitor>,
    /// A query of a Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promql: Option<PromqlMonitor>,
    /// A request over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpMonitor>,
    /// CEL that yields the sample (defaults: 1 for each object, restarts, the series' value, milliseconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub value: Option<String>,
    /// When it raises alerts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_RULES))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub alerts: Vec<AlertRule>,
}
