//! What holds for every spec and every order of events.

use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{Fate, World};
use crate::api::status::{Outcome, RunPhase, Section};

/// What can happen between two visits, or to one.
#[derive(Clone, Debug)]
enum Event {
    Visit,
    CrashBeforeTheWrite,
    CrashAfterTheWrite,
    CrashBetweenEffects(usize),
    Time,
    Suspend,
    Resume,
    Abort,
    Delete,
    LosePod,
    StoreFails,
    StoreWorks,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Visit),
        2 => Just(Event::CrashBeforeTheWrite),
        3 => Just(Event::CrashAfterTheWrite),
        2 => (2usize..4).prop_map(Event::CrashBetweenEffects),
        8 => Just(Event::Time),
        1 => Just(Event::Suspend),
        1 => Just(Event::Resume),
        1 => Just(Event::LosePod),
        1 => Just(Event::StoreFails),
        1 => Just(Event::StoreWorks),
    ]
}

fn step(name: String) -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(json!({"pod": {"image": "x"}})),
        1 => Just(json!({"pod": {"image": "x"}, "retry": {"limit": 1, "backoff": "2s"}})),
        1 => Just(json!({"pod": {"image": "x"}, "background": true})),
        1 => Just(json!({"sleep": {"duration": "1s"}})),
        1 => Just(json!({"patch": {"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "patch": {}}})),
        1 => Just(json!({"parallel": [{"name": "a", "pod": {"image": "x"}}, {"name": "b", "sleep": {"duration": "1s"}}]})),
    ]
    .prop_map(move |mut step| {
        step["name"] = json!(name);
        step
    })
}

fn steps() -> impl Strategy<Value = Vec<Value>> {
    (1usize..4).prop_flat_map(|count| (0..count).map(|index| step(format!("s{index}"))).collect::<Vec<_>>())
}

fn spec() -> impl Strategy<Value = Value> {
    (1u32..4, proptest::option::of(steps()), proptest::collection::vec(steps(), 1..3), proptest::option::of(steps()), proptest::option::of(0u32..3)).prop_map(|(cycles, setup, phases, cleanup, waiting)| {
        let phases: Vec<Value> = phases
            .into_iter()
            .enumerate()
            .map(|(index, steps)| json!({"name": format!("p{index}"), "steps": steps, "timeout": "10m"}))
            .collect();
        let results = waiting.map_or(json!({}), |most| json!({"objectStore": {"url": "s3://b", "maxWaiting": most}}));
        json!({"cycles": cycles, "results": results, "cooldown": "1s", "setup": setup.unwrap_or_default(), "phases": phases, "cleanup": cleanup.unwrap_or_default()})
    })
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Succeeds(TimeDelta::seconds(2))),
        1 => Just(Fate::Fails(TimeDelta::seconds(2), 1)),
        1 => Just(Fate::Runs),
    ]
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Visit => {
            world.visit();
        }
        Event::CrashBeforeTheWrite => {
            world.visit_until(0);
        }
        Event::CrashAfterTheWrite => {
            world.visit_until(1);
        }
        Event::CrashBetweenEffects(after) => {
            world.visit_until(*after);
        }
        Event::Time => world.now += TimeDelta::seconds(1),
        Event::Suspend => world.edit(json!({"suspend": true})),
        Event::Resume => world.edit(json!({"suspend": false})),
        Event::Abort => world.edit(json!({"abort": true})),
        Event::Delete => world.delete(),
        Event::LosePod => {
            let first = world.pods.keys().next().cloned();
            first.map(|name| world.pods.remove(&name));
        }
        Event::StoreFails => world.store_works = false,
        Event::StoreWorks => world.store_works = true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// S1, S2, S4, S10, L1 and L3 over random specs, fates and schedules of crashes. S1 and S10 are asserted by the world itself.
    #[test]
    fn whatever_happens_a_run_ends_well_defined(
        spec in spec(),
        fates in proptest::collection::vec(fate(), 3),
        events in proptest::collection::vec(event(), 0..60),
        last in prop_oneof![3 => Just(None), 1 => Just(Some(Event::Abort)), 1 => Just(Some(Event::Delete))],
    ) {
        let mut world = World::new(spec);
        for (index, fate) in fates.into_iter().enumerate() {
            world.fates.insert(format!("s{index}"), vec![fate, Fate::Succeeds(TimeDelta::seconds(2))]);
        }
        for event in events.iter().chain(&last) {
            if world.gone {
                break;
            }
            happen(&mut world, event);
        }
        // Crashes stop, the store is back, and time goes on.
        happen(&mut world, &Event::Resume);
        happen(&mut world, &Event::StoreWorks);
        world.go(TimeDelta::days(30));

        prop_assert!(world.gone || world.status().phase.is_final(), "L1: {:#?}", world.status());
        let status = world.status();
        for pair in world.phases.windows(2) {
            prop_assert!(pair[0].may_become(pair[1]), "S2: {:?} after {:?}", pair[1], pair[0]);
        }
        if status.phase == RunPhase::Succeeded {
            prop_assert_eq!(status.cycles.completed, status.cycles.passed, "S4");
            for cycle in 1..=status.cycles.completed {
                prop_assert!(world.records.contains(&(Section::Cycle, cycle, status.attempt)), "S4: no record of cycle {}", cycle);
            }
            prop_assert!(status.recent.iter().all(|cycle| cycle.outcome == Outcome::Succeeded));
        }
        let writes = world.writes;
        let stored = serde_json::to_string(&status).unwrap();
        world.now += TimeDelta::days(1);
        world.settle();
        prop_assert_eq!(world.writes, writes, "S2: an ended run is not written again");
        prop_assert_eq!(serde_json::to_string(&world.status()).unwrap(), stored);
        if world.run.metadata.deletion_timestamp.is_some() {
            prop_assert!(world.gone, "L3: the finalizer stays");
        }
        prop_assert!(world.pods.is_empty() || world.gone, "pods are left: {:?}", world.pods.keys());
    }

    /// A stored decision is a fixpoint: looking again at the same world changes nothing and begins nothing.
    #[test]
    fn a_second_look_changes_nothing(spec in spec(), events in proptest::collection::vec(event(), 0..40)) {
        let mut world = World::new(spec);
        for event in &events {
            happen(&mut world, event);
        }
        world.store_works = true;
        world.settle();
        let (writes, pods, status) = (world.writes, world.ever.len(), world.status());
        world.visit();
        prop_assert_eq!((world.writes, world.ever.len()), (writes, pods));
        prop_assert_eq!(world.status(), status);
    }
}
