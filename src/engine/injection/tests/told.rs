//! What people read and wait for: phase, conditions, reason, message, events.

use super::*;
use crate::{
    api::{
        ConditionStatus::{self, False, True, Unknown},
        FailureInjectionStatus, condition,
        failureinjection::{JournalEntry, ObjectRef, Undo},
    },
    engine::injection::{EntrySeen, Found},
};

/// `Ready`, `Injected`, `Recovered`.
fn conditions(world: &World) -> [ConditionStatus; 3] {
    ["Ready", "Injected", "Recovered"]
        .map(|type_| condition::find(&world.status().conditions, type_).map_or(Unknown, |it| it.status))
}

fn words(status: &FailureInjectionStatus) -> (&str, &str) {
    (&status.reason, &status.message)
}

pub(super) fn entries(names: &[&str]) -> Vec<JournalEntry> {
    let fields = serde_json::from_value(json!([{"path": "/data/mode", "before": "good", "after": "bad"}])).unwrap();
    let undo = Undo::Fields { subresource: String::new(), fields };
    let target = |name: &str| ObjectRef {
        kind: "ConfigMap".into(),
        name: name.into(),
        uid: name.into(),
        ..ObjectRef::default()
    };
    names
        .iter()
        .map(|name| JournalEntry { target: target(name), undo: undo.clone(), ..JournalEntry::default() })
        .collect()
}

/// One decision on what is stored.
pub(super) fn decided(world: &World, seen: &InjectionSeen) -> InjectionDecision {
    let plan = InjectionPlan::parse(&world.injection.spec, "seed");
    decide(plan.as_ref(), &world.injection, seen, world.now)
}

#[test]
fn conditions_reason_and_message_follow_the_fault() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.step();
    world.step();
    assert_eq!(words(&world.status()), (reason::PENDING, "what it hits is looked for"));
    assert_eq!(conditions(&world), [True, Unknown, Unknown]);
    assert_eq!(world.wake_at, Some(world.now + TimeDelta::minutes(5)), "it may begin until then");

    world.act(Act::Deny(true));
    world.settle();
    assert_eq!(world.status().phase, InjectionPhase::Injecting);
    assert_eq!(words(&world.status()), (reason::INJECTING, "ConfigMap settings: denied"));
    assert_eq!(conditions(&world), [True, Unknown, False]);
    assert_eq!(world.wake_at, Some(world.now + TimeDelta::seconds(60)), "it is given up then");
    assert_eq!(world.status().deadline, Some(world.now + TimeDelta::seconds(70)), "at the latest");

    world.act(Act::Deny(false));
    world.pass(TimeDelta::seconds(5));
    world.settle();
    assert_eq!(words(&world.status()), (reason::INJECTED, "until 2027-01-15T08:00:15+00:00"));
    assert_eq!(conditions(&world), [True, True, False]);
    assert_eq!(world.status().deadline, Some(world.now + TimeDelta::seconds(10)), "from when it was there");
    assert_eq!(world.wake_at, world.status().deadline);

    world.act(Act::Deny(true));
    world.pass(TimeDelta::seconds(10));
    world.settle();
    assert_eq!(words(&world.status()), (reason::REVERTING, "ConfigMap settings: denied"));
    assert_eq!(conditions(&world), [True, True, False]);

    world.act(Act::Deny(false));
    world.pass(TimeDelta::milliseconds(2_500));
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, words(&status)), (InjectionPhase::Recovered, (reason::RECOVERED, "undone and healthy")));
    assert_eq!(conditions(&world), [True; 3]);
    assert_eq!((status.time_to_recover_seconds, status.time_to_recover.as_str()), (Some(12.5), "12.5s"));
    assert_eq!(status.recovered_at, Some(world.now));
    assert_eq!((status.failure.as_str(), status.fault.as_str()), ("", "patch"));
    assert_eq!(world.notes, ["Injected", "Reverted"], "each thing is told once, and nothing has failed");
}

