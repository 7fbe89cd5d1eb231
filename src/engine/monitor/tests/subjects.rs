//! Alerts of several subjects, monitors and policies beside each other.

use super::*;
use crate::api::condition;

fn two() -> Value {
    let monitor = |name: &str| {
        json!({
            "name": name, "interval": "1s", "promql": {"url": "http://p", "query": "q"},
            "alerts": [{"name": "High", "when": "value > 10.0"}],
        })
    };
    json!([monitor("m"), monitor("n")])
}

#[test]
fn each_subject_has_an_alert_of_its_own() {
    let mut world = world(json!({}));
    let alerting = |world: &World| {
        let found = condition::find(&world.status().conditions, "Alerting").unwrap().clone();
        (found.status, found.reason, found.message)
    };
    let calm = |shown: &str| (ConditionStatus::False, "NoAlert".to_owned(), shown.to_owned());
    assert_eq!(alerting(&world), calm("0 firing, 0 in all"));
    world.look_at(1, 0, &[("a", 11.0), ("b", 12.0)]);
    assert_eq!(world.subjects(), [("a", Firing), ("b", Firing)]);
    world.look_at(2, 0, &[("a", 1.0), ("b", 12.0)]);
    assert_eq!(world.subjects(), [("a", Resolved), ("b", Firing)]);
    let told = "1 firing, 2 in all; alert m/High (b) fired: value 12: value > 10.0";
    assert_eq!(alerting(&world), (ConditionStatus::True, "AlertFiring".into(), told.into()));
    world.look_at(3, 0, &[("a", 1.0), ("b", 1.0)]);
    assert_eq!(alerting(&world), calm("0 firing, 2 in all"));
    let fired = |what: &str| (NoteType::Warning, format!("alert m/High {what}: value > 10.0"));
    let ended = |what: &str| (NoteType::Normal, format!("alert m/High {what} has ended"));
    assert_eq!(world.told, [fired("(a) fired: value 11"), fired("(b) fired: value 12"), ended("(a)"), ended("(b)")]);
}

#[test]
fn what_fired_is_counted_for_each_monitor() {
    let mut world = watched(&two());
    for (seconds, monitor, value) in [(1, 1, 11.0), (2, 1, 1.0), (3, 0, 11.0), (4, 1, 11.0), (5, 0, 1.0)] {
        world.look_at(seconds, monitor, &[("q", value)]);
    }
    let alerts = world.status().alerts.as_ref().unwrap();
    let mut counts: Vec<_> = alerts.monitors.iter().map(|it| (it.name.as_str(), it.fired)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [("m", 1), ("n", 2)]);
    assert_eq!(alerts.shown, "1 firing, 3 in all");
}

#[test]
fn a_run_without_monitors_has_no_alerts_and_one_that_has_not_begun_raises_none() {
    let world = watched(&json!([]));
    assert_eq!(world.status().alerts, None);
    assert!(condition::find(&world.status().conditions, "Alerting").is_none());
    let mut waiting = super::world(json!({}));
    (waiting.run.status, waiting.run.spec.suspend) = (None, true);
    waiting.look(1, Some(11.0));
    assert_eq!((waiting.status().started_at, waiting.alerts()), (None, vec![]));
    waiting.run.spec.suspend = false;
    waiting.look(2, Some(11.0));
    waiting.look(3, Some(11.0));
    assert_eq!(waiting.alerts(), [("High", Firing)]);
}

#[test]
fn a_run_is_stopped_by_what_fires_and_not_by_what_is_pending() {
    let mut world = world(json!({"for": "10s", "policy": "abort"}));
    world.look(1, Some(11.0));
    assert_eq!((world.alerts(), &world.status().ending), (vec![("High", Pending)], &None));
    world.look(11, Some(11.0));
    let ending = world.status().ending.clone().unwrap();
    assert_eq!((ending.reason.as_str(), ending.at), ("Aborted", at(11)));
    assert!(ending.message.contains("alert m/High (x=1) fired: value 11"), "{}", ending.message);
    world.look_at(30, 0, &[("x=1", 11.0), ("y=1", 12.0)]);
    assert_eq!(world.status().ending.as_ref(), Some(&ending), "what fires later changes nothing in it");
}

