//! Two clusters that swap roles: nothing is done on the wrong one, and no cycle swaps twice.
//!
//! The world asserts for each begun step that it is on the cluster that the stored outcomes of earlier cycles tell.

use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{Fate, Pod, World, name};
use crate::{
    api::{
        names::reason,
        status::{FailureClass, Outcome, RunPhase, StepState},
    },
    engine::{Plan, PlanError, TargetSeen},
};

fn patch(name: &str, target: &str) -> Value {
    json!({"name": name, "patch": {"target": target, "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "patch": {}}})
}

fn spec(rotate: &str, cycles: u32) -> Value {
    let pod = |name: &str, target: &str| json!({"name": name, "pod": {"image": "x", "target": target}});
    let apply = json!({"name": "restore", "apply": {"target": "secondary", "manifest": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "restore"}}, "deleteAfter": "Cycle"}});
    json!({
        "cycles": cycles, "cooldown": "1s",
        "targets": [{"name": "hub-a"}, {"name": "hub-b", "kubeconfigSecretRef": {"name": "hub-b"}}],
        "roles": {"primary": "hub-a", "secondary": "hub-b", "rotate": rotate},
        "setup": [patch("before", "primary")],
        "phases": [
            {"name": "prepare", "steps": [pod("old", "primary"), patch("pause", "primary")]},
            {"name": "activate", "retry": {"limit": 1, "backoff": "1s"}, "steps": [apply, pod("new", "secondary"), patch("fixed", "hub-a")]},
        ],
        "cleanup": [patch("after", "primary")],
    })
}

fn parse(mut spec: Value) -> Result<Plan, PlanError> {
    spec["serviceAccountName"] = json!("soak");
    Plan::parse(&serde_json::from_value(spec).unwrap())
}

fn away() -> TargetSeen {
    TargetSeen { reachable: false, reason: "Unreachable".into(), message: "no answer".into(), ..TargetSeen::default() }
}

fn back() -> TargetSeen {
    TargetSeen { reachable: true, reason: "Reachable".into(), version: Some("v1.37.2".into()), ..TargetSeen::default() }
}

/// Each cycle's steps are begun where its roles are, and the roles are told.
#[test]
fn roles_swap_after_each_cycle_that_passed() {
    let mut world = World::new(spec("AfterSuccess", 3));
    world.go(TimeDelta::hours(1));
    let status = world.status();
    assert_eq!(status.phase, RunPhase::Succeeded, "{status:#?}");
    assert_eq!(status.role_swaps, 3);
    assert_eq!(status.roles["primary"], "hub-b");
    let places: Vec<&str> = world
        .begun
        .iter()
        .filter(|(key, _)| key.step == "pause")
        .map(|(_, target)| target.as_deref().unwrap())
        .collect();
    assert_eq!(places, ["hub-a", "hub-b", "hub-a"]);
    let last = world.begun.last().unwrap();
    assert_eq!((last.0.step.as_str(), last.1.as_deref()), ("after", Some("hub-b")));
    assert!(world.pods.is_empty());
}

#[test]
fn a_cycle_that_failed_swaps_only_when_every_cycle_does() {
    for (rotate, swaps) in [("Never", 0), ("AfterSuccess", 1), ("AfterEveryCycle", 2)] {
        let fates = [Fate::Fails(TimeDelta::seconds(2), 1), Fate::Succeeds(TimeDelta::seconds(2))];
        let mut world = World::new(spec(rotate, 2)).fate("old", &fates);
        world.go(TimeDelta::hours(1));
        assert_eq!((world.status().cycles.failed, world.status().role_swaps), (1, swaps), "{rotate}");
    }
}

#[test]
fn a_cluster_that_is_away_keeps_its_steps_from_beginning_and_nothing_else() {
    let mut world = World::new(spec("AfterSuccess", 1));
    world.targets = [("hub-a".to_owned(), back()), ("hub-b".to_owned(), away())].into();
    for _ in 0..20 {
        world.settle();
        world.now += TimeDelta::seconds(1);
    }
    let status = world.status();
    assert!(world.begun.iter().any(|(key, _)| key.step == "pause"), "what needs the other cluster goes on");
    let step = world.step("restore");
    assert_eq!((step.state, step.reason.as_str()), (StepState::Waiting, reason::TARGET_UNREACHABLE));
    assert!(status.message.contains("waits for target hub-b: no answer"), "{}", status.message);
    assert!(!status.targets[1].reachable && status.targets[0].reachable);
    let writes = world.writes;
    world.targets.insert("hub-a".into(), TargetSeen { latency_millis: Some(7), ..back() });
    world.settle();
    assert_eq!(world.writes, writes, "a latency alone is no news");
    world.targets.insert("hub-b".into(), back());
    world.go(TimeDelta::hours(1));
    assert_eq!(world.status().phase, RunPhase::Succeeded);
    assert_eq!(world.status().targets[1].version.as_deref(), Some("v1.37.2"));
}

#[test]
fn what_is_known_of_a_cluster_stays_until_more_is_and_news_are_told_once() {
    let mut spec = spec("Never", 1);
    spec["targets"] = json!([{"name": "hub-a"}]);
    spec["roles"] = json!({"primary": "hub-a", "secondary": "hub-a"});
    let mut world = World::new(spec).fate("old", &[Fate::Runs]);
    let mut look = |reachable: bool, reason: &str, version: Option<&str>| {
        let version = version.map(str::to_owned);
        let seen = TargetSeen { reachable, reason: reason.into(), version, ..TargetSeen::default() };
        world.targets.insert("hub-a".into(), seen);
        world.now += TimeDelta::seconds(1);
        let before = world.notes.len();
        world.settle();
        let told = world.notes[before..].iter().filter(|it| it.starts_with("Target")).cloned().collect::<Vec<_>>();
        let target = &world.status().targets[0];
        (target.reachable, target.version.clone().unwrap_or_default(), target.last_transition_time, told)
    };
    let (connecting, ..) = look(false, reason::CONNECTING, None);
    assert!(!connecting);
    let (reachable, version, since, told) = look(true, "Reachable", Some("v1"));
    assert_eq!((reachable, version.as_str(), told.as_slice()), (true, "v1", ["TargetReachable".to_owned()].as_slice()));
    // A restarted operator knows nothing yet.
    assert_eq!(look(false, reason::CONNECTING, None), (true, "v1".into(), since, vec![]));
    assert_eq!(look(true, "Reachable", None), (true, "v1".into(), since, vec![]));
    assert_eq!(look(true, "Reachable", Some("v2")), (true, "v2".into(), since, vec![]));
    let (reachable, version, later, told) = look(false, "Unreachable", None);
    assert_eq!(
        (reachable, version.as_str(), told.as_slice()),
        (false, "v2", ["TargetUnreachable".to_owned()].as_slice())
    );
    assert!(later > since);
}

#[test]
fn a_cluster_that_stays_away_fails_the_step_in_time() {
    let mut world = World::new(spec("AfterSuccess", 1));
    world.targets = [("hub-b".to_owned(), away())].into();
    world.go(TimeDelta::hours(8));
    let status = world.status();
    assert_eq!(status.phase, RunPhase::Failed);
    assert!(status.recent[0].reason.starts_with(reason::TARGET_UNREACHABLE), "{}", status.recent[0].reason);
    assert_eq!(status.cycles.transient_failures, 1);
}

#[test]
fn pods_on_another_cluster_are_gone_before_the_finalizer_is() {
    let mut world = World::new(spec("AfterSuccess", 1)).fate("old", &[Fate::Runs]);
    for _ in 0..4 {
        world.settle();
        world.now += TimeDelta::seconds(1);
    }
    assert_eq!(world.pods.len(), 1);
    let old = world.pods.values().next().unwrap().clone();
    world.delete();
    world.targets = [("hub-b".to_owned(), TargetSeen { pods_unknown: true, ..away() })].into();
    world.go(TimeDelta::minutes(9));
    assert!(!world.gone, "it is not known yet whether pods are left on hub-b");
    let late = Pod { target: Some("hub-b".into()), ..old };
    world.pods.insert(name(&late.key), late);
    world.targets.insert("hub-b".into(), back());
    world.now += TimeDelta::seconds(1);
    world.settle();
    assert!(world.gone && world.pods.is_empty());
}

#[test]
fn a_finalizer_does_not_wait_for_ever_for_a_cluster_that_is_gone() {
    let mut world = World::new(spec("AfterSuccess", 1));
    world.go(TimeDelta::hours(1));
    let mut world2 = World::new(spec("AfterSuccess", 1));
    world2.settle();
    world2.targets = [("hub-b".to_owned(), TargetSeen { pods_unknown: true, ..away() })].into();
    world2.delete();
    for _ in 0..120 {
        if world2.gone {
            break;
        }
        world2.settle();
        world2.now += TimeDelta::minutes(1);
    }
    assert!(world2.gone, "L3: {:#?}", world2.status());
    assert!(!world.gone && world.status().phase.is_final());
}

#[test]
fn names_that_mean_no_cluster_are_refused() {
    let refused = |change: Value, path: &str, problem: &str| {
        let mut whole = spec("AfterSuccess", 1);
        whole.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = parse(whole).unwrap_err();
        assert_eq!(error.path, path, "{error}");
        assert!(error.problem.contains(problem), "{error}");
    };
    refused(json!({"setup": [patch("x", "hub-c")]}), "spec.setup[0].patch.target", "no role or target hub-c");
    refused(json!({"roles": {"primary": "hub-a", "secondary": "hub-x"}}), "spec.roles.secondary", "no target hub-x");
    refused(json!({"roles": {"hub-a": "hub-a"}}), "spec.roles.hub-a", "not both");
    let one = json!({"roles": {"primary": "hub-a", "secondary": "hub-a", "rotate": "AfterSuccess"}});
    refused(one, "spec.roles", "exactly two");
    let unknown = |text: &str| json!({"setup": [{"name": "x", "pod": {"image": text}}]});
    let known = "(known here: primary, secondary)";
    refused(
        unknown("${roles.third}"),
        "spec.setup[0].pod.image",
        &format!("roles.third: no role of that name in spec.roles {known}"),
    );
    refused(unknown("${targets.third.version}"), "spec.setup[0].pod.image", "(known here: hub-a, hub-b)");
    for name in ["Primary", "-a", "a-", "a_b", "", &"a".repeat(41)] {
        let path = format!("spec.roles.{name}");
        refused(json!({"roles": {name: "hub-a"}}), &path, "at most 40 lower-case letters");
    }
    let mut whole = spec("Never", 1);
    whole["roles"] = json!({"0-primary": "hub-a", "a".repeat(40): "hub-b"});
    whole["setup"] = json!([{"name": "x", "pod": {"image": "${targets['hub-a'].version}"}}]);
    whole["phases"] = json!([{"name": "p", "steps": [patch("x", "0-primary")]}]);
    whole["cleanup"] = json!([]);
    parse(whole).unwrap();
}

#[test]
fn a_role_may_mean_each_of_the_targets_that_it_swaps_between() {
    let targets = |rotate: &str| parse(spec(rotate, 1)).unwrap().targets;
    let (fixed, swapping) = (targets("Never"), targets("AfterSuccess"));
    assert_eq!(fixed.possible("secondary"), ["hub-b"]);
    assert_eq!(swapping.possible("secondary"), ["hub-a", "hub-b"]);
    assert_eq!(swapping.possible_or_own(Some("hub-a")), ["hub-a"]);
    assert_eq!(swapping.possible_or_own(None), [""], "the cluster that the operator runs in");
    assert!(swapping.possible("hub-c").is_empty());
    assert_eq!(swapping.secret("hub-b").unwrap().name, "hub-b");
    assert!(swapping.secret("hub-a").is_none());
}

#[test]
fn rules_decide_what_a_failure_counts_as_and_whether_it_is_tried_again() {
    let spec = |rules: Value| {
        json!({"failureRules": rules, "cycles": 2, "phases": [{"name": "work", "steps": [
            {"name": "flaky", "pod": {"image": "x"}, "retry": {"limit": 1, "backoff": "1s", "when": "failure.class == 'Transient'"}},
        ]}]})
    };
    let fates = [Fate::Fails(TimeDelta::seconds(2), 75), Fate::Succeeds(TimeDelta::seconds(2))];
    let mut plain = World::new(spec(json!([]))).fate("flaky", &fates);
    plain.go(TimeDelta::hours(1));
    assert_eq!((plain.status().cycles.failed, plain.status().cycles.transient_failures), (1, 0));
    let rules = json!([{"when": "failure.exitCode == 75", "class": "Transient"}]);
    let mut by_rule = World::new(spec(rules.clone())).fate("flaky", &fates);
    by_rule.go(TimeDelta::hours(1));
    assert_eq!(by_rule.status().cycles.failed, 0, "it was tried again");
    let mut counted = World::new(spec(rules)).fate("flaky", &[fates[0].clone(), fates[0].clone(), fates[1].clone()]);
    counted.go(TimeDelta::hours(1));
    let status = counted.status();
    assert_eq!((status.cycles.failed, status.cycles.transient_failures), (1, 1));
    assert!(status.success_rate.contains("; 1.000 (0.207-1.000) without 1 transient"), "{}", status.success_rate);
    assert_eq!(FailureClass::Transient.as_str(), "Transient");
}

/// The injection is an object beside the run, whichever cluster it hits, and is let go there.
#[test]
fn an_injection_is_made_beside_the_run_and_hits_the_roles_cluster() {
    let mut spec = spec("AfterSuccess", 2);
    spec["phases"][1]["steps"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "fault", "inject": {"target": "secondary", "template": {}}}));
    let mut world = World::new(spec);
    world.go(TimeDelta::hours(1));
    assert_eq!(world.status().phase, RunPhase::Succeeded);
    let hit: Vec<_> =
        world.begun.iter().filter(|(key, _)| key.step == "fault").map(|(_, target)| target.as_deref()).collect();
    assert_eq!(hit, [Some("hub-b"), Some("hub-a")]);
    let held: Vec<&String> = world.released.iter().filter(|name| name.contains("FailureInjection")).collect();
    assert!(held.iter().all(|name| !name.contains(" on ")), "{held:?}");
    assert_eq!(held.len(), 2);
}

