//! What is kept of a pod: enough to judge a step by it, and no more.

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::{
    api::core::v1::{ContainerState as FullState, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};

use super::{RunRef, Woken};
use crate::api::{
    names::{ARTIFACTS_CONTAINER, GROUP, label},
    status::Section,
};

/// Longest text that is kept of a message, in bytes; a termination message is kept in full (4,096 by the kubelet).
const MAX_TEXT: usize = 512;
const MAX_TERMINATION_MESSAGE: usize = 4_096;
/// The conditions that tell something about a step.
const CONDITIONS: [&str; 2] = ["PodScheduled", "DisruptionTarget"];

/// Which attempt of a step a pod runs, as its labels tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordinates {
    /// The attempt of the run.
    pub run_attempt: u32,
    /// Setup, cycle or cleanup.
    pub section: Section,
    /// The cycle's number.
    pub cycle: u32,
    /// The phase's name.
    pub phase: String,
    /// The step's path, `group/member` for members of groups.
    pub step: String,
    /// The step's attempt.
    pub attempt: u32,
}

/// A condition of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCondition {
    /// Such as `PodScheduled`.
    pub type_: String,
    /// Whether its status is `True`.
    pub holds: bool,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It has not been started, or waits to be started again.
    Waiting {
        /// The kubelet's word.
        reason: String,
        /// The kubelet's sentence.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Option<DateTime<Utc>>,
    },
    /// It has ended.
    Terminated {
        /// Exit code; 128 and the signal's number when a signal ended it.
        exit_code: i32,
        /// The kubelet's word.
        reason: String,
        /// What it wrote to its termination message path.
        message: String,
        /// When it began.
        started_at: Option<DateTime<Utc>>,
        /// When it ended.
        finished_at: Option<DateTime<Utc>>,
    },
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSummary {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: ContainerState,
    /// How often it was started again.
    pub restarts: i32,
    /// It is an init container that runs beside the others.
    pub sidecar: bool,
}

/// A pod of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSummary {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The run that is its controller.
    pub run: RunRef,
    /// The attempt that it runs, if its labels tell one.
    pub coordinates: Option<Coordinates>,
    /// The node that it was bound to.
    pub node: Option<String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// Why the whole pod is in this phase, such as `Evicted` or `DeadlineExceeded`.
    pub reason: String,
    /// The sentence to the reason.
    pub message: String,
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// When the kubelet took it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it is to be gone, once it is being deleted.
    pub deleting_at: Option<DateTime<Utc>>,
    /// How long it was given to end, once it is being deleted.
    pub deletion_grace_seconds: Option<i64>,
    /// How long its containers are given to end.
    pub grace_seconds: i64,
    /// The deadline in its spec.
    pub deadline_seconds: Option<i64>,
    /// Conditions that tell something about a step.
    pub conditions: Vec<PodCondition>,
    /// Its first container, once the kubelet tells of it.
    pub main: Option<ContainerSummary>,
    /// Its init containers.
    pub init: Vec<ContainerSummary>,
    /// Whether its spec has the container that hands on artifacts.
    pub has_artifacts: bool,
    /// It is no longer in the cluster; everything else is as it was last seen.
    pub gone: bool,
}

/// Name and uid of the run that is the controller.
fn controller(owners: Vec<OwnerReference>) -> Option<(String, String)> {
    let group = format!("{GROUP}/");
    let is_run = |owner: &OwnerReference| {
        owner.controller == Some(true) && owner.kind == "SoakRun" && owner.api_version.starts_with(&group)
    };
    owners.into_iter().find(is_run).map(|owner| (owner.name, owner.uid))
}