#[test]
fn more_alerts_than_the_status_holds_wait_for_an_ended_one_to_go() {
    let mut world = world(json!({}));
    let names: Vec<String> = (0..=MAX_ALERTS).map(|number| format!("s{number:02}")).collect();
    let mut subjects: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 11.0)).collect();
    world.look_at(1, 0, &subjects[..MAX_ALERTS]);
    assert!(!world.status().alerts.as_ref().unwrap().truncated, "so many fit");
    world.look_at(2, 0, &subjects);
    let alerts = world.status().alerts.as_ref().unwrap();
    assert_eq!((alerts.list.len(), alerts.truncated), (MAX_ALERTS, true));
    assert!(!alerts.list.iter().any(|alert| alert.subject == names[MAX_ALERTS]));
    subjects[7].1 = 1.0;
    world.look_at(3, 0, &subjects);
    let alerts = world.status().alerts.as_ref().unwrap();
    assert_eq!((alerts.list.len(), alerts.shown.as_str()), (MAX_ALERTS, "32 firing, 33 in all"));
    assert!(!alerts.list.iter().any(|alert| alert.subject == "s07"));
    assert_eq!(alerts.list.last().unwrap().subject, names[MAX_ALERTS]);
}

/// What ends with its cluster is told, what has only begun is none, and all else goes on.
#[test]
fn a_swap_of_roles_ends_the_alerts_about_the_cluster_that_was_left_and_no_others() {
    let monitor = json!({
        "name": "m", "interval": "1s", "target": "primary", "resource": {"apiVersion": "v1", "kind": "ConfigMap"},
        "alerts": [{"name": "High", "when": "value > 10.0"}, {"name": "Long", "when": "value > 20.0", "for": "1h"}],
    });
    let mut world = watched(&two());
    let spec = &mut world.run.spec;
    spec.monitors[0] = serde_json::from_value(monitor).unwrap();
    spec.targets = serde_json::from_value(json!([{"name": "hub-a"}, {"name": "hub-b"}])).unwrap();
    spec.roles =
        serde_json::from_value(json!({"primary": "hub-a", "secondary": "hub-b", "rotate": "AfterEveryCycle"})).unwrap();
    let plan = Plan::parse(spec).unwrap();
    (world.run.status, world.plan) = (None, plan.clone());
    world.visit();
    world.look_at(1, 0, &[("hub-a/old", 11.0)]);
    world.look_at(2, 0, &[("hub-a/old", 1.0), ("hub-a/q", 21.0)]);
    world.look_at(2, 1, &[("x=1", 11.0)]);
    for seconds in [3, 4] {
        world.take_in(seconds, 0, Err(Broken("no answer".into())));
    }
    let before = world.status().alerts.clone().unwrap().list;
    let (run, seen) = (world.run.clone(), Seen::default());
    let mut context = Context { run: &run, seen: &seen, now: at(9), effects: Vec::new(), wake_at: None };
    let status = world.run.status.as_mut().unwrap();
    targets::rotate(&plan, crate::api::status::Outcome::Succeeded, status, &mut context);
    let after = &status.alerts.as_ref().unwrap().list;
    let list: Vec<_> = after.iter().map(|it| (it.alert.as_str(), it.subject.as_str(), it.state)).collect();
    let left = [("High", "hub-a/old", Resolved), ("High", "hub-a/q", Resolved)];
    assert_eq!(list, [left[0], left[1], ("High", "x=1", Firing), ("MonitorBroken", "", Firing)]);
    assert_eq!((&after[0], after[1].resolved_at), (&before[0], Some(at(9))), "what had ended before has its own time");
    assert_eq!(status.alerts.as_ref().unwrap().shown, "2 firing, 4 in all");
    let notes = context.effects.iter().filter(|effect| matches!(effect, crate::engine::Effect::Notify(_))).count();
    assert_eq!(notes, 2, "the end of one alert, and the swap");
}
