//! Which verdict a run ends with, and when.

use chrono::TimeDelta;
use serde_json::json;

use super::world::{Fate, World, phases};
use crate::api::status::RunPhase;

const HOUR: TimeDelta = TimeDelta::hours(1);

#[test]
fn verdicts_follow_the_evidence() {
    let fails = |count: usize| {
        let mut fates = vec![Fate::Fails(TimeDelta::seconds(2), 1); count];
        fates.push(Fate::Succeeds(TimeDelta::seconds(2)));
        fates
    };
    for (criteria, failing, phase, reason) in [
        (json!({}), 0, RunPhase::Succeeded, "Passed"),
        (json!({}), 1, RunPhase::Failed, "ThresholdFailed"),
        (json!({"minSuccessRate": "0.9"}), 1, RunPhase::Succeeded, "Passed"),
        (json!({"minSuccessRate": "0.9"}), 2, RunPhase::Failed, "ThresholdFailed"),
        (json!({"minSuccessRate": "0.9", "confidence": "0.95"}), 0, RunPhase::Inconclusive, "Inconclusive"),
        (json!({"minSuccessRate": "0.5", "confidence": "0.95"}), 0, RunPhase::Succeeded, "Passed"),
        (json!({"minSuccessRate": "0.9", "confidence": "0.95"}), 9, RunPhase::Failed, "ThresholdFailed"),
    ] {
        let spec = json!({"cycles": 10, "criteria": criteria, "phases": phases(&[("work", &["say"])])});
        let mut world = World::new(spec).fate("say", &fails(failing));
        world.go(HOUR);
        let status = world.status();
        assert_eq!(
            (status.phase, status.reason.as_str()),
            (phase, reason),
            "{criteria} with {failing} failures: {}",
            status.message
        );
    }
}

#[test]
fn a_run_ends_early_when_its_verdict_is_known() {
    let fates = |failing: usize| {
        let mut fates = vec![Fate::Fails(TimeDelta::seconds(2), 1); failing];
        fates.push(Fate::Succeeds(TimeDelta::seconds(2)));
        fates
    };
    let (settled, sequential) = ("WhenSettled", "Sequential");
    for (stop, rate, confidence, failing, reason, cycles) in [
        (settled, Some("0.9"), None, 0, "Passed", 90),
        (settled, Some("0.9"), None, 100, "ThresholdFailed", 11),
        (settled, None, None, 1, "ThresholdFailed", 1),
        (settled, None, None, 0, "Passed", 100),
        (settled, Some("0.5"), Some("0.95"), 0, "Passed", 60),
        (sequential, Some("0.9"), Some("0.95"), 0, "Passed", 40),
        (sequential, Some("0.9"), Some("0.95"), 100, "ThresholdFailed", 4),
        (sequential, Some("0.99"), Some("0.95"), 0, "Inconclusive", 100),
    ] {
        let mut criteria = json!({"earlyStop": stop});
        for (field, value) in [("minSuccessRate", rate), ("confidence", confidence)] {
            if let Some(value) = value {
                criteria[field] = json!(value);
            }
        }
        let spec = json!({"cycles": 100, "criteria": criteria, "phases": phases(&[("work", &["say"])])});
        let mut world = World::new(spec).fate("say", &fates(failing));
        world.go(HOUR);
        let status = world.status();
        let told = (status.reason.as_str(), status.cycles.completed);
        assert_eq!(told, (reason, cycles), "{criteria} with {failing} failures: {}", status.message);
        assert_eq!(status.message.contains("ended early"), cycles < 100, "{}", status.message);
    }
}

#[test]
fn a_verdict_tells_the_rate_without_transient_failures_too() {
    let spec = json!({
        "cycles": 10, "criteria": {"minSuccessRate": "0.5", "confidence": "0.95"}, "phases": phases(&[("work", &["say"])]),
        "failureRules": [{"when": "failure.exitCode == 75", "class": "Transient"}],
    });
    let fates = [Fate::Fails(TimeDelta::seconds(2), 75), Fate::Succeeds(TimeDelta::seconds(2))];
    let mut world = World::new(spec).fate("say", &fates);
    world.go(HOUR);
    let status = world.status();
    assert!(status.message.contains("without 1 transient"), "{}", status.message);
}

#[test]
fn an_early_end_needs_what_it_rests_on() {
    for (spec, what) in [
        (json!({"criteria": {"earlyStop": "Sequential", "confidence": "0.9"}}), "minSuccessRate"),
        (json!({"criteria": {"earlyStop": "Sequential", "minSuccessRate": "0.9"}}), "confidence"),
        (
            json!({"criteria": {"earlyStop": "WhenSettled", "minSuccessRate": "0.9"}, "cycles": null, "duration": "1h"}),
            "spec.cycles",
        ),
    ] {
        let mut spec = spec;
        spec["phases"] = phases(&[("work", &["say"])]);
        let mut world = World::new(spec);
        world.go(HOUR);
        let status = world.status();
        assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, "InvalidSpec"));
        assert!(
            status.message.contains("spec.criteria.earlyStop") && status.message.contains(what),
            "{}",
            status.message
        );
    }
}

#[test]
fn a_failed_verdict_names_the_newest_failure() {
    let fates = [
        Fate::Succeeds(TimeDelta::seconds(2)),
        Fate::Fails(TimeDelta::seconds(2), 7),
        Fate::Succeeds(TimeDelta::seconds(2)),
    ];
    let mut world = World::new(json!({"cycles": 3, "phases": phases(&[("work", &["say"])])})).fate("say", &fates);
    world.go(HOUR);
    let message = world.status().message;
    assert!(message.starts_with("2 of 3 cycles passed; all had to; cycle 2: NonZeroExit: "), "{message}");
}
