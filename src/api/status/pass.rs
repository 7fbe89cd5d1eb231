//! Where a pass through the setup, a cycle or the cleanup is: its phases, their steps, their attempts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;

/// What part of the run a pass is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Section {
    /// The steps before the first cycle.
    Setup,
    /// One cycle.
    #[default]
    Cycle,
    /// The steps after everything.
    Cleanup,
}

/// Where an attempt of a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepState {
    /// Not begun, or waiting for its next attempt.
    #[default]
    Waiting,
    /// Begun: the intent is written, its effect may or may not be there yet.
    Active,
    /// Asked to stop.
    Stopping,
    /// Ended well.
    Succeeded,
    /// Ended badly, with no attempt left.
    Failed,
    /// Never begun because something before it failed or the run ended.
    Skipped,
}

impl StepState {
    /// Whether nothing more will happen to the step in this attempt of its phase.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped)
    }

    /// Whether something of it may run in a cluster.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Stopping)
    }
}

/// Whose a failure is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum FailureClass {
    /// It may go away by itself: a server that could not be asked, a conflict, an eviction, an image that was not pulled.
    Transient,
    /// What was expected did not hold.
    #[default]
    Assertion,
    /// A limit of time was reached.
    Timeout,
    /// The harness failed, or what it needs was not there: rights, quota, a cluster, an attempt that left no trace.
    Infrastructure,
}

impl FailureClass {
    /// The word that is written into statuses and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "Transient",
            Self::Assertion => "Assertion",
            Self::Timeout => "Timeout",
            Self::Infrastructure => "Infrastructure",
        }
    }
}

/// A value that a step handed on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OutputValue {
    /// A flag.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

impl OutputValue {
    /// The value as a number, if it is one: what statistics use.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "statistics work in doubles")]
            Self::Integer(value) => Some(*value as f64),
            Self::Number(value) => Some(*value),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

/// One attempt of a step that has ended and was followed by another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastAttempt {
    /// Its number, from 1.
    pub attempt: u32,
    /// Why it ended.
    pub reason: String,
    /// What was seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether trying again may help.
    #[serde(default)]
    pub transient: bool,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// The pod that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The exit code of its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// Where a step is, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// The step's path inside its phase: its name, or `group/member`.
    pub name: String,
    /// Where the current attempt is.
    pub state: StepState,
    /// The current attempt, from 1; 0 before the first. It grows over the phase's attempts as well.
    #[serde(default)]
    pub attempt: u32,
    /// Attempts that failed and used up the retry budget, in this attempt of the phase.
    #[serde(default)]
    pub failures: u32,
    /// Attempts in a row whose intent left nothing behind.
    #[serde(default)]
    pub lost: u32,
    /// When the current attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it was first seen running (a pod may be pending for a while).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<DateTime<Utc>>,
    /// When it was asked to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// The next attempt does not begin before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
    /// One word for why it is where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was seen, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether the failure may go away by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transient: Option<bool>,
    /// What the failure counts as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// The target that the current attempt works on; absent for the cluster that the operator runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Since when it can't begin because its target can't be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_at: Option<DateTime<Utc>>,
    /// The pod that runs or ran the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node that the pod ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The exit code of its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The values that it handed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "outputs_schema")]
    pub outputs: BTreeMap<String, OutputValue>,
    /// Earlier attempts, the newest five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastAttempt>,
}

/// Where a phase is, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseStatus {
    /// The phase's name.
    pub name: String,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// When its first attempt began.
    pub first_started_at: DateTime<Utc>,
    /// When the current attempt began, or will begin.
    pub started_at: DateTime<Utc>,
    /// When the current attempt is out of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it failed; set as soon as that is known, while its steps are still being stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Its steps, in the order of the spec.
    pub steps: Vec<StepStatus>,
}

/// Why something failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One stable word.
    pub reason: String,
    /// What was seen.
    pub message: String,
    /// Whether it may go away by itself.
    #[serde(default)]
    pub transient: bool,
    /// The exit code behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What it counts as; absent in what older versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
}

/// The setup, one cycle or the cleanup: a sequence of phases that is run once and leaves one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pass {
    /// What part of the run it is.
    pub section: Section,
    /// The cycle's number from 1; 0 for setup and cleanup.
    pub cycle: u32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it is out of time.
    pub deadline: DateTime<Utc>,
    /// The phases so far; the last one is at work until the pass has ended.
    pub phases: Vec<PhaseStatus>,
    /// How it ended; from here on only its record is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
}

fn outputs_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
