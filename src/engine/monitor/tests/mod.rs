//! A run with monitors in a world of its own: time is moved by hand, looks see what they are told.

mod kept;
mod looks;
mod subjects;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{SoakRun, monitor::Monitor},
    engine::{Decision, Seen, Validation, decide},
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

/// A run in its first cycle, which sleeps.
struct World {
    run: SoakRun,
    plan: Plan,
    now: DateTime<Utc>,
    looks: BTreeMap<String, MonitorSeen>,
    notes: Vec<String>,
    /// What the events say.
    told: Vec<(NoteType, String)>,
}

fn world(rule: Value) -> World {
    let mut rule = rule;
    rule["name"] = json!("High");
    rule["when"] = json!("value > 10.0");
    watched(&json!([
        {"name": "m", "interval": "1s", "promql": {"url": "http://p", "query": "q"}, "alerts": [rule]},
    ]))
}

fn watched(monitors: &Value) -> World {
    let run: SoakRun = serde_json::from_value(json!({
        "apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun",
        "metadata": {"name": "run", "namespace": "ns", "uid": "uid", "generation": 1, "finalizers": ["soak.dev/cleanup"]},
        "spec": {"serviceAccountName": "soak", "cycles": 3,
            "phases": [{"name": "p", "steps": [{"name": "s", "sleep": {"duration": "1h"}}]}],
            "monitors": monitors},
    }))
    .unwrap();
    let plan = Plan::parse(&run.spec).unwrap();
    let (looks, notes, told) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut world = World { run, plan, now: at(0), looks, notes, told };
    world.visit();
    world
}

impl World {
    /// Decides until nothing changes any more, as the shell does.
    fn visit(&mut self) {
        let seen = Seen { validation: Some(Validation::Accepted), monitors: self.looks.clone(), ..Seen::default() };
        for _ in 0..5 {
            let Decision { status, effects, .. } = decide(Ok(&self.plan), &self.run, &seen, self.now);
            for effect in effects {
                if let crate::engine::Effect::Notify(note) = effect
                    && note.reason.starts_with("Alert")
                {
                    self.told.push((note.type_, note.message));
                    self.notes.push(note.reason);
                }
            }
            if self.run.status.as_ref() == Some(&status) {
                return;
            }
            self.run.status = Some(status);
        }
        panic!("deciding again goes on changing the status");
    }

    /// A look that sees `value`, or one that fails.
    fn look(&mut self, seconds: i64, value: Option<f64>) {
        match value {
            Some(value) => self.look_at(seconds, 0, &[("x=1", value)]),
            None => self.take_in(seconds, 0, Err(Broken("no answer".into()))),
        }
    }

    /// A look of one of the monitors at subjects with their values.
    fn look_at(&mut self, seconds: i64, monitor: usize, subjects: &[(&str, f64)]) {
        let subject = |(name, value): &(&str, f64)| Subject {
            name: (*name).to_owned(),
            sample: Some(*value),
            value: json!({"x": "1"}),
        };
        let judged = judge(&self.plan.monitors[monitor], &Scope::new(), subjects.iter().map(subject).collect());
        self.take_in(seconds, monitor, judged);
    }

    fn take_in(&mut self, seconds: i64, monitor: usize, look: Result<Vec<Judged>, Broken>) {
        let (plan, now) = (&self.plan.monitors[monitor], at(seconds));
        self.looks.entry(plan.name.clone()).or_insert_with(|| MonitorSeen::new(plan, now)).take_in(now, look, true);
        self.now = now;
        self.visit();
    }

    fn crash(&mut self) {
        self.looks.clear();
    }

    fn status(&self) -> &SoakRunStatus {
        self.run.status.as_ref().unwrap()
    }

    fn alerts(&self) -> Vec<(&str, AlertState)> {
        self.status().alerts.iter().flat_map(|it| &it.list).map(|it| (it.alert.as_str(), it.state)).collect()
    }

    fn subjects(&self) -> Vec<(&str, AlertState)> {
        self.status().alerts.iter().flat_map(|it| &it.list).map(|it| (it.subject.as_str(), it.state)).collect()
    }
}

use AlertState::{Firing, Pending, Resolved};

#[test]
fn an_alert_fires_when_its_condition_has_held_for_long_enough() {
    let mut world = world(json!({"for": "10s"}));
    world.look(1, Some(11.0));
    assert_eq!(world.alerts(), [("High", Pending)]);
    world.look(10, Some(12.0));
    assert_eq!(world.alerts(), [("High", Pending)]);
    world.look(11, Some(13.0));
    assert_eq!(world.alerts(), [("High", Firing)]);
    let alert = &world.status().alerts.as_ref().unwrap().list[0];
    assert_eq!((alert.since, alert.fired_at, alert.subject.as_str()), (at(1), Some(at(11)), "x=1"));
    assert_eq!(alert.cause, "value 13: value > 10.0");
    world.look(12, Some(14.0));
    world.look(13, Some(1.0));
    assert_eq!(world.alerts(), [("High", Resolved)]);
    assert_eq!(world.notes, ["AlertFiring", "AlertResolved"], "each is told once");
    assert_eq!(world.status().alerts.as_ref().unwrap().shown, "0 firing, 1 in all");
}

