//! Phases and their steps.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    Duration,
    step::{
        ApplyStep, DeleteStep, HttpStep, JobStep, MAX_EXPRESSION_BYTES, PatchStep, PodStep, ResourceStep, ScaleStep,
        SleepStep, WaitStep, is_false,
    },
};

/// When something that failed is tried again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How often it is tried again, after the first attempt.
    #[schemars(range(min = 1, max = 100))]
    pub limit: u32,
    /// Pause before the first retry (default 1s); it doubles with each further one, up to five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    /// CEL over `failure` (`reason`, `message`, `transient`, `exitCode`); retried only while it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub when: Option<String>,
}

/// A named value that a step hands on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Output {
    /// Its name; used as `steps.STEP.outputs.NAME`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// CEL over `object` or `response`, and all that the step could see.
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub value: String,
}

/// What a step does, and within which limits. Exactly one of the kinds is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepBody {
    /// Longest time that one attempt may run (default 30m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "a timeout must be longer than 0s"))]
    pub timeout: Option<Duration>,
    /// Longest time that an attempt's pod may wait to be scheduled and started (default 5m); not counted as running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "a timeout must be longer than 0s"))]
    pub pending_timeout: Option<Duration>,
    /// Whether and when the step is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Box<Retry>>,
    /// Values taken from the object or the response that the step ended on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub outputs: Vec<Output>,
    /// Runs a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<PodStep>>,
    /// Runs a Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_template: Option<Box<JobStep>>,
    /// Waits for a condition on an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Box<WaitStep>>,
    /// Applies an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<Box<ApplyStep>>,
    /// Patches an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Box<PatchStep>>,
    /// Sets the replicas of an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Box<ScaleStep>>,
    /// Deletes an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<Box<DeleteStep>>,
    /// Creates an object and follows it to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Box<ResourceStep>>,
    /// Makes an HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<HttpStep>>,
    /// Waits for a length of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep: Option<Box<SleepStep>>,
}

/// A member of a parallel group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.pod), has(self.jobTemplate), has(self.wait), has(self.apply), has(self.patch), has(self.scale), has(self.delete), has(self.resource), has(self.http), has(self.sleep)].exists_one(set, set)",
    "a member of a group does exactly one thing: set one of pod, jobTemplate, wait, apply, patch, scale, delete, resource, http, sleep"
))]
pub struct ParallelStep {
    /// Name, unique within the group.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub body: StepBody,
}

/// One thing that a phase does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.pod), has(self.jobTemplate), has(self.wait), has(self.apply), has(self.patch), has(self.scale), has(self.delete), has(self.resource), has(self.http), has(self.sleep), has(self.parallel)].exists_one(set, set)",
    "a step does exactly one thing: set one of pod, jobTemplate, wait, apply, patch, scale, delete, resource, http, sleep, parallel"
))]
#[x_kube(validation = (
    "!(has(self.background) && self.background && has(self.parallel))",
    "a group can't run in the background: mark its members' work as steps of their own"
))]
pub struct Step {
    /// Name, unique within the phase.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Runs beside the steps that follow and is stopped when they have ended; what it reports then still counts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub background: bool,
    /// Steps that run at the same time; the group ends when all have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub parallel: Vec<ParallelStep>,
    /// What it does.
    #[serde(flatten)]
    pub body: StepBody,
}

/// A stage of the cycle; its steps run one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// Name, unique within the run.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Longest time that one attempt of the phase may take, pauses between its steps' retries included (default: the cycle's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "a timeout must be longer than 0s"))]
    pub timeout: Option<Duration>,
    /// Whether and when the whole phase is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Box<Retry>>,
    /// What the phase does.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub steps: Vec<Step>,
}
