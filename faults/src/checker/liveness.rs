//! What must come in the end: every run ends (L1, and L4 with lost events), every deleted one goes (L3), each with its verdict.

use crate::{
    history::{History, Version},
    names::text,
    user,
    workload::Expected,
};

use super::{Facts, Violation, violated};

pub(super) fn check(history: &History, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for run in facts.expected {
        let versions = history.runs().into_iter().rfind(|it| it[0].name() == run.name);
        let Some(last) = versions.and_then(|it| it.last().copied()) else {
            violated(found, "L1", format!("run {} was never seen", run.name));
            continue;
        };
        ended(last, facts, found);
        if facts.keeps_verdicts {
            verdict(last, run.expected, found);
        }
    }
}

fn ended(last: &Version, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let status = &last.object["status"];
    if user::has_ended(last) {
        return;
    }
    let deleting = last.object["metadata"]["deletionTimestamp"].is_string();
    let rule = match (deleting, facts.scenario) {
        (true, _) => "L3",
        (false, "watches" | "silent-watch" | "stale-cache") => "L4",
        _ => "L1",
    };
    let (phase, position, message) = (text(&status["phase"]), text(&status["position"]), text(&status["message"]));
    violated(found, rule, format!("run {} did not come to its end: {phase} at {position}: {message}", last.name()));
}

fn verdict(last: &Version, expected: Expected, found: &mut Vec<Violation>) {
    let status = &last.object["status"];
    let good = match expected {
        Expected::Gone => true,
        Expected::Phase(phase) => status["phase"] == phase,
    };
    if !good && !last.gone && user::has_ended(last) {
        violated(
            found,
            "verdict",
            format!("run {} ended as {} and not as {expected:?}: {}", last.name(), status["phase"], status["message"]),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::sample, *};
    use crate::workload::Run;

    fn judge(status: &Value, deleting: bool, keeps_verdicts: bool) -> Vec<&'static str> {
        let mut last = sample::run(1, status.clone());
        if deleting {
            last.object["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:00:00Z");
        }
        let expected = [Run { name: "r", expected: Expected::Phase("Succeeded"), spec: Value::Null }];
        let facts = Facts { keeps_verdicts, expected: &expected, ..sample::facts() };
        let mut found = Vec::new();
        check(&History { versions: vec![last], ..History::default() }, &facts, &mut found);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_run_ends_with_its_verdict_and_a_deleted_one_goes() {
        let phase = |phase: &str| json!({"phase": phase, "attempt": 1});
        assert!(judge(&phase("Succeeded"), false, true).is_empty());
        assert_eq!(judge(&phase("Running"), false, true), ["L1"]);
        assert_eq!(judge(&phase("CleaningUp"), true, true), ["L3"]);
        assert_eq!(judge(&phase("Succeeded"), true, true), ["L3"]);
        assert_eq!(judge(&phase("Failed"), false, true), ["verdict"]);
        assert!(judge(&phase("Failed"), false, false).is_empty());
    }
}
