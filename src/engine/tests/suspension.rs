//! A run that stands still for a while.

use chrono::TimeDelta;
use serde_json::json;

use super::world::{World, phases, pod};
use crate::api::status::RunPhase;

const HOUR: TimeDelta = TimeDelta::hours(1);

#[test]
fn a_suspended_run_begins_nothing_and_its_deadlines_wait() {
    let spec = json!({"phases": [{"name": "work", "timeout": "10s", "steps": [pod("first"), pod("second")]}]});
    let mut world = World::new(spec);
    world.settle();
    world.edit(json!({"suspend": true}));
    world.settle();
    world.now += HOUR;
    world.settle();
    assert_eq!(world.ever.len(), 1, "the first step ended, the second does not begin");
    assert_eq!(world.status().reason, "Suspended");
    world.edit(json!({"suspend": false}));
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded, "{:#?}", world.status());
}

#[test]
fn what_was_at_work_when_a_run_was_suspended_ends_and_is_counted() {
    let mut world = World::new(json!({"cycles": 2, "phases": phases(&[("work", &["say"])])}));
    world.settle();
    world.edit(json!({"suspend": true}));
    world.settle();
    world.now += HOUR;
    world.settle();
    assert_eq!((world.status().cycles.completed, world.ever.len()), (1, 1));
    assert!(world.pods.is_empty());
}

#[test]
fn the_time_of_a_cycle_stands_still_with_it() {
    let mut world = World::new(json!({"cycleTimeout": "1m", "phases": phases(&[("work", &["first", "second"])])}));
    for _ in 0..2 {
        world.edit(json!({"suspend": true}));
        world.settle();
        world.now += HOUR;
        world.edit(json!({"suspend": false}));
        world.settle();
    }
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded, "{}", world.status().message);
    assert_eq!(world.status().suspended_millis, 2 * HOUR.num_milliseconds());
}

#[test]
fn the_duration_of_a_run_goes_on_while_it_is_suspended_unless_that_is_excluded() {
    for (counts, cycles) in [("Counted", 1), ("Excluded", 7)] {
        let mut world = World::new(json!({
            "cycles": null, "duration": "10s", "suspendedTime": counts, "phases": phases(&[("work", &["say"])]),
        }));
        world.settle();
        world.edit(json!({"suspend": true}));
        world.settle();
        // The cycle at work ends meanwhile, and takes nothing of the ten seconds.
        world.now += HOUR;
        world.settle();
        world.edit(json!({"suspend": false}));
        world.settle();
        if counts == "Excluded" {
            world.edit(json!({"suspend": true}));
            world.settle();
            world.now += HOUR;
            world.settle();
            assert!(world.status().ending.is_none(), "its time does not run out meanwhile");
            world.edit(json!({"suspend": false}));
        }
        world.go(HOUR * 3);
        assert_eq!(world.status().cycles.passed, cycles, "{counts}: {}", world.status().message);
    }
}
