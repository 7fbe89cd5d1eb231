//! Judges a pod: does it wait, run, or how has it ended. Pure, on what is kept of a pod.

use chrono::{DateTime, TimeDelta, Utc};

use super::outputs;
use crate::{
    cluster::pods::{ContainerState, ContainerSummary, PodSummary},
    engine::seen::{StepEnd, StepSeen},
};

/// An image that can't be pulled is given up so long after the kubelet took the pod.
const PULL_GRACE: TimeDelta = TimeDelta::seconds(30);
/// A missing Secret or ConfigMap may still come within this.
const CONFIG_GRACE: TimeDelta = TimeDelta::seconds(15);
/// The kubelet tells a pod's phase so long after its first container has ended, or is not waited for. Sidecars may take
/// their grace period, and the phase waits for them.
const PHASE_GRACE: TimeDelta = TimeDelta::seconds(10);
/// Exit codes of a process that was told to end by SIGKILL or SIGTERM.
const KILLED: [i32; 2] = [137, 143];

/// Judges what is known of an attempt's pod.
///
/// The step is over when its first container has ended; sidecars that go on, and everything else that notices later,
/// do not matter. One that was asked to stop and went in peace did as it was told, whatever the deadline says.
pub(super) fn judge(pod: &PodSummary, stopping: bool, now: DateTime<Utc>) -> StepSeen {
    if let Some(ended) = Terminated::of_main(pod) {
        let deadline = deadline(pod, &ended);
        if let Deadline::Unsure { until } = deadline
            && now < until
            && !(stopping && ended.exit_code == 0)
        {
            let message = "its container has ended; the kubelet has not told yet why".into();
            return StepSeen::Running { since: ended.started_at, message };
        }
        let timed_out = !matches!(deadline, Deadline::NotReached);
        return StepSeen::Ended(on_pod(pod, end_of_main(pod, &ended, timed_out)));
    }
    if let Some(failure) = end_of_pod(pod).filter(|_| !is_ending(pod)) {
        return StepSeen::Ended(on_pod(pod, failure));
    }
    match &pod.main {
        Some(ContainerSummary { state: ContainerState::Running { since }, .. }) => {
            let message = if pod.deleting_at.is_some() { "the pod is being deleted".to_owned() } else { String::new() };
            StepSeen::Running { since: *since, message }
        }
        _ => waiting(pod, now),
    }
}

/// The pod is past its deadline, and its container is still told to run: how that ended, and with what outputs, is still to come.
/// The engine's own limits bound the wait.
fn is_ending(pod: &PodSummary) -> bool {
    let runs = matches!(&pod.main, Some(ContainerSummary { state: ContainerState::Running { .. }, .. }));
    pod.reason == "DeadlineExceeded" && runs && !pod.gone
}

struct Terminated<'a> {
    exit_code: i32,
    reason: &'a str,
    message: &'a str,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl<'a> Terminated<'a> {
    /// The end of the pod's first container, if it has ended.
    fn of_main(pod: &'a PodSummary) -> Option<Self> {
        match &pod.main.as_ref()?.state {
            ContainerState::Terminated { exit_code, reason, message, started_at, finished_at } => Some(Self {
                exit_code: *exit_code,
                reason,
                message,
                started_at: *started_at,
                finished_at: *finished_at,
            }),
            _ => None,
        }
    }

    /// Ended by somebody else, whatever the exit code says.
    fn killed(&self) -> bool {
        self.exit_code != 0 && (KILLED.contains(&self.exit_code) || self.reason == "ContainerStatusUnknown")
    }
}

/// Whether a container was ended by its pod's deadline.
enum Deadline {
    NotReached,
    /// The times say so; the kubelet, which alone knows, is given until then to tell.
    Unsure {
        until: DateTime<Utc>,
    },
    Reached,
}

fn on_pod(pod: &PodSummary, end: StepEnd) -> StepEnd {
    StepEnd { pod: Some(pod.name.clone()), node: pod.node.clone(), ..end }
}

fn end_of_main(pod: &PodSummary, ended: &Terminated<'_>, timed_out: bool) -> StepEnd {
    let outputs = outputs::parse(ended.message);
    let failure = failure_of_main(pod, ended, timed_out, outputs.as_ref().err());
    let end = with_exit_code(failure.unwrap_or_else(StepEnd::succeeded), ended.exit_code);
    StepEnd {
        outputs: outputs.unwrap_or_default(),
        running_at: ended.started_at,
        finished_at: ended.finished_at,
        ..end
    }
}

fn with_exit_code(mut end: StepEnd, exit_code: i32) -> StepEnd {
    end.exit_code = Some(exit_code);
    if let Some(failure) = &mut end.failure {
        failure.exit_code = Some(exit_code);
    }
    end
}

