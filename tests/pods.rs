//! Pods that misbehave: each end is named in the record, and no run hangs on one.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, EvictParams, ListParams},
};
use serde_json::{Value, json};
use soak_operator::api::{SoakRun, status::RunPhase};
use support::{Namespace, Operator, script, wait_for};

/// A pod step that is given `more` on top of a script, in its template's spec.
fn script_with(text: &str, more: &Value) -> Value {
    let mut pod = script(text);
    let spec = pod["template"]["spec"].as_object_mut().unwrap();
    for (field, value) in more.as_object().unwrap() {
        if field == "container" {
            let container = spec["containers"][0].as_object_mut().unwrap();
            container.extend(value.as_object().unwrap().clone());
        } else {
            spec.insert(field.clone(), value.clone());
        }
    }
    pod
}

/// A run of one cycle with one step.
fn one_step(step: Value) -> Value {
    let mut step = step;
    step["name"] = json!("one");
    json!({"phases": [{"name": "work", "steps": [step]}]})
}

/// The record of the only step of a run that has ended, with the run's phase.
async fn told(namespace: &Namespace, name: &str) -> (RunPhase, Value) {
    let run = namespace.ended(name).await;
    let record = namespace.records(&run, "cycle").await.remove(0);
    (run.status.unwrap().phase, record["phases"][0]["steps"][0].clone())
}

async fn no_pods_are_left(namespace: &Namespace) {
    wait_for("the end of every pod", || async {
        namespace.pods().list(&ListParams::default()).await.ok()?.items.is_empty().then_some(())
    })
    .await;
}

async fn pod_of(namespace: &Namespace, run: &SoakRun, phase: &str) -> Pod {
    let selector = ListParams::default().labels(&format!("soak.dev/run-uid={}", run.uid().unwrap()));
    wait_for("the run's pod", || async {
        let pods = namespace.pods().list(&selector).await.ok()?;
        pods.items.into_iter().find(|pod| pod.status.as_ref().is_some_and(|it| it.phase.as_deref() == Some(phase)))
    })
    .await
}

/// What a step does, and what its record must tell: reason, whether it is transient, exit code, a part of the message.
type Case = (&'static str, Value, &'static str, bool, Option<i32>, &'static str);

#[tokio::test]
async fn each_way_to_fail_is_told_by_its_reason() {
    let namespace = Namespace::create("pods").await;
    let _operator = Operator::start(&namespace);
    let cases: Vec<Case> = vec![
        ("exit", json!({"pod": script("echo first; echo last; exit 3")}), "NonZeroExit", false, Some(3), "exit code 3"),
        (
            "hang",
            json!({"timeout": "2s", "pod": script("trap 'exit 0' TERM; while true; do sleep 0.1; done")}),
            "Timeout",
            false,
            None,
            // On a node that is slow to act, the operator ends it and says so in other words.
            "",
        ),
        (
            "oom",
            json!({"pod": script_with("head -c 200m /dev/zero | tail -c 190m > /dev/null; exec tail -c 190m /dev/zero", &json!({
                "container": {"resources": {"limits": {"memory": "32Mi"}}},
            }))}),
            "OOMKilled",
            false,
            Some(137),
            "more memory than its limit",
        ),
        (
            "unschedulable",
            json!({"pendingTimeout": "3s", "pod": script_with("true", &json!({"nodeSelector": {"soak.dev/no-such": "node"}}))}),
            "Unschedulable",
            true,
            None,
            "was not running after 3s",
        ),
        (
            "never-pulled",
            json!({"pod": {"image": "localhost/not-there:1", "template": {"spec": {"containers": [{"name": "step", "imagePullPolicy": "Never"}]}}}}),
            "ErrImageNeverPull",
            false,
            None,
            "localhost/not-there:1",
        ),
        (
            "no-secret",
            json!({"pod": script_with("true", &json!({"container": {"env": [
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "token"}}},
            ]}}))}),
            "CreateContainerConfigError",
            false,
            None,
            "no-such-secret",
        ),
        (
            "init",
            json!({"pod": script_with("true", &json!({"initContainers": [
                {"name": "before", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", "exit 7"]},
            ]}))}),
            "InitContainerFailed",
            false,
            Some(7),
            "init container before ended with exit code 7",
        ),
        (
            "outputs",
            json!({"pod": script("echo '{\"answer\": ' > /dev/termination-log")}),
            "InvalidOutput",
            false,
            Some(0),
            "",
        ),
        (
            "no-program",
            json!({"pod": {"image": "localhost/busybox:1", "command": ["/no/such/program"], "template": {"spec": {"containers": [{"name": "step", "imagePullPolicy": "Never"}]}}}}),
            "StartError",
            false,
            Some(128),
            "/no/such/program",
        ),
        (
            "stubborn",
            json!({"timeout": "1s", "pod": script("trap '' TERM; while true; do sleep 0.1; done")}),
            "Timeout",
            false,
            Some(137),
            "",
        ),
    ];
    join_all(cases.iter().map(|(name, step, ..)| namespace.run(name, one_step(step.clone())))).await;
    for (name, _, reason, transient, exit_code, message) in &cases {
        let (phase, step) = told(&namespace, name).await;
        assert_eq!(phase, RunPhase::Failed, "{name}");
        assert_eq!((&step["reason"], &step["transient"]), (&json!(reason), &json!(transient)), "{name}: {step:#}");
        assert!(step["message"].as_str().unwrap().contains(message), "{name}: {step:#}");
        if let Some(exit_code) = exit_code {
            assert_eq!(step["exitCode"], *exit_code, "{name}: {step:#}");
        }
        if *name == "exit" {
            assert_eq!(step["log"]["text"], "first\nlast\n", "{step:#}");
        }
    }
    no_pods_are_left(&namespace).await;
    namespace.delete().await;
}

