//! How a run ends: cycles, time, failures, abort, deletion, a changed spec, and what comes after.

use chrono::TimeDelta;
use serde_json::json;

use super::world::{Fate, World, one_pod, phases, pod};
use crate::{
    api::{
        ConditionStatus, condition,
        status::{MAX_METRICS, RunPhase, Section},
    },
    engine::{Validation, is_from_further_on},
};

const HOUR: TimeDelta = TimeDelta::hours(1);
const DAY: TimeDelta = TimeDelta::days(1);

fn holds(world: &World, type_: &str) -> ConditionStatus {
    condition::find(&world.status().conditions, type_).unwrap().status
}

#[test]
fn conditions_tell_the_end_to_whoever_waits() {
    let mut world = World::new(one_pod());
    world.settle();
    assert_eq!(holds(&world, "Succeeded"), ConditionStatus::Unknown);
    assert_eq!(holds(&world, "Completed"), ConditionStatus::False);
    world.go(HOUR);
    assert_eq!(holds(&world, "Succeeded"), ConditionStatus::True);
    assert_eq!(holds(&world, "Completed"), ConditionStatus::True);
    let mut world = World::new(one_pod()).fate("say", &[Fate::Fails(TimeDelta::seconds(2), 1)]);
    world.go(HOUR);
    assert_eq!(holds(&world, "Succeeded"), ConditionStatus::False);
    assert_eq!(holds(&world, "Completed"), ConditionStatus::True);
    assert_eq!(holds(&world, "Stalled"), ConditionStatus::True);
}

#[test]
fn cleanup_runs_after_a_failure_an_abort_and_a_deletion_and_tries_every_step() {
    for ending in ["failure", "abort", "delete"] {
        let spec = json!({
            "phases": phases(&[("work", &["say"])]),
            "cleanup": [pod("first"), pod("second")],
        });
        let fate = if ending == "failure" { Fate::Fails(TimeDelta::seconds(2), 1) } else { Fate::Runs };
        let mut world = World::new(spec).fate("say", &[fate]).fate("first", &[Fate::Fails(TimeDelta::seconds(2), 1)]);
        world.settle();
        world.pass_time();
        match ending {
            "abort" => world.edit(json!({"abort": true})),
            "delete" => world.delete(),
            _ => {}
        }
        world.go(HOUR);
        world.settle();
        let cleaned: Vec<&str> =
            world.ever.iter().filter(|key| key.section == Section::Cleanup).map(|key| key.step.as_str()).collect();
        assert_eq!(cleaned, ["first", "second"], "{ending}");
        if ending == "delete" {
            assert!(world.gone, "L3: nothing holds it");
        } else {
            assert!(world.status().message.contains("the cleanup failed"), "{}", world.status().message);
        }
    }
}

#[test]
fn a_run_that_never_began_is_deleted_without_cleanup() {
    let mut world = World::new(json!({"phases": phases(&[("work", &["say"])]), "cleanup": [pod("tidy")]}));
    world.validation = None;
    world.settle();
    let writes = world.writes;
    world.delete();
    world.settle();
    assert!(world.gone);
    assert!(world.ever.is_empty());
    assert_eq!(world.writes, writes, "there is nothing to tell any more");
}

#[test]
fn a_deleted_run_disappears_though_its_records_cannot_be_stored() {
    let mut world = World::new(json!({"phases": phases(&[("work", &["say"])]), "cleanup": [pod("tidy")]}));
    world.store_works = false;
    world.settle();
    world.delete();
    world.go(HOUR);
    assert!(world.gone, "L3: {:#?}", world.status());
}

#[test]
fn what_is_deleted_while_it_cleans_up_succeeds_only_with_a_summary() {
    for store_works in [true, false] {
        let spec = json!({"cycles": 1, "phases": phases(&[("work", &["say"])]), "cleanup": [pod("tidy")]});
        let mut world = World::new(spec);
        world.settle();
        while world.status().phase != RunPhase::CleaningUp {
            world.pass_time();
            world.settle();
        }
        world.store_works = store_works;
        world.delete();
        world.go(HOUR);
        let phase = if store_works { RunPhase::Succeeded } else { RunPhase::Aborted };
        assert_eq!((world.status().phase, world.gone), (phase, true));
        assert_eq!(world.summaries.contains(&1), store_works, "S4");
    }
}

