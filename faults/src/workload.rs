//! The reference workload: runs with every kind of step that needs no registry, and with every way to end.

use serde_json::{Value, json};

use crate::injections;

/// How a run ends when nothing goes wrong around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// In that phase.
    Phase(&'static str),
    /// It is deleted.
    Gone,
}

/// One run of the workload.
pub struct Run {
    /// Its name.
    pub name: &'static str,
    /// How it ends.
    pub expected: Expected,
    /// Its spec.
    pub spec: Value,
}

/// Steps that run in the background; how their containers end says nothing.
pub const BACKGROUND: [&str; 1] = ["load"];

/// The run whose account has no rights at all; it waits until it is told to end.
pub const DENIED: &str = "denied";

fn pod(script: &str) -> Value {
    fated(script, "ends")
}

/// A pod step; the annotation tells a simulated node what the script would do on a real one.
fn fated(script: &str, fate: &str) -> Value {
    json!({
        "image": "localhost/busybox:1", "command": ["sh", "-c", script],
        "template": {"metadata": {"annotations": {"simulated.soak.dev/fate": fate}}, "spec": {"terminationGracePeriodSeconds": 1,
            "containers": [{"name": "step", "imagePullPolicy": "Never"}]}},
    })
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"ready": "no"}})
}

fn nap(name: &str, duration: &str) -> Value {
    json!({"name": name, "sleep": {"duration": duration}})
}

/// The runs; `http` is the address of a server on loopback that answers 200 with JSON.
#[must_use]
pub fn runs(http: &str) -> Vec<Run> {
    let run = |name, expected, spec| Run { name, expected, spec };
    let phase = Expected::Phase;
    let one = |steps: Value| json!([{"name": "work", "steps": steps}]);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "thing"});
    vec![
        run("pods", phase("Succeeded"), pods()),
        run("objects", phase("Succeeded"), objects(http, &map)),
        run("scaled", phase("Succeeded"), scaled()),
        run(
            "failing",
            phase("Failed"),
            json!({
                "cycles": 1,
                "phases": [{"name": "work", "retry": {"limit": 1, "backoff": "100ms"}, "steps": [
                    {"name": "ask", "retry": {"limit": 1, "backoff": "100ms"},
                     "http": {"url": http, "expect": "response.status == 500"}},
                ]}],
            }),
        ),
        run(
            "suspended",
            phase("Succeeded"),
            json!({"cycles": 1, "suspend": true, "phases": one(json!([nap("nap", "200ms")]))}),
        ),
        run(
            "aborted",
            phase("Aborted"),
            json!({
                "cycles": 1, "phases": one(json!([nap("nap", "1h")])),
                "cleanup": [{"name": "tell", "apply": {"deleteAfter": "Run", "manifest": config_map("tidied-aborted")}}],
            }),
        ),
        run(
            "deleted",
            Expected::Gone,
            json!({
                "cycles": 1, "phases": one(json!([{"name": "busy", "pod": fated("sleep 600", "runs")}])),
                "cleanup": [{"name": "tidy", "pod": pod("true")}],
            }),
        ),
        run("again", phase("Succeeded"), json!({"cycles": 2, "phases": one(json!([nap("nap", "100ms")]))})),
        run(
            "short",
            Expected::Gone,
            json!({"cycles": 1, "ttlAfterFinished": "1s", "phases": one(json!([nap("nap", "100ms")]))}),
        ),
        run(
            DENIED,
            phase("Aborted"),
            json!({
                "cycles": 1, "serviceAccountName": "bare",
                "phases": one(json!([{"name": "busy", "pod": pod("true")}])),
            }),
        ),
        run(injections::RUN, phase("Succeeded"), injections::run()),
    ]
}

fn pods() -> Value {
    json!({
        "cycles": 1,
        "setup": [{"name": "prepare", "pod": pod("true")}],
        "phases": [
            {"name": "first", "steps": [
                {"name": "flaky", "retry": {"limit": 3, "backoff": "100ms"},
                 "pod": fated("[ $SOAK_ATTEMPT -ge 2 ]", "fails-first")},
            ]},
            {"name": "second", "steps": [
                {"name": "load", "background": true, "pod": fated("trap 'exit 0' TERM; while true; do sleep 0.1; done", "runs")},
                {"name": "group", "parallel": [
                    {"name": "left", "pod": pod("echo '{\"value\": 1.5}' > /dev/termination-log")},
                    nap("nap", "500ms"),
                ]},
            ]},
        ],
        "cleanup": [{"name": "tidy", "pod": pod("true")}],
    })
}

fn objects(http: &str, map: &Value) -> Value {
    json!({
        "cycles": 2, "cooldown": "200ms", "results": {"retention": {"passed": 1}},
        "phases": [
            {"name": "make", "steps": [
                {"name": "thing", "apply": {"deleteAfter": "Cycle", "manifest": config_map("thing")}},
                {"name": "ready", "patch": {"resource": map, "patch": {"data": {"ready": "yes"}}}},
                {"name": "is-ready", "wait": {"resource": map, "until": "object.data.ready == 'yes'"}},
                {"name": "other", "resource": {"deleteAfter": "Phase", "successCondition": "object.data.ready == 'no'",
                    "manifest": {"apiVersion": "v1", "kind": "ConfigMap", "data": {"ready": "no"}}}},
                {"name": "ask", "http": {"url": http}, "outputs": [{"name": "code", "value": "response.status"}]},
            ]},
            {"name": "drop", "steps": [{"name": "thing", "delete": {"resource": map}}]},
        ],
    })
}

fn scaled() -> Value {
    let labels = json!({"app": "scaled"});
    let container = json!({"name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sleep", "600"]});
    let template = json!({"metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container.clone()]}});
    let job = json!({"backoffLimit": 2, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["true"]}]}}});
    json!({
        "cycles": 1,
        "phases": [{"name": "work", "steps": [
            {"name": "made", "apply": {"manifest": {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "scaled"},
                "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}}}},
            {"name": "up", "scale": {"resource": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "scaled"}, "replicas": 1}},
            {"name": "job", "jobTemplate": {"spec": job}},
        ]}],
    })
}
