//! An object store that is out for a while.

use chrono::TimeDelta;
use serde_json::json;

use super::world::{World, phases};
use crate::api::{
    ConditionStatus, condition,
    names::condition_type,
    status::{RunPhase, Section},
};

const HOUR: TimeDelta = TimeDelta::hours(1);

fn world(cycles: u32, most: u32) -> World {
    World::new(json!({
        "cycles": cycles, "phases": phases(&[("work", &["say"])]),
        "results": {"objectStore": {"url": "s3://bucket", "maxWaiting": most}},
    }))
}

fn stored(world: &World) -> ConditionStatus {
    condition::find(&world.status().conditions, condition_type::RECORDS_STORED).unwrap().status
}

#[test]
fn a_run_goes_on_while_the_store_is_out_until_enough_records_wait() {
    let mut world = world(10, 3);
    world.store_works = false;
    until_paused(&mut world);
    let status = world.status();
    assert_eq!((status.cycles.completed, status.records.waiting.len()), (3, 3), "{status:#?}");
    assert!(status.message.starts_with("paused"), "{}", status.message);
    assert_eq!(stored(&world), ConditionStatus::False);
    assert!(world.records.is_empty() && world.kept.len() == 3);

    world.store_works = true;
    world.go(HOUR);
    let status = world.status();
    assert_eq!((status.phase, status.cycles.passed, status.records.waiting.len()), (RunPhase::Succeeded, 10, 0));
    assert!((1..=10).all(|cycle| world.records.contains(&(Section::Cycle, cycle, 1))), "nothing is lost");
    assert_eq!(stored(&world), ConditionStatus::True);
    assert!(world.notes.contains(&"StoreUnavailable".to_owned()) && world.notes.contains(&"Stored".to_owned()));
}

/// Lets time pass until the run waits for the store.
fn until_paused(world: &mut World) {
    for _ in 0..100 {
        world.settle();
        if world.status().message.starts_with("paused") {
            return;
        }
        world.pass_time();
    }
    panic!("it never paused: {:#?}", world.status());
}

#[test]
fn a_run_whose_records_never_reach_the_store_does_not_succeed() {
    let mut world = world(2, 5);
    world.store_works = false;
    world.go(HOUR * 3);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, "InfraError"), "{status:#?}");
    assert_eq!(status.records.waiting.len(), 2, "what waits is told");
}

#[test]
fn an_object_store_keeps_every_record() {
    let mut world = world(60, 3);
    world.go(HOUR);
    assert_eq!(world.status().cycles.passed, 60);
    assert_eq!(world.records.len(), 60);
    assert!(world.status().records.passed.is_empty(), "the retention of ConfigMaps is not applied");
}