/// An injection that hits a cluster which nobody named is found before anything begins.
#[test]
fn an_injection_names_a_target_that_is_there() {
    let mut spec = spec("Never", 1);
    spec["injections"] = json!([{"name": "fault", "atPhase": "activate", "target": "tertiary", "template": {}}]);
    let error = parse(spec.clone()).unwrap_err().to_string();
    assert!(error.contains("there is no role or target tertiary"), "{error}");
    spec["injections"][0]["target"] = json!("primary");
    parse(spec).unwrap();
}

/// What can happen to a run with two clusters.
#[derive(Clone, Debug)]
enum Event {
    Visit,
    Crash(usize),
    Time,
    Away(bool),
    Back,
    StoreFails,
    StoreWorks,
    LosePod,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => Just(Event::Visit),
        6 => (0usize..4).prop_map(Event::Crash),
        8 => Just(Event::Time),
        1 => any::<bool>().prop_map(Event::Away),
        2 => Just(Event::Back),
        1 => Just(Event::StoreFails),
        2 => Just(Event::StoreWorks),
        1 => Just(Event::LosePod),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Succeeds(TimeDelta::seconds(2))),
        1 => Just(Fate::Fails(TimeDelta::seconds(1), 1)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Crashes at each action, clusters that go and come, failing stores: the world itself refuses a step on the wrong
    /// cluster; in the end the swaps are as many as the stored outcomes tell.
    #[test]
    fn roles_never_swap_twice_for_one_cycle(
        rotate in prop_oneof![Just("Never"), Just("AfterSuccess"), Just("AfterEveryCycle")],
        old in proptest::collection::vec(fate(), 1..5),
        new in proptest::collection::vec(fate(), 1..5),
        events in proptest::collection::vec(event(), 0..150),
    ) {
        let mut world = World::new(spec(rotate, 4)).fate("old", &old).fate("new", &new);
        for event in events {
            match event {
                Event::Visit => { world.visit(); }
                Event::Crash(after) => { world.visit_until(after); world.crash(); }
                Event::Time => world.now += TimeDelta::seconds(1),
                Event::Away(first) => { world.targets.insert(if first { "hub-a" } else { "hub-b" }.into(), away()); }
                Event::Back => world.targets.clear(),
                Event::StoreFails => world.store_works = false,
                Event::StoreWorks => world.store_works = true,
                Event::LosePod => {
                    let first = world.pods.keys().next().cloned();
                    first.map(|name| world.pods.remove(&name));
                }
            }
        }
        world.targets.clear();
        world.store_works = true;
        world.go(TimeDelta::days(10));
        let status = world.status();
        prop_assert!(status.phase.is_final());
        let swaps = world.outcomes.values().filter(|outcome| match rotate {
            "AfterSuccess" => **outcome == Outcome::Succeeded,
            "AfterEveryCycle" => **outcome != Outcome::Inconclusive,
            _ => false,
        }).count();
        prop_assert_eq!(status.role_swaps as usize, swaps);
        let first = if swaps % 2 == 0 { "hub-a" } else { "hub-b" };
        prop_assert_eq!(&status.roles["primary"], first);
        prop_assert!(world.pods.is_empty());
    }
}
