//! `SoakRun`: one soak.
// Printer columns repeat their attributes' names; the lint takes each for a duplicate.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Duration,
    criteria::Criteria,
    monitor::{MAX_MONITORS, Monitor, ResourceMonitor},
    object_store::ObjectStore,
    phase::{Phase, Step},
    status::{FailureClass, SoakRunStatus},
    step::{MAX_EXPRESSION_BYTES, is_false},
    target::{Exclusive, MAX_TARGETS, Roles, Target},
};

/// When the run counts as failed before its time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// So many failed cycles are accepted; one more ends the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub max_failures: Option<u32>,
    /// So many failed cycles in a row are accepted; one more ends the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub max_consecutive_failures: Option<u32>,
    /// The first failed cycle ends the run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stop_on_failure: bool,
}

/// What a failure counts as, when the built-in classes do not fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct FailureRule {
    /// CEL over `failure` (`reason`, `message`, `transient`, `exitCode`); the first rule that is true decides.
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub when: String,
    /// `Transient`, `Assertion`, `Timeout` or `Infrastructure`.
    pub class: FailureClass,
}

/// A value that expressions read as `params.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Parameter {
    /// The parameter's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value; it may refer to other parameters by `${params.NAME}`.
    #[schemars(length(max = 16384))]
    pub value: String,
}

/// A template that the run takes what it does not say from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct TemplateRef {
    /// Name of a `SoakTemplate` in the run's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A failure that is injected beside the steps of a phase, and undone when the phase ends at the latest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunInjection {
    /// Its name, by which records tell it; no step of the phase may have it.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The phase at which it is injected.
    #[schemars(length(min = 1, max = 40))]
    pub at_phase: String,
    /// So long after the phase's start (default at once).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Duration>,
    /// Only in every so many cycles: with 3, in cycles 3, 6, 9 and so on (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub every: Option<u32>,
    /// With this probability in each of those cycles, as a decimal such as `"0.25"` (default `"1"`). The run's seed decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub probability: Option<String>,
    /// The role or target whose cluster is hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub target: Option<String>,
    /// The spec of the injection, as in an `inject` step.
    #[schemars(schema_with = "super::step::schema::object")]
    pub template: serde_json::Value,
}

/// How many cycle records are kept in ConfigMaps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Newest records of failed or inconclusive cycles that are kept (default 50).
    #[serde(default = "default_kept")]
    #[schemars(range(max = 200))]
    pub failed: u32,
    /// Newest records of passed cycles that are kept (default 50).
    #[serde(default = "default_kept")]
    #[schemars(range(max = 200))]
    pub passed: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { failed: default_kept(), passed: default_kept() }
    }
}

const fn default_kept() -> u32 {
    50
}

/// Where the records of cycles are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Store {
    /// One ConfigMap a cycle, owned by the run.
    #[default]
    ConfigMap,
}

/// Where results go and how long they stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// The store: `ConfigMap`.
    #[serde(default)]
    pub store: Store,
    /// How many records are kept, by outcome.
    #[serde(default)]
    pub retention: Retention,
    /// Keeps the results, every record among them, in an object store instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStore>,
}

/// How time spent suspended counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SuspendedTime {
    /// The run's duration goes on from its original start.
    #[default]
    Counted,
    /// The run's duration stands still.
    Excluded,
}

