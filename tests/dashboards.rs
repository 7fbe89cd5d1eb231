//! The dashboard and the alert rules ask for metrics and labels that the operator exports.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use regex::Regex;
use soak_operator::telemetry::{ErrorClass, Metrics, ScheduleState, StatusWrite};

/// What an operator exports once everything has happened: labels by name of the metric.
fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::new("test");
    metrics.set_runs(&BTreeMap::from([("Running", 1)]));
    metrics.cycle_ended("soaks", "nightly", "Succeeded");
    metrics.cycle_succeeded_at("soaks", "nightly", SystemTime::now());
    metrics.set_current_cycle("soaks", "nightly", 1);
    metrics.observe_phase("soaks", "nightly", "verify", Duration::from_secs(1));
    metrics.set_outputs("soaks", "nightly", [("lost", 0.0)]);
    metrics.set_alerts_firing("soaks", "nightly", "Critical", 1);
    metrics.alert_fired("soaks", "nightly", "Critical");
    metrics.set_schedule(
        "soaks",
        "nightly",
        ScheduleState {
            last_schedule: Some(1.0),
            last_success: Some(1.0),
            next_schedule: Some(1.0),
            ..ScheduleState::default()
        },
    );
    metrics.step_failed("pod", "OOMKilled");
    metrics.observe_reconcile(Duration::from_millis(1));
    metrics.reconcile_failed(ErrorClass::Conflict);
    metrics.set_queue_depth(1);
    metrics.status_written(StatusWrite::Ok);
    metrics.watch_restarted("pods");
    let label = Regex::new(r#"([a-z_]+)=""#).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics.render().unwrap().lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap().to_owned();
        found.entry(name).or_default().extend(label.captures_iter(line).map(|label| label[1].to_owned()));
    }
    found
}

/// Asserts that each selector, and each label that an expression groups by, exists.
fn check(expression: &str, exported: &BTreeMap<String, BTreeSet<String>>) {
    let selector = Regex::new(r"(soak_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)(?:=~|!=|=)""#).unwrap();
    let grouping = Regex::new(r"by \(([^)]*)\)").unwrap();
    let mut labels = BTreeSet::new();
    let mut metrics = 0;
    for found in selector.captures_iter(expression) {
        metrics += 1;
        let has = exported.get(&found[1]).unwrap_or_else(|| panic!("{} is not exported: {expression}", &found[1]));
        labels.extend(has.clone());
        for matcher in found.get(2).iter().flat_map(|text| matcher.captures_iter(text.as_str())) {
            assert!(has.contains(&matcher[1]), "{} has no label {}: {expression}", &found[1], &matcher[1]);
        }
    }
    assert!(metrics > 0, "no metric of the operator: {expression}");
    for by in grouping.captures_iter(expression) {
        for label in by[1].split(',').map(str::trim) {
            assert!(labels.contains(label), "nothing has the label {label}: {expression}");
        }
    }
}

#[test]
fn the_dashboard_asks_for_what_is_exported() {
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../dashboards/soak-operator.json")).unwrap();
    let exported = exported();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets =
        panels.iter().filter(|panel| panel["type"] != "row").map(|panel| panel["targets"].as_array().unwrap());
    let expressions: Vec<&str> = targets.flatten().map(|target| target["expr"].as_str().unwrap()).collect();
    for expression in &expressions {
        check(expression, &exported);
    }
    let shown = expressions.concat();
    let hidden: Vec<&String> = exported
        .keys()
        .filter(|name| !name.ends_with("_sum") && !name.ends_with("_count") && !shown.contains(name.as_str()))
        .collect();
    assert!(hidden.is_empty(), "the dashboard shows nothing of {hidden:?}");
}

#[test]
fn the_alerts_ask_for_what_is_exported() {
    let rules: serde_json::Value = serde_yaml_ng::from_str(include_str!("../dashboards/alerts.yaml")).unwrap();
    let exported = exported();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        check(rule["expr"].as_str().unwrap(), &exported);
        assert!(rule["annotations"]["action"].is_string(), "{} does not say what to do", rule["alert"]);
    }
}
