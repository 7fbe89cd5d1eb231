//! What begins a fault or does not, and what ends it before its time.

use super::{
    told::{decided, entries},
    *,
};
use crate::engine::injection::{EntrySeen, Found};

fn recovery() -> serde_json::Value {
    json!({"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "until": "object != null", "timeout": "1m"})
}

#[test]
fn whoever_ends_a_fault_early_gets_it_undone_at_once_and_no_recovery_is_awaited() {
    for (act, ending) in
        [(Act::Abort, reason::ABORTED), (Act::Halt(true), reason::HALTED), (Act::Delete, reason::DELETED)]
    {
        let mut world = World::new(&json!({"duration": "1h", "recovery": recovery()}));
        world.until(InjectionPhase::Injected);
        world.act(act);
        world.settle();
        let status = world.status();
        assert_eq!(
            (status.phase, world.value.as_str(), world.has_finalizer),
            (InjectionPhase::Recovered, "good", false)
        );
        assert_eq!((status.reason.as_str(), status.message.as_str()), (ending, "ended before its time; undone"));
        assert_eq!(world.deleted, ending == reason::DELETED);
    }
    for act in [Act::Abort, Act::Delete] {
        let mut world = World::new(&json!({"duration": "10s", "recovery": recovery()}));
        world.until(InjectionPhase::Injected);
        world.pass(TimeDelta::seconds(10));
        world.until(InjectionPhase::Recovering);
        world.act(act);
        world.settle();
        assert_eq!(world.status().phase, InjectionPhase::Recovered, "{act:?}");
        assert_eq!(world.status().message, "undone; its recovery was not awaited");
    }
}

#[test]
fn an_injection_that_is_deleted_before_it_began_goes_at_once_and_touches_nothing() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.act(Act::Halt(true));
    world.settle();
    world.act(Act::Halt(false));
    world.act(Act::Delete);
    world.settle();
    assert_eq!((world.deleted, world.value.as_str(), world.made), (true, "good", None));
}

#[test]
fn an_ended_injection_that_is_being_deleted_is_not_deleted_again() {
    let mut world = World::new(&json!({"duration": "1s", "ttlAfterFinished": "1h"}));
    world.until(InjectionPhase::Injected);
    world.pass(TimeDelta::seconds(1));
    world.settle();
    assert_eq!(world.wake_at, Some(world.now + TimeDelta::hours(1)));
    world.pass(TimeDelta::hours(2));
    assert_eq!(decided(&world, &InjectionSeen::default()).effects.last(), Some(&InjectionEffect::Delete));
    // Somebody else's finalizer holds it.
    world.injection.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(world.now.timestamp()).unwrap()));
    assert!(!decided(&world, &InjectionSeen::default()).effects.contains(&InjectionEffect::Delete));
}

#[test]
fn what_is_found_decides_whether_it_begins() {
    use InjectionPhase::{Failed, Injecting, Pending, Skipped};
    let nothing = || Found::Nothing { message: "no such pod".into() };
    let later = Found::NotYet { reason: "TooManyActive".into(), message: "3 are active".into() };
    let never = Found::Refused { reason: "PermissionDenied".into(), message: "may not patch".into() };
    let targets = || Found::Targets { journal: entries(&["a"]), candidates: None };
    let dry = "the server would accept it; nothing was touched";
    for (more, found, phase, reason, message) in [
        (json!({}), nothing(), Failed, reason::NO_TARGET, "no such pod"),
        (json!({"onNoTarget": "Skip"}), nothing(), Skipped, reason::NO_TARGET, "no such pod"),
        (json!({"onNoTarget": "Wait"}), nothing(), Pending, reason::NO_TARGET, "no such pod"),
        (json!({}), later, Pending, "TooManyActive", "3 are active"),
        (json!({}), never, Failed, "PermissionDenied", "may not patch"),
        (json!({"dryRun": true}), targets(), Skipped, reason::DRY_RUN_PASSED, dry),
        (json!({}), targets(), Injecting, reason::INJECTING, ""),
    ] {
        let mut spec = json!({"duration": "10s"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut world = World::new(&spec);
        world.step();
        world.step();
        let seen = InjectionSeen { found: Some(found), ..InjectionSeen::default() };
        let InjectionDecision { status, effects, .. } = decided(&world, &seen);
        assert_eq!((status.phase, status.reason.as_str(), status.message.as_str()), (phase, reason, message));
        assert_eq!(status.journal.len(), usize::from(phase == Injecting), "only what begins has a journal");
        assert_eq!(effects.contains(&InjectionEffect::Find), phase == Pending, "what may come is looked for again");
        // The starting deadline tells what stood against it.
        world.injection.status = Some(status);
        world.pass(TimeDelta::minutes(5));
        let late = decided(&world, &seen).status;
        let expected = format!("it did not begin within 5m of its time: {message}");
        assert_eq!(late.message == expected, phase == Pending, "{}", late.message);
    }
}

#[test]
fn one_target_that_can_not_be_hit_is_the_undoing_of_all() {
    let never = EntrySeen::NeverBegan { reason: "Superseded".into(), message: "changed".into() };
    let broken = EntrySeen::Broken { reason: "Broken".into(), message: "half of it".into() };
    for (second, ending, failure, open) in
        [(never, "Superseded", "changed", &[0][..]), (broken, "Broken", "half of it", &[0, 1])]
    {
        let mut world = World::new(&json!({"duration": "10s"}));
        world.until(InjectionPhase::Injecting);
        world.injection.status.as_mut().unwrap().journal = entries(&["a", "b"]);
        let mut seen = InjectionSeen::default();
        seen.entries.insert(0, EntrySeen::Injected { at: world.now, message: String::new() });
        seen.entries.insert(1, second);
        let InjectionDecision { status, effects, .. } = decided(&world, &seen);
        assert_eq!((status.phase, status.ending.as_str()), (InjectionPhase::Reverting, ending));
        assert_eq!(status.failure, failure);
        let reverted: Vec<_> = open.iter().map(|index| InjectionEffect::Revert(*index)).collect();
        assert_eq!(effects[effects.len() - reverted.len()..], reverted);
    }
}

#[test]
fn an_injection_that_has_touched_something_yields_to_nobody() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.until(InjectionPhase::Injecting);
    let journal = &mut world.injection.status.as_mut().unwrap().journal;
    *journal = entries(&["a", "b"]);
    journal[0].state = EntryState::Injected;
    let seen = InjectionSeen { yields: Some("n/first holds it".into()), ..InjectionSeen::default() };
    let InjectionDecision { status, effects, .. } = decided(&world, &seen);
    assert_eq!((status.phase, status.journal.len()), (InjectionPhase::Injecting, 2));
    assert_eq!(effects, [InjectionEffect::Inject(1)]);
}

#[test]
fn a_fault_that_was_made_in_time_and_seen_late_is_no_timeout() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.until(InjectionPhase::Injecting);
    let at = world.now + TimeDelta::seconds(55);
    world.pass(TimeDelta::seconds(61));
    let mut seen = InjectionSeen::default();
    seen.entries.insert(0, EntrySeen::Injected { at, message: String::new() });
    let InjectionDecision { status, wake_at, .. } = decided(&world, &seen);
    assert_eq!((status.phase, status.injected_at), (InjectionPhase::Injected, Some(at)));
    assert_eq!((status.deadline, wake_at), (Some(at + TimeDelta::seconds(10)), Some(at + TimeDelta::seconds(10))));
}
