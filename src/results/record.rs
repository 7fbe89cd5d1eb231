//! The record of one pass: the setup, a cycle or the cleanup.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    manifest::Snapshot,
    monitor::{AlertRecord, MonitorRecord},
};
use crate::api::status::{Failure, FailureClass, Outcome, OutputValue, PastAttempt, Section, StepState};

/// The version of [`CycleRecord`]'s layout. Fields may be added within a version; none changes its meaning or goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CycleSchema {
    /// The first version.
    #[default]
    #[serde(rename = "soak.dev/cycle-record/v1")]
    V1,
}

/// The run that a record belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunRef {
    /// Name of the run.
    pub name: String,
    /// Namespace of the run.
    pub namespace: String,
    /// Uid of the run.
    pub uid: String,
    /// Attempt of the run; it grows with each rerun.
    pub attempt: u32,
}

/// Under which conditions the pass ran: what has to be equal for two records to be compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Version of the cluster that the operator runs in.
    pub kubernetes_version: String,
    /// Version of the operator.
    pub operator_version: String,
    /// The run's parameters, resolved.
    pub parameters: BTreeMap<String, String>,
    /// Digest of the parts of the spec that the attempt runs.
    pub spec_digest: String,
    /// Generation of the spec.
    pub spec_generation: i64,
    /// The target that played each role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, String>,
    /// The version of each target's API server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, String>,
    /// The seed of the run's random choices, if it makes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// The end of a step's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogRecord {
    /// The last lines.
    pub text: String,
    /// Whether earlier lines are missing.
    pub truncated: bool,
    /// How long the log was, in bytes, as far as it was read.
    pub bytes: u64,
    /// Where all of it is in the object store, below the attempt's folder, as gzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// The files that the last attempt of a step has left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactsRecord {
    /// Where they are in the object store, below the attempt's folder.
    pub folder: String,
    /// How many there are.
    pub count: u32,
    /// How long all of them are together.
    pub bytes: u64,
    /// The first of them; the index names all.
    pub files: Vec<ArtifactRecord>,
    /// Files that were asked for and are not there, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutRecord>,
    /// How many more there are of those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_left_out: u32,
    /// Why files may be missing that nothing is known of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactRecord {
    /// Its path below the folder.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A file that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOutRecord {
    /// Its path below the folder in the pod.
    pub path: String,
    /// Why.
    pub why: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What came of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// The step's path inside its phase: its name, or `group/member`.
    pub name: String,
    /// What the step does, such as `pod` or `wait`, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The state in which the step was left.
    pub state: StepState,
    /// Attempts in all; 0 if it never began.
    pub attempts: u32,
    /// How it ended; absent if it never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// When the last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When the last attempt was first seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<DateTime<Utc>>,
    /// When the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// How long the last attempt ran, without the time that it was pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How long the last attempt waited to run (a pod to be scheduled, pulled and started).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_seconds: Option<f64>,
    /// One word for why it ended as it did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was seen, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether the failure might have gone away by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transient: Option<bool>,
    /// What the failure counts as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// The target that the last attempt worked on; absent for the cluster that the operator runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The values that it handed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "outputs")]
    pub outputs: BTreeMap<String, OutputValue>,
    /// The pod of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node that the pod ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The exit code of the pod's first container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The end of the last attempt's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogRecord>,
    /// The files that the last attempt has left behind, if it was to leave any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<ArtifactsRecord>,
    /// Of a step that failed: the command that runs it alone, with the same inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<String>,
    /// Earlier attempts, oldest first, the newest five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastAttempt>,
}

/// What came of one phase. Its steps are those of its last attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseRecord {
    /// The phase's name; `setup` and `cleanup` in those sections.
    pub name: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When its first attempt began.
    pub started_at: DateTime<Utc>,
    /// When its last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// From the first attempt's beginning to the last one's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Its steps, in the order of the spec.
    pub steps: Vec<StepRecord>,
}

/// The record of the setup, a cycle or the cleanup of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CycleRecord {
    /// The layout's version.
    pub schema: CycleSchema,
    /// The run that it belongs to.
    pub run: RunRef,
    /// What part of the run it tells of.
    pub section: Section,
    /// The cycle's number from 1; 0 for setup and cleanup.
    pub cycle: u32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Something was left out to keep the record small; `fullDigest` is then the digest of the whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The digest of the record before anything was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_digest: Option<String>,
    /// The conditions that it ran under.
    pub environment: Environment,
    /// Its phases, as far as it came.
    pub phases: Vec<PhaseRecord>,
    /// Chosen objects as they were when the pass had failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// Alerts that fired during it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertRecord>,
    /// What monitors measured during it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitors: Vec<MonitorRecord>,
}

impl CycleRecord {
    /// Adds what monitors found.
    #[must_use]
    pub fn with_monitors(mut self, alerts: Vec<AlertRecord>, monitors: Vec<MonitorRecord>) -> Self {
        (self.alerts, self.monitors) = (alerts, monitors);
        self
    }

    /// Adds the files that steps have left behind, by the name of the pod.
    #[must_use]
    pub fn with_artifacts(mut self, mut artifacts: BTreeMap<String, ArtifactsRecord>) -> Self {
        for step in self.phases.iter_mut().flat_map(|phase| &mut phase.steps) {
            step.artifacts = step.pod.as_ref().and_then(|pod| artifacts.remove(pod));
        }
        self
    }

    /// Notes what each step does. The state of a pass does not tell; whoever has the spec does.
    #[must_use]
    pub fn with_kinds(mut self, kind_of: impl Fn(&str, &str) -> Option<String>) -> Self {
        for phase in &mut self.phases {
            for step in &mut phase.steps {
                step.kind = kind_of(&phase.name, &step.name);
            }
        }
        self
    }
}

fn outputs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": ["boolean", "number", "string"]}})
}
