//! The health of a pod, from its status.

use chrono::{DateTime, TimeDelta, Utc};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::engine::monitor::Subject;

/// A restart is told for so long, so that a look every half minute does not miss it.
const RECENT: TimeDelta = TimeDelta::seconds(60);

/// What is judged of a pod: `name`, `phase`, `ready`, `ended`, `restarts`, `restarted` and `oomKilled` (of containers that
/// ended in the last minute, and since the run began), `crashLoop`, and `reason`. The sample is the number of restarts.
pub(super) fn subject(pod: &DynamicObject, since: DateTime<Utc>, now: DateTime<Utc>) -> Subject {
    let status = &pod.data["status"];
    let containers: Vec<&Value> = ["initContainerStatuses", "containerStatuses"]
        .iter()
        .filter_map(|field| status[*field].as_array())
        .flatten()
        .collect();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let restarts: u64 = containers.iter().filter_map(|it| it["restartCount"].as_u64()).sum();
    let recent = |ended: &Value| {
        let at = ended["finishedAt"].as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
        // The cluster tells whole seconds.
        at.is_some_and(|at| at > since - TimeDelta::seconds(1) && at > now - RECENT)
    };
    let oom = |ended: &Value| ended["reason"] == "OOMKilled";
    let last = |it: &Value| it["lastState"]["terminated"].clone();
    let restarted = containers.iter().any(|it| it["restartCount"].as_u64() > Some(0) && recent(&last(it)));
    let oom_killed = containers.iter().any(|it| {
        let now = &it["state"]["terminated"];
        (oom(now) && recent(now)) || (oom(&last(it)) && recent(&last(it)))
    });
    let waiting = |it: &&Value| it["state"]["waiting"]["reason"].as_str().map(str::to_owned);
    let ready = status["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"));
    let phase = status["phase"].as_str().unwrap_or("Unknown");
    let reason = containers.iter().find_map(waiting).or_else(|| {
        let ended = containers.iter().map(|it| last(it)).find(|ended| !ended.is_null())?;
        ended["reason"].as_str().map(str::to_owned)
    });
    // A pod that is going away is not ready for a good reason.
    let ended = ["Succeeded", "Failed"].contains(&phase) || pod.metadata.deletion_timestamp.is_some();
    let value = json!({
        "name": name,
        "phase": phase,
        "ready": ready,
        "ended": ended,
        "restarts": restarts,
        "restarted": restarted,
        "oomKilled": oom_killed,
        "crashLoop": containers.iter().filter_map(waiting).any(|reason| reason == "CrashLoopBackOff"),
        "reason": reason.unwrap_or_default(),
    });
    #[expect(clippy::cast_precision_loss, reason = "nothing restarts that often")]
    Subject { name, sample: Some(restarts as f64), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(container: &Value) -> Value {
        let pod: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [container]},
        }))
        .unwrap();
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        subject(&pod, at("2026-01-01T10:00:00Z"), at("2026-01-01T10:05:00Z")).value
    }

    #[test]
    fn a_restart_is_told_for_a_minute_and_one_from_before_the_run_never() {
        let ended = |at: &str, reason: &str| json!({"restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": at, "reason": reason}}});
        let now = judged(&ended("2026-01-01T10:04:30Z", "OOMKilled"));
        assert_eq!(
            (&now["restarted"], &now["oomKilled"], &now["reason"]),
            (&json!(true), &json!(true), &json!("OOMKilled"))
        );
        assert_eq!(judged(&ended("2026-01-01T10:03:30Z", "Error"))["restarted"], false);
        assert_eq!(judged(&ended("2026-01-01T09:59:30Z", "OOMKilled"))["oomKilled"], false);
        let looping = judged(&json!({"restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}));
        assert_eq!(
            (&looping["crashLoop"], &looping["ready"], &looping["restarts"]),
            (&json!(true), &json!(false), &json!(5))
        );
    }
}
