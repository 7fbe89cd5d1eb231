//! Injections of a run: in which cycles they begin, and when.

use chrono::TimeDelta;
use serde_json::json;

use super::world::World;
use crate::{
    api::{Duration, status::RunPhase},
    engine::plan::Gate,
};

#[test]
fn an_injection_begins_in_its_cycles_so_long_after_its_phase() {
    let mut world = World::new(json!({
        "cycles": 5, "phases": [
            {"name": "before", "steps": [{"name": "rest", "sleep": {"duration": "1s"}}]},
            {"name": "work", "steps": [{"name": "rest", "sleep": {"duration": "9s"}}]},
        ],
        "injections": [{"name": "fault", "atPhase": "work", "every": 2, "offset": "4s", "template": {}}],
    }));
    let began = world.now;
    let mut starts = Vec::new();
    while !world.status().phase.is_final() {
        world.settle();
        starts.resize(world.begun.len(), (world.now - began).num_seconds());
        if !world.status().phase.is_final() {
            world.pass_time();
        }
    }
    let cycles: Vec<(&str, u32)> = world.begun.iter().map(|(key, _)| (key.phase.as_str(), key.cycle)).collect();
    assert_eq!((cycles, starts), (vec![("work", 2), ("work", 4)], vec![10 + 1 + 4, 30 + 1 + 4]));
    assert_eq!(world.status().phase, RunPhase::Succeeded);
    assert_eq!(world.now - began, TimeDelta::seconds(50));
}

#[test]
fn chance_follows_the_seed_and_the_probability() {
    let opened = |seed: u64, probability: f64| {
        let gate = Gate { every: 1, probability, offset: Duration::ZERO };
        (1..=1_000).filter(|cycle| gate.opens(seed, *cycle, "fault")).collect::<Vec<u32>>()
    };
    assert_eq!((opened(7, 0.0).len(), opened(7, 1.0).len()), (0, 1_000));
    // Four standard deviations of a binomial distribution with 1,000 draws at a quarter are 55.
    assert!((195..=305).contains(&opened(7, 0.25).len()), "{}", opened(7, 0.25).len());
    assert_eq!(opened(7, 0.25), opened(7, 0.25));
    assert_ne!(opened(7, 0.25), opened(8, 0.25));
}
