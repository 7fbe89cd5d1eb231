//! What users rely on, one case a promise.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_run_is_made_at_each_tick_and_its_end_is_told() {
    let mut world = World::new(&json!({"timeZone": "Europe/Berlin"}));
    assert_eq!(world.ready(), (ConditionStatus::True, "Scheduled", "the next run is due at 2026-11-26T01:00:00Z"));
    assert_eq!(world.wake_at, Some(at("26T01:00:00")));
    world.until("26T00:59:59");
    assert!(world.names().is_empty());
    world.until("26T01:00:00");
    assert_eq!(world.names(), ["nightly-202611260100"]);
    assert_eq!(world.status().active[0].scheduled_at, Some(at("26T01:00:00")));
    assert_eq!((world.status().active_runs, &world.status().starting), (1, &None));
    assert_eq!(world.status().last_schedule_time, Some(at("26T01:00:00")));
    assert_eq!(world.status().next_schedule_time, Some(at("27T01:00:00")));
    world.until("26T03:00:00");
    world.ends("nightly-202611260100", RunPhase::Succeeded);
    let last = world.status().last_run.as_ref().unwrap();
    assert_eq!((last.name.as_str(), last.verdict), ("nightly-202611260100", RunPhase::Succeeded));
    assert_eq!(world.status().last_successful_time, Some(at("26T03:00:00")));
    assert!(world.status().active.is_empty());
    for day in ["27", "28"] {
        world.until(&format!("{day}T01:00:05"));
        world.ends(&format!("nightly-202611{day}0100"), RunPhase::Failed);
    }
    assert_eq!(world.status().consecutive_failures, 2);
    assert_eq!(world.status().last_successful_time, Some(at("26T03:00:00")));
    let told: Vec<&str> = world.notes.iter().map(|(_, reason, _)| reason.as_str()).collect();
    assert_eq!(told, ["RunCreated", "RunEnded"].repeat(3), "each thing is told once");
}

#[test]
fn ticks_that_were_missed_become_one() {
    let mut world = World::new(&json!({"schedule": "* * * * *"}));
    // Over a day with nobody there: 1,500 ticks.
    world.until("26T13:00:30");
    assert_eq!(world.names(), ["nightly-202611261300"]);
    world.until("26T13:00:59");
    assert_eq!(world.names().len(), 1);
}

#[test]
fn a_tick_from_before_the_schedule_is_none() {
    let world = World::new(&json!({"schedule": "0 11 * * *"}));
    assert!(world.names().is_empty());
    assert_eq!(world.status().next_schedule_time, Some(at("26T11:00:00")));
}

#[test]
fn a_run_that_would_begin_too_late_is_not_made() {
    let mut world = World::new(&json!({"startingDeadline": "10m"}));
    world.until("26T02:10:01");
    assert!(world.names().is_empty());
    assert_eq!(world.notes[0].1, "StartingDeadlineExceeded");
    assert_eq!(world.status().last_schedule_time, None);
    world.until("27T02:10:00");
    assert_eq!(world.names(), ["nightly-202611270200"], "in time is until the deadline");
    assert_eq!(world.notes.iter().filter(|note| note.1 == "StartingDeadlineExceeded").count(), 1);
}

#[test]
fn forbid_waits_for_the_run_before() {
    let mut world = hourly("Forbid", "30m");
    world.until("25T13:00:00");
    world.until("25T14:00:00");
    assert_eq!(world.names(), ["nightly-202611251300"]);
    let (holds, reason, message) = world.ready();
    assert_eq!((holds, reason), (ConditionStatus::True, "WaitingForRun"));
    assert_eq!(message, "the run of 2026-11-25T14:00:00Z waits for the end of nightly-202611251300");
    world.until("25T14:20:00");
    world.ends("nightly-202611251300", RunPhase::Succeeded);
    assert_eq!(world.names(), ["nightly-202611251300", "nightly-202611251400"], "within the deadline it is made late");
    world.until("25T15:00:00");
    assert_eq!(world.wake_at, Some(at("25T15:30:00.001")));
    world.until("25T15:30:00.001");
    world.ends("nightly-202611251400", RunPhase::Succeeded);
    assert_eq!(world.names().len(), 2, "after it, it is missed");
    world.until("25T16:00:00");
    assert_eq!(world.names().len(), 3);
}