fn on(target: &str, value: f64) -> Subject {
    Subject { name: "q".into(), sample: Some(value), value: json!({"data": {}}) }.on(target)
}

/// The time that a condition held on one cluster says nothing of the other.
#[test]
fn a_monitor_of_a_role_judges_another_subject_after_a_swap() {
    let mut world = world(json!({"for": "10s", "policy": "failCycle"}));
    let spec = &mut world.run.spec;
    spec.monitors[0].promql = None;
    spec.monitors[0].target = Some("primary".into());
    spec.monitors[0].resource =
        Some(serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "q"})).unwrap());
    spec.targets = serde_json::from_value(json!([{"name": "hub-a"}, {"name": "hub-b"}])).unwrap();
    spec.roles =
        serde_json::from_value(json!({"primary": "hub-a", "secondary": "hub-b", "rotate": "AfterEveryCycle"})).unwrap();
    let plan = Plan::parse(spec).unwrap();
    world.run.status = None;
    world.plan = plan.clone();
    world.visit();
    let monitor = &plan.monitors[0];
    assert_eq!(target(monitor, &world.status().roles).as_deref(), Some("hub-a"));
    let look = |world: &mut World, seconds, target| {
        world.now = at(seconds);
        let judged = judge(monitor, &Scope::new(), vec![on(target, 11.0)]);
        let seen = world.looks.entry("m".into()).or_insert_with(|| MonitorSeen::new(monitor, at(seconds)));
        seen.take_in(at(seconds), judged, true);
        world.visit();
        let list = world.status().alerts.iter().flat_map(|it| &it.list);
        list.map(|it| (it.subject.clone(), it.state)).collect::<Vec<_>>()
    };
    look(&mut world, 1, "hub-a");
    assert_eq!(look(&mut world, 11, "hub-a"), [("hub-a/q".into(), Firing)]);
    // The roles swap; the monitor has not looked there yet.
    let (run, seen) = (world.run.clone(), Seen::default());
    let mut context = Context { run: &run, seen: &seen, now: at(12), effects: Vec::new(), wake_at: None };
    let status = world.run.status.as_mut().unwrap();
    targets::rotate(&plan, crate::api::status::Outcome::Succeeded, status, &mut context);
    assert_eq!(target(monitor, &world.status().roles).as_deref(), Some("hub-b"));
    assert_eq!(world.alerts(), [("High", Resolved)]);
    let ended = world.status().alerts.as_ref().unwrap().list[0].clone();
    assert!(!fired_during(&ended, at(12), at(20)), "it does not count for what begins then");
    assert_eq!(look(&mut world, 13, "hub-a"), [("hub-a/q".into(), Resolved)], "an old look raises nothing again");
    let both = [("hub-a/q".into(), Resolved), ("hub-b/q".into(), Pending)];
    assert_eq!(look(&mut world, 14, "hub-b"), both);
    assert_eq!(look(&mut world, 23, "hub-b"), both);
    assert_eq!(look(&mut world, 24, "hub-b")[1].1, Firing);
}

#[test]
fn a_monitor_names_a_target_that_is_there_and_only_where_one_is_asked() {
    let mut spec = world(json!({})).run.spec;
    spec.monitors[0].target = Some("hub-b".into());
    assert!(Plan::parse(&spec).unwrap_err().to_string().contains("promql goes to an address"));
    spec.monitors[0].promql = None;
    spec.monitors[0].pod_health = Some(crate::api::monitor::PodHealthMonitor::default());
    let error = Plan::parse(&spec).unwrap_err().to_string();
    assert!(error.contains("spec.monitors[0].target: there is no role or target hub-b"), "{error}");
    spec.targets = serde_json::from_value(json!([{"name": "hub-b"}])).unwrap();
    Plan::parse(&spec).unwrap();
}

#[test]
fn what_an_alert_was_about_is_in_the_series() {
    let world = world(json!({}));
    let (plan, scope) = (&world.plan.monitors[0], Scope::new());
    let look = |value| judge(plan, &scope, vec![Subject { name: "x=1".into(), sample: Some(value), value: json!({}) }]);
    let mut seen = MonitorSeen::new(plan, at(0));
    for (seconds, value) in [(1, 1.0), (2, 11.0), (3, 12.0), (4, 2.0)] {
        // All by events, none in step.
        seen.take_in(at(seconds), look(value), false);
    }
    let samples: Vec<(u32, f32)> = seen.series.buckets().iter().map(|bucket| (bucket.count, bucket.max)).collect();
    assert_eq!(samples, [(1, 11.0)]);
}