/// One soak: cycles of phases of steps, repeated until a number or a time is reached, and a verdict.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "soak.dev",
    version = "v1alpha1",
    kind = "SoakRun",
    namespaced,
    shortname = "sr",
    category = "soak",
    status = "SoakRunStatus",
    derive = "PartialEq",
    doc = "A soak run: cycles of phases of steps, repeated until a number or a time is reached, and a verdict.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Cycles",
        type_ = "string",
        json_path = ".status.progress",
        description = "Cycles that have ended, of those asked for"
    ),
    printcolumn(name = "Passed", type_ = "integer", json_path = ".status.cycles.passed"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.cycles.failed"),
    printcolumn(
        name = "Now",
        type_ = "string",
        json_path = ".status.position",
        description = "Cycle, phase and step at work"
    ),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.successRate", priority = 1),
    printcolumn(name = "Alerts", type_ = "string", json_path = ".status.alerts.shown", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.cycles) || has(self.duration) || has(self.templateRef)",
    "set cycles, duration or both: the first that is reached ends the run"
))]
#[x_kube(validation = (
    "has(self.templateRef) || (has(self.phases) && self.phases.size() > 0)",
    "set phases, or a templateRef to a template that has them"
))]
#[x_kube(validation = (
    "!has(self.roles) || self.roles.all(role, role == 'rotate' || (has(self.targets) && self.targets.exists(target, target.name == self.roles[role])))",
    "each role names one of spec.targets"
))]
#[x_kube(validation = (
    "!has(self.roles) || !has(self.targets) || self.targets.all(target, !(target.name in self.roles))",
    "a name is a role or a target, not both"
))]
pub struct SoakRunSpec {
    /// The service account in the run's namespace as which everything is done.
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: String,
    /// The template that gives whatever is not set here; `parameters` are then the values for its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,
    /// So many cycles are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub cycles: Option<u32>,
    /// No cycle begins later than so long after the run's start; one that has begun may end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "a duration must be longer than 0s"))]
    pub duration: Option<Duration>,
    /// Pause between two cycles (default none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Duration>,
    /// Longest time that a cycle may take (default 24h).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "a timeout must be longer than 0s"))]
    pub cycle_timeout: Option<Duration>,
    /// Longest time that the setup may take (default 30m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "a timeout must be longer than 0s"))]
    pub setup_timeout: Option<Duration>,
    /// Longest time that the cleanup may take (default 10m); it has this time whatever the run has used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "a timeout must be longer than 0s"))]
    pub cleanup_timeout: Option<Duration>,
    /// When failed cycles end the run early.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// What failures count as where the built-in classes do not fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub failure_rules: Vec<FailureRule>,
    /// The clusters that steps work on. Absent: only the one that the operator runs in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TARGETS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub targets: Vec<Target>,
    /// Names for what targets do in the run, so that steps need not change when two clusters swap roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Roles>,
    /// Keeps other runs of the same key from working at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<Exclusive>,
    /// Values for expressions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub parameters: Vec<Parameter>,
    /// Steps before the first cycle; their fields are those of `phases.steps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub setup: Vec<Step>,
    /// What each cycle does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub phases: Vec<Phase>,
    /// Failures that are injected beside the steps of a phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub injections: Vec<RunInjection>,
    /// What is watched beside the steps, from the run's start to its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_MONITORS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub monitors: Vec<Monitor>,
    /// Objects whose state is recorded at the start, at each failure and at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub snapshot: Vec<ResourceMonitor>,
    /// What chance depends on, so that a run can be repeated with the same choices (default: made from the run's uid).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991u64))]
    pub seed: Option<u64>,
    /// Steps after the last cycle, an abort, a failure or a deletion. Each is run, even when one before it failed. Fields as in `phases.steps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub cleanup: Vec<Step>,
    /// What the run must show to pass.
    #[serde(default)]
    pub criteria: Criteria,
    /// Where records go and how long they stay.
    #[serde(default)]
    pub results: Results,
    /// Begins no further step while it is true; steps that run may end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
    /// How time spent suspended counts towards `duration`: `Counted` (default) or `Excluded`.
    #[serde(default)]
    pub suspended_time: SuspendedTime,
    /// Stops what runs, cleans up and ends the run as aborted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub abort: bool,
    /// Resolves and validates everything on the server, performs nothing and ends.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Any text; a change of it begins a new attempt of the run, with the spec as it is then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub rerun: Option<String>,
    /// Deletes the run and its records so long after it has ended; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Duration>,
}
