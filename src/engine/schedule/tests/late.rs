//! Ticks that wait, come too late or are refused, and what of it is told.

use super::*;

fn told(world: &World) -> Vec<(NoteType, &str)> {
    world.notes.iter().map(|(type_, reason, _)| (*type_, reason.as_str())).collect()
}

fn problem(reason: &str) -> Problem {
    Problem { reason: reason.into(), message: format!("about {reason}") }
}

#[test]
fn a_tick_is_missed_when_its_deadline_is_over_although_the_run_before_goes_on() {
    let mut world = hourly("Forbid", "30m");
    world.until("25T13:00:00");
    world.until("25T14:00:00");
    world.until("25T14:30:00");
    assert_eq!(told(&world), [(NoteType::Normal, "RunCreated"), (NoteType::Normal, "WaitingForRun")]);
    world.until("25T14:30:01");
    let (type_, reason, message) = world.notes.last().unwrap();
    assert_eq!((*type_, reason.as_str()), (NoteType::Warning, "StartingDeadlineExceeded"));
    assert_eq!(message, "the run of 2026-11-25T14:00:00Z was not made: its starting deadline of 30m is over");
    assert_eq!(world.status().handled_until, Some(at("25T14:00:00")));
    assert_eq!(world.ready().1, "Scheduled");
}

/// Only a run that waits for the one that it replaces has its deadline from the end of that one.
#[test]
fn the_end_of_another_run_gives_a_tick_no_more_time() {
    // Nobody was there from the tick on, and the run before ended by itself.
    let mut world = hourly("Replace", "1m");
    world.until("25T13:00:00");
    world.now = at("25T14:05:30");
    let run = world.run("nightly-202611251300");
    (run.phase, run.finished_at) = (RunPhase::Succeeded, Some(at("25T14:05:00")));
    world.visit();
    assert_eq!(world.names(), ["nightly-202611251300"]);
    assert_eq!(world.notes.last().unwrap().1, "StartingDeadlineExceeded");
    // The run before has ended in time, but the server takes no other one.
    let mut world = hourly("Forbid", "1m");
    world.until("25T13:00:00");
    world.refusal = Some(problem("PermissionDenied"));
    world.until("25T14:00:50");
    world.ends("nightly-202611251300", RunPhase::Succeeded);
    assert!(world.status().starting.is_some());
    world.refusal = None;
    world.until("25T14:01:30");
    assert_eq!(world.names(), ["nightly-202611251300"]);
}

#[test]
fn a_run_that_replaces_another_has_its_deadline_from_the_end_of_that_one() {
    let mut world = hourly("Replace", "1m");
    world.until("25T13:00:00");
    world.until("25T14:00:00");
    world.until("25T14:05:00");
    world.refusal = Some(problem("PermissionDenied"));
    world.ends("nightly-202611251300", RunPhase::Aborted);
    assert_eq!(world.wake_at, Some(at("25T14:06:00.001")));
    world.until("25T14:06:00");
    assert!(world.status().starting.is_some());
    world.until("25T14:06:01");
    assert_eq!((world.names().len(), &world.status().starting), (1, &None));
    assert!(told(&world).contains(&(NoteType::Warning, "StartingDeadlineExceeded")));
}

#[test]
fn each_new_problem_is_told_once_and_its_end_too() {
    use NoteType::{Normal, Warning};
    let mut world = World::new(&json!({}));
    for (time, reason) in
        [("02:00:00", "PermissionDenied"), ("02:01:00", "QuotaExceeded"), ("02:02:00", "QuotaExceeded")]
    {
        world.refusal = Some(problem(reason));
        world.until(&format!("26T{time}"));
    }
    world.refusal = None;
    world.until("26T02:03:00");
    world.seen.upkeep = Some(problem("Forbidden"));
    world.visit();
    assert_eq!(world.ready(), (ConditionStatus::False, "Forbidden", "about Forbidden"));
    world.seen.upkeep = None;
    world.visit();
    let expected = [
        (Warning, "PermissionDenied"),
        (Warning, "QuotaExceeded"),
        (Normal, "RunCreated"),
        (Normal, "Scheduled"),
        (Warning, "Forbidden"),
        (Normal, "Scheduled"),
    ];
    assert_eq!(told(&world), expected);
    // What somebody has set himself is no news.
    world.change(|spec| spec.suspend = true);
    world.change(|spec| spec.suspend = false);
    assert_eq!(told(&world).len(), expected.len());
}

#[test]
fn more_runs_than_the_status_holds_are_counted_all_the_same() {
    let mut world = World::new(&json!({}));
    for number in 0..MAX_ACTIVE + 2 {
        world.make(&format!("by-hand-{number:02}"), None);
    }
    world.visit();
    assert_eq!((world.status().active.len(), world.status().active_runs), (MAX_ACTIVE, 34));
    world.ends("by-hand-00", RunPhase::Succeeded);
    assert_eq!((world.status().active.len(), world.status().active_runs), (MAX_ACTIVE, 33));
}

#[test]
fn a_clock_that_goes_back_by_ten_minutes_makes_no_tick_come_twice() {
    let mut world = World::new(&json!({"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow"}));
    for time in ["13:00:00", "12:50:00", "12:55:00", "13:00:00"] {
        world.until(&format!("25T{time}"));
    }
    assert_eq!((world.names().len(), told(&world)), (1, vec![(NoteType::Normal, "RunCreated")]));
}