#[test]
fn an_alert_is_told_by_monitor_name_and_subject() {
    let mut alert: Alert = serde_json::from_value(json!({
        "monitor": "m", "alert": "High", "subject": "x=1", "severity": "Warning", "policy": "record", "state": "Firing", "since": at(0),
        "cause": "value is 11",
    }))
    .unwrap();
    assert_eq!(told(&alert), "alert m/High (x=1) fired: value is 11");
    alert.subject = String::new();
    assert_eq!(told(&alert), "alert m/High fired: value is 11");
}

#[test]
fn what_is_pending_at_the_end_is_forgotten_and_what_fires_stays() {
    let alert = |name: &str, state: &str| json!({"monitor": "m", "alert": name, "subject": "", "severity": "Warning", "policy": "record", "state": state, "since": at(0), "cause": ""});
    let alerts = json!({"list": [alert("A", "Pending"), alert("B", "Firing"), alert("C", "Resolved")]});
    let alerts = Some(serde_json::from_value(alerts).unwrap());
    let mut status = SoakRunStatus { alerts, ..SoakRunStatus::default() };
    close(&mut status);
    let left: Vec<String> = status.alerts.unwrap().list.into_iter().map(|alert| alert.alert).collect();
    assert_eq!(left, ["B", "C"]);
}

#[test]
fn a_condition_that_lets_go_in_between_begins_anew_even_when_no_visit_saw_it() {
    let mut world = world(json!({"for": "10s"}));
    world.look(1, Some(11.0));
    // Two looks between two visits.
    let (plan, scope) = (world.plan.monitors[0].clone(), Scope::new());
    let look =
        |value| judge(&plan, &scope, vec![Subject { name: "x=1".into(), sample: Some(value), value: json!({}) }]);
    let seen = world.looks.get_mut("m").unwrap();
    seen.take_in(at(5), look(1.0), true);
    seen.take_in(at(6), look(11.0), true);
    world.look(12, Some(11.0));
    assert_eq!(world.alerts(), [("High", Pending)], "it has held since 6");
    world.look(16, Some(11.0));
    assert_eq!(world.alerts(), [("High", Firing)]);
}

#[test]
fn a_crash_neither_doubles_an_alert_nor_begins_its_time_anew() {
    let mut world = world(json!({"for": "10s"}));
    world.look(1, Some(11.0));
    world.crash();
    world.now = at(9);
    world.visit();
    assert_eq!(world.alerts(), [("High", Pending)], "nothing was seen yet, so nothing changes");
    world.look(11, Some(11.0));
    assert_eq!(world.alerts(), [("High", Firing)], "since 1, as the status says");
    world.crash();
    world.look(20, Some(11.0));
    assert_eq!((world.alerts(), world.notes.len()), (vec![("High", Firing)], 1));
    world.crash();
    world.look(30, Some(1.0));
    assert_eq!(world.alerts(), [("High", Resolved)]);
}

#[test]
fn keep_firing_for_bridges_a_short_calm() {
    let mut world = world(json!({"keepFiringFor": "10s"}));
    world.look(1, Some(11.0));
    world.look(2, Some(1.0));
    world.look(5, Some(11.0));
    world.look(6, Some(1.0));
    world.look(15, Some(1.0));
    assert_eq!(world.alerts(), [("High", Firing)]);
    world.look(16, Some(1.0));
    assert_eq!((world.alerts(), world.notes.len()), (vec![("High", Resolved)], 2));
}

#[test]
fn a_monitor_that_can_not_see_is_an_alert_and_leaves_the_others_as_they_are() {
    let mut world = world(json!({}));
    world.look(1, Some(11.0));
    world.look(2, None);
    assert_eq!(world.alerts(), [("High", Firing), ("MonitorBroken", Pending)]);
    world.look(3, None);
    assert_eq!(world.alerts(), [("High", Firing), ("MonitorBroken", Firing)]);
    world.look(4, Some(1.0));
    assert_eq!(world.alerts(), [("High", Resolved), ("MonitorBroken", Resolved)]);
    assert_eq!(world.status().phase, crate::api::status::RunPhase::Running);
}

#[test]
fn policies_fail_the_cycle_the_run_or_stop_it() {
    for (policy, ending) in [("record", None), ("failCycle", None), ("failRun", None), ("abort", Some("Aborted"))] {
        let mut world = world(json!({"policy": policy}));
        world.look(1, Some(11.0));
        world.look(2, Some(1.0));
        let status = world.status().clone();
        assert_eq!(status.ending.as_ref().map(|it| it.reason.as_str()), ending, "{policy}");
        let Some(pass) = &status.current else { continue };
        let failure = cycle_failure(pass, &status, at(3));
        let told = "alert m/High (x=1) fired: value 11: value > 10.0";
        let said = failure.as_ref().map(|it| (it.reason.as_str(), it.message.as_str()));
        assert_eq!(said, (policy != "record").then_some(("AlertFiring", told)), "{policy}");
        assert_eq!(status.alerts.unwrap().failure.as_deref(), (policy == "failRun").then_some(told));
    }
}