#[test]
fn a_run_that_somebody_triggered_is_a_run_of_the_schedule() {
    let mut world = World::new(&json!({}));
    world.make("by-hand", None);
    world.visit();
    assert_eq!(world.status().active[0].scheduled_at, None);
    world.until("26T02:00:00");
    assert_eq!(world.names(), ["by-hand"], "Forbid holds for it, too");
    world.ends("by-hand", RunPhase::Failed);
    assert_eq!(world.names(), ["by-hand", "nightly-202611260200"]);
    assert_eq!(world.status().consecutive_failures, 1);
}

#[test]
fn allow_lets_runs_go_on_beside_each_other_up_to_a_bound() {
    let mut world = World::new(&json!({"schedule": "0 * * * *", "concurrencyPolicy": "Allow"}));
    for hour in 0..40 {
        world.now = at("25T13:00:00") + TimeDelta::hours(hour);
        world.visit();
    }
    assert_eq!((world.names().len(), world.status().active.len()), (MAX_ACTIVE, MAX_ACTIVE));
    assert_eq!(world.ready().1, "TooManyActive");
    world.ends("nightly-202611251300", RunPhase::Succeeded);
    assert_eq!(world.status().active.len(), MAX_ACTIVE);
    assert!(world.names().contains(&"nightly-202611270400"), "the last of those that waited: {:?}", world.names());
}

#[test]
fn replace_aborts_the_run_before_and_waits_for_its_cleanup() {
    let mut world = hourly("Replace", "1m");
    world.until("25T13:00:00");
    world.until("25T14:00:00");
    assert_eq!(world.names(), ["nightly-202611251300"]);
    assert!(world.run("nightly-202611251300").aborting);
    assert_eq!(world.ready().1, "RunReplaced");
    assert_eq!(world.status().starting.as_ref().unwrap().name, "nightly-202611251400");
    world.until("25T14:05:00");
    assert_eq!(world.names().len(), 1, "it is cleaning up");
    let aborts = |world: &mut World| world.decide().iter().any(|it| matches!(it, ScheduleEffect::Abort { .. }));
    assert!(!aborts(&mut world), "it was told to");
    let run = world.run("nightly-202611251300");
    (run.aborting, run.deleting) = (false, true);
    assert!(!aborts(&mut world), "whoever deletes it ends it, too");
    world.ends("nightly-202611251300", RunPhase::Aborted);
    assert_eq!(
        world.names(),
        ["nightly-202611251300", "nightly-202611251400"],
        "the cleanup has not used the deadline up"
    );
    assert_eq!(world.status().active.len(), 1);
    assert_eq!(world.status().last_run.as_ref().unwrap().verdict, RunPhase::Aborted);
}

#[test]
fn suspend_holds_ticks_back_and_the_last_of_them_comes_at_the_end() {
    let mut world = World::new(&json!({"suspend": true}));
    assert_eq!((world.ready().0, world.ready().1), (ConditionStatus::True, "Suspended"));
    world.until("28T12:00:00");
    assert!(world.names().is_empty());
    assert_eq!((world.status().next_schedule_time, world.wake_at), (None, None));
    world.change(|spec| spec.suspend = false);
    assert_eq!(world.names(), ["nightly-202611280200"]);
    let mut world = World::new(&json!({"suspend": true, "startingDeadline": "1h"}));
    world.until("28T12:00:00");
    world.change(|spec| spec.suspend = false);
    assert!(world.names().is_empty(), "unless its deadline is over");
}

