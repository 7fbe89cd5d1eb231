//! Attempts, retries, time limits, groups, background steps, lost intents.

use chrono::TimeDelta;
use serde_json::json;

use super::world::{Fate, World, live, name, one_pod, phases, pod};
use crate::{
    api::{
        names::FINALIZER,
        status::{Outcome, OutputValue, RunPhase, Section, SoakRunStatus, StepState},
    },
    engine::{Decision, Effect, RecordSeen, Seen, StepEnd, StepSeen, Validation, attempt, summarize},
};

const HOUR: TimeDelta = TimeDelta::hours(1);

#[test]
fn a_run_of_one_pod_passes_and_its_pod_goes_after_the_record() {
    let mut world = World::new(one_pod());
    world.go(HOUR);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Succeeded, "Passed"), "{status:#?}");
    assert_eq!(status.cycles.passed, 1);
    assert_eq!(world.ever.len(), 1);
    world.settle();
    assert!(world.pods.is_empty());
    assert_eq!(world.phases, [RunPhase::Validating, RunPhase::Running, RunPhase::CleaningUp, RunPhase::Succeeded]);
}

#[test]
fn what_is_validated_before_anything_was_written_begins_in_one_decision() {
    let mut world = World::new(one_pod());
    world.run.metadata.finalizers = Some(vec![FINALIZER.into()]);
    let seen = Seen { validation: Some(Validation::Accepted), ..world.seen() };
    let Decision { status, effects, .. } = world.decide(&seen);
    assert_eq!((status.phase, status.attempt, attempt(&world.run)), (RunPhase::Running, 1, 1));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Begin(_))), "{effects:?}");
    assert!(!effects.contains(&Effect::Validate));
}

#[test]
fn a_failed_attempt_is_tried_again_after_its_backoff_and_the_past_is_kept() {
    let spec = json!({"phases": [{"name": "work", "steps": [
        {"name": "say", "pod": {"image": "x"}, "retry": {"limit": 2, "backoff": "10s"}},
    ]}]});
    let fails = Fate::Fails(TimeDelta::seconds(2), 1);
    let mut world = World::new(spec).fate("say", &[fails.clone(), fails, Fate::Succeeds(TimeDelta::seconds(2))]);
    let began = world.now;
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded);
    assert_eq!(world.ever.iter().map(|key| key.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    // Three attempts of two seconds, pauses of ten and twenty.
    assert_eq!(world.now - began, TimeDelta::seconds(36));
}

#[test]
fn a_retry_only_happens_while_its_condition_holds() {
    for (code, attempts) in [(99, 2), (1, 1)] {
        let spec = json!({"phases": [{"name": "work", "steps": [
            {"name": "say", "pod": {"image": "x"}, "retry": {"limit": 1, "when": "failure.transient"}},
        ]}]});
        let mut world = World::new(spec).fate("say", &[Fate::Fails(TimeDelta::seconds(2), code)]);
        world.go(HOUR);
        assert_eq!(world.status().phase, RunPhase::Failed);
        assert_eq!(world.ever.len(), attempts, "exit code {code}");
    }
}

#[test]
fn a_phase_is_tried_again_with_attempt_numbers_that_go_on() {
    let spec = json!({"phases": [{"name": "work", "retry": {"limit": 1, "backoff": "5s"}, "steps": [pod("first"), pod("second")]}]});
    let mut world = World::new(spec)
        .fate("second", &[Fate::Fails(TimeDelta::seconds(2), 1), Fate::Succeeds(TimeDelta::seconds(2))]);
    let began = world.now;
    world.go(HOUR);
    assert_eq!(world.now - began, TimeDelta::seconds(4 + 5 + 4), "the pause is between the attempts");
    assert_eq!(world.status().phase, RunPhase::Succeeded);
    let made: Vec<(&str, u32)> = world.ever.iter().map(|key| (key.step.as_str(), key.attempt)).collect();
    assert_eq!(made, [("first", 1), ("second", 1), ("first", 2), ("second", 2)]);
}

#[test]
fn a_pod_that_hangs_is_stopped_at_its_time_limit_and_fails_as_timeout() {
    let spec =
        json!({"phases": [{"name": "work", "steps": [{"name": "hang", "pod": {"image": "x"}, "timeout": "1m"}]}]});
    let mut world = World::new(spec).fate("hang", &[Fate::Runs]);
    world.go(HOUR);
    let status = world.status();
    assert_eq!(status.phase, RunPhase::Failed);
    assert!(
        status.recent[0].reason.starts_with("Timeout: work: step hang: had not ended after 1m"),
        "{}",
        status.recent[0].reason
    );
}

#[test]
fn a_pod_that_is_never_scheduled_fails_by_what_held_it_up() {
    let spec = json!({"phases": [{"name": "work", "steps": [{"name": "wait", "pod": {"image": "x"}, "pendingTimeout": "30s"}]}]});
    let mut world = World::new(spec).fate("wait", &[Fate::Pends]);
    world.go(HOUR);
    assert!(world.status().recent[0].reason.starts_with("Unschedulable"), "{}", world.status().recent[0].reason);
}

#[test]
fn a_phase_has_its_own_limit_and_skips_what_it_did_not_reach() {
    let spec = json!({"phases": [{"name": "work", "timeout": "30s", "steps": [pod("hang"), pod("never")]}]});
    let mut world = World::new(spec).fate("hang", &[Fate::Runs]);
    world.go(HOUR);
    assert_eq!(world.ever.len(), 1);
    assert!(
        world.status().recent[0]
            .reason
            .starts_with("Timeout: work: phase work did not end within 30s; step hang was at work"),
        "{}",
        world.status().recent[0].reason
    );
}

#[test]
fn a_background_step_runs_beside_and_is_stopped_at_the_end_of_its_phase() {
    let spec = json!({"phases": [{"name": "work", "steps": [{"name": "load", "background": true, "pod": {"image": "x"}}, pod("say")]}]});
    let mut world = World::new(spec).fate("load", &[Fate::Runs]);
    world.settle();
    assert_eq!(world.ever.len(), 1, "the next step waits until the load runs");
    world.pass_time();
    world.settle();
    assert_eq!(world.ever.len(), 2);
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded, "an exit by SIGTERM is no failure when it was asked for");
}

