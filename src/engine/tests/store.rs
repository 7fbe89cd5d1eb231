//! An object store that is out for a while.

use chrono::TimeDelta;
use serde_json::json;

use super::world::{World, one_pod, phases};
use crate::{
    api::{
        ConditionStatus, condition,
        names::condition_type,
        status::{RunPhase, Section},
    },
    engine::{Decision, Effect, Forwarding, RecordSeen, Seen},
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
    let told: Vec<&String> =
        world.notes.iter().filter(|it| ["StoreUnavailable", "Stored"].contains(&it.as_str())).collect();
    assert_eq!(told, ["StoreUnavailable", "Stored"], "each is said once");
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
    let began = world.now;
    world.go(HOUR * 3);
    assert_eq!(world.now - began, TimeDelta::seconds(2 * 2) + HOUR);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, "InfraError"), "{status:#?}");
    assert_eq!(status.records.waiting.len(), 2, "what waits is told");
    assert!(status.message.starts_with("2 records wait for the object store"), "{}", status.message);
}

#[test]
fn an_object_store_keeps_every_record() {
    let mut world = world(60, 3);
    world.go(HOUR);
    assert_eq!(world.status().cycles.passed, 60);
    assert_eq!(world.records.len(), 60);
    assert!(world.status().records.passed.is_empty(), "the retention of ConfigMaps is not applied");
    assert!(world.kept.is_empty(), "a store that works gets them at once");
    assert!(!world.notes.contains(&"Stored".to_owned()), "that goes without saying");
}

#[test]
fn a_run_whose_records_may_not_wait_says_that_its_record_is_being_stored() {
    let mut world = world(1, 0);
    world.store_works = false;
    world.after(2);
    assert_eq!(world.status().message, "the record is being stored");
    assert_eq!(stored(&world), ConditionStatus::False, "nothing waits, but the store refuses");
    let mut plain = World::new(one_pod());
    plain.store_works = false;
    plain.after(2);
    assert_eq!(plain.status().message, "the record is being stored");
}

#[test]
fn a_deleted_run_does_not_wait_for_the_store() {
    let mut world = world(10, 3);
    world.store_works = false;
    until_paused(&mut world);
    world.delete();
    world.go(TimeDelta::minutes(1));
    assert!(world.gone, "L3: {:#?}", world.status());
}

#[test]
fn a_run_whose_store_comes_back_in_time_succeeds() {
    let mut world = world(2, 5);
    world.store_works = false;
    for _ in 0..30 {
        world.settle();
        world.now += TimeDelta::minutes(1);
    }
    assert_eq!((world.status().cycles.passed, world.status().phase.is_final()), (2, false));
    world.store_works = true;
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded, "{}", world.status().message);
}

#[test]
fn a_record_waits_behind_those_that_wait_already() {
    let mut world = world(3, 3);
    world.store_works = false;
    world.after(2);
    world.after(2);
    assert_eq!(world.status().records.waiting.len(), 2);
    world.now += TimeDelta::seconds(2);
    // The third cycle ends when nothing is known yet of a store that may be back.
    let seen = Seen { record: RecordSeen::Missing, forwarding: Forwarding::default(), ..world.seen() };
    let Decision { effects, .. } = world.decide(&seen);
    assert!(effects.contains(&Effect::KeepRecord) && !effects.contains(&Effect::StoreRecord), "{effects:?}");
}

#[test]
fn a_record_that_the_store_refuses_shows_before_anything_waits() {
    let mut world = world(3, 3);
    world.store_works = false;
    world.settle();
    world.now += TimeDelta::seconds(2);
    for (record, holds) in [
        (RecordSeen::Missing, ConditionStatus::True),
        (RecordSeen::Failing { message: "no bucket".into() }, ConditionStatus::False),
    ] {
        let seen = Seen { record, summary: RecordSeen::Missing, forwarding: Forwarding::default(), ..world.seen() };
        let status = world.decide(&seen).status;
        let stored = condition::find(&status.conditions, condition_type::RECORDS_STORED).unwrap();
        assert_eq!((stored.status, stored.message.contains("no bucket")), (holds, holds == ConditionStatus::False));
    }
}