impl PodSummary {
    /// Trims a pod. None if its controller is not the run that its label names, or, on another cluster, if its marks
    /// do not name a run.
    pub fn of(pod: Pod, remote: bool) -> Option<Self> {
        let Pod { metadata, spec, status } = pod;
        let labels = metadata.labels.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let namespace = metadata.namespace?;
        let (name, uid) = if remote {
            (annotations.get(label::RUN)?.clone(), annotations.get(label::CREATED_BY)?.clone())
        } else {
            controller(metadata.owner_references.unwrap_or_default())?
        };
        if labels.get(label::RUN_UID) != Some(&uid) {
            return None;
        }
        let spec = spec.unwrap_or_default();
        let status = status.unwrap_or_default();
        let init = spec.init_containers.unwrap_or_default();
        let sidecars: Vec<&str> = init
            .iter()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"))
            .map(|container| container.name.as_str())
            .collect();
        let first = spec.containers.into_iter().next().map(|container| container.name).unwrap_or_default();
        let main = status.container_statuses.unwrap_or_default().into_iter().find(|container| container.name == first);
        let conditions = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .filter(|condition| CONDITIONS.contains(&condition.type_.as_str()))
            .map(|condition| PodCondition {
                holds: condition.status == "True",
                type_: condition.type_,
                reason: condition.reason.unwrap_or_default(),
                message: bounded(condition.message, MAX_TEXT),
            })
            .collect();
        Some(Self {
            name: metadata.name?,
            coordinates: coordinates(&labels, &annotations),
            run: RunRef { what: Woken::Run, namespace: namespace.clone(), name, uid },
            namespace,
            uid: metadata.uid?,
            node: spec.node_name,
            phase: status.phase.unwrap_or_default(),
            reason: status.reason.unwrap_or_default(),
            message: bounded(status.message, MAX_TEXT),
            created_at: metadata.creation_timestamp.as_ref().and_then(time),
            started_at: status.start_time.as_ref().and_then(time),
            deletion_grace_seconds: metadata.deletion_grace_period_seconds,
            deleting_at: metadata.deletion_timestamp.as_ref().and_then(time),
            grace_seconds: spec.termination_grace_period_seconds.unwrap_or(30),
            deadline_seconds: spec.active_deadline_seconds,
            conditions,
            main: main.map(|status| container(status, false)),
            init: status
                .init_container_statuses
                .unwrap_or_default()
                .into_iter()
                .map(|status| {
                    let sidecar = sidecars.contains(&status.name.as_str());
                    container(status, sidecar)
                })
                .collect(),
            has_artifacts: sidecars.contains(&ARTIFACTS_CONTAINER),
            gone: false,
        })
    }

    /// The condition of that type, if it holds.
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// When its deletion was asked for.
    pub fn deletion_requested_at(&self) -> Option<DateTime<Utc>> {
        Some(self.deleting_at? - TimeDelta::seconds(self.deletion_grace_seconds.unwrap_or(0)))
    }

    /// The container that hands on its artifacts, once the kubelet tells of it.
    pub fn artifacts(&self) -> Option<&ContainerSummary> {
        self.init.iter().find(|container| container.name == ARTIFACTS_CONTAINER && container.sidecar)
    }

    /// Whether its first container runs or has ended.
    pub fn has_started(&self) -> bool {
        self.main.as_ref().is_some_and(|main| !matches!(main.state, ContainerState::Waiting { .. }))
    }

    /// Whether its first container, or the whole pod, has ended.
    pub fn ended(&self) -> bool {
        self.gone
            || matches!(self.phase.as_str(), "Succeeded" | "Failed")
            || self.main.as_ref().is_some_and(|main| matches!(main.state, ContainerState::Terminated { .. }))
    }
}

type Map = std::collections::BTreeMap<String, String>;

/// Reads the coordinates back that a pod's manifest carries. The annotation has the step's path in full: a label
/// holds at most 63 characters and no slash.
fn coordinates(labels: &Map, annotations: &Map) -> Option<Coordinates> {
    let number = |name: &str| labels.get(name)?.parse().ok();
    let phase = labels.get(label::PHASE)?.clone();
    let section = match phase.as_str() {
        "setup" => Section::Setup,
        "cleanup" => Section::Cleanup,
        _ => Section::Cycle,
    };
    let step = annotations.get(label::STEP).cloned().or_else(|| Some(labels.get(label::STEP)?.replace('.', "/")))?;
    Some(Coordinates {
        run_attempt: number(label::RUN_ATTEMPT)?,
        section,
        cycle: number(label::CYCLE)?,
        phase,
        step,
        attempt: number(label::STEP_ATTEMPT)?,
    })
}

fn container(status: ContainerStatus, sidecar: bool) -> ContainerSummary {
    let FullState { running, terminated, waiting } = status.state.unwrap_or_default();
    let state = if let Some(terminated) = terminated {
        ContainerState::Terminated {
            exit_code: terminated.exit_code,
            reason: terminated.reason.unwrap_or_default(),
            message: bounded(terminated.message, MAX_TERMINATION_MESSAGE),
            started_at: terminated.started_at.as_ref().and_then(time),
            finished_at: terminated.finished_at.as_ref().and_then(time),
        }
    } else if let Some(running) = running {
        ContainerState::Running { since: running.started_at.as_ref().and_then(time) }
    } else {
        let waiting = waiting.unwrap_or_default();
        ContainerState::Waiting {
            reason: waiting.reason.unwrap_or_default(),
            message: bounded(waiting.message, MAX_TEXT),
        }
    };
    ContainerSummary { name: status.name, state, restarts: status.restart_count, sidecar }
}

/// The kubelet writes times to the second; one from before 1970 means that it does not know.
pub fn time(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.0.as_second(), time.0.subsec_nanosecond().try_into().unwrap_or(0))
        .filter(|time| time.timestamp() > 0)
}

fn bounded(text: Option<String>, limit: usize) -> String {
    let mut text = text.unwrap_or_default();
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.shrink_to_fit();
    }
    text
}