fn failure_of_main(
    pod: &PodSummary,
    ended: &Terminated<'_>,
    timed_out: bool,
    bad_outputs: Option<&String>,
) -> Option<StepEnd> {
    // What ended by itself before it was killed counts as it is.
    if ended.killed() && ended.reason == "OOMKilled" {
        return Some(StepEnd::failed("OOMKilled", "the container used more memory than its limit allows"));
    }
    // A background step that was stopped in time would lose them without a word.
    if let Some(problem) = bad_outputs.filter(|_| timed_out && ended.exit_code == 0) {
        return Some(StepEnd::failed("InvalidOutput", problem.clone()));
    }
    if timed_out {
        return Some(timeout(pod));
    }
    if let Some(lost) = disruption(pod).filter(|_| ended.killed()) {
        return Some(lost);
    }
    if pod.deleting_at.is_some_and(|_| ended_by_deletion(pod, ended)) {
        return Some(deleted(pod));
    }
    if ended.exit_code == 0 {
        return bad_outputs.map(|problem| StepEnd::failed("InvalidOutput", problem.clone()));
    }
    Some(match ended.reason {
        "OOMKilled" => StepEnd::failed("OOMKilled", "the container used more memory than its limit allows"),
        "ContainerStatusUnknown" => StepEnd::transient("NodeLost", "the node lost track of the container"),
        "StartError" | "ContainerCannotRun" => StepEnd::failed("StartError", first_line(ended.message)),
        _ => {
            let said = if ended.message.trim_start().starts_with('{') { "" } else { ended.message.trim() };
            let said = if said.is_empty() { String::new() } else { format!(": {}", first_line(said)) };
            StepEnd::failed("NonZeroExit", format!("exit code {}{said}", ended.exit_code))
        }
    })
}

/// Compares a container's end with its pod's deadline.
///
/// The kubelet counts the deadline from the start that it tells, which is cut to whole seconds, so a container that it
/// ended for that has `finished - started >= deadline`. It kills first and tells the reason later.
fn deadline(pod: &PodSummary, ended: &Terminated<'_>) -> Deadline {
    let told = pod.reason == "DeadlineExceeded";
    let (Some(limit), Some(started), Some(finished)) = (pod.deadline_seconds, pod.started_at, ended.finished_at) else {
        return if told { Deadline::Reached } else { Deadline::NotReached };
    };
    if finished - started < TimeDelta::seconds(limit) {
        return Deadline::NotReached;
    }
    let deleted = pod.deleting_at.is_some();
    if told || (!deleted && (ended.killed() || pod.gone)) {
        return Deadline::Reached;
    }
    if deleted || matches!(pod.phase.as_str(), "Succeeded" | "Failed") {
        return Deadline::NotReached;
    }
    Deadline::Unsure { until: finished + PHASE_GRACE }
}

fn timeout(pod: &PodSummary) -> StepEnd {
    let limit = pod.deadline_seconds.map_or_else(String::new, |seconds| format!(" of {seconds} s"));
    StepEnd::failed("Timeout", format!("the pod reached its deadline{limit}"))
}

/// A container that ended before the deletion was asked for ended by itself.
fn ended_by_deletion(pod: &PodSummary, ended: &Terminated<'_>) -> bool {
    match (pod.deletion_requested_at(), ended.finished_at) {
        (Some(requested), Some(finished)) => finished >= requested,
        _ => ended.exit_code != 0,
    }
}

fn deleted(pod: &PodSummary) -> StepEnd {
    let when = if pod.main.is_some() { "while it ran" } else { "before it ran" };
    disruption(pod).unwrap_or_else(|| StepEnd::transient("PodDeleted", format!("somebody deleted the pod {when}")))
}

/// How a whole pod was taken away, if it was.
fn disruption(pod: &PodSummary) -> Option<StepEnd> {
    let message = |fallback: &str| if pod.message.is_empty() { fallback.to_owned() } else { pod.message.clone() };
    match pod.reason.as_str() {
        "Evicted" => return Some(StepEnd::transient("Evicted", message("the node evicted the pod"))),
        "Preempting" | "Preempted" => {
            return Some(StepEnd::transient("Preempted", message("the pod gave way to one of higher priority")));
        }
        "NodeLost" => return Some(StepEnd::transient("NodeLost", message("the node was lost"))),
        "Shutdown" | "NodeShutdown" | "Terminated" => {
            return Some(StepEnd::transient("NodeShutdown", message("the node was shut down")));
        }
        "NodeAffinity" | "UnexpectedAdmissionError" => {
            return Some(StepEnd::transient("NodeRefused", message("the node refused the pod")));
        }
        reason if reason.starts_with("OutOf") => {
            return Some(StepEnd::transient("NodeRefused", message("the node had no room for the pod")));
        }
        _ => {}
    }
    let target = pod.condition("DisruptionTarget").filter(|condition| condition.holds)?;
    let message = || if target.message.is_empty() { target.reason.clone() } else { target.message.clone() };
    Some(match target.reason.as_str() {
        "PreemptionByScheduler" => StepEnd::transient("Preempted", message()),
        "DeletionByTaintManager" | "DeletionByPodGC" => StepEnd::transient("NodeLost", message()),
        _ => StepEnd::transient("Evicted", message()),
    })
}

