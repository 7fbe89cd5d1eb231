//! Every order of events, for small specs: visits, crashes at each action, time, lost pods, what users do.
//!
//! A breadth-first search over the simulated world. Budgets of crashes, losses and users' actions keep it finite; time moves
//! from one moment at which something can happen to the next. S1, S3 and S10 are asserted by the world itself; S2 and S4 on
//! each step; L1 and L3 by following each state without further mishaps to its end, which is done once for each state.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{DefaultHasher, Hash, Hasher},
};

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::world::{Fate, World, phases, pod};
use crate::api::status::{Outcome, RunPhase, Section};

/// What users can do.
#[derive(Clone, Copy, Debug)]
enum User {
    Suspend,
    Resume,
    Abort,
    Delete,
    Rerun,
}

/// How much may go wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    crashes: u8,
    lost_pods: u8,
    store_failures: u8,
    users: u8,
    absences: u8,
}

/// What can happen in a state.
#[derive(Clone, Copy, Debug)]
enum Event {
    Visit,
    /// A visit that dies after so many actions.
    Crash(usize),
    Time,
    LosePod(usize),
    StoreFails,
    StoreWorks,
    User(User),
}

/// States after which the search gives up rather than run for ever.
const MAX_STATES: usize = 60_000;
/// Writes and effects of one visit that a crash may come between.
const MAX_ACTIONS: usize = 4;

struct State {
    world: World,
    budget: Budget,
    /// How this state was reached, to be told when it is bad: its parent and the event.
    from: Option<(usize, Event)>,
}

impl State {
    fn key(&self) -> u64 {
        let World { run, now, pods, records, kept, summaries, released, done, store_works, gone, .. } = &self.world;
        let mut hash = DefaultHasher::new();
        serde_json::to_string(run).unwrap().hash(&mut hash);
        now.hash(&mut hash);
        for value in [
            format!("{pods:?}"),
            format!("{records:?}{kept:?}{summaries:?}{released:?}"),
            format!("{done:?}{store_works}{gone}{:?}", self.budget),
            format!("{}", self.world.asked_to_validate()),
        ] {
            value.hash(&mut hash);
        }
        hash.finish()
    }

    /// The events that are possible here.
    fn events(&self) -> Vec<Event> {
        let mut events = vec![Event::Visit, Event::Time];
        if self.budget.crashes > 0 {
            events.extend((0..MAX_ACTIONS).map(Event::Crash));
        }
        if self.budget.lost_pods > 0 {
            events.extend((0..self.world.pods.len()).map(Event::LosePod));
        }
        if self.budget.store_failures > 0 && self.world.store_works {
            events.push(Event::StoreFails);
        }
        if !self.world.store_works {
            events.push(Event::StoreWorks);
        }
        if self.budget.users > 0 {
            let suspended = self.world.run.spec.suspend;
            events.push(Event::User(if suspended { User::Resume } else { User::Suspend }));
            events.extend([User::Abort, User::Delete, User::Rerun].map(Event::User));
        }
        events
    }

    /// What comes of an event; none if nothing does.
    fn after(&self, event: Event, index: usize) -> Option<Self> {
        let (mut world, mut budget) = (self.world.clone(), self.budget);
        match event {
            Event::Visit => {
                world.visit().then_some(())?;
            }
            Event::Crash(actions) => {
                budget.crashes -= 1;
                world.visit_until(actions).then_some(())?;
                world.crash();
            }
            Event::Time => {
                if world.clone().visit() {
                    // Time that passes before a visit that has something to do: the operator is away.
                    budget.absences = budget.absences.checked_sub(1)?;
                }
                world.now = world.next_moment()?;
            }
            Event::LosePod(number) => {
                budget.lost_pods -= 1;
                let name = world.pods.keys().nth(number)?.clone();
                world.pods.remove(&name);
            }
            Event::StoreFails => {
                budget.store_failures -= 1;
                world.store_works = false;
            }
            Event::StoreWorks => world.store_works = true,
            Event::User(user) => {
                budget.users -= 1;
                match user {
                    User::Suspend => world.edit(json!({"suspend": true})),
                    User::Resume => world.edit(json!({"suspend": false})),
                    User::Abort => world.edit(json!({"abort": true})),
                    User::Delete => world.delete(),
                    User::Rerun => world.edit(json!({"rerun": "again"})),
                }
            }
        }
        Some(Self { world, budget, from: Some((index, event)) })
    }

    /// What holds in every state.
    fn check(&self) -> Result<(), String> {
        let status = self.world.status();
        if let [.., before, after] = self.world.phases.as_slice()
            && !before.may_become(*after)
        {
            return Err(format!("S2: {after:?} after {before:?}"));
        }
        if status.phase != RunPhase::Succeeded {
            return Ok(());
        }
        let all_stored = (1..=status.cycles.completed)
            .all(|cycle| self.world.records.contains(&(Section::Cycle, cycle, status.attempt)));
        let all_passed = status.recent.iter().all(|cycle| cycle.outcome == Outcome::Succeeded);
        if status.cycles.completed != status.cycles.passed || !all_stored || !all_passed {
            return Err("S4: it succeeded, but not every cycle was seen to succeed and stored".into());
        }
        Ok(())
    }
}

/// The states that were found, and whether each is known to end when nothing more goes wrong.
struct Search {
    states: Vec<State>,
    index: HashMap<u64, usize>,
    ends: HashSet<u64>,
}

