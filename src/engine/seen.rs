//! What the shell tells the engine: observations, as plain data.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::api::status::{Failure, OutputValue, RecordRef, Section};

use super::monitor::MonitorSeen;

/// Names one attempt of a step. With the run's uid it is unique for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepKey {
    /// The attempt of the run (it grows with each rerun).
    pub run_attempt: u32,
    /// Setup, cycle or cleanup.
    pub section: Section,
    /// The cycle's number; 0 for setup and cleanup.
    pub cycle: u32,
    /// The phase's name.
    pub phase: String,
    /// The step's path inside the phase: its name, or `group/member`.
    pub step: String,
    /// The step's attempt, from 1.
    pub attempt: u32,
}

/// How an attempt of a step ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepEnd {
    /// Why it failed; none for a success.
    pub failure: Option<Failure>,
    /// The values it handed on.
    pub outputs: BTreeMap<String, OutputValue>,
    /// The exit code of its container.
    pub exit_code: Option<i32>,
    /// When it began to run, if the cluster tells.
    pub running_at: Option<DateTime<Utc>>,
    /// When it ended, if the cluster tells.
    pub finished_at: Option<DateTime<Utc>>,
    /// The pod that ran it.
    pub pod: Option<String>,
    /// The node that the pod ran on.
    pub node: Option<String>,
}

impl StepEnd {
    /// A success without outputs.
    pub fn succeeded() -> Self {
        Self::default()
    }

    /// A failure of the system under test: trying again at once would show the same.
    pub fn failed(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::with_failure(reason, message, false)
    }

    /// A failure that may go away by itself.
    pub fn transient(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::with_failure(reason, message, true)
    }

    fn with_failure(reason: impl Into<String>, message: impl Into<String>, transient: bool) -> Self {
        let failure = Failure { reason: reason.into(), message: message.into(), transient, ..Failure::default() };
        Self { failure: Some(failure), ..Self::default() }
    }
}

/// What is known of the current attempt of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum StepSeen {
    /// Nothing yet: its effect is under way, or the watch has not caught up. The engine waits.
    #[default]
    Unknown,
    /// Known for certain: there is no trace of it, and no call of it is under way.
    Absent,
    /// It is there and waits to run (a pod that is scheduled, pulled, started), with what holds it up.
    Pending {
        /// One word.
        reason: String,
        /// What was seen.
        message: String,
    },
    /// It runs. `message` tells what it waits for, if there is something to tell.
    Running {
        /// Since when, if the cluster tells.
        since: Option<DateTime<Utc>>,
        /// For people.
        message: String,
    },
    /// It has ended.
    Ended(StepEnd),
}

/// What the server said of the whole spec, tried as the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validation {
    /// Everything would be accepted.
    Accepted,
    /// Something can't work as it is written.
    Invalid {
        /// A reason word.
        reason: String,
        /// Which field, what was expected, what to do.
        message: String,
    },
    /// Something is missing that may come: a right, an account, a namespace, a kind, the server.
    NotYet {
        /// A reason word.
        reason: String,
        /// What is missing, what to do.
        message: String,
    },
}

/// What is known of storing the record of a pass, or the summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RecordSeen {
    /// Not stored yet, as far as is known.
    #[default]
    Missing,
    /// Stored and read back, with this digest.
    Stored {
        /// `sha256:…`
        digest: String,
    },
    /// In a ConfigMap, read back, with this digest, until the object store takes it.
    Kept {
        /// `sha256:…`
        digest: String,
    },
    /// The last try failed; the shell goes on trying.
    Failing {
        /// What the store said.
        message: String,
    },
}

impl RecordSeen {
    /// The digest of a record that will not be lost any more.
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Stored { digest } | Self::Kept { digest } => Some(digest),
            Self::Missing | Self::Failing { .. } => None,
        }
    }
}

/// What is known of the records that wait for the object store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Those that are in the store by now.
    pub done: Vec<RecordRef>,
    /// What the store said when it last refused one.
    pub failure: Option<String>,
}

/// A pod of the run that is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The attempt of a step that it runs, if its labels tell one.
    pub key: Option<StepKey>,
    /// Its containers have ended.
    pub ended: bool,
    /// It is being deleted already.
    pub deleting: bool,
    /// The target that it is on; empty for the cluster that the operator runs in.
    pub target: String,
}

/// What is known of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetSeen {
    /// Its API server answers to the credentials.
    pub reachable: bool,
    /// A stable word.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// The version of its API server.
    pub version: Option<String>,
    /// How long its API server took to answer.
    pub latency_millis: Option<i64>,
    /// The run may have pods there that are not known: they have not been listed (yet).
    pub pods_unknown: bool,
}

/// What is known of the key of `spec.exclusive`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LockSeen {
    /// Nothing yet.
    #[default]
    Unknown,
    /// The run holds it.
    Held,
    /// Another run holds it.
    HeldBy(String),
    /// The run does not hold it (any more).
    Free,
}

/// Everything that the shell knows about the outside when it asks for a decision.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The live steps. A live step that is not here counts as [`StepSeen::Unknown`].
    pub steps: BTreeMap<StepKey, StepSeen>,
    /// The answer to [`Effect::Validate`](super::Effect::Validate), once there is one for this attempt of the run.
    pub validation: Option<Validation>,
    /// Which pass [`record`](Self::record) speaks of: its section and cycle.
    pub record_of: (Section, u32),
    /// The record of that pass.
    pub record: RecordSeen,
    /// The record of the whole run.
    pub summary: RecordSeen,
    /// The records that wait for the object store.
    pub forwarding: Forwarding,
    /// Names (see [`held_name`](super::held_name)) of held objects that are known to be gone, or not the run's.
    pub released: Vec<String>,
    /// The targets by name. One that is not here counts as reachable.
    pub targets: BTreeMap<String, TargetSeen>,
    /// The key of `spec.exclusive`.
    pub lock: LockSeen,
    /// Monitors that have been looked at, by name.
    pub monitors: BTreeMap<String, MonitorSeen>,
    /// The run's pods, or none while the watch has not caught up.
    pub pods: Vec<PodSeen>,
}

impl Seen {
    /// Why nothing can be begun on a target, if nothing can.
    pub fn away(&self, target: &str) -> Option<&TargetSeen> {
        self.targets.get(target).filter(|target| !target.reachable)
    }
}