#[test]
fn a_changed_schedule_counts_from_its_change() {
    let mut world = World::new(&json!({}));
    world.until("26T02:00:00");
    world.until("26T12:00:00");
    world.ends("nightly-202611260200", RunPhase::Succeeded);
    world.change(|spec| spec.schedule = "0 10 * * *".into());
    assert_eq!(world.names().len(), 1, "ten o'clock is over");
    world.change(|spec| spec.time_zone = Some("America/New_York".into()));
    assert_eq!(world.names().len(), 1);
    assert_eq!(world.status().next_schedule_time, Some(at("26T15:00:00")));
    world.until("26T15:00:00");
    assert_eq!(world.names().len(), 2);
    world.change(|spec| spec.successful_runs_history_limit = 9);
    assert_eq!(world.names().len(), 2, "all other changes leave the times alone");
}

#[test]
fn history_is_kept_by_outcome() {
    use RunPhase::{Aborted, Failed, Inconclusive, Succeeded};
    let mut world =
        World::new(&json!({"successfulRunsHistoryLimit": 2, "failedRunsHistoryLimit": 1, "schedule": "0 * * * *"}));
    for (hour, phase) in
        [(13, Failed), (14, Succeeded), (15, Succeeded), (16, Aborted), (17, Succeeded), (18, Inconclusive)]
    {
        world.until(&format!("25T{hour}:00:00"));
        world.ends(&format!("nightly-20261125{hour}00"), phase);
    }
    assert_eq!(world.names(), ["nightly-202611251500", "nightly-202611251700", "nightly-202611251800"]);
    assert_eq!(world.deleted, ["nightly-202611251300", "nightly-202611251400", "nightly-202611251600"]);
    world.until("25T19:00:00");
    assert_eq!(world.names().len(), 4, "a run that is active is no history");
    world.change(|spec| (spec.successful_runs_history_limit, spec.failed_runs_history_limit) = (0, 0));
    assert_eq!(world.names(), ["nightly-202611251900"]);
    world.ends("nightly-202611251900", Succeeded);
    assert!(world.names().is_empty());
    assert_eq!(world.status().last_run.as_ref().unwrap().verdict, Succeeded, "it was counted before it went");
}

#[test]
fn a_run_that_is_begun_anew_is_active_again() {
    let mut world = World::new(&json!({}));
    world.until("26T02:00:00");
    world.ends("nightly-202611260200", RunPhase::Failed);
    world.run("nightly-202611260200").phase = RunPhase::Running;
    world.visit();
    assert_eq!((world.status().active.len(), world.deleted.len()), (1, 0));
    world.ends("nightly-202611260200", RunPhase::Succeeded);
    assert_eq!(world.status().consecutive_failures, 0);
}

#[test]
fn a_crash_between_making_a_run_and_writing_it_down_makes_no_second_one() {
    let mut world = World::new(&json!({}));
    world.now = at("26T02:00:00");
    let intent = world.decide();
    assert!(world.status().starting.is_some(), "the intent is stored first");
    world.perform(intent);
    // Nothing of that reached the status. Another process looks at the stored one.
    world.visit();
    assert_eq!(world.asked, ["nightly-202611260200"], "the run that is there is the one of the tick");
    assert_eq!((world.names().len(), world.status().active.len()), (1, 1));
    // Even when it has ended since, it is counted once.
    let mut world = World::new(&json!({}));
    world.now = at("26T02:00:00");
    let intent = world.decide();
    world.perform(intent);
    let run = world.run("nightly-202611260200");
    (run.phase, run.finished_at) = (RunPhase::Failed, Some(at("26T02:30:00")));
    world.until("26T03:00:00");
    world.until("26T03:00:01");
    assert_eq!((world.names().len(), world.status().consecutive_failures), (1, 1));
}

#[test]
fn an_intent_that_is_too_old_is_not_acted_on() {
    let mut world = World::new(&json!({"startingDeadline": "10m"}));
    world.now = at("26T02:00:00");
    world.decide();
    world.until("26T12:00:00");
    assert!(world.names().is_empty() && world.status().starting.is_none());
    assert_eq!(world.asked.len(), 1);
}

