//! What people and tools read of a run at work.

use chrono::TimeDelta;
use serde_json::json;

use super::world::{Fate, World, one_pod, phases, pod};
use crate::{
    api::{ConditionStatus, condition, status::RunPhase},
    engine::{expr::Expression, plan::base_roots, scope, summarize},
};

fn reconciling(world: &World) -> ConditionStatus {
    condition::find(&world.status().conditions, "Reconciling").unwrap().status
}

#[test]
fn the_position_names_the_cycle_the_phase_and_the_step() {
    let spec = json!({
        "setup": [pod("prepare"), pod("wait")], "cleanup": [pod("tidy")], "phases": [{"name": "work", "steps": [
            {"name": "first", "pod": {"image": "x"}, "retry": {"limit": 1, "backoff": "10s"}}, pod("second"),
        ]}],
    });
    let fates = [Fate::Fails(TimeDelta::seconds(2), 1), Fate::Succeeds(TimeDelta::seconds(2))];
    let mut world = World::new(spec).fate("first", &fates);
    for (seconds, position, phase) in [
        (0, "setup/prepare", RunPhase::SettingUp),
        (2, "setup/wait", RunPhase::SettingUp),
        (2, "1 work/first", RunPhase::Running),
        // Between its attempts.
        (5, "1 work/first", RunPhase::Running),
        (9, "1 work/second", RunPhase::Running),
        (2, "cleanup/tidy", RunPhase::CleaningUp),
        (2, "", RunPhase::Succeeded),
    ] {
        let status = world.after(seconds);
        assert_eq!((status.position.as_str(), status.phase), (position, phase));
    }
}

#[test]
fn a_run_reconciles_until_it_begins() {
    let mut world = World::new(one_pod());
    world.validation = None;
    world.settle();
    let status = world.status();
    assert_eq!((status.reason.as_str(), status.message.as_str()), ("Validating", "the spec is tried on the server"));
    assert_eq!(reconciling(&world), ConditionStatus::True);
    world.validation = Some(crate::engine::Validation::Accepted);
    world.settle();
    assert_eq!(world.status().reason, "Running");
    assert_eq!(reconciling(&world), ConditionStatus::False);

    let mut refused = World::new(one_pod());
    refused.validation =
        Some(crate::engine::Validation::Invalid { reason: "InvalidSpec".into(), message: "no such kind".into() });
    refused.go(TimeDelta::hours(1));
    assert_eq!((refused.status().phase, reconciling(&refused)), (RunPhase::Failed, ConditionStatus::False));
}

#[test]
fn between_cycles_a_run_tells_how_far_it_is_and_how_the_last_one_went() {
    for (cycles, duration, progress) in [(Some(3), None, ["0/3", "1/3", "2/3"]), (None, Some("10h"), ["0", "1", "2"])] {
        let spec =
            json!({"cycles": cycles, "duration": duration, "cooldown": "1h", "phases": phases(&[("work", &["say"])])});
        let fates = [Fate::Fails(TimeDelta::seconds(2), 1), Fate::Succeeds(TimeDelta::seconds(2))];
        let mut world = World::new(spec).fate("say", &fates);
        assert_eq!(world.after(0).progress, progress[0]);
        assert_eq!(world.after(0).success_rate, "");
        assert_eq!(summarize(world.plan(), &world.status()).success_rate, None);
        let status = world.after(2);
        assert_eq!((status.phase, status.progress.as_str()), (RunPhase::CoolingDown, progress[1]));
        assert_eq!(status.message, "cycle 1: NonZeroExit: work: step say: exit 1");
        let status = world.after(3_602);
        assert_eq!((status.progress.as_str(), status.message.as_str()), (progress[2], ""));
        assert_eq!(status.success_rate, "0.500 (0.095-0.905)");
    }
}

#[test]
fn expressions_see_the_run_its_cycle_and_what_came_before() {
    let mut world = World::new(json!({
        "cycles": 2, "seed": 7, "parameters": [{"name": "size", "value": "3"}],
        "targets": [{"name": "hub"}], "roles": {"primary": "hub"},
        "phases": phases(&[("one", &["say"]), ("two", &["more"])]),
    }));
    let reachable = crate::engine::TargetSeen { reachable: true, version: Some("v1".into()), ..Default::default() };
    world.targets.insert("hub".into(), reachable);
    world.after(4);
    let status = world.after(2);
    assert_eq!(status.position, "2 two/more");
    let at_work = scope(world.plan(), &world.run, &status);
    for (source, value) in [
        ("run.namespace + '/' + run.name + '/' + run.uid", json!("ns/run/uid")),
        ("[run.attempt, run.passed, run.failed, run.seed]", json!([1, 1, 0, 7])),
        ("run.serviceAccountName", json!("soak")),
        ("cycle.number", json!(2)),
        ("params.size + roles.primary + targets.hub.version", json!("3hubv1")),
        ("targets.hub.reachable", json!(true)),
        ("[steps.say.outputs.answer, steps.say.attempt, steps.say.exitCode]", json!([42, 1, 0])),
        ("steps.say.state + phases.one.outcome", json!("SucceededSucceeded")),
        ("[phases.one.attempt, phases.one.millis]", json!([1, 2_000])),
    ] {
        let expression = Expression::parse(source, &base_roots()).unwrap();
        assert_eq!(expression.evaluate(&at_work).unwrap(), value, "{source}");
    }
    world.go(TimeDelta::hours(1));
    let ended = scope(world.plan(), &world.run, &world.status());
    let number = Expression::parse("[cycle.number, size(steps)]", &base_roots()).unwrap();
    assert_eq!(number.evaluate(&ended).unwrap(), json!([0, 0]), "between passes there is no cycle");
}

#[test]
fn whether_a_step_is_tried_again_may_depend_on_the_cycle() {
    let spec = json!({"cycles": 2, "phases": [{"name": "work", "steps": [
        {"name": "say", "pod": {"image": "x"}, "retry": {"limit": 1, "when": "cycle.number == 2"}},
    ]}]});
    let mut world = World::new(spec).fate("say", &[Fate::Fails(TimeDelta::seconds(2), 1)]);
    world.go(TimeDelta::hours(1));
    let made: Vec<(u32, u32)> = world.ever.iter().map(|key| (key.cycle, key.attempt)).collect();
    assert_eq!(made, [(1, 1), (2, 1), (2, 2)]);
    assert_eq!(world.warnings, ["PassFailed", "PassFailed", "ThresholdFailed"]);
}
