//! `FailureInjection`: one fault, and the journal by which it is undone.
// Printer columns repeat their attributes' names; the lint takes each for a duplicate.
#![allow(clippy::duplicated_attributes)]

use chrono::{DateTime, Utc};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Duration,
    fault::{Fault, FaultBody},
    phase::exactly_one,
    step::{Header, MAX_EXPRESSION_BYTES, ResourceRef, is_false},
    target::SecretKeyRef,
};

mod status;

pub use status::{
    EntryState, FailureInjectionStatus, FieldChange, HelperWork, InjectionPhase, JournalEntry, MAX_TARGETS, MadeObject,
    ObjectRef, ToxicRef, Undo,
};

/// What a fault hits: objects of one kind, chosen among those that fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!(has(self.count) && has(self.percent))",
    "set count or percent, not both"
))]
#[x_kube(validation = (
    "!(has(self.name) && (has(self.labelSelector) || has(self.count) || has(self.percent)))",
    "a name says which object is meant: leave labelSelector, count and percent out"
))]
pub struct Target {
    /// `v1`, `apps/v1`, … (default: that of the kind that the fault is about).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub api_version: Option<String>,
    /// `Pod`, `StatefulSet`, … (default: the kind that the fault is about).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Where the objects are (default: the injection's own namespace).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    /// The one object that is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Objects with these labels, as in `app=etcd,role!=witness`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub label_selector: Option<String>,
    /// CEL over `object`: only objects for which it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub filter: Option<String>,
    /// Only objects that answer a request in a certain way: the leader of a cluster, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Box<Probe>>,
    /// Of those that fit, so many (default 1), chosen at random with the injection's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<u32>,
    /// Of those that fit, so many percent, rounded up, chosen at random with the injection's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u32>,
}

/// A request over HTTP from the operator, whose answer is judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Where to; may hold `${...}` over `object`, such as `http://${object.status.podIP}:2379/health`.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The method (default GET).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(GET|HEAD|POST|PUT)$"))]
    pub method: Option<String>,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<Header>,
    /// Body of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub body: Option<String>,
    /// CEL over `response` (`status`, `headers`, `body`, `json`) and `object`.
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub expect: String,
}

/// When the system is healthy again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.resource) == has(self.until) && (has(self.resource) || has(self.probe))",
    "set resource and until, or probe, or all of them"
))]
pub struct Recovery {
    /// The object that tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceRef>,
    /// CEL over `object`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub until: Option<String>,
    /// A request whose answer tells; asked again every half second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Box<Probe>>,
    /// Longest time from the end of the fault (default 5m). After it the injection has failed; the fault is undone all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// What happens when nothing fits the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoTarget {
    /// The injection has failed.
    #[default]
    Fail,
    /// The injection ends as skipped.
    Skip,
    /// It is looked for again until the starting deadline.
    Wait,
}

/// One of several faults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one("an alternative", Fault::KINDS, &[]))]
pub struct Alternative {
    /// Its name, which the status tells when it was chosen.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What it hits (default: the injection's target).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Box<Target>>,
    /// What it does.
    #[serde(flatten)]
    pub body: FaultBody,
}

/// One fault: what is hit, how, when and for how long. It is always undone.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "soak.dev",
    version = "v1alpha1",
    kind = "FailureInjection",
    namespaced,
    shortname = "fi",
    category = "soak",
    status = "FailureInjectionStatus",
    derive = "PartialEq",
    doc = "A failure injection: what is hit, how, when and for how long. It is always undone.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Fault", type_ = "string", json_path = ".status.fault"),
    printcolumn(name = "Targets", type_ = "string", json_path = ".status.target", description = "What is hit"),
    printcolumn(name = "Until", type_ = "date", json_path = ".status.deadline", priority = 1),
    printcolumn(name = "Recovery", type_ = "string", json_path = ".status.timeToRecover"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one("an injection", Fault::KINDS, &["oneOf"]))]
#[x_kube(validation = Rule::new(UNCHANGED).message(
    "an injection's spec is fixed but for abort and ttlAfterFinished: make another injection"
))]
pub struct FailureInjectionSpec {
    /// The service account in the injection's namespace as which everything is done and undone.
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: String,
    /// Where the kubeconfig of the cluster is that is hit, read as the service account; that kubeconfig's user then does and undoes
    /// everything (default: the cluster that the operator runs in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret_ref: Option<SecretKeyRef>,
    /// What is hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Box<Target>>,
    /// What is done.
    #[serde(flatten)]
    pub body: FaultBody,
    /// One of these is chosen at random with the injection's seed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub one_of: Vec<Alternative>,
    /// How long the fault lasts, from when it is there. Needed where there is something to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "a duration must be longer than 0s"))]
    pub duration: Option<Duration>,
    /// When it begins (default at once).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<DateTime<Utc>>,
    /// How much later than that it may begin; after this it does not begin at all (default 5m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline: Option<Duration>,
    /// What happens when nothing fits the target: `Fail` (default), `Skip` or `Wait`.
    #[serde(default)]
    pub on_no_target: NoTarget,
    /// When the system is healthy again. Without it that is as soon as the fault is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Box<Recovery>>,
    /// What chance depends on, so that it can be repeated (default: the injection's uid).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub seed: Option<String>,
    /// Ends the fault now, or lets it not begin.
    #[serde(default, skip_serializing_if = "is_false")]
    pub abort: bool,
    /// Finds out what would be hit and whether the server would accept it, and ends.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Deletes the injection so long after it has ended; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Duration>,
}

/// What stays as it is. What an active injection does follows from its journal, so the fault's own fields are not compared: the server
/// can't bound the cost of comparing them.
const UNCHANGED: &str = "self.serviceAccountName == oldSelf.serviceAccountName \
    && has(self.kubeconfigSecretRef) == has(oldSelf.kubeconfigSecretRef) \
    && (!has(self.kubeconfigSecretRef) || self.kubeconfigSecretRef == oldSelf.kubeconfigSecretRef) \
    && has(self.duration) == has(oldSelf.duration) && (!has(self.duration) || self.duration == oldSelf.duration) \
    && has(self.startAt) == has(oldSelf.startAt) && (!has(self.startAt) || self.startAt == oldSelf.startAt) \
    && has(self.target) == has(oldSelf.target) && (!has(self.target) || self.target == oldSelf.target) \
    && has(self.seed) == has(oldSelf.seed) && (!has(self.seed) || self.seed == oldSelf.seed) \
    && has(self.dryRun) == has(oldSelf.dryRun)";
