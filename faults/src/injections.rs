//! The injections of the reference workload: every kind of fault that needs no real node, and every way to end.

use serde_json::{Value, json};

/// One injection of the workload. It hits the object `t-NAME` unless it says otherwise.
pub struct Injection {
    /// Its name.
    pub name: &'static str,
    /// Phases in which it may end when nothing goes wrong around it; none: it goes.
    pub expected: &'static [&'static str],
    /// Its spec.
    pub spec: Value,
}

/// The run that makes injections itself, by a step and beside a phase.
pub const RUN: &str = "injecting";

/// `ConfigMap`s that are hit; each has the name of its injection.
pub const MAPS: [&str; 11] =
    ["patch", "restore", "remove", "deleted", "aborted", "lost", "anew", "foreign", "later", "step", "beside"];

/// Proxies of Toxiproxy that are hit.
pub const PROXIES: [&str; 2] = ["t-db", "t-off"];

/// The finalizer of somebody else on the object that is made: its deletion takes a while.
pub const HOLD: &str = "faults.soak.dev/hold";

const RECOVERED: &[&str] = &["Recovered"];

/// What an object that is hit is called.
#[must_use]
pub fn target(name: &str) -> String {
    format!("t-{name}")
}

/// What a hit `ConfigMap` has while nothing is wrong.
#[must_use]
pub fn good() -> Value {
    json!({"mode": "good", "other": "1"})
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": target(name)})
}

fn broken(name: &str, duration: &str) -> Value {
    json!({"target": map(name), "patch": {"patch": {"data": {"mode": "bad", "extra": "x"}}}, "duration": duration})
}

fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

/// The injections. `toxiproxy` is the address of a server with [`PROXIES`], `node` a node of the session's own, `at` a time a
/// few seconds after the session's begin.
#[must_use]
pub fn injections(toxiproxy: &str, node: &str, at: &str) -> Vec<Injection> {
    let one = |name, expected, spec| Injection { name, expected, spec };
    let pods = |labels: &str| json!({"labelSelector": labels});
    let toxiproxy = |proxy: &str, what: Value| {
        let mut fault = json!({"url": toxiproxy, "proxies": [proxy]});
        for (field, value) in what.as_object().into_iter().flatten() {
            fault[field] = value.clone();
        }
        json!({"toxiproxy": fault, "duration": "2s"})
    };
    let external = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": target("external"), "finalizers": [HOLD]}, "data": {"made": "yes"}});
    vec![
        one("patch", RECOVERED, broken("patch", "2s")),
        // The same field: of the two, one has to wait.
        one(
            "second",
            RECOVERED,
            json!({"target": map("patch"), "patch": {"patch": {"data": {"mode": "worse"}}}, "duration": "1s"}),
        ),
        one(
            "scale",
            RECOVERED,
            json!({"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target("scale")},
                "scale": {"replicas": 1}, "duration": "2s"}),
        ),
        one("restore", RECOVERED, json!({"target": map("restore"), "delete": {"restore": true}, "duration": "2s"})),
        one("remove", &[], json!({"target": map("remove"), "delete": {}, "ttlAfterFinished": "1s"})),
        one("kill", RECOVERED, json!({"target": pods("app=victim"), "podKill": {"force": true}})),
        one(
            "cordon",
            RECOVERED,
            json!({"target": {"name": node}, "node": {"drain": true, "pods": "app=drained"}, "duration": "2s"}),
        ),
        one("external", RECOVERED, json!({"resource": {"manifest": external}, "duration": "2s"})),
        one(
            "policy",
            RECOVERED,
            json!({"target": pods("app=isolated"), "network": {"means": "NetworkPolicy"}, "duration": "2s"}),
        ),
        one("toxic", RECOVERED, toxiproxy("t-db", json!({"type": "latency", "attributes": {"latency": 100}}))),
        one("off", RECOVERED, toxiproxy("t-off", json!({"disabled": true}))),
        one("deleted", &[], broken("deleted", "1h")),
        one("aborted", RECOVERED, broken("aborted", "1h")),
        one("lost", RECOVERED, broken("lost", "3s")),
        one("anew", RECOVERED, broken("anew", "3s")),
        one("foreign", RECOVERED, broken("foreign", "3s")),
        one(
            "closed",
            &["Failed"],
            with(broken("closed", "2s"), "target", with(map("closed"), "namespace", json!("default"))),
        ),
        // If its second has passed when the operator gets to it, it must not begin any more.
        one(
            "later",
            &["Recovered", "Failed"],
            with(with(broken("later", "1s"), "startAt", json!(at)), "startingDeadline", json!("1s")),
        ),
    ]
}

/// The spec of the run that makes injections itself.
#[must_use]
pub fn run() -> Value {
    json!({
        "cycles": 1,
        "phases": [{"name": "work", "steps": [
            {"name": "hit", "inject": {"template": broken("step", "1s")}},
            {"name": "nap", "sleep": {"duration": "500ms"}},
        ]}],
        "injections": [{"name": "beside", "atPhase": "work", "template": broken("beside", "500ms")}],
    })
}
