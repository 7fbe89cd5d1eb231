//! Phases and their steps.

use kube::{KubeSchema, core::cel::Rule};
use serde::{Deserialize, Serialize};

use super::{
    Duration,
    step::{Action, MAX_EXPRESSION_BYTES, StepBody, is_false},
};

/// The field that makes a step a group.
const PARALLEL: &str = "parallel";

/// The rule that something sets one of its kinds, or one of `more`.
pub(super) fn exactly_one(what: &str, kinds: &[&str], more: &[&str]) -> Rule {
    let fields = [kinds, more].concat();
    let set: Vec<String> = fields.iter().map(|field| format!("has(self.{field})")).collect();
    Rule::new(format!("[{}].exists_one(set, set)", set.join(", ")))
        .message(format!("{what} does exactly one thing: set one of {}", fields.join(", ")).as_str())
}

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

/// A member of a parallel group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one("a member of a group", Action::KINDS, &[]))]
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
#[x_kube(validation = exactly_one("a step", Action::KINDS, &[PARALLEL]))]
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
