//! Scenes of a pod's life as the kubelet writes them, and what they mean for the step.

use super::*;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// A pod whose kubelet took it at 00:00:00 and whose deadline is 60 s.
fn pod(status: &Value, deletion: Option<&str>) -> PodSummary {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "1", "labels": {"soak.dev/run-uid": "u"},
            "ownerReferences": [{"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "name": "r", "uid": "u", "controller": true}]},
        "spec": {"containers": [{"name": "main"}, {"name": "sidecar"}], "nodeName": "node-1", "activeDeadlineSeconds": 60},
        "status": *status,
    }))
    .unwrap();
    pod.status.as_mut().unwrap().start_time = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    if let Some(at) = deletion {
        pod.metadata.deletion_timestamp = serde_json::from_value(json!(at)).unwrap();
        pod.metadata.deletion_grace_period_seconds = Some(30);
    }
    PodSummary::of(pod, false).unwrap()
}

fn main_state(state: &Value) -> Value {
    json!({"phase": "Running", "containerStatuses": [
        {"name": "main", "state": state, "ready": false, "restartCount": 0, "image": "", "imageID": ""},
        {"name": "sidecar", "state": {"running": {}}, "ready": true, "restartCount": 0, "image": "", "imageID": ""}]})
}

fn terminated(exit_code: i32, reason: &str, message: &str, second: u32) -> Value {
    main_state(&json!({"terminated": {"exitCode": exit_code, "reason": reason, "message": message,
        "startedAt": "2026-01-01T00:00:01Z", "finishedAt": format!("2026-01-01T00:0{}:{:02}Z", second / 60, second % 60)}}))
}

fn at(second: i64) -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(second)
}

/// The same pod once the kubelet has told its phase, and its reason if it has one.
fn told(mut status: Value, phase: &str, reason: &str) -> Value {
    status["phase"] = json!(phase);
    status["reason"] = json!(reason);
    status
}

fn judge(pod: &PodSummary, now: DateTime<Utc>) -> StepSeen {
    super::judge(pod, false, now)
}

fn failure(seen: StepSeen) -> (String, bool) {
    match seen {
        StepSeen::Ended(end) => {
            end.failure.map_or_else(|| ("Succeeded".into(), false), |failure| (failure.reason, failure.transient))
        }
        other => (format!("{other:?}"), false),
    }
}

#[test]
fn the_step_is_over_when_its_first_container_is_while_a_sidecar_goes_on() {
    let StepSeen::Ended(end) = judge(&pod(&terminated(0, "Completed", "{\"n\": 1}", 5), None), at(9)) else {
        unreachable!()
    };
    assert_eq!(end.failure, None);
    assert_eq!((end.exit_code, end.node.as_deref(), end.outputs.len()), (Some(0), Some("node-1"), 1));
    assert_eq!((end.running_at, end.finished_at), (Some(at(1)), Some(at(5))));
}

#[test]
fn each_end_of_a_container_has_its_reason() {
    for (status, deletion, expected, why) in [
        (terminated(3, "Error", "no leader\nmore", 5), None, ("NonZeroExit", false), "its own exit code"),
        (terminated(137, "OOMKilled", "", 5), None, ("OOMKilled", false), "the kernel says why"),
        (
            terminated(137, "Error", "", 61),
            None,
            ("Timeout", false),
            "killed at the deadline, the reason is not there yet",
        ),
        (terminated(143, "Error", "", 20), None, ("NonZeroExit", false), "killed from inside, before the deadline"),
        (terminated(143, "Error", "", 20), Some("2026-01-01T00:00:49Z"), ("PodDeleted", true), "the deletion ended it"),
        (
            terminated(0, "Completed", "", 20),
            Some("2026-01-01T00:00:49Z"),
            ("PodDeleted", true),
            "ended after it was asked to, so not by itself",
        ),
        (
            terminated(0, "Completed", "", 10),
            Some("2026-01-01T00:00:49Z"),
            ("Succeeded", false),
            "ended before the deletion",
        ),
        (
            terminated(0, "Completed", "{\"n\": []}", 10),
            None,
            ("InvalidOutput", false),
            "outputs that can't be kept are not a success",
        ),
        (terminated(128, "StartError", "exec: not found", 1), None, ("StartError", false), "no such command"),
        (terminated(137, "ContainerStatusUnknown", "", 1), None, ("NodeLost", true), "the node came back without it"),
    ] {
        assert_eq!(failure(judge(&pod(&status, deletion), at(70))), (expected.0.to_owned(), expected.1), "{why}");
    }
}

#[test]
fn what_ends_at_the_deadline_timed_out_whatever_its_exit_code() {
    const EXCEEDED: &str = "DeadlineExceeded";
    for (exit_code, second, phase, reason, expected, why) in [
        (0, 60, "Failed", EXCEEDED, "Timeout", "the kubelet ended it, and it went in peace"),
        (3, 61, "Failed", EXCEEDED, "Timeout", "the kubelet ended it, and it complained"),
        (143, 60, "Running", "", "Timeout", "killed, so nobody has to be asked"),
        (0, 59, "Failed", EXCEEDED, "Succeeded", "it had ended when the kubelet looked at the clock"),
        (3, 59, "Failed", EXCEEDED, "NonZeroExit", "it had failed by itself before"),
        (0, 60, "Succeeded", "", "Succeeded", "the kubelet says that it was not the deadline"),
        (3, 60, "Failed", "", "NonZeroExit", "the kubelet says that it was not the deadline"),
    ] {
        let pod = pod(&told(terminated(exit_code, "Error", "", second), phase, reason), None);
        assert_eq!(failure(judge(&pod, at(61))).0, expected, "{why}");
    }
    let broken = terminated(0, "Completed", "{\"n\": []}", 60);
    assert_eq!(
        failure(judge(&pod(&broken, None), at(60) + PHASE_GRACE)).0,
        "InvalidOutput",
        "a stopped step must not lose them"
    );
}

