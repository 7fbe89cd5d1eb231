//! The key of `spec.exclusive`, as one run sees it.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::world::{World, phases};
use crate::{
    api::{names::reason, status::RunPhase},
    engine::LockSeen,
};

fn spec() -> Value {
    json!({"exclusive": {"key": "hubs"}, "phases": phases(&[("work", &["say"])])})
}

#[test]
fn a_run_begins_with_the_key_and_gives_it_back_at_its_end() {
    let mut world = World::new(spec());
    world.go(TimeDelta::hours(1));
    assert_eq!(world.status().phase, RunPhase::Succeeded);
    assert!(world.status().lock.unwrap().held_since.is_some());
    world.settle();
    assert_eq!(world.lock, LockSeen::Free);
    assert!(world.run.metadata.finalizers.is_none());
}

#[test]
fn a_run_without_the_key_waits_and_says_for_whom() {
    let mut world = World::new(spec());
    world.lock = LockSeen::HeldBy("other".into());
    world.settle();
    for _ in 0..3 {
        // A restart changes nothing: the server still has it.
        world.crash();
        world.settle();
    }
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Validating, reason::WAITING_FOR_KEY));
    assert_eq!(status.message, "waits for run other, which holds the key hubs");
    assert!(status.started_at.is_none() && world.ever.is_empty());
    assert_eq!(world.notes, [reason::WAITING_FOR_KEY], "that is said once");
    world.lock = LockSeen::Free;
    world.crash();
    world.go(TimeDelta::hours(1));
    assert_eq!(world.status().phase, RunPhase::Succeeded);
}

#[test]
fn a_run_that_waits_can_be_deleted_and_aborted() {
    for delete in [true, false] {
        let mut world = World::new(spec());
        world.lock = LockSeen::HeldBy("other".into());
        world.settle();
        if delete {
            world.delete();
        } else {
            world.edit(json!({"abort": true}));
        }
        // What it knows of the key is no longer what counts.
        world.lock = LockSeen::Free;
        world.go(TimeDelta::hours(1));
        world.settle();
        assert_eq!(world.gone, delete);
        assert!(delete || world.status().phase == RunPhase::Aborted);
    }
}

#[test]
fn a_key_that_was_taken_right_before_the_deletion_is_given_back() {
    let mut world = World::new(spec());
    while world.lock != LockSeen::Held {
        world.visit_until(1);
    }
    assert!(world.status().started_at.is_none());
    world.delete();
    world.settle();
    assert!(world.gone);
    assert_eq!(world.lock, LockSeen::Free);
}
