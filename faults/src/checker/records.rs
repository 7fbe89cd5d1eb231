//! Records: a cycle counts once its record is stored, and a success was seen (S4).

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    history::{History, Version},
    names::text,
    workload::BACKGROUND,
};

use super::{Violation, violated};

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    if history.gaps {
        return;
    }
    for run in history.runs() {
        let records = Records::of(history, run[0].uid());
        for pair in run.windows(2) {
            counted(pair[0], pair[1], &records, found);
        }
        for version in run.iter().filter(|version| version.object["status"]["phase"] == "Succeeded").take(1) {
            succeeded(version, &records, history, found);
        }
    }
}

/// The records that the watch saw of one run, by attempt and part.
struct Records<'a>(BTreeMap<(u64, String), &'a Version>);

impl<'a> Records<'a> {
    fn of(history: &'a History, uid: &str) -> Self {
        let mut records = BTreeMap::new();
        for map in history.births("configmaps") {
            let metadata = &map.object["metadata"];
            let label = |name: &str| text(&metadata["labels"][format!("soak.dev/{name}")]);
            // Labels are not trusted: only the owner tells whose record it is.
            let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
            if label("record").is_empty() || !owners.into_iter().any(|owner| owner["uid"] == uid) {
                continue;
            }
            let part = if label("record") == "cycle" { label("cycle").to_owned() } else { label("record").to_owned() };
            // Nothing is overwritten, so the first of a name is the one that was counted. An operator that stood still may store one for a run
            // that is gone by then; the garbage collector takes it.
            records.entry((label("run-attempt").parse().unwrap_or(0), part)).or_insert(map);
        }
        Self(records)
    }

    /// The record, if it was stored before that revision and is whole; the digest of its text.
    fn stored(&self, attempt: u64, part: &str, before: u64) -> Result<(String, Value), String> {
        let map = self
            .0
            .get(&(attempt, part.to_owned()))
            .ok_or_else(|| format!("there is no record {part} of attempt {attempt}"))?;
        if map.revision() >= before {
            return Err(format!("the record {part} of attempt {attempt} was stored after it was counted"));
        }
        let content = text(&map.object["data"]["record.json"]);
        let digest = digest(content);
        if text(&map.object["metadata"]["annotations"]["soak.dev/digest"]) != digest {
            return Err(format!("the record {part} does not match its digest"));
        }
        Ok((digest, serde_json::from_str(content).unwrap_or_default()))
    }
}

fn digest(content: &str) -> String {
    Sha256::digest(content.as_bytes()).iter().fold("sha256:".into(), |text, byte| format!("{text}{byte:02x}"))
}

fn counted(before: &Version, after: &Version, records: &Records<'_>, found: &mut Vec<Violation>) {
    let attempt = |version: &Version| version.object["status"]["attempt"].as_u64().unwrap_or(0);
    let completed = |version: &Version| version.object["status"]["cycles"]["completed"].as_u64().unwrap_or(0);
    if attempt(before) != attempt(after) {
        return;
    }
    for cycle in completed(before) + 1..=completed(after) {
        match records.stored(attempt(after), &cycle.to_string(), after.revision()) {
            Err(problem) => violated(found, "S4", format!("run {} counted cycle {cycle}: {problem}", after.name())),
            Ok((digest, _)) => {
                let recent = after.object["status"]["recent"].as_array().into_iter().flatten();
                let told = recent.filter(|it| it["number"] == cycle).map(|it| text(&it["digest"])).next_back();
                if told != Some(digest.as_str()) {
                    violated(
                        found,
                        "S4",
                        format!("run {} tells digest {told:?} of cycle {cycle}, stored is {digest}", after.name()),
                    );
                }
            }
        }
    }
    if completed(after) < completed(before) {
        violated(found, "S4", format!("run {} lost a counted cycle", after.name()));
    }
}

fn succeeded(run: &Version, records: &Records<'_>, history: &History, found: &mut Vec<Violation>) {
    let (spec, status) = (&run.object["spec"], &run.object["status"]);
    let attempt = status["attempt"].as_u64().unwrap_or(0);
    let mut parts: Vec<String> =
        (1..=status["cycles"]["completed"].as_u64().unwrap_or(0)).map(|it| it.to_string()).collect();
    parts.push("summary".into());
    for part in ["setup", "cleanup"] {
        if spec[part].as_array().is_some_and(|steps| !steps.is_empty()) {
            parts.push(part.into());
        }
    }
    for part in parts {
        match records.stored(attempt, &part, run.revision()) {
            Err(problem) => violated(found, "S4", format!("run {} succeeded: {problem}", run.name())),
            Ok((_, record)) => steps(run, &part, &record, history, found),
        }
    }
}

