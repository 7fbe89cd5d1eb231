//! The status of a `SoakRun`: everything that the engine needs to go on after a crash, and nothing that grows.
//!
//! Bounds: the position holds one pass at a time (at most [`MAX_STEPS`] steps), ten recent cycles, [`MAX_METRICS`]
//! sketches, [`MAX_HELD`] held objects. Texts are cut by the engine.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, condition::unobserved, step::DeleteAfter};

mod monitor;
mod pass;
mod target;

pub use monitor::{Alert, AlertState, Alerts, MAX_ALERTS, MonitorStatus, RECENT_ALERTS};
pub use pass::{Failure, FailureClass, OutputValue, Pass, PastAttempt, PhaseStatus, Section, StepState, StepStatus};
pub use target::{LockStatus, TargetStatus};

/// Most steps, members of groups included, that a spec may have in all.
pub const MAX_STEPS: usize = 256;
/// Most durations and outputs whose distribution is kept.
pub const MAX_METRICS: usize = 48;
/// Most objects that steps may hold until their scope ends.
pub const MAX_HELD: usize = 64;
/// Recent cycles shown in the status.
pub const RECENT_CYCLES: usize = 10;

/// The state machine of a run as people read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RunPhase {
    /// Seen, not yet begun.
    #[default]
    Pending,
    /// The spec is resolved and tried on the server.
    Validating,
    /// The setup's steps run.
    SettingUp,
    /// A cycle runs.
    Running,
    /// Between two cycles.
    CoolingDown,
    /// The cleanup's steps run.
    CleaningUp,
    /// Ended with a good verdict.
    Succeeded,
    /// Ended with a bad verdict, or could not be run.
    Failed,
    /// Ended without enough evidence for a verdict.
    Inconclusive,
    /// Ended by an abort or a deletion.
    Aborted,
}

impl RunPhase {
    /// Every phase.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Validating,
        Self::SettingUp,
        Self::Running,
        Self::CoolingDown,
        Self::CleaningUp,
        Self::Succeeded,
        Self::Failed,
        Self::Inconclusive,
        Self::Aborted,
    ];

    /// Whether the run has ended; it then never changes again, but by a rerun.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Inconclusive | Self::Aborted)
    }

    /// The declared edges (S2). Every end may become `Pending` or what follows it, by a changed `spec.rerun` only.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            // What is accepted at once is validated within one decision.
            Self::Pending => matches!(next, Self::Validating) || Self::Validating.may_become(next),
            Self::Validating => {
                matches!(next, Self::SettingUp | Self::Running | Self::Succeeded | Self::Failed | Self::Aborted)
            }
            // A cleanup with nothing to do is passed through within one decision.
            Self::SettingUp | Self::CoolingDown => matches!(next, Self::Running | Self::CleaningUp) || next.is_final(),
            Self::Running => matches!(next, Self::CoolingDown | Self::CleaningUp) || next.is_final(),
            Self::CleaningUp => next.is_final(),
            Self::Succeeded | Self::Failed | Self::Inconclusive | Self::Aborted => {
                matches!(next, Self::Pending | Self::Validating | Self::Failed)
            }
        }
    }

    /// The word that is written into the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Validating => "Validating",
            Self::SettingUp => "SettingUp",
            Self::Running => "Running",
            Self::CoolingDown => "CoolingDown",
            Self::CleaningUp => "CleaningUp",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Inconclusive => "Inconclusive",
            Self::Aborted => "Aborted",
        }
    }
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// All that was required was seen to succeed.
    Succeeded,
    /// Something that was required failed.
    Failed,
    /// It was stopped before it could tell (an abort, a lost observation); never a success.
    Inconclusive,
}

impl Outcome {
    /// The word that is written into statuses and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Inconclusive => "Inconclusive",
        }
    }
}

/// An object that a step made and that is deleted when its scope ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldObject {
    /// The object's API version.
    pub api_version: String,
    /// The object's kind.
    pub kind: String,
    /// The object's namespace; empty for cluster-scoped ones.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The target that it is on; empty for the cluster that the operator runs in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The scope whose end deletes it.
    pub until: DeleteAfter,
    /// When deleting it was first tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releasing_at: Option<DateTime<Utc>>,
}

/// How many cycles ended how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CycleCounts {
    /// Cycles whose record is stored.
    pub completed: u32,
    /// Of them, passed.
    pub passed: u32,
    /// Of them, failed.
    pub failed: u32,
    /// Of them, stopped before they could tell.
    pub inconclusive: u32,
    /// Failed cycles since the last one that passed.
    pub consecutive_failures: u32,
    /// Failed cycles whose failure was transient.
    #[serde(default)]
    pub transient_failures: u32,
}