impl Search {
    /// Explores everything within the budget; the answer is the number of states.
    fn explore(spec: Value, fates: &[(&str, &[Fate])], budget: Budget) -> usize {
        let mut world = World::new(spec);
        for (step, fates) in fates {
            world = world.fate(step, fates);
        }
        let first = State { world, budget, from: None };
        let mut search = Self { index: HashMap::from([(first.key(), 0)]), states: vec![first], ends: HashSet::new() };
        let mut queue = VecDeque::from([0]);
        while let Some(index) = queue.pop_front() {
            if search.states[index].world.gone {
                continue;
            }
            assert!(search.states.len() < MAX_STATES, "more than {MAX_STATES} states: the budget is too large");
            for event in search.states[index].events() {
                let Some(next) = search.states[index].after(event, index) else { continue };
                let number = search.states.len();
                if let Entry::Vacant(entry) = search.index.entry(next.key()) {
                    entry.insert(number);
                    let checked = next.check();
                    search.states.push(next);
                    if let Err(problem) = checked {
                        search.blame(number, &problem);
                    }
                    queue.push_back(number);
                }
            }
        }
        for index in 0..search.states.len() {
            search.follow(index);
        }
        search.states.len()
    }

    /// L1 and L3: without further mishaps the run ends, and a deleted one disappears.
    fn follow(&mut self, index: usize) {
        let mut world = self.states[index].world.clone();
        let mut passed = Vec::new();
        // The budget plays no part here, so states that differ only in it are followed once.
        let mut state = State { world: World::new(json!({})), budget: Budget::default(), from: None };
        if world.run.spec.suspend {
            world.edit(json!({"suspend": false}));
        }
        world.store_works = true;
        for _ in 0..2_000 {
            state.world = world.clone();
            let key = state.key();
            if self.ends.contains(&key) {
                self.ends.extend(passed);
                return;
            }
            passed.push(key);
            if world.gone {
                self.ends.extend(passed);
                return;
            }
            if world.visit() {
                continue;
            }
            if world.status().phase.is_final() && world.run.metadata.deletion_timestamp.is_none() {
                if !world.pods.is_empty() {
                    self.blame(index, "an ended run leaves pods behind");
                }
                self.ends.extend(passed);
                return;
            }
            world.pass_time();
        }
        self.blame(index, &format!("L1 or L3: it never ends: {:#?}", world.status()));
    }

    /// Tells how a bad state was reached.
    fn blame(&self, index: usize, problem: &str) -> ! {
        let mut events = Vec::new();
        let mut at = index;
        while let Some((parent, event)) = self.states[at].from {
            events.push(event);
            at = parent;
        }
        events.reverse();
        panic!("{problem}\nafter {events:?}\n{:#?}", self.states[index].world.status());
    }
}

/// How much of the budgets is used: `SOAK_EXPLORE=long` takes minutes and millions of states.
fn long() -> bool {
    std::env::var("SOAK_EXPLORE").is_ok_and(|value| value == "long")
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

fn told(name: &str, states: usize, at_least: usize) {
    println!("{name}: {states} states");
    // A search that finds next to nothing has stopped looking.
    assert!(states >= at_least, "{name}: only {states} states");
}

#[test]
fn a_step_that_is_tried_again_and_a_cleanup() {
    let spec = json!({
        "phases": [{"name": "work", "steps": [{"name": "flaky", "pod": {"image": "x"}, "retry": {"limit": 1, "backoff": "1s"}}]}],
        "cleanup": [pod("tidy")],
    });
    let budget = Budget { crashes: if long() { 3 } else { 1 }, users: 1, absences: 1, ..Budget::default() };
    let fates: &[(&str, &[Fate])] = &[("flaky", &[Fate::Fails(seconds(2), 1), Fate::Succeeds(seconds(2))])];
    told("retry and cleanup", Search::explore(spec, fates, budget), 500);
}

#[test]
fn a_background_step_beside_a_call() {
    let patch = json!({"name": "change", "patch": {"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "patch": {}}});
    let spec = json!({"phases": [{"name": "work", "steps": [
        {"name": "load", "background": true, "pod": {"image": "x"}}, patch,
    ]}]});
    let budget = Budget {
        crashes: if long() { 2 } else { 1 },
        lost_pods: 1,
        users: u8::from(long()),
        absences: 1,
        ..Budget::default()
    };
    told("background step", Search::explore(spec, &[("load", &[Fate::Runs])], budget), 300);
}

#[test]
fn two_cycles_and_a_store_that_fails() {
    let spec = json!({"cycles": 2, "cooldown": "1s", "phases": phases(&[("work", &["say"])])});
    let budget = Budget { crashes: 1, store_failures: 1, users: u8::from(long()), absences: 1, ..Budget::default() };
    told("two cycles", Search::explore(spec, &[], budget), 300);
}

#[test]
fn a_setup_that_fails_and_a_group() {
    let spec = json!({
        "setup": [pod("prepare")],
        "phases": [{"name": "work", "steps": [{"name": "both", "parallel": [pod("left"), pod("right")]}]}],
    });
    let budget = Budget { crashes: 1, lost_pods: u8::from(long()), users: 1, absences: 1, ..Budget::default() };
    let fates: &[(&str, &[Fate])] =
        &[("prepare", &[Fate::Succeeds(seconds(2))]), ("both/left", &[Fate::Fails(seconds(2), 1)])];
    told("setup and group", Search::explore(spec, fates, budget), 500);
}