/// Every step of a pass was seen to succeed: by the record, and by the independent watch of its pod.
fn steps(run: &Version, part: &str, record: &Value, history: &History, found: &mut Vec<Violation>) {
    let phases = record["phases"].as_array().into_iter().flatten();
    for step in phases.flat_map(|phase| phase["steps"].as_array().into_iter().flatten()) {
        let name = text(&step["name"]);
        if step["state"] != "Succeeded" {
            violated(
                found,
                "S4",
                format!("run {} succeeded with step {name} of {part} in state {}", run.name(), step["state"]),
            );
        }
        let (Some(pod), false) = (step["pod"].as_str(), BACKGROUND.contains(&name)) else { continue };
        let ended = |version: &&Version| {
            let code = &version.object["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
            version.name() == pod && code == &Value::from(0)
        };
        if step["kind"] == "pod" && !history.versions.iter().filter(|it| it.resource == "pods").any(|it| ended(&it)) {
            violated(
                found,
                "S4",
                format!("run {} counts pod {pod} of step {name} as succeeded, which nobody saw", run.name()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::sample, *};

    fn record(revision: u64, owner: &str, part: &str, content: &Value) -> Version {
        let content = content.to_string();
        let digest = digest(&content);
        let mut labels = json!({"soak.dev/record": part, "soak.dev/run-attempt": "1"});
        if part == "1" {
            labels = json!({"soak.dev/record": "cycle", "soak.dev/cycle": "1", "soak.dev/run-attempt": "1"});
        }
        let metadata = json!({"name": part, "uid": format!("{part}-{owner}"), "labels": labels, "ownerReferences": [{"uid": owner}],
            "annotations": {"soak.dev/digest": digest}});
        sample::version("configmaps", revision, json!({"metadata": metadata, "data": {"record.json": content}}))
    }

    fn status(completed: u64, phase: &str) -> Value {
        let digest = record(1, "u", "1", &json!({})).object["metadata"]["annotations"]["soak.dev/digest"].clone();
        json!({"phase": phase, "attempt": 1, "cycles": {"completed": completed}, "recent": [{"number": 1, "digest": digest}]})
    }

    fn judge(versions: Vec<Version>) -> Vec<&'static str> {
        let mut found = Vec::new();
        check(&History { versions, ..History::default() }, &mut found);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_cycle_counts_after_its_own_record_is_stored() {
        let (before, after) = (sample::run(1, status(0, "Running")), sample::run(5, status(1, "Running")));
        assert!(judge(vec![before.clone(), record(3, "u", "1", &json!({})), after.clone()]).is_empty());
        assert_eq!(judge(vec![before.clone(), after.clone()]), ["S4"]);
        assert_eq!(judge(vec![before.clone(), after.clone(), record(6, "u", "1", &json!({}))]), ["S4"]);
        let mut late = record(7, "u", "1", &json!({}));
        late.object["metadata"]["uid"] = json!("again");
        let known = vec![before.clone(), record(3, "u", "1", &json!({})), after.clone(), late];
        assert!(judge(known).is_empty(), "a leader that stood still stores it once more when the run is gone");
        assert_eq!(judge(vec![before, record(3, "other", "1", &json!({})), after]), ["S4"], "not the run's own");
    }

    #[test]
    fn a_success_was_seen() {
        let step = json!({"name": "one", "kind": "pod", "state": "Succeeded", "pod": "pod-a"});
        let content = json!({"phases": [{"steps": [step]}]});
        let run = sample::run(9, status(0, "Succeeded"));
        let summary = record(3, "u", "summary", &content);
        assert_eq!(judge(vec![summary.clone(), run.clone()]), ["S4"], "the pod never ended");
        let mut pod = sample::pod(2, "a", 1);
        pod.object["status"] = json!({"containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}]});
        assert!(judge(vec![pod, summary, run]).is_empty());
    }
}
