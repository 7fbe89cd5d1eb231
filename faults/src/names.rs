//! How objects and writes are told apart, independently of the operator's own code.

use std::fmt::Write;

use serde_json::Value;

/// A text, or an empty one.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// An object's resourceVersion as a number; 0 if it has none.
pub fn version(object: &Value) -> u64 {
    text(&object["metadata"]["resourceVersion"]).parse().unwrap_or(0)
}

/// Whether a request changes something: events and leases count, dry runs and reviews of access do not.
pub fn is_write(method: &str, path: &str, query: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH" | "DELETE")
        && !query.contains("dryRun=All")
        && !path.contains("/authorization.k8s.io/")
}

/// The name of a write that is the same in each execution of the workload: what it does to which object of which run.
///
/// A status is told by the phase and the states of the steps in it, an object by its coordinates in place of its name.
pub fn write_key(method: &str, path: &str, body: &Value) -> String {
    if path.starts_with("/proxies") {
        let what = if body["enabled"].is_boolean() { format!(" enabled={}", body["enabled"]) } else { String::new() };
        return format!("{method} toxiproxy {}{what}", plain(path));
    }
    let place: Vec<&str> = path.split('/').collect();
    let at = place.iter().position(|part| *part == "namespaces").map_or(0, |at| at + 2);
    let (resource, name, sub) = (
        place.get(at).copied().unwrap_or_default(),
        place.get(at + 1).copied().unwrap_or_default(),
        place.get(at + 2).copied().unwrap_or_default(),
    );
    match (method, resource) {
        ("PUT" | "PATCH", "soakruns") if sub == "status" => format!("status {name} {}", status_key(&body["status"])),
        ("PUT" | "PATCH", "failureinjections") if sub == "status" => {
            format!("status fi/{} {}", plain(name), injection_key(&body["status"]))
        }
        ("PATCH", "soakruns") => {
            let on = body["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
            format!("finalizer {name} {}", if on { "on" } else { "off" })
        }
        ("PATCH", "failureinjections") if body["metadata"]["finalizers"].is_array() => {
            let on = body["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
            format!("finalizer fi/{} {}", plain(name), if on { "on" } else { "off" })
        }
        ("PATCH", _) if body.is_array() => format!("PATCH {resource} {}{}", plain(name), operations(body)),
        ("POST", "events") => {
            let run = text(&body["regarding"]["name"]);
            format!("event {} {}", plain(run), text(&body["reason"]))
        }
        ("PATCH", "events") => "event again".to_owned(),
        (_, "leases") => "lease".to_owned(),
        ("POST" | "PATCH", _) => match coordinates(body) {
            Some(coordinates) => format!("{method} {resource} {coordinates}"),
            None if name.is_empty() => format!("{method} {resource} {}", plain(text(&body["metadata"]["name"]))),
            None => format!("{method} {resource} {}{sub}", plain(name)),
        },
        _ => format!("{method} {resource} {}", plain(name)),
    }
}

/// What a JSON patch changes, and to what: making a fault and undoing it differ in nothing else.
fn operations(patch: &Value) -> String {
    let changes = patch.as_array().into_iter().flatten().filter(|operation| operation["op"] != "test");
    changes.fold(String::new(), |mut text, change| {
        let value = change["value"].as_str().map_or_else(|| change["value"].to_string(), str::to_owned);
        // Writing to a string does not fail.
        let _ = write!(text, " {}={value}", self::text(&change["path"]).rsplit('/').next().unwrap_or_default());
        text
    })
}

/// Where an injection is: its phase, and the states of its journal.
pub fn injection_key(status: &Value) -> String {
    let mut key = text(&status["phase"]).to_owned();
    for entry in status["journal"].as_array().into_iter().flatten() {
        let _ = write!(key, " {}", text(&entry["state"]));
    }
    key
}

/// A name without the hashes of uids in it.
fn plain(name: &str) -> String {
    let is_hash = |part: &&str| part.len() < 8 || !part.chars().all(|c| c.is_ascii_hexdigit());
    name.split('-').filter(is_hash).collect::<Vec<_>>().join("-")
}

/// Run, attempt, cycle, phase, step and attempt of what carries the operator's labels.
pub fn coordinates(object: &Value) -> Option<String> {
    let labels = &object["metadata"]["labels"];
    labels["soak.dev/run-uid"].as_str()?;
    let mut parts = Vec::new();
    for label in ["run", "run-attempt", "record", "cycle", "phase", "step", "step-attempt"] {
        if let Some(value) = labels[format!("soak.dev/{label}")].as_str() {
            parts.push(value);
        }
    }
    Some(parts.join("/"))
}

/// Where a status is: phase, pass, and the steps of the phase at work with their states.
pub fn status_key(status: &Value) -> String {
    let mut key = text(&status["phase"]).to_owned();
    if let Some(attempt) = status["attempt"].as_u64().filter(|attempt| *attempt > 1) {
        let _ = write!(key, " a{attempt}");
    }
    if status["suspendedAt"].is_string() {
        key.push_str(" suspended");
    }
    let pass = &status["current"];
    if let Some(phase) = pass["phases"].as_array().and_then(|phases| phases.last()) {
        let _ = write!(key, " {}{}/{}", text(&pass["section"]), pass["cycle"], text(&phase["name"]));
        for step in phase["steps"].as_array().into_iter().flatten() {
            let state = text(&step["state"]);
            if state != "Waiting" && state != "Succeeded" {
                let _ = write!(key, " {}={state}{}", text(&step["name"]), step["attempt"]);
            }
        }
        if pass["outcome"].is_string() {
            key.push_str(" ended");
        }
    }
    let reason = text(&status["ending"]["reason"]);
    if !reason.is_empty() {
        let _ = write!(key, " {reason}");
    }
    key
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_write_is_named_by_what_it_does_and_not_by_uids() {
        let labels = json!({"soak.dev/run": "pods", "soak.dev/run-uid": "u", "soak.dev/run-attempt": "1",
            "soak.dev/cycle": "2", "soak.dev/phase": "work", "soak.dev/step": "one", "soak.dev/step-attempt": "1"});
        let pod = json!({"metadata": {"name": "pods-one-c2-0123456789", "labels": labels}});
        assert_eq!(write_key("POST", "/api/v1/namespaces/n/pods", &pod), "POST pods pods/1/2/work/one/1");
        let path = "/api/v1/namespaces/n/pods/pods-one-c2-0123456789";
        assert_eq!(write_key("DELETE", path, &Value::Null), "DELETE pods pods-one-c2");
        let status = json!({"status": {"phase": "Running", "attempt": 1, "current": {"section": "Cycle", "cycle": 2,
            "phases": [{"name": "work", "steps": [{"name": "one", "state": "Active", "attempt": 1},
                {"name": "two", "state": "Waiting", "attempt": 0}]}]}}});
        assert_eq!(
            write_key("PUT", "/apis/soak.dev/v1alpha1/namespaces/n/soakruns/pods/status", &status),
            "status pods Running Cycle2/work one=Active1"
        );
    }

    #[test]
    fn dry_runs_and_reviews_change_nothing() {
        assert!(is_write("POST", "/api/v1/namespaces/n/pods", ""));
        assert!(!is_write("POST", "/api/v1/namespaces/n/pods", "dryRun=All"));
        assert!(!is_write("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", ""));
        assert!(!is_write("GET", "/api/v1/namespaces/n/pods", ""));
    }
}