#[test]
fn an_alert_before_or_after_a_cycle_does_not_fail_it() {
    let mut world = world(json!({"policy": "failCycle"}));
    world.look(1, Some(11.0));
    world.look(2, Some(1.0));
    let status = world.status().clone();
    let pass = Pass { started_at: at(3), ..status.current.clone().unwrap() };
    assert!(cycle_failure(&pass, &status, at(9)).is_none());
    let pass = Pass { started_at: at(-9), ..pass };
    assert!(cycle_failure(&pass, &status, at(0)).is_none());
}

#[test]
fn what_is_wrong_in_a_monitor_is_named() {
    let refuse = |monitor: Value, path: &str, problem: &str| {
        let error = parse(&[serde_json::from_value(monitor.clone()).unwrap()]).unwrap_err();
        assert!(error.path == path && error.problem.contains(problem), "{monitor}: {error}");
    };
    refuse(json!({"name": "m"}), "spec.monitors[0]", "exactly one");
    let with = |rule: Value| json!({"name": "m", "http": {"url": "http://x"}, "alerts": [rule]});
    refuse(with(json!({"name": "A", "when": "object.x"})), "spec.monitors[0].alerts[0].when", "object");
    refuse(with(json!({"name": "A", "when": "1 + 1"})), "spec.monitors[0].alerts[0].when", "bool");
    refuse(with(json!({"name": "MonitorBroken", "when": "true"})), "spec.monitors[0].alerts[0].name", "another name");
    refuse(json!({"name": "m", "value": "(", "http": {"url": "http://x"}}), "spec.monitors[0].value", "");
    refuse(json!({"name": "m", "http": {"url": "${steps.x}"}}), "spec.monitors[0].http.url", "steps");
    let twice = json!([{"name": "A", "when": "true"}, {"name": "B", "when": "true"}, {"name": "A", "when": "false"}]);
    refuse(
        json!({"name": "m", "http": {"url": "http://x"}, "alerts": twice}),
        "spec.monitors[0].alerts",
        "A comes twice",
    );
    let monitor: Monitor = serde_json::from_value(json!({"name": "m", "http": {"url": "http://x"}})).unwrap();
    let error = parse(&[monitor.clone(), monitor]).unwrap_err().to_string();
    assert_eq!(error, "spec.monitors[1].name: the name m comes twice");
}

proptest! {
    /// Whatever is seen, and whenever the process crashes: one alert of a rule and a subject at a time, bounded, never
    /// fired before its time, told exactly once each, and fired exactly when the condition held long enough.
    #[test]
    fn alerts_neither_double_nor_flap(
        looks in prop::collection::vec((1_i64..4, prop::option::weighted(0.9, 0.0..20.0_f64), prop::bool::weighted(0.1)), 1..60),
        hold in 0_i64..8, keep in 0_i64..8,
    ) {
        let mut world = world(json!({"for": format!("{hold}s"), "keepFiringFor": format!("{keep}s")}));
        let mut seconds = 0;
        for (pause, value, crash) in looks {
            seconds += pause;
            if crash {
                world.crash();
            }
            world.look(seconds, value);
            let alerts = world.status().alerts.clone().unwrap();
            prop_assert!(alerts.list.len() <= MAX_ALERTS);
            let active: Vec<_> = alerts.list.iter().filter(|it| it.state != Resolved).map(|it| (&it.alert, &it.subject)).collect();
            let mut unique = active.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), active.len(), "one of a kind at a time");
            for alert in &alerts.list {
                let wait = if alert.alert == "High" { hold } else { 1 };
                if let Some(fired) = alert.fired_at {
                    prop_assert!(fired - alert.since >= TimeDelta::seconds(wait), "{:?}", alert);
                }
                if let (Some(fired), Some(resolved)) = (alert.fired_at, alert.resolved_at) {
                    let keep = if alert.alert == "High" { keep } else { 0 };
                    prop_assert!(resolved - fired >= TimeDelta::seconds(keep), "{:?}", alert);
                }
                prop_assert_eq!(alert.fired_at.is_none(), alert.state == Pending);
            }
            let firing_notes = world.notes.iter().filter(|it| *it == "AlertFiring").count();
            let fired: u32 = alerts.monitors.iter().map(|it| it.fired).sum();
            prop_assert_eq!(firing_notes, fired as usize);
        }
    }
}