#[test]
fn conditions_of_an_end_tell_whether_there_was_a_fault_and_whether_all_is_well() {
    type Story = fn(&mut World);
    let recovery = json!({"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "until": "object != null", "timeout": "1m"});
    let plain = json!({"duration": "10s"});
    let ill = json!({"duration": "10s", "recovery": recovery});
    let stories: [(&str, Story, _, _, &[&str]); 4] = [
        (reason::NO_CHANGE, |world| world.value = "bad".into(), &plain, [False, False, True], &["InjectionFailed"]),
        (reason::ABORTED, |world| world.act(Act::Abort), &plain, [True, False, True], &[]),
        (
            reason::INJECTION_TIMEOUT,
            |world| world.act(Act::Deny(true)),
            &plain,
            [False, False, True],
            &["InjectionFailed", "Reverted"],
        ),
        (reason::NOT_RECOVERED, |_| {}, &ill, [False, True, False], &["Injected", "Reverted", "InjectionFailed"]),
    ];
    for (reason, story, spec, expected, notes) in stories {
        let mut world = World::new(spec);
        story(&mut world);
        for _ in 0..4 {
            world.settle();
            world.pass(TimeDelta::seconds(61));
        }
        assert!(world.status().phase.is_final(), "{:#?}", world.status());
        assert_eq!((world.status().reason.as_str(), conditions(&world)), (reason, expected));
        assert_eq!(world.status().failure.is_empty(), expected[0] == True, "{reason}");
        assert_eq!(world.notes, notes, "{reason}");
    }
}

#[test]
fn a_message_is_about_the_first_target_that_is_still_open_and_of_which_something_is_known() {
    let mut world = World::new(&json!({"duration": "10s"}));
    world.until(InjectionPhase::Injected);
    let status = world.injection.status.as_mut().unwrap();
    (status.phase, status.journal) = (InjectionPhase::Reverting, entries(&["a", "b", "c"]));
    let mut seen = InjectionSeen::default();
    seen.entries.insert(0, EntrySeen::Reverted { message: "as it was".into() });
    seen.entries.insert(2, EntrySeen::Failing { message: "denied".into() });
    let InjectionDecision { status, effects, .. } = decided(&world, &seen);
    assert_eq!(words(&status), (reason::REVERTING, "ConfigMap c: denied"));
    assert_eq!(effects, [InjectionEffect::Revert(1), InjectionEffect::Revert(2)]);
}

#[test]
fn what_is_hit_is_told_in_one_line() {
    for (names, expected) in [(&["a"][..], "ConfigMap a"), (&["a", "b", "c"], "ConfigMap a and 2 more")] {
        let mut world = World::new(&json!({"duration": "10s"}));
        world.step();
        world.step();
        let found = Some(Found::Targets { journal: entries(names), candidates: Some(7) });
        let status = decided(&world, &InjectionSeen { found, ..InjectionSeen::default() }).status;
        assert_eq!((status.target.as_str(), status.preview.len(), status.candidates), (expected, names.len(), Some(7)));
    }
}

#[test]
fn an_unhealthy_system_is_told_until_something_new_is_seen() {
    let recovery = json!({"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "until": "object != null", "timeout": "1m"});
    let mut world = World::new(&json!({"duration": "10s", "recovery": recovery}));
    world.until(InjectionPhase::Injected);
    world.act(Act::Deny(true));
    world.pass(TimeDelta::seconds(10));
    world.settle();
    world.act(Act::Deny(false));
    world.until(InjectionPhase::Recovering);
    assert_eq!(words(&world.status()), (reason::RECOVERING, ""), "that it was refused before is over");
    let mut unseen = world.clone();
    unseen.pass(TimeDelta::minutes(1));
    let message = decided(&unseen, &InjectionSeen::default()).status.message;
    assert_eq!(message, "undone, but the system was not healthy within 1m");
    world.settle();
    assert_eq!(words(&world.status()), (reason::RECOVERING, "ill"));
    assert_eq!(conditions(&world), [True, True, False]);
    assert_eq!(world.wake_at, Some(world.now + TimeDelta::minutes(1)));
    // An operator that was just started knows nothing yet.
    let InjectionDecision { status, effects, .. } = decided(&world, &InjectionSeen::default());
    assert_eq!((status, effects), (world.status(), vec![InjectionEffect::Look]));
    world.pass(TimeDelta::minutes(1));
    world.settle();
    assert_eq!(world.status().message, "undone, but the system was not healthy within 1m: ill");
}
