//! Pods: one for each attempt (S1), none before its intent, none begun after a deletion (S10), none of a lost attempt.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    history::{History, Version},
    names::{coordinates, text},
};

use super::{Violation, violated};

/// A step's place in a status: attempt of the run, cycle, phase, step.
type Place = (u64, u64, String, String);

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    let mut uids: BTreeMap<(String, String), BTreeSet<&str>> = BTreeMap::new();
    for pod in history.births("pods").filter(|pod| owner(pod).is_some()) {
        let Some(place) = coordinates(&pod.object) else { continue };
        // Members of groups and setup or cleanup are told apart by the annotation and the phase.
        let step = text(&pod.object["metadata"]["annotations"]["soak.dev/step"]);
        uids.entry((owner(pod).unwrap_or_default().to_owned(), format!("{place} {step}")))
            .or_default()
            .insert(pod.uid());
    }
    for ((_, place), uids) in uids.iter().filter(|(_, uids)| uids.len() > 1) {
        violated(found, "S1", format!("attempt {place} had {} pods: {uids:?}", uids.len()));
    }
    if history.gaps {
        return;
    }
    for run in history.runs() {
        let intents = intents(&run);
        let own = |made: &&Version| owner(made) == Some(run[0].uid());
        let pods: Vec<&Version> = history.births("pods").filter(own).collect();
        before_intent(&pods, &intents, found);
        // A pod whose creation was still on its way may arrive later; the engine deletes it. A fault that comes later is one too many.
        lost(&run, &pods, false, found);
        lost(&run, &history.births("failureinjections").filter(own).collect::<Vec<_>>(), true, found);
        after_deletion(&run, &intents, found);
    }
}

/// The run that controls a pod.
fn owner(pod: &Version) -> Option<&str> {
    let owners = pod.object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true && owner["kind"] == "SoakRun")?["uid"].as_str()
}

fn place(pod: &Version) -> (Place, u64) {
    let labels = &pod.object["metadata"]["labels"];
    let label = |name: &str| text(&labels[format!("soak.dev/{name}")]);
    let step = pod.object["metadata"]["annotations"]["soak.dev/step"].as_str().unwrap_or(label("step")).to_owned();
    let number = |name: &str| label(name).parse().unwrap_or(0);
    ((number("run-attempt"), number("cycle"), label("phase").to_owned(), step), number("step-attempt"))
}

/// Each step in a status.
fn steps(status: &Value) -> impl Iterator<Item = (Place, &Value)> {
    let pass = &status["current"];
    let (attempt, cycle) = (status["attempt"].as_u64().unwrap_or(0), pass["cycle"].as_u64().unwrap_or(0));
    pass["phases"].as_array().into_iter().flatten().flat_map(move |phase| {
        let name = text(&phase["name"]).to_owned();
        phase["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .map(move |step| ((attempt, cycle, name.clone(), text(&step["name"]).to_owned()), step))
    })
}

/// The revision at which each attempt was first said to be active, with the section that it belongs to.
fn intents(run: &[&Version]) -> BTreeMap<(Place, u64), (u64, String)> {
    let mut intents = BTreeMap::new();
    for version in run {
        let status = &version.object["status"];
        for (place, step) in steps(status) {
            let attempt = step["attempt"].as_u64().unwrap_or(0);
            if attempt > 0 {
                let section = text(&status["current"]["section"]).to_owned();
                intents.entry((place, attempt)).or_insert((version.revision(), section));
            }
        }
    }
    intents
}

fn before_intent(pods: &[&Version], intents: &BTreeMap<(Place, u64), (u64, String)>, found: &mut Vec<Violation>) {
    for pod in pods {
        match intents.get(&place(pod)) {
            Some((intent, _)) if *intent < pod.revision() => {}
            _ => violated(found, "S1", format!("pod {} was made before its intent was stored", pod.name())),
        }
    }
}

/// An attempt that is told to be lost has made nothing, nor, where that is asked, makes anything later.
fn lost(run: &[&Version], made: &[&Version], later: bool, found: &mut Vec<Violation>) {
    let mut told = BTreeSet::new();
    for version in run {
        for (of, step) in steps(&version.object["status"]) {
            for past in step["past"].as_array().into_iter().flatten().filter(|past| past["reason"] == "Lost") {
                let attempt = past["attempt"].as_u64().unwrap_or(0);
                if !told.insert((of.clone(), attempt)) {
                    continue;
                }
                let before = |made: &Version| made.revision() < version.revision();
                let is_its = |made: &&&Version| place(made) == (of.clone(), attempt) && (later || before(made));
                if let Some(made) = made.iter().find(is_its) {
                    let when = if before(made) { "was there" } else { "came later" };
                    let text = format!(
                        "attempt {attempt} of {of:?} was given up as lost, but {} {} {when}: the step ran twice",
                        made.resource,
                        made.name()
                    );
                    violated(found, "S1", text);
                }
            }
        }
    }
}

/// S10: no attempt of setup or cycle begins once the run is being deleted.
fn after_deletion(run: &[&Version], intents: &BTreeMap<(Place, u64), (u64, String)>, found: &mut Vec<Violation>) {
    let deleting = |version: &&&Version| version.object["metadata"]["deletionTimestamp"].is_string();
    let Some(deleted) = run.iter().find(deleting).map(|version| version.revision()) else { return };
    for ((place, attempt), (revision, section)) in intents {
        if *revision > deleted && section != "Cleanup" {
            violated(found, "S10", format!("attempt {attempt} of {place:?} began after the run's deletion"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::sample, *};

    fn judge(versions: Vec<Version>) -> Vec<&'static str> {
        let mut found = Vec::new();
        check(&History { versions, ..History::default() }, &mut found);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn an_attempt_has_one_pod_after_its_intent() {
        let intent = sample::run(1, sample::step("Active", 1));
        assert!(judge(vec![intent.clone(), sample::pod(2, "a", 1)]).is_empty());
        assert_eq!(judge(vec![intent.clone(), sample::pod(2, "a", 1), sample::pod(3, "b", 1)]), ["S1"]);
        assert_eq!(judge(vec![intent, sample::pod(2, "a", 2)]), ["S1"], "that attempt was never intended");
    }

    #[test]
    fn a_lost_attempt_had_no_pod() {
        let mut second = sample::step("Active", 2);
        second["current"]["phases"][0]["steps"][0]["past"] = json!([{"attempt": 1, "reason": "Lost"}]);
        let intent = sample::run(1, sample::step("Active", 1));
        assert_eq!(judge(vec![intent.clone(), sample::pod(2, "a", 1), sample::run(3, second.clone())]), ["S1"]);
        assert!(judge(vec![intent.clone(), sample::run(2, second.clone()), sample::pod(3, "b", 2)]).is_empty());
        let late = sample::pod(3, "a", 1);
        assert!(judge(vec![intent.clone(), sample::run(2, second.clone()), late.clone()]).is_empty());
        let late = Version { resource: "failureinjections", ..late };
        assert_eq!(judge(vec![intent, sample::run(2, second), late]), ["S1"]);
    }

    #[test]
    fn nothing_begins_after_a_deletion() {
        let mut deleted = sample::run(2, sample::step("Waiting", 0));
        deleted.object["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:00:00Z");
        assert_eq!(judge(vec![deleted.clone(), sample::run(3, sample::step("Active", 1))]), ["S10"]);
        assert!(judge(vec![sample::run(1, sample::step("Active", 1)), deleted]).is_empty());
    }
}
