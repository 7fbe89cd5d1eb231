//! Limits that a spec leaves out, and those that bound what would never end by itself.

use chrono::TimeDelta;
use serde_json::json;

use super::world::{Fate, World, one_pod};
use crate::{
    api::{Duration, status::RunPhase, status::Section},
    engine::{Plan, Validation},
};

const DAY: TimeDelta = TimeDelta::days(1);

#[test]
fn what_a_spec_leaves_out_has_the_limits_that_its_documentation_tells() {
    let spec = json!({"setup": [{"name": "up", "pod": {"image": "x"}}], "cleanup": [{"name": "down", "pod": {"image": "x"}}],
        "phases": [{"name": "work", "steps": [{"name": "say", "pod": {"image": "x"}, "retry": {"limit": 1}}]}]});
    let plan = Plan::parse(&World::new(spec).run.spec).unwrap();
    for (section, seconds) in [(Section::Setup, 1_800), (Section::Cycle, 86_400), (Section::Cleanup, 600)] {
        assert_eq!(plan.section_timeout(section), Duration::from_secs(seconds), "{section:?}");
    }
    let leaf = plan.leaf(Section::Cycle, "work", "say").unwrap();
    assert_eq!((leaf.timeout, leaf.pending_timeout), (Duration::from_secs(1_800), Duration::from_secs(300)));
    assert_eq!(leaf.retry.as_ref().unwrap().backoff, Duration::from_secs(1));
    assert!(plan.leaf(Section::Cycle, "work", "up").is_none(), "a step of another section is another step");
}

#[test]
fn a_pod_beyond_its_deadline_is_the_kubelets_for_ten_seconds_before_the_engine_stops_it() {
    let spec =
        json!({"phases": [{"name": "work", "steps": [{"name": "hang", "pod": {"image": "x"}, "timeout": "1m"}]}]});
    for (fate, seconds, reason) in
        [(Fate::Runs, 1 + 60 + 10 + 1, "Timeout: "), (Fate::Stays, 1 + 60 + 10 + 300, "StopTimeout: ")]
    {
        let mut world = World::new(spec.clone()).fate("hang", &[fate]);
        let began = world.now;
        world.go(DAY);
        assert_eq!(world.now - began, TimeDelta::seconds(seconds), "{reason}");
        assert!(world.status().recent[0].reason.starts_with(reason), "{}", world.status().recent[0].reason);
    }
}

#[test]
fn a_step_whose_pods_always_vanish_ends_after_ten_lost_attempts() {
    let mut world = World::new(one_pod());
    let began = world.now;
    while !world.status().phase.is_final() {
        world.settle();
        if world.pods.is_empty() {
            if world.status().phase.is_final() {
                break;
            }
            world.pass_time();
        } else {
            world.pods.clear();
            world.crash();
        }
    }
    assert_eq!(world.ever.len(), 11);
    assert!(world.status().recent[0].reason.starts_with("InfraError: "), "{}", world.status().recent[0].reason);
    // No pause after the first, then one that doubles from a second.
    assert_eq!(world.now - began, TimeDelta::seconds((0..9).map(|turn| 1 << turn).sum()));
}

#[test]
fn five_past_attempts_are_remembered_and_pauses_double_up_to_five_minutes() {
    let spec = json!({"phases": [{"name": "work", "steps": [
        {"name": "say", "pod": {"image": "x"}, "retry": {"limit": 20, "backoff": "100s"}},
    ]}]});
    let mut world = World::new(spec).fate("say", &[Fate::Fails(TimeDelta::seconds(2), 1)]);
    let mut begun = Vec::new();
    while world.ever.len() < 8 {
        world.settle();
        if begun.len() < world.ever.len() {
            begun.push(world.now);
        }
        world.pass_time();
    }
    let pauses: Vec<i64> = begun.windows(2).map(|pair| (pair[1] - pair[0]).num_seconds() - 2).collect();
    assert_eq!(pauses[..4], [100, 200, 300, 300]);
    world.settle();
    let past: Vec<u32> = world.step("say").past.iter().map(|past| past.attempt).collect();
    assert_eq!(past, [3, 4, 5, 6, 7]);
}

#[test]
fn a_missing_right_is_waited_for_five_minutes_and_a_store_that_fails_an_hour() {
    let mut world = World::new(one_pod());
    world.validation = Some(Validation::NotYet { reason: "PermissionDenied".into(), message: "create pods".into() });
    let began = world.now;
    world.go(DAY);
    assert_eq!((world.status().phase, world.now - began), (RunPhase::Failed, TimeDelta::minutes(5)));

    let mut world = World::new(one_pod());
    world.store_works = false;
    let began = world.now;
    world.go(DAY);
    // The cycle takes two seconds; then its record is tried for an hour, then the summary.
    assert_eq!((world.status().phase, world.now - began), (RunPhase::Failed, TimeDelta::seconds(2 + 2 * 3_600)));
}