#[test]
fn a_store_that_never_works_ends_the_run_as_an_infrastructure_error() {
    let mut world = World::new(one_pod());
    world.store_works = false;
    world.go(DAY);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, "InfraError"), "L1");
    assert_eq!(status.cycles.completed, 0, "what is not recorded does not count");
}

#[test]
fn failure_policies_end_the_run_when_they_are_exceeded() {
    for (policy, cycles) in [
        (json!({"stopOnFailure": true}), 1),
        (json!({"maxFailures": 2}), 3),
        (json!({"maxConsecutiveFailures": 1}), 2),
        (json!({}), 5),
    ] {
        let spec = json!({"cycles": 5, "failurePolicy": policy, "phases": phases(&[("work", &["say"])])});
        let mut world = World::new(spec).fate("say", &[Fate::Fails(TimeDelta::seconds(2), 1)]);
        world.go(HOUR);
        assert_eq!(world.status().cycles.completed, cycles, "{policy}");
        assert_eq!(world.status().phase, RunPhase::Failed);
    }
}

#[test]
fn no_cycle_begins_after_the_duration_but_one_that_began_may_end() {
    let spec = json!({"cycles": null, "duration": "5s", "phases": phases(&[("work", &["say"])])});
    let mut world = World::new(spec);
    let began = world.now;
    world.go(HOUR);
    assert_eq!(world.status().cycles.passed, 3, "cycles of two seconds begin at 0, 2 and 4 s");
    assert_eq!(world.now - began, TimeDelta::seconds(6));
    assert_eq!(world.status().phase, RunPhase::Succeeded);
}

#[test]
fn an_abort_while_suspended_ends_the_run() {
    let mut world = World::new(json!({"phases": phases(&[("work", &["say", "more"])]), "cleanup": [pod("tidy")]}));
    world.settle();
    world.edit(json!({"suspend": true}));
    world.settle();
    world.edit(json!({"abort": true}));
    world.go(HOUR);
    assert_eq!(world.status().phase, RunPhase::Aborted);
    assert!(world.status().recent[0].reason.contains("spec.abort was set"), "{}", world.status().recent[0].reason);
    assert!(world.ever.iter().any(|key| key.step == "tidy"));
    assert_eq!(world.status().cycles.inconclusive, 1, "a stopped cycle is no success and no failure");
}

#[test]
fn an_invalid_spec_and_a_missing_right_end_as_failed_and_say_so() {
    let mut world = World::new(json!({"phases": [{"name": "work", "steps": [
        {"name": "wait", "wait": {"resource": {"apiVersion": "v1", "kind": "Pod", "name": "x"}, "until": "1 + 1"}},
    ]}]}));
    world.go(HOUR);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, "InvalidSpec"));
    assert!(status.message.starts_with("spec.phases[0].steps[0].wait.until: "), "{}", status.message);
    assert_eq!((status.attempt, world.warnings.as_slice()), (1, ["InvalidSpec".to_owned()].as_slice()));

    let mut world = World::new(one_pod());
    world.validation = Some(Validation::NotYet { reason: "PermissionDenied".into(), message: "create pods".into() });
    world.settle();
    assert_eq!(holds(&world, "Stalled"), ConditionStatus::True);
    world.go(HOUR);
    assert_eq!((world.status().phase, world.status().reason.as_str()), (RunPhase::Failed, "PermissionDenied"));
    assert!(world.ever.is_empty());
}

#[test]
fn a_dry_run_ends_after_the_validation() {
    let mut world =
        World::new(json!({"dryRun": true, "phases": phases(&[("work", &["say"])]), "cleanup": [pod("tidy")]}));
    world.go(HOUR);
    assert_eq!(world.status().reason, "DryRunPassed");
    assert!(world.ever.is_empty() && world.records.is_empty());
}