#[tokio::test]
async fn an_image_that_can_not_be_pulled_is_given_up_soon_and_named() {
    let namespace = Namespace::create("pods").await;
    let _operator = Operator::start(&namespace);
    // Loopback: a registry that nobody runs.
    namespace.run("pull", one_step(json!({"pod": {"image": "127.0.0.1:9/no/image:1", "command": ["true"]}}))).await;
    let run = namespace
        .until("pull", "told why it waits", |run| {
            run.status
                .as_ref()
                .is_some_and(|status| serde_json::to_string(status).unwrap().contains("127.0.0.1:9/no/image:1"))
        })
        .await;
    assert_eq!(run.status.unwrap().phase, RunPhase::Running, "the cause is shown while there is still hope");
    let (phase, step) = told(&namespace, "pull").await;
    assert_eq!(phase, RunPhase::Failed);
    assert_eq!((&step["reason"], &step["transient"]), (&json!("ImagePullBackOff"), &json!(true)), "{step:#}");
    namespace.delete().await;
}

#[tokio::test]
async fn a_pod_that_is_taken_away_is_a_transient_failure_and_a_retry_heals_it() {
    let namespace = Namespace::create("pods").await;
    let _operator = Operator::start(&namespace);
    let busy = script("trap 'exit 143' TERM; [ $SOAK_ATTEMPT = 2 ] || for i in $(seq 6000); do sleep 0.1; done");
    let spec = one_step(json!({"pod": busy, "retry": {"limit": 1, "backoff": "100ms", "when": "failure.transient"}}));
    let evicted = namespace.run("evicted", spec.clone()).await;
    let deleted = namespace.run("deleted", spec.clone()).await;
    let forced = namespace.run("forced", spec).await;

    let pod = pod_of(&namespace, &evicted, "Running").await;
    namespace.pods().evict(&pod.name_any(), &EvictParams::default()).await.unwrap();
    let pod = pod_of(&namespace, &deleted, "Running").await;
    namespace.pods().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    let pod = pod_of(&namespace, &forced, "Running").await;
    namespace.pods().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();

    for (name, reason) in [("evicted", "Evicted"), ("deleted", "PodDeleted"), ("forced", "PodDeleted")] {
        let (phase, step) = told(&namespace, name).await;
        assert_eq!((phase, &step["attempts"]), (RunPhase::Succeeded, &json!(2)), "{name}: {step:#}");
        let past = &step["past"][0];
        assert_eq!((&past["reason"], &past["transient"]), (&json!(reason), &json!(true)), "{name}: {step:#}");
        assert_ne!(past["pod"], step["pod"], "{name}: each attempt has a pod of its own");
    }
    no_pods_are_left(&namespace).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_log_of_a_hundred_megabytes_leaves_its_last_lines_and_no_trace_in_memory() {
    let namespace = Namespace::create("pods").await;
    let operator = Operator::start(&namespace);
    let line = "x".repeat(99);
    let text = format!("yes {line} | head -n 1048576; echo the last line");
    namespace.run("log", one_step(json!({"pod": script(&text)}))).await;
    let (phase, step) = told(&namespace, "log").await;
    assert_eq!(phase, RunPhase::Succeeded, "{step:#}");
    let log = &step["log"];
    assert_eq!(log["truncated"], true, "{step:#}");
    let tail = log["text"].as_str().unwrap();
    assert!(tail.ends_with("the last line\n") && tail.len() <= 4_096, "{} bytes: {tail}", tail.len());
    let status = fs::read_to_string(format!("/proc/{}/status", operator.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 200 * 1_024, "the operator held {peak} kB");
    namespace.delete().await;
}
