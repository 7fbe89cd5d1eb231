//! The run's own state: declared edges and a still end (S2), a bounded size (S11).

use serde_json::Value;

use crate::{
    history::{History, Version},
    names::text,
    user::is_final,
};

use super::{Violation, violated};

/// A run with its status is no larger than this.
const LARGEST_RUN: usize = 128 * 1024;
/// A record is no larger than this.
const LARGEST_RECORD: usize = 600 * 1024;

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    for version in &history.versions {
        let limit = if version.resource == "configmaps" { LARGEST_RECORD } else { LARGEST_RUN };
        let size = version.object.to_string().len();
        if version.resource != "pods" && size > limit {
            violated(found, "S11", format!("{} {} has {size} bytes", version.resource, version.name()));
        }
    }
    for run in history.runs() {
        for pair in run.windows(2) {
            if !history.gaps {
                edge(pair[0], pair[1], found);
            }
            after_the_end(pair[0], pair[1], found);
        }
    }
    // Each committed write shows in the watch, so this covers a write that changes nothing as well.
    for request in history.requests.iter().filter(|request| request.is_status() && request.is_committed()) {
        let before = text(&request.body["metadata"]["resourceVersion"]);
        let base = history.versions.iter().find(|version| {
            version.resource == "soakruns" && text(&version.object["metadata"]["resourceVersion"]) == before
        });
        let ended = base.filter(|base| is_final(text(&base.object["status"]["phase"])) && !reruns(&base.object));
        if let Some(base) = ended {
            violated(found, "S2", format!("the ended run {} cost a status write at {} ms", base.name(), request.at));
        }
    }
}

/// Whether another attempt was asked for.
fn reruns(run: &Value) -> bool {
    run["spec"]["rerun"] != run["status"]["rerun"]
}

fn edge(before: &Version, after: &Version, found: &mut Vec<Violation>) {
    let attempt = |version: &Version| version.object["status"]["attempt"].as_u64().unwrap_or(0);
    let phase = |version: &Version| match text(&version.object["status"]["phase"]) {
        "" => "Pending".to_owned(),
        phase => phase.to_owned(),
    };
    let (from, to) = (phase(before), phase(after));
    if from == to {
        return;
    }
    let declared = match from.as_str() {
        "Pending" | "Validating" => {
            matches!(to.as_str(), "Validating" | "SettingUp" | "Running" | "Succeeded" | "Failed" | "Aborted")
        }
        "SettingUp" | "CoolingDown" => matches!(to.as_str(), "Running" | "CleaningUp") || is_final(&to),
        "Running" => matches!(to.as_str(), "CoolingDown" | "CleaningUp") || is_final(&to),
        "CleaningUp" => is_final(&to),
        _ => attempt(after) == attempt(before) + 1 && matches!(to.as_str(), "Pending" | "Validating" | "Failed"),
    };
    if !declared {
        let text = format!("run {} went from {from} to {to} at revision {}", after.name(), after.revision());
        violated(found, "S2", text);
    }
}

fn after_the_end(before: &Version, after: &Version, found: &mut Vec<Violation>) {
    let (old, new) = (&before.object["status"], &after.object["status"]);
    if is_final(text(&old["phase"])) && !reruns(&before.object) && old != new {
        violated(found, "S2", format!("the ended run {} changed at revision {}", after.name(), after.revision()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::sample, *};

    fn judge(statuses: &[Value]) -> Vec<&'static str> {
        let versions = (1..).zip(statuses).map(|(revision, status)| sample::run(revision, status.clone())).collect();
        let mut found = Vec::new();
        check(&History { versions, ..History::default() }, &mut found);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    fn phase(phase: &str) -> Value {
        json!({"phase": phase, "attempt": 1})
    }

    #[test]
    fn phases_follow_declared_edges() {
        assert!(judge(&[phase("Pending"), phase("Validating"), phase("Running"), phase("Succeeded")]).is_empty());
        assert_eq!(judge(&[phase("Running"), phase("SettingUp")]), ["S2"]);
        assert_eq!(judge(&[phase("CleaningUp"), phase("Running")]), ["S2"]);
    }

    #[test]
    fn an_ended_run_stays_as_it_is() {
        let mut changed = phase("Failed");
        changed["message"] = json!("other");
        assert_eq!(judge(&[phase("Failed"), changed]), ["S2"]);
        assert_eq!(judge(&[phase("Failed"), phase("Running")]), ["S2", "S2"]);
    }

    #[test]
    fn a_status_is_bounded() {
        let mut large = phase("Running");
        large["message"] = json!("x".repeat(LARGEST_RUN));
        assert_eq!(judge(&[large]), ["S11"]);
    }
}