/// How the pod ended, if it ended without its first container having told so.
fn end_of_pod(pod: &PodSummary) -> Option<StepEnd> {
    let failed_init = pod.init.iter().find_map(|init| match &init.state {
        // A sidecar that was ended with its pod says nothing about why.
        ContainerState::Terminated { exit_code, message, .. } if *exit_code != 0 && !init.sidecar => {
            Some((init, *exit_code, message))
        }
        _ => None,
    });
    if pod.phase == "Failed" || pod.gone {
        if pod.reason == "DeadlineExceeded" {
            return Some(timeout(pod));
        }
        if let Some(lost) = disruption(pod) {
            return Some(lost);
        }
    }
    if let Some((init, exit_code, message)) = failed_init
        && (pod.phase == "Failed" || pod.gone)
    {
        let said = if message.is_empty() { String::new() } else { format!(": {}", first_line(message)) };
        let end = StepEnd::failed(
            "InitContainerFailed",
            format!("init container {} ended with exit code {exit_code}{said}", init.name),
        );
        return Some(with_exit_code(end, exit_code));
    }
    if pod.gone {
        return Some(deleted(pod));
    }
    match pod.phase.as_str() {
        "Failed" => {
            let reason = if pod.reason.is_empty() { "PodFailed" } else { &pod.reason };
            Some(StepEnd::transient(
                reason,
                if pod.message.is_empty() {
                    "the pod failed before its container had ended".to_owned()
                } else {
                    pod.message.clone()
                },
            ))
        }
        // Succeeded without a status of the first container: nothing tells what it did.
        "Succeeded" => Some(StepEnd::transient("NodeLost", "the pod ended, but nothing tells how its container did")),
        _ => None,
    }
}

fn waiting(pod: &PodSummary, now: DateTime<Utc>) -> StepSeen {
    let taken = pod.started_at.or(pod.created_at).unwrap_or(now);
    let mut containers = pod.init.iter().chain(&pod.main);
    let stuck = containers.find_map(|container| match &container.state {
        ContainerState::Waiting { reason, message }
            if !matches!(reason.as_str(), "" | "PodInitializing" | "ContainerCreating") =>
        {
            Some((reason, message))
        }
        _ => None,
    });
    if let Some((reason, message)) = stuck {
        let message = first_line(message);
        let end = match reason.as_str() {
            "InvalidImageName" | "ErrImageNeverPull" => Some(StepEnd::failed(reason, message.clone())),
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError"
                if now - taken >= PULL_GRACE =>
            {
                Some(StepEnd::transient("ImagePullBackOff", message.clone()))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError"
                if now - taken >= CONFIG_GRACE =>
            {
                Some(StepEnd::failed(reason, message.clone()))
            }
            _ => None,
        };
        return end.map_or_else(
            || StepSeen::Pending { reason: reason.clone(), message },
            |end| StepSeen::Ended(on_pod(pod, end)),
        );
    }
    let runs = |init: &&ContainerSummary| !init.sidecar && matches!(init.state, ContainerState::Running { .. });
    if let Some(init) = pod.init.iter().find(runs) {
        return StepSeen::Pending {
            reason: "Initializing".into(),
            message: format!("init container {} runs", init.name),
        };
    }
    let unscheduled = pod.conditions.iter().find(|condition| condition.type_ == "PodScheduled" && !condition.holds);
    match unscheduled {
        Some(condition) => StepSeen::Pending { reason: condition.reason.clone(), message: condition.message.clone() },
        None if pod.node.is_none() => {
            StepSeen::Pending { reason: "NotScheduled".into(), message: "no node has been chosen yet".into() }
        }
        None => StepSeen::Pending { reason: "Starting".into(), message: String::new() },
    }
}

/// When what is waited for here is given up, so that the run can be looked at then.
pub(super) fn gives_up_at(pod: &PodSummary) -> Option<DateTime<Utc>> {
    if let Some(ended) = Terminated::of_main(pod) {
        return match deadline(pod, &ended) {
            Deadline::Unsure { until } => Some(until),
            _ => None,
        };
    }
    let taken = pod.started_at.or(pod.created_at)?;
    pod.init.iter().chain(&pod.main).find_map(|container| match &container.state {
        ContainerState::Waiting { reason, .. } => match reason.as_str() {
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
                Some(taken + PULL_GRACE)
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some(taken + CONFIG_GRACE),
            _ => None,
        },
        _ => None,
    })
}

fn first_line(text: &str) -> String {
    text.trim().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[path = "pod_state_tests.rs"]
mod tests;
