//! The machine of an injection in a simulated world: objects with fields, an API that loses answers, an operator that dies.

mod ends;
mod plans;
mod properties;
mod told;
mod world;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::json;

use crate::api::{
    failureinjection::{EntryState, InjectionPhase},
    names::reason,
};

use super::{InjectionDecision, InjectionEffect, InjectionPlan, InjectionSeen, decide};
use world::{Act, World};

#[test]
fn a_fault_is_journaled_made_and_undone_in_that_order() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.step();
    assert!(world.has_finalizer && world.status().journal.is_empty());
    world.until(InjectionPhase::Injecting);
    assert_eq!(world.value, "good", "the journal is stored before anything is touched");
    assert!(world.status().deadline.is_some() && !world.status().journal[0].target.uid.is_empty());
    world.until(InjectionPhase::Injected);
    assert_eq!(world.value, "bad");
    world.pass(TimeDelta::seconds(9));
    world.settle();
    assert_eq!((world.status().phase, world.value.as_str()), (InjectionPhase::Injected, "bad"));
    world.pass(TimeDelta::seconds(2));
    world.settle();
    assert_eq!((world.status().phase, world.value.as_str()), (InjectionPhase::Recovered, "good"));
    assert!(!world.has_finalizer);
}

#[test]
fn whoever_journals_a_field_second_steps_back_and_looks_again() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.until(InjectionPhase::Injecting);
    let plan = InjectionPlan::parse(&world.injection.spec, "seed");
    let seen = InjectionSeen { yields: Some("n/first holds it".into()), ..InjectionSeen::default() };
    let InjectionDecision { status, effects, .. } = decide(plan.as_ref(), &world.injection, &seen, world.now);
    assert_eq!((status.phase, status.reason.as_str()), (InjectionPhase::Pending, reason::CONFLICT));
    assert!(status.journal.is_empty() && status.deadline.is_none());
    assert_eq!(effects, [InjectionEffect::Find]);
    world.injection.status = Some(status);
    world.until(InjectionPhase::Injected);
}

#[test]
fn nothing_begins_after_the_starting_deadline_or_while_the_switch_is_on() {
    let mut world = World::new(&json!({"duration": "10s", "startingDeadline": "30s"}));
    world.act(Act::Halt(true));
    world.settle();
    assert_eq!((world.status().phase, world.status().reason.as_str()), (InjectionPhase::Pending, reason::HALTED));
    world.pass(TimeDelta::seconds(31));
    world.settle();
    assert_eq!(world.status().reason, reason::STARTING_DEADLINE_EXCEEDED);
    assert_eq!((world.status().phase, world.value.as_str()), (InjectionPhase::Failed, "good"));
}

#[test]
fn a_fault_that_would_change_nothing_is_refused() {
    let mut world = World::new(&json!({"duration": "1s"}));
    world.value = "bad".into();
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (InjectionPhase::Failed, reason::NO_CHANGE));
    assert!(status.journal.is_empty() && status.message.contains("nothing to inject"), "{}", status.message);
}

#[test]
fn a_fault_begins_at_its_time() {
    let mut world = World::new(&json!({"duration": "1s"}));
    world.injection.spec.start_at = Some(world.now + TimeDelta::seconds(60));
    world.settle();
    assert_eq!(world.status().reason, reason::SCHEDULED);
    world.pass(TimeDelta::seconds(60));
    world.until(InjectionPhase::Injected);
}

#[test]
fn a_time_that_passed_while_no_operator_was_there_has_passed() {
    let mut world = World::new(&json!({"duration": "1s", "startingDeadline": "30s"}));
    let at = |time: DateTime<Utc>| Time(Timestamp::from_second(time.timestamp()).unwrap());
    world.injection.metadata.creation_timestamp = Some(at(world.now));
    world.injection.spec.start_at = Some(world.now + TimeDelta::seconds(10));
    world.now += TimeDelta::seconds(60);
    world.settle();
    assert_eq!(world.status().reason, reason::STARTING_DEADLINE_EXCEEDED);

    let mut world = World::new(&json!({"duration": "1s", "startingDeadline": "30s"}));
    world.injection.metadata.creation_timestamp = Some(at(world.now));
    world.injection.spec.start_at = Some(world.now - TimeDelta::seconds(60));
    world.until(InjectionPhase::Injected);
}

#[test]
fn what_can_not_be_made_within_a_minute_is_given_up_and_undone() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.act(Act::Deny(true));
    world.settle();
    assert_eq!(world.status().phase, InjectionPhase::Injecting);
    world.pass(TimeDelta::seconds(61));
    world.settle();
    let status = world.status();
    assert_eq!(
        (status.phase, status.reason.as_str()),
        (InjectionPhase::Failed, reason::INJECTION_TIMEOUT),
        "{status:#?}"
    );
    assert!(status.message.contains("denied"), "{}", status.message);
    assert_eq!((world.value.as_str(), world.has_finalizer), ("good", false));
}

#[test]
fn undoing_goes_on_for_as_long_as_the_server_refuses_it() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.until(InjectionPhase::Injected);
    world.act(Act::Deny(true));
    world.act(Act::Delete);
    for _ in 0..5 {
        world.pass(TimeDelta::hours(1));
        world.settle();
        assert_eq!((world.status().phase, world.value.as_str()), (InjectionPhase::Reverting, "bad"));
        assert!(world.has_finalizer && !world.deleted);
    }
    world.act(Act::Deny(false));
    world.settle();
    assert_eq!((world.deleted, world.value.as_str()), (true, "good"));
}

#[test]
fn a_foreign_change_between_journal_and_fault_is_respected() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.until(InjectionPhase::Injecting);
    world.act(Act::Foreign);
    world.settle();
    assert_eq!(world.status().reason, reason::SUPERSEDED);
    assert_eq!((world.status().phase, world.value.as_str()), (InjectionPhase::Failed, "theirs"));
    assert_eq!(world.status().journal[0].state, EntryState::NeverBegan);
}

#[test]
fn a_system_that_does_not_recover_fails_the_injection_but_the_fault_is_undone() {
    let recovery = json!({"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "until": "object != null", "timeout": "1m"});
    let mut world = World::new(&json!({"duration": "10s", "recovery": recovery}));
    world.until(InjectionPhase::Injected);
    world.pass(TimeDelta::seconds(10));
    world.settle();
    assert_eq!((world.status().phase, world.value.as_str()), (InjectionPhase::Recovering, "good"));
    let mut healthy = world.clone();
    healthy.act(Act::Heal);
    healthy.pass(TimeDelta::seconds(3));
    healthy.settle();
    assert_eq!(healthy.status().phase, InjectionPhase::Recovered);
    assert!(healthy.status().time_to_recover_seconds.is_some_and(|seconds| seconds >= 10.0));
    world.pass(TimeDelta::seconds(61));
    world.settle();
    assert_eq!((world.status().phase, world.status().reason.as_str()), (InjectionPhase::Failed, reason::NOT_RECOVERED));
}

#[test]
fn an_ended_injection_costs_no_write_and_goes_at_its_time() {
    let mut world = World::new(&json!({"duration": "1s", "ttlAfterFinished": "1h"}));
    world.until(InjectionPhase::Injected);
    world.pass(TimeDelta::seconds(1));
    world.settle();
    let (writes, status) = (world.writes, world.status());
    world.pass(TimeDelta::minutes(59));
    world.settle();
    assert_eq!((world.writes, world.status()), (writes, status));
    world.pass(TimeDelta::minutes(2));
    world.settle();
    assert!(world.deleted);
}