/// One line on a cycle that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CycleSummary {
    /// Its number.
    pub number: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not pass, as `phase/step: reason`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub millis: i64,
    /// The digest of its record.
    pub digest: String,
}

/// The distribution of a duration (in seconds) or of a numeric output over the cycles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// `cycle`, `phases.NAME` or `steps.NAME.outputs.OUTPUT`.
    pub name: String,
    /// The sketch in its text form.
    pub sketch: String,
}

/// Why the run ends, decided once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// A reason word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it was decided.
    pub at: DateTime<Utc>,
}

/// Names a record of a pass within an attempt of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct RecordRef {
    /// What part of the run.
    pub section: Section,
    /// The cycle's number.
    pub cycle: u32,
}

/// Which records are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptRecords {
    /// Numbers of the passed cycles whose record is kept, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<u32>,
    /// Numbers of the other cycles whose record is kept, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<u32>,
    /// The digest of the summary, once it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Records that are counted and wait in ConfigMaps for the object store, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<RecordRef>,
}

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SoakRunStatus {
    /// The generation of the spec that the status speaks of; -1 before any.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,
    /// Where the run is.
    #[serde(default)]
    pub phase: RunPhase,
    /// One stable word for why.
    #[serde(default)]
    pub reason: String,
    /// One sentence for people.
    #[serde(default)]
    pub message: String,
    /// `Succeeded`, `Completed`, `Reconciling`, `Stalled`.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The attempt of the run, from 1; it grows with each rerun.
    #[serde(default)]
    pub attempt: u32,
    /// The value of `spec.rerun` that this attempt belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<String>,
    /// Digest of the parts of the spec that this attempt runs.
    #[serde(default)]
    pub spec_digest: String,
    /// When the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// When the attempt was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<DateTime<Utc>>,
    /// Since when it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<DateTime<Utc>>,
    /// Milliseconds that it was suspended before that.
    #[serde(default)]
    pub suspended_millis: i64,
    /// The server has accepted everything that the spec asks for.
    #[serde(default)]
    pub validated: bool,
    /// The setup has ended well, or there is none.
    #[serde(default)]
    pub set_up: bool,
    /// How many cycles ended how.
    #[serde(default)]
    pub cycles: CycleCounts,
    /// Cycles that have ended of those asked for, such as `12/20`.
    #[serde(default)]
    pub progress: String,
    /// What is at work, such as `13 activation/restore`.
    #[serde(default)]
    pub position: String,
    /// Share of cycles that passed, with its interval, such as `0.950 (0.764-0.991)`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub success_rate: String,
    /// The target that plays each role now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, String>,
    /// How often the roles have swapped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub role_swaps: u32,
    /// What is known of each target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub targets: Vec<TargetStatus>,
    /// The key of `spec.exclusive`, from the moment at which it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockStatus>,
    /// The pass at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Pass>,
    /// When the next cycle begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cycle_at: Option<DateTime<Utc>>,
    /// Why the run ends; set once, before the cleanup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Whether the cleanup failed, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_failure: Option<Failure>,
    /// The cleanup has ended, or there is none.
    #[serde(default)]
    pub cleaned_up: bool,
    /// Objects to be deleted when their scope ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldObject>,
    /// The newest ten cycles, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<CycleSummary>,
    /// Distributions over all cycles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Which records are kept.
    #[serde(default)]
    pub records: KeptRecords,
    /// What monitors found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Alerts>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Default for SoakRunStatus {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            phase: RunPhase::default(),
            reason: String::new(),
            message: String::new(),
            conditions: Vec::new(),
            attempt: 0,
            rerun: None,
            spec_digest: String::new(),
            started_at: None,
            finished_at: None,
            accepted_at: None,
            suspended_at: None,
            suspended_millis: 0,
            validated: false,
            set_up: false,
            cycles: CycleCounts::default(),
            progress: String::new(),
            position: String::new(),
            success_rate: String::new(),
            roles: BTreeMap::new(),
            role_swaps: 0,
            targets: Vec::new(),
            lock: None,
            current: None,
            next_cycle_at: None,
            ending: None,
            cleanup_failure: None,
            cleaned_up: false,
            held: Vec::new(),
            recent: Vec::new(),
            metrics: Vec::new(),
            records: KeptRecords::default(),
            alerts: None,
        }
    }
}
