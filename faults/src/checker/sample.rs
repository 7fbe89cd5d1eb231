//! Small histories for the checker's own tests.

use serde_json::{Value, json};

use crate::history::{Request, Version};

use super::Facts;

/// What the checker's tests know of a session without faults and without a workload.
pub fn facts() -> Facts<'static> {
    Facts { scenario: "baseline", keeps_verdicts: true, loses_events: false, expected: &[], injections: &[] }
}

/// A version of an injection with that name and uid, which changes `/data/mode` of the object `t` from `good` to `bad`.
pub fn injection(revision: u64, name: &str, phase: &str, state: &str) -> Version {
    let undo = json!({"type": "Fields", "fields": [{"path": "/data/mode", "before": "good", "after": "bad"}]});
    let journal = json!([{"target": {"uid": "t", "name": "t-x"}, "undo": undo, "state": state}]);
    let object = json!({
        "metadata": {"name": name, "uid": name, "finalizers": ["soak.dev/cleanup"]}, "spec": {},
        "status": {"phase": phase, "journal": journal, "deadline": "2026-01-01T00:00:30Z"},
    });
    version("failureinjections", revision, object)
}

/// A request that was made by the operator itself and succeeded.
pub fn request(method: &str, path: &str, body: Value) -> Request {
    Request {
        at: 0,
        process: "0.1".into(),
        method: method.into(),
        path: path.into(),
        query: String::new(),
        user: None,
        body,
        key: Some(format!("{method} {path}")),
        fault: None,
        code: 200,
        answer: Value::Null,
        told: 200,
    }
}

/// A version of an object; its metadata are completed.
pub fn version(resource: &'static str, revision: u64, mut object: Value) -> Version {
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
    Version { at: u128::from(revision), resource, gone: false, object }
}

/// A version of the run `r` with uid `u` and that status.
#[allow(clippy::needless_pass_by_value, reason = "the tests write statuses in place")]
pub fn run(revision: u64, status: Value) -> Version {
    version(
        "soakruns",
        revision,
        json!({"metadata": {"name": "r", "uid": "u", "generation": 1}, "spec": {}, "status": status}),
    )
}

/// A pod of the run `u`, of step `one` in phase `work` of cycle 1.
pub fn pod(revision: u64, uid: &str, attempt: u32) -> Version {
    let labels = json!({"soak.dev/run-uid": "u", "soak.dev/run": "r", "soak.dev/run-attempt": "1", "soak.dev/cycle": "1",
        "soak.dev/phase": "work", "soak.dev/step": "one", "soak.dev/step-attempt": attempt.to_string()});
    let owner = json!([{"kind": "SoakRun", "uid": "u", "controller": true}]);
    let metadata = json!({"name": format!("pod-{uid}"), "uid": uid, "labels": labels, "ownerReferences": owner});
    version("pods", revision, json!({"metadata": metadata}))
}

/// A status in which step `one` is in that state in that attempt.
pub fn step(state: &str, attempt: u32) -> Value {
    json!({"phase": "Running", "attempt": 1, "cycles": {"completed": 0}, "current": {"section": "Cycle", "cycle": 1,
        "phases": [{"name": "work", "steps": [{"name": "one", "state": state, "attempt": attempt}]}]}})
}