#[test]
fn a_spec_that_changes_without_a_rerun_ends_the_attempt_and_a_rerun_begins_another() {
    let mut world = World::new(one_pod());
    world.settle();
    world.edit(json!({"cooldown": "7s"}));
    world.go(HOUR);
    assert_eq!((world.status().phase, world.status().reason.as_str()), (RunPhase::Failed, "SpecChanged"));
    let writes = world.writes;
    world.settle();
    assert_eq!(world.writes, writes, "S2: an ended run costs no writes");
    world.edit(json!({"rerun": "2"}));
    world.go(HOUR);
    assert_eq!((world.status().phase, world.status().attempt), (RunPhase::Succeeded, 2));
    assert_eq!(world.status().cycles.completed, 1, "counters begin anew");
}

#[test]
fn a_rerun_is_validated_again_and_leaves_the_old_end_until_it_begins() {
    let mut world = World::new(one_pod());
    world.go(HOUR);
    world.phases.clear();
    world.edit(json!({"rerun": "2"}));
    world.validation = Some(Validation::Invalid { reason: "InvalidSpec".into(), message: "no such kind".into() });
    world.go(HOUR);
    assert_eq!(world.phases, [RunPhase::Validating, RunPhase::Failed], "the new spec was judged, not the old one");
    assert_eq!((world.status().attempt, world.status().reason.as_str()), (2, "InvalidSpec"));
}

#[test]
fn a_finished_run_is_deleted_when_its_time_to_live_is_over() {
    let mut world = World::new(json!({"ttlAfterFinished": "1h", "phases": phases(&[("work", &["say"])])}));
    world.go(HOUR);
    world.settle();
    assert!(world.run.metadata.deletion_timestamp.is_none());
    world.now += HOUR;
    world.settle();
    assert!(world.run.metadata.deletion_timestamp.is_some());
    assert!(world.gone || world.run.metadata.finalizers.is_none());
}

#[test]
fn what_a_cycle_applied_goes_with_it_and_what_a_run_applied_with_the_run() {
    let apply = |name: &str, after: &str| json!({"name": name, "apply": {"manifest": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}, "deleteAfter": after}});
    let spec = json!({"cycles": 2, "cooldown": "1h", "phases": [
        {"name": "work", "steps": [apply("of-phase", "Phase"), apply("of-cycle", "Cycle"), apply("of-run", "Run"), apply("for-ever", "Never")]},
        {"name": "check", "steps": [pod("say")]},
    ]});
    let mut world = World::new(spec);
    world.settle();
    assert_eq!(world.asked_to_release, ["of-phase"]);
    world.now += TimeDelta::seconds(2);
    world.settle();
    assert_eq!(world.status().phase, RunPhase::CoolingDown);
    assert_eq!(world.asked_to_release, ["of-phase", "of-cycle"]);
    world.edit(json!({"abort": true}));
    world.go(HOUR);
    assert_eq!(world.asked_to_release, ["of-phase", "of-cycle", "of-run"]);
}

#[test]
fn an_old_status_does_not_let_go_what_came_later() {
    let spec = json!({"cycles": 3, "phases": phases(&[("work", &["say"])])});
    let mut world = World::new(spec);
    world.go(HOUR);
    let status = world.status();
    assert_eq!((status.attempt, status.cycles.completed), (1, 3));
    for (attempt, cycle, later) in
        [(1, Some(3), false), (1, Some(4), true), (1, None, false), (2, None, true), (2, Some(1), true)]
    {
        assert_eq!(is_from_further_on(&status, attempt, cycle), later, "attempt {attempt}, cycle {cycle:?}");
    }
}