#[test]
fn a_background_step_that_exits_well_when_it_is_stopped_succeeds_and_hands_on_its_outputs() {
    for (code, phase) in [(0, RunPhase::Succeeded), (143, RunPhase::Succeeded), (3, RunPhase::Failed)] {
        let spec = json!({"phases": [{"name": "work", "steps": [{"name": "load", "background": true, "pod": {"image": "x"}}, pod("say")]}]});
        let mut world = World::new(spec).fate("load", &[Fate::Yields(code)]);
        world.go(HOUR);
        let status = world.status();
        assert_eq!(status.phase, phase, "exit code {code}: {:?}", status.recent);
        assert!(status.metrics.iter().any(|metric| metric.name == "steps.load.outputs.answer"), "exit code {code}");
    }
}

#[test]
fn a_step_that_times_out_fails_though_it_exits_well_when_it_is_stopped() {
    let spec =
        json!({"phases": [{"name": "work", "steps": [{"name": "hang", "pod": {"image": "x"}, "timeout": "1m"}]}]});
    let mut world = World::new(spec).fate("hang", &[Fate::Yields(0)]);
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Failed);
    assert!(world.status().recent[0].reason.starts_with("Timeout: "), "{}", world.status().recent[0].reason);
}

#[test]
fn a_background_step_that_fails_early_fails_its_phase_at_once() {
    let spec = json!({"phases": [{"name": "work", "steps": [{"name": "load", "background": true, "pod": {"image": "x"}}, pod("hang")]}]});
    let mut world = World::new(spec).fate("load", &[Fate::Fails(TimeDelta::seconds(5), 3)]).fate("hang", &[Fate::Runs]);
    let began = world.now;
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Failed);
    assert!(world.now - began < TimeDelta::seconds(10));
}

#[test]
fn members_of_a_group_run_at_the_same_time() {
    let spec = json!({"phases": [{"name": "work", "steps": [{"name": "both", "parallel": [pod("a"), pod("b")]}, pod("after")]}]});
    let mut world = World::new(spec);
    world.settle();
    assert_eq!(world.ever.len(), 2);
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded);
    assert_eq!(world.ever.len(), 3);
}

#[test]
fn outputs_reach_later_steps_and_the_distributions() {
    let spec = json!({"cycles": 3, "phases": phases(&[("work", &["say"])])});
    let mut world = World::new(spec);
    world.go(HOUR);
    let told = summarize(world.plan(), &world.status()).metrics;
    let told: Vec<_> = told.iter().map(|(name, sketch)| (name.as_str(), sketch.count(), sketch.mean())).collect();
    let expected = [("cycle", 2.0), ("phases.work", 2.0), ("steps.say.outputs.answer", 42.0)];
    assert_eq!(told, expected.map(|(name, mean)| (name, 3, Some(mean))));
}