#[test]
fn an_end_at_the_deadline_is_not_judged_before_the_kubelet_has_told_the_phase_or_for_too_long_has_not() {
    let ended = terminated(0, "Completed", "{\"n\": 1}", 60);
    let unsure = pod(&ended, None);
    let StepSeen::Running { since, message } = judge(&unsure, at(61)) else { unreachable!() };
    assert_eq!((since, message.as_str()), (Some(at(1)), "its container has ended; the kubelet has not told yet why"));
    assert_eq!(gives_up_at(&unsure), Some(at(60) + PHASE_GRACE));

    let StepSeen::Ended(end) = judge(&unsure, at(60) + PHASE_GRACE) else { unreachable!() };
    assert_eq!((end.exit_code, end.outputs.len()), (Some(0), 1), "what it handed on is kept");
    assert_eq!(failure(StepSeen::Ended(end)).0, "Timeout");

    let StepSeen::Ended(stopped) = super::judge(&unsure, true, at(61)) else { unreachable!("nothing is left to ask") };
    assert_eq!((stopped.exit_code, stopped.outputs.len()), (Some(0), 1));

    let mut gone = unsure;
    gone.gone = true;
    assert_eq!(failure(judge(&gone, at(61))).0, "Timeout", "nobody will tell any more");
    assert_eq!(gives_up_at(&pod(&told(ended, "Failed", "DeadlineExceeded"), None)), None);
}

#[test]
fn a_pod_past_its_deadline_is_over_when_its_container_is() {
    let ends =
        told(main_state(&json!({"running": {"startedAt": "2026-01-01T00:00:01Z"}})), "Failed", "DeadlineExceeded");
    let mut pod = pod(&ends, None);
    assert!(matches!(judge(&pod, at(61)), StepSeen::Running { .. }), "its outputs are still to come");
    pod.gone = true;
    assert_eq!(failure(judge(&pod, at(61))).0, "Timeout", "they will not come any more");
}

#[test]
fn each_end_of_a_whole_pod_has_its_reason() {
    for (status, expected) in [
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
            ("Evicted", true),
        ),
        (json!({"phase": "Failed", "reason": "DeadlineExceeded"}), ("Timeout", false)),
        (json!({"phase": "Failed", "reason": "OutOfcpu"}), ("NodeRefused", true)),
        (
            json!({"phase": "Failed", "reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."}),
            ("NodeShutdown", true),
        ),
        (
            json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}),
            ("Preempted", true),
        ),
        (
            json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]}),
            ("NodeLost", true),
        ),
        (
            json!({"phase": "Failed", "initContainerStatuses": [{"name": "init", "state": {"terminated": {"exitCode": 2}}, "ready": false, "restartCount": 0, "image": "", "imageID": ""}]}),
            ("InitContainerFailed", false),
        ),
    ] {
        assert_eq!(failure(judge(&pod(&status, None), at(5))), (expected.0.to_owned(), expected.1), "{status}");
    }
    let mut gone = pod(&main_state(&json!({"running": {}})), None);
    gone.gone = true;
    assert_eq!(failure(judge(&gone, at(5))), ("PodDeleted".into(), true));
}

#[test]
fn an_image_that_can_not_be_pulled_is_given_up_after_a_while() {
    let pulling = pod(
        &main_state(&json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})),
        None,
    );
    assert!(matches!(judge(&pulling, at(10)), StepSeen::Pending { reason, .. } if reason == "ImagePullBackOff"));
    assert_eq!(gives_up_at(&pulling), Some(at(30)));
    assert_eq!(failure(judge(&pulling, at(30))), ("ImagePullBackOff".into(), true));
    let wrong = pod(&main_state(&json!({"waiting": {"reason": "InvalidImageName"}})), None);
    assert_eq!(failure(judge(&wrong, at(1))), ("InvalidImageName".into(), false));
    let config = pod(
        &main_state(
            &json!({"waiting": {"reason": "CreateContainerConfigError", "message": "configmap \"x\" not found"}}),
        ),
        None,
    );
    assert!(matches!(judge(&config, at(3)), StepSeen::Pending { .. }));
    assert_eq!(failure(judge(&config, at(15))), ("CreateContainerConfigError".into(), false));
}

#[test]
fn a_sidecar_that_runs_is_not_what_is_waited_for_and_its_end_is_no_reason() {
    let judged = |phase: &str, state: Value| {
        let mut pod = pod(
            &json!({"phase": phase, "initContainerStatuses": [{"name": "soak-artifacts", "state": state, "ready": true, "restartCount": 0, "image": "", "imageID": ""}]}),
            None,
        );
        pod.init[0].sidecar = true;
        judge(&pod, at(5))
    };
    let StepSeen::Pending { reason, .. } = judged("Pending", json!({"running": {}})) else { unreachable!() };
    assert_eq!(reason, "Starting");
    assert_eq!(failure(judged("Failed", json!({"terminated": {"exitCode": 137}}))), ("PodFailed".into(), true));
}

#[test]
fn a_pod_that_waits_says_for_what() {
    let unschedulable = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]});
    let StepSeen::Pending { reason, message } = judge(&pod(&unschedulable, None), at(100)) else { unreachable!() };
    assert_eq!((reason.as_str(), message.as_str()), ("Unschedulable", "0/1 nodes are available"));
    let running = pod(&main_state(&json!({"running": {"startedAt": "2026-01-01T00:00:02Z"}})), None);
    assert!(matches!(judge(&running, at(9)), StepSeen::Running { since: Some(since), .. } if since == at(2)));
}