#[test]
fn ten_thousand_cycles_leave_a_small_status_and_the_records_that_are_kept() {
    let spec = json!({
        "cycles": 10_000, "results": {"retention": {"passed": 3, "failed": 2}},
        "phases": [{"name": "work", "steps": [{"name": "rest", "sleep": {"duration": "10ms"}}]}],
    });
    let mut world = World::new(spec);
    world.go(DAY);
    let status = world.status();
    assert_eq!(status.cycles.passed, 10_000);
    assert_eq!(status.records.passed, [9_998, 9_999, 10_000]);
    assert!(world.pruned.iter().copied().eq(1..=9_997), "each that falls out is deleted once");
    let bytes = serde_json::to_vec(&status).unwrap().len();
    assert!(bytes <= 32 * 1_024, "{bytes} bytes");
}

#[test]
fn the_largest_spec_keeps_its_status_far_below_a_mebibyte() {
    let steps =
        |phase: usize| (0..32).map(|index| pod(&format!("{phase}-{index}-{}", "n".repeat(35)))).collect::<Vec<_>>();
    let all: Vec<_> =
        (0..8).map(|index| json!({"name": format!("{index}-{}", "p".repeat(37)), "steps": steps(index)})).collect();
    let mut world = World::new(json!({"cycles": 2, "cooldown": "1h", "phases": all}));
    world.store_works = false;
    for _ in 0..1_000 {
        world.settle();
        if world.status().current.is_some_and(|pass| pass.outcome.is_some()) {
            break;
        }
        world.pass_time();
    }
    let status = world.status();
    assert_eq!(status.current.as_ref().unwrap().phases.iter().map(|phase| phase.steps.len()).sum::<usize>(), 256);
    let bytes = serde_json::to_vec(&status).unwrap().len();
    assert!(bytes < 256 * 1_024, "{bytes} bytes");
    world.store_works = true;
    world.settle();
    assert_eq!((world.status().cycles.completed, world.status().metrics.len()), (1, MAX_METRICS));
}

#[test]
fn a_clock_that_jumps_back_stops_nothing_for_ever() {
    let mut world = World::new(json!({"cycles": 2, "cooldown": "10s", "phases": phases(&[("work", &["say"])])}));
    world.settle();
    world.now -= HOUR;
    world.go(DAY);
    assert_eq!(world.status().phase, RunPhase::Succeeded);
}

#[test]
fn a_run_that_is_deleted_and_whose_rerun_changes_at_the_same_time_does_not_begin_again() {
    let mut world = World::new(json!({"exclusive": {"key": "k"}, "phases": phases(&[("work", &["say"])])}));
    while !world.status().phase.is_final() {
        world.visit_until(1);
        world.now += TimeDelta::seconds(1);
    }
    assert!(world.run.metadata.finalizers.is_some());
    world.edit(json!({"rerun": "2"}));
    world.delete();
    world.settle();
    assert_eq!((world.gone, world.status().attempt), (true, 1));
}

#[test]
fn a_foreground_deletion_takes_cleanup_pods_with_it_so_none_begins() {
    let mut world = World::new(json!({"phases": phases(&[("work", &["say"])]), "cleanup": [pod("tidy")]}));
    world.settle();
    world.run.metadata.finalizers.get_or_insert_default().push("foregroundDeletion".into());
    world.delete();
    world.go(HOUR);
    assert!(world.gone);
    assert!(world.ever.iter().all(|key| key.step != "tidy"));
}

#[test]
fn cycles_begin_a_cooldown_after_the_one_before() {
    let mut world = World::new(json!({"cycles": 3, "cooldown": "10s", "phases": phases(&[("work", &["say"])])}));
    let began = world.now;
    world.go(HOUR);
    assert_eq!(world.now - began, TimeDelta::seconds(3 * 2 + 2 * 10));
    assert!(world.phases.contains(&RunPhase::CoolingDown));
    assert_eq!(world.notes.iter().filter(|it| *it == "CyclePassed").count(), 3);
    assert!(world.warnings.is_empty(), "{:?}", world.warnings);
}