#[test]
fn an_intent_that_left_nothing_behind_is_a_lost_attempt_outside_of_the_retry_budget() {
    let mut world = World::new(one_pod());
    for _ in 0..3 {
        world.visit();
    }
    while world.ever.is_empty() && world.status().current.is_none() {
        world.visit();
    }
    // The pod vanishes, and the process that made it as well.
    world.pods.clear();
    world.crash();
    world.settle();
    assert_eq!(world.step("say").attempt, 2);
    assert_eq!(world.step("say").failures, 0);
    assert_eq!(world.step("say").past[0].reason, "Lost");
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded);
}

#[test]
fn beginning_again_is_asked_for_only_where_it_does_no_harm() {
    let patch = json!({"name": "mend", "patch": {"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "patch": {}}});
    let mut world = World::new(json!({"phases": [{"name": "work", "steps": [patch]}]}));
    // Crash right after the intent is written.
    while world.status().current.is_none() {
        world.visit_until(1);
    }
    assert_eq!(world.step("mend").state, StepState::Active);
    let decision = world.decide(&world.seen());
    assert!(
        decision.effects.iter().any(|effect| matches!(effect, Effect::Begin(key) if key.attempt == 1)),
        "{:?}",
        decision.effects
    );
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded);
}

#[test]
fn a_cycle_is_not_counted_before_its_record_is_stored() {
    let mut world = World::new(one_pod());
    world.store_works = false;
    for _ in 0..3 {
        world.settle();
        world.pass_time();
    }
    assert_eq!(world.status().cycles.completed, 0);
    assert_eq!(world.status().current.unwrap().outcome, Some(Outcome::Succeeded));
    assert_eq!(world.pods.len(), 1, "the pod stays while its log is not stored");
    world.store_works = true;
    world.go(HOUR);
    assert_eq!(world.status().cycles.passed, 1);
}

#[test]
fn a_status_from_before_a_pod_was_intended_does_not_delete_it() {
    let spec = json!({"cycles": 2, "setup": [pod("prepare")], "cleanup": [pod("tidy")], "phases": [
        {"name": "work", "retry": {"limit": 1, "backoff": "1s"}, "steps": [
            {"name": "load", "background": true, "pod": {"image": "x"}},
            {"name": "flaky", "retry": {"limit": 1, "backoff": "1s"}, "pod": {"image": "x"}},
        ]},
        {"name": "check", "steps": [pod("look")]},
    ]});
    let fails = Fate::Fails(TimeDelta::seconds(2), 1);
    let fates = [fails.clone(), fails.clone(), fails, Fate::Succeeds(TimeDelta::seconds(2))];
    let mut world = World::new(spec).fate("flaky", &fates).fate("load", &[Fate::Yields(0)]);
    let (mut past, mut lived): (Vec<SoakRunStatus>, usize) = (Vec::new(), 0);
    for _ in 0..500 {
        let status = world.status();
        for (key, _) in live(&status).iter().filter(|(_, state)| *state == StepState::Active) {
            let name = name(key);
            lived += usize::from(world.pods.contains_key(&name));
            for old in &past {
                assert!(!world.deletes_believing(old).contains(&name), "{key:?} is deleted by one who saw {old:#?}");
            }
        }
        if past.last() != Some(&status) {
            past.push(status);
        }
        if !world.visit() {
            if world.next_moment().is_none() {
                break;
            }
            world.pass_time();
        }
    }
    assert!(lived > 5 && world.status().phase.is_final(), "{lived} {:?}", world.status().phase);
}

#[test]
fn a_phase_that_is_tried_again_keeps_what_its_steps_went_through() {
    let spec = json!({"phases": [{"name": "work", "retry": {"limit": 1, "backoff": "5s"}, "steps": [
        {"name": "say", "pod": {"image": "x"}, "retry": {"limit": 1, "backoff": "1s"}}, pod("after"),
    ]}]});
    let fails = Fate::Fails(TimeDelta::seconds(2), 1);
    let mut world = World::new(spec).fate("say", &[fails.clone(), fails, Fate::Succeeds(TimeDelta::seconds(2))]);
    while world.ever.iter().all(|key| key.step != "after") {
        world.settle();
        world.pass_time();
    }
    let past: Vec<u32> = world.step("say").past.iter().map(|past| past.attempt).collect();
    assert_eq!((world.step("say").attempt, past), (3, vec![1]));
}

#[test]
fn a_pod_of_an_attempt_that_was_given_up_is_deleted_while_the_next_runs() {
    let mut world = World::new(one_pod()).fate("say", &[Fate::Runs]);
    world.settle();
    let first = world.pods.clone();
    world.pods.clear();
    world.crash();
    world.settle();
    assert_eq!(world.step("say").attempt, 2);
    // It was only late.
    world.pods.extend(first.clone());
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert!(first.keys().all(|name| !world.pods.contains_key(name)));
}

#[test]
fn pods_of_a_cycle_go_before_the_next_begins() {
    let mut world = World::new(json!({"cycles": 2, "cooldown": "1h", "phases": phases(&[("work", &["say"])])}));
    world.after(2);
    assert_eq!(world.status().phase, RunPhase::CoolingDown);
    assert!(world.pods.is_empty());
    let (between, then) = (world.status(), world.now);
    world.now += HOUR;
    world.settle();
    assert_eq!(world.pods.len(), 1);
    world.now = then;
    assert_eq!(world.deletes_believing(&between), [""; 0], "a cache that is behind knows nothing of it");
}

#[test]
fn a_phase_has_its_whole_time_each_time_it_is_tried() {
    let spec = json!({"phases": [{"name": "work", "timeout": "30s", "retry": {"limit": 1, "backoff": "5s"}, "steps": [pod("say")]}]});
    let mut world = World::new(spec).fate("say", &[Fate::Runs, Fate::Succeeds(TimeDelta::seconds(20))]);
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Succeeded, "{}", world.status().message);
}

#[test]
fn a_step_of_which_nothing_is_told_times_out_as_such() {
    let spec = json!({"phases": [{"name": "work", "steps": [{"name": "say", "pod": {"image": "x"}, "pendingTimeout": "30s"}]}]});
    let mut world = World::new(spec);
    world.settle();
    let [(key, _)] = live(&world.status()).try_into().unwrap();
    world.done.insert(key.clone(), StepSeen::Pending { reason: String::new(), message: String::new() });
    world.now += TimeDelta::seconds(30);
    world.visit();
    assert_eq!(world.step("say").reason, "Timeout");
    let mut world = World::new(
        json!({"phases": [{"name": "work", "steps": [{"name": "say", "pod": {"image": "x"}, "timeout": "30s"}]}]}),
    );
    world.settle();
    let running = StepSeen::Running { since: Some(world.now), message: "at 3 of 4".into() };
    world.done.insert(key.clone(), StepSeen::Pending { reason: "Pulling".into(), message: String::new() });
    world.visit();
    world.done.insert(key, running);
    world.now += TimeDelta::seconds(41);
    world.visit();
    let step = world.step("say");
    assert_eq!(
        (step.reason.as_str(), step.message.as_str()),
        ("Timeout", "had not ended after 30s; last seen: at 3 of 4")
    );
}

#[test]
fn a_store_that_fails_for_another_record_does_not_end_the_run() {
    let mut world = World::new(one_pod());
    world.store_works = false;
    world.after(2);
    world.now += HOUR;
    for (cycle, ends) in [(1, true), (2, false)] {
        let record = RecordSeen::Failing { message: "no answer".into() };
        let seen = Seen { record, record_of: (Section::Cycle, cycle), ..world.seen() };
        let decision = world.decide(&seen);
        assert_eq!(decision.status.ending.is_some(), ends, "of cycle {cycle}");
    }
}

#[test]
fn what_is_known_of_another_record_counts_no_cycle() {
    let mut world = World::new(one_pod());
    world.store_works = false;
    world.after(2);
    assert!(world.status().current.unwrap().outcome.is_some());
    let digest = || "sha256:1".to_owned();
    for record in [RecordSeen::Stored { digest: digest() }, RecordSeen::Kept { digest: digest() }] {
        for (cycle, counted) in [(1, 1), (2, 0)] {
            let seen = Seen { record: record.clone(), record_of: (Section::Cycle, cycle), ..world.seen() };
            let decision = world.decide(&seen);
            assert_eq!(decision.status.cycles.completed, counted, "{record:?} of cycle {cycle}");
        }
    }
}

#[test]
fn an_output_that_is_no_number_is_kept_as_text() {
    let mut world = World::new(one_pod());
    world.settle();
    let [(key, _)] = live(&world.status()).try_into().unwrap();
    let outputs = [("none", OutputValue::Number(f64::NAN)), ("half", OutputValue::Number(0.5))];
    let outputs = outputs.map(|(name, value)| (name.to_owned(), value)).into();
    world.done.insert(key, StepSeen::Ended(StepEnd { outputs, ..StepEnd::succeeded() }));
    world.store_works = false;
    world.settle();
    let outputs = world.step("say").outputs;
    assert_eq!(outputs["none"], OutputValue::Text("NaN".into()));
    assert_eq!(outputs["half"], OutputValue::Number(0.5));
}