#[test]
fn a_refused_run_is_told_and_tried_again_until_the_next_tick() {
    use NoteType::{Normal, Warning};
    let mut world = World::new(&json!({}));
    let problem = Problem { reason: "PermissionDenied".into(), message: "may not create soakruns".into() };
    world.refusal = Some(problem);
    world.until("26T02:00:00");
    assert_eq!(world.ready(), (ConditionStatus::False, "PermissionDenied", "may not create soakruns"));
    world.until("27T02:00:01");
    assert_eq!(world.status().starting.as_ref().unwrap().name, "nightly-202611270200");
    world.refusal = None;
    world.until("27T09:00:00");
    assert_eq!(world.names(), ["nightly-202611270200"]);
    assert_eq!(world.ready().0, ConditionStatus::True);
    let told: Vec<_> = world.notes.iter().map(|note| (note.0, note.1.as_str())).collect();
    assert_eq!(told, [(Warning, "PermissionDenied"), (Normal, "RunCreated"), (Normal, "Scheduled")]);
}

#[test]
fn what_is_wrong_with_a_schedule_is_told_at_the_first_look() {
    let mut world = World::new(&json!({"schedule": "61 2 * * *"}));
    let (holds, reason, message) = world.ready();
    assert_eq!((holds, reason), (ConditionStatus::False, "InvalidSchedule"));
    assert!(message.starts_with("spec.schedule: `61 2 * * *` can't be read"), "{message}");
    assert_eq!(world.notes.len(), 1);
    world.change(|spec| spec.schedule = "0 0 31 6 *".into());
    assert!(world.ready().2.contains("no such time will ever come"));
    world.change(|spec| spec.schedule = "0 2 * * *".into());
    assert_eq!(world.ready().0, ConditionStatus::True);
    assert_eq!(world.status().conditions[0].observed_generation, 3);
}

#[test]
fn a_run_template_is_tried_with_each_generation() {
    let mut world = World::new(&json!({}));
    assert_eq!(world.status().tried_generation, 1);
    world.seen.trial = None;
    world.change(|spec| spec.run_template.spec = json!({"cycles": "many"}));
    assert_eq!((world.ready().0, world.ready().1), (ConditionStatus::Unknown, "Validating"));
    assert!(world.decide().contains(&ScheduleEffect::Try));
    world.seen.trial = Some(Err(Problem { reason: "InvalidSpec".into(), message: "cycles: Invalid value".into() }));
    world.visit();
    assert_eq!(world.ready(), (ConditionStatus::False, "InvalidSpec", "cycles: Invalid value"));
    assert!(world.decide().contains(&ScheduleEffect::Try), "rights may come without a change of the schedule");
    world.seen.trial = Some(Ok(()));
    world.visit();
    assert_eq!(world.ready().0, ConditionStatus::True);
    world.seen.trial = None;
    assert!(!world.decide().contains(&ScheduleEffect::Try));
}

#[test]
fn a_clock_that_was_ahead_does_not_hold_the_schedule_up() {
    let mut world = World::new(&json!({"schedule": "0 * * * *", "concurrencyPolicy": "Allow"}));
    world.until("25T13:00:00");
    // A small step back: the run is there, and no tick comes twice.
    world.until("25T12:59:59");
    world.until("25T13:00:00");
    assert_eq!(world.names().len(), 1);
    // A clock that was days ahead.
    world.until("29T13:00:00");
    world.until("25T13:30:00");
    world.until("25T14:00:00");
    assert_eq!(world.names(), ["nightly-202611251300", "nightly-202611291300", "nightly-202611251400"]);
}

#[test]
fn a_schedule_that_is_being_deleted_does_nothing() {
    let mut world = World::new(&json!({}));
    world.schedule.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-26T01:00:00Z")).unwrap();
    let before = world.schedule.status.clone();
    world.until("26T02:00:00");
    assert!(world.names().is_empty());
    assert_eq!(world.schedule.status, before);
}

#[test]
fn a_time_that_never_comes_is_no_tick_and_costs_little() {
    let never = Calendar::parse("0 0 30 2 *", None).unwrap();
    let began = Instant::now();
    assert_eq!((never.next(at("26T00:00:00")), never.last(at("26T00:00:00"))), (None, None));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