#[test]
fn a_pass_that_takes_too_long_says_which_and_what_it_was_busy_with() {
    for (spec, section, what) in [
        (json!({"cycleTimeout": "1m", "phases": phases(&[("work", &["hang"])])}), Section::Cycle, "the cycle"),
        (
            json!({"setupTimeout": "1m", "setup": [pod("hang")], "phases": phases(&[("work", &["say"])])}),
            Section::Setup,
            "the setup",
        ),
        (
            json!({"cleanupTimeout": "1m", "cleanup": [pod("hang")], "phases": phases(&[("work", &["say"])])}),
            Section::Cleanup,
            "the cleanup",
        ),
    ] {
        let mut world = World::new(spec).fate("hang", &[Fate::Runs]);
        world.go(HOUR);
        let status = world.status();
        assert_eq!(status.phase, RunPhase::Failed, "{section:?}");
        let told = format!("{what} did not end within 1m; step hang was at work");
        assert!(status.message.contains(&told) && status.message.contains("Timeout: "), "{}", status.message);
    }
}

#[test]
fn a_rule_decides_what_a_cycle_that_takes_too_long_counts_as() {
    let mut world = World::new(json!({
        "cycleTimeout": "1m", "phases": phases(&[("work", &["hang"])]),
        "failureRules": [{"when": "failure.reason == 'Timeout'", "class": "Transient"}],
    }))
    .fate("hang", &[Fate::Runs]);
    world.go(HOUR);
    assert_eq!(world.status().cycles.transient_failures, 1);
}

#[test]
fn a_cleanup_that_fails_fails_a_run_that_had_passed() {
    for (criteria, told) in [
        (json!({}), "1 of 1 cycles passed"),
        (json!({"minSuccessRate": "0.9", "confidence": "0.95"}), "more cycles would tell"),
    ] {
        let spec = json!({"criteria": criteria, "phases": phases(&[("work", &["say"])]), "cleanup": [pod("tidy")]});
        let mut world = World::new(spec).fate("tidy", &[Fate::Fails(TimeDelta::seconds(2), 1)]);
        world.go(HOUR);
        let status = world.status();
        assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, "CleanupFailed"));
        assert!(
            status.message.contains(told) && status.message.contains("the cleanup failed: NonZeroExit"),
            "{}",
            status.message
        );
    }
}

#[test]
fn a_rerun_leaves_conditions_that_do_not_change_as_they_are() {
    let mut world = World::new(one_pod());
    world.go(HOUR);
    let since =
        |world: &World, type_: &str| condition::find(&world.status().conditions, type_).unwrap().last_transition_time;
    let (stalled, completed) = (since(&world, "Stalled"), since(&world, "Completed"));
    world.now += HOUR;
    world.edit(json!({"rerun": "2"}));
    world.settle();
    assert_eq!(since(&world, "Stalled"), stalled);
    assert!(since(&world, "Completed") > completed);
}

#[test]
fn no_phase_begins_after_an_abort() {
    let apply = json!({"manifest": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}, "deleteAfter": "Phase"});
    let mut world = World::new(json!({"phases": [
        {"name": "one", "steps": [{"name": "make", "apply": apply}]}, {"name": "two", "steps": [pod("more")]},
    ]}));
    world.store_works = false;
    // The first phase has ended; what it made is still to go.
    while world.status().current.is_none_or(|pass| pass.phases[0].outcome.is_none()) {
        world.visit_until(1);
    }
    world.edit(json!({"abort": true}));
    world.settle();
    let phases: Vec<String> = world.status().current.unwrap().phases.into_iter().map(|phase| phase.name).collect();
    assert_eq!(phases, ["one"]);
}

#[test]
fn pods_of_another_attempt_of_the_run_go_if_it_was_an_earlier_one() {
    let mut world = World::new(one_pod());
    world.settle();
    let first = world.pods.clone();
    world.go(HOUR);
    world.edit(json!({"rerun": "2"}));
    world.settle();
    let second = world.pods.clone();
    world.pods.extend(first);
    world.settle();
    assert_eq!(world.pods.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    // A cache that is behind tells of the attempt before.
    let mut status = world.status();
    status.attempt = 1;
    status.phase = RunPhase::Succeeded;
    assert_eq!(world.deletes_believing(&status), [""; 0]);
}
