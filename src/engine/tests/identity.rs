//! What tells runs, their attempts and their names apart.

use serde_json::json;

use super::world::{World, one_pod};
use crate::{
    api::status::Section,
    engine::{StepEnd, StepKey, attempt, names::attempt_name, seed},
};

#[test]
fn chance_of_a_run_follows_its_uid_unless_the_spec_has_a_seed() {
    let of = |uid: &str| {
        let mut run = World::new(one_pod()).run;
        run.metadata.uid = Some(uid.into());
        seed(&run)
    };
    let seeds: Vec<u64> = (0..50).map(|index| of(&format!("uid-{index}"))).collect();
    assert!(seeds.iter().all(|seed| *seed < 1 << 48), "a JSON number holds it");
    assert!(seeds.iter().any(|seed| *seed >= 1 << 47), "all of its bits vary");
    let mut distinct = seeds.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), seeds.len());
    assert_eq!(of("uid-1"), seeds[1]);
    let mut run = World::new(one_pod()).run;
    run.spec.seed = Some(7);
    assert_eq!(seed(&run), 7);
}

#[test]
fn a_decision_is_about_the_attempt_that_is_at_work_or_begins() {
    let mut world = World::new(one_pod());
    assert_eq!(attempt(&world.run), 1);
    world.settle();
    assert_eq!((world.status().attempt, attempt(&world.run)), (1, 1));
    world.edit(json!({"rerun": "2"}));
    assert_eq!(attempt(&world.run), 1, "the first has not ended");
    world.edit(json!({"rerun": null}));
    world.go(chrono::TimeDelta::hours(1));
    assert_eq!(attempt(&world.run), 1);
    world.edit(json!({"rerun": "2"}));
    assert_eq!(attempt(&world.run), 2);
}

#[test]
fn a_name_begins_with_what_a_person_looks_for() {
    let key = StepKey {
        run_attempt: 1,
        section: Section::Cycle,
        cycle: 12,
        phase: "work".into(),
        step: "load/k6".into(),
        attempt: 1,
    };
    assert!(attempt_name("night-7", "uid", &key).starts_with("night-7-load-k6-c12-"));
    assert!(
        attempt_name("7-nights", "uid", &key).starts_with("r7-nights-load-k6-c12-"),
        "a label begins with a letter"
    );
}

#[test]
fn what_ends_a_step_says_whether_trying_again_may_help() {
    for (end, transient) in [(StepEnd::failed("Why", "how"), false), (StepEnd::transient("Why", "how"), true)] {
        let failure = end.failure.unwrap();
        assert_eq!((failure.reason.as_str(), failure.message.as_str(), failure.transient), ("Why", "how", transient));
    }
}
