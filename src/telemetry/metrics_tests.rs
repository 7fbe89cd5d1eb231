use std::collections::BTreeMap;

use super::*;

/// One line of the text format, read strictly.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

#[derive(Debug, Default)]
struct Exposition {
    types: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

fn parse(text: &str) -> Exposition {
    let mut found = Exposition::default();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(found.helps.insert(name.into(), help.into()).is_none(), "second HELP of {name}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(found.types.insert(name.into(), kind.into()).is_none(), "second TYPE of {name}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, mut rest) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
            let mut labels = BTreeMap::new();
            while !rest.is_empty() && rest != "}" {
                let (label, after) = rest.split_once("=\"").expect("a label");
                let mut value = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next().expect("the label's value ends") {
                        (at, '"') => break at,
                        (_, '\\') => value.push(match chars.next().expect("an escaped character").1 {
                            'n' => '\n',
                            other => other,
                        }),
                        (_, other) => value.push(other),
                    }
                };
                assert!(labels.insert(label.into(), value).is_none(), "label {label} twice in {line}");
                rest = after[end + 1..].trim_start_matches(',');
            }
            found.samples.push(Sample { name: name.into(), labels, value: value.parse().expect("a number") });
        }
    }
    found
}

fn render(metrics: &Metrics) -> Exposition {
    parse(&metrics.render().expect("renders"))
}

fn value(found: &Exposition, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    found
        .samples
        .iter()
        .find(|s| s.name == name && labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|found| found == v)))
        .map(|s| s.value)
}

fn fill(metrics: &Metrics, namespace: &str, run: &str) {
    metrics.cycle_ended(namespace, run, "Passed");
    metrics.cycle_succeeded_at(namespace, run, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    metrics.set_current_cycle(namespace, run, 2);
    metrics.observe_phase(namespace, run, "activation", Duration::from_secs(61));
    metrics.set_outputs(namespace, run, [("p99Millis", 12.5), ("broken", f64::NAN)]);
}

fn everything() -> Metrics {
    let metrics = Metrics::new("1.2.3");
    fill(&metrics, "team-a", "switchover");
    metrics.set_runs(&BTreeMap::from([("Running", 1), ("Succeeded", 3)]));
    metrics.step_failed("pod", "Timeout");
    metrics.observe_reconcile(Duration::from_millis(3));
    metrics.reconcile_failed(ErrorClass::Conflict);
    metrics.set_queue_depth(7);
    metrics.status_written(StatusWrite::Ok);
    metrics.watch_restarted("Pod");
    metrics.set_active_injections(2);
    metrics.injection_ended("Recovered");
    metrics
}

#[test]
fn every_metric_is_there_and_can_be_read_back() {
    let found = render(&everything());
    let run = [("namespace", "team-a"), ("run", "switchover")];
    assert_eq!(value(&found, "soak_runs", &[("phase", "Succeeded")]), Some(3.0));
    assert_eq!(value(&found, "soak_cycles_total", &[run[0], run[1], ("outcome", "Passed")]), Some(1.0));
    assert_eq!(value(&found, "soak_run_current_cycle", &run), Some(2.0));
    assert_eq!(value(&found, "soak_run_last_success_timestamp_seconds", &run), Some(1_700_000_000.0));
    assert_eq!(value(&found, "soak_output", &[("output", "p99Millis")]), Some(12.5));
    assert_eq!(value(&found, "soak_output", &[("output", "broken")]), None);
    assert_eq!(value(&found, "soak_phase_duration_seconds_sum", &[("phase", "activation")]), Some(61.0));
    for (bound, count) in [("60", 0.0), ("120", 1.0), ("+Inf", 1.0)] {
        assert_eq!(value(&found, "soak_phase_duration_seconds_bucket", &[("le", bound)]), Some(count), "{bound}");
    }
    assert_eq!(value(&found, "soak_step_failures_total", &[("kind", "pod"), ("reason", "Timeout")]), Some(1.0));
    assert_eq!(value(&found, "soak_reconcile_duration_seconds_count", &[]), Some(1.0));
    assert_eq!(value(&found, "soak_reconcile_errors_total", &[("class", "conflict")]), Some(1.0));
    assert_eq!(value(&found, "soak_reconcile_errors_total", &[("class", "panic")]), Some(0.0));
    assert_eq!(value(&found, "soak_reconcile_queue_depth", &[]), Some(7.0));
    assert_eq!(value(&found, "soak_status_writes_total", &[("result", "ok")]), Some(1.0));
    assert_eq!(value(&found, "soak_watch_restarts_total", &[("kind", "Pod")]), Some(1.0));
    assert_eq!(value(&found, "soak_dropped_series_total", &[]), Some(0.0));
    assert_eq!(value(&found, "soak_build_info", &[("version", "1.2.3")]), Some(1.0));
    assert_eq!(value(&found, "soak_injections_active", &[]), Some(2.0));
    assert_eq!(value(&found, "soak_injections_total", &[("phase", "Recovered")]), Some(1.0));
    assert_eq!(found.types.len(), 16);
}

#[test]
fn names_follow_the_prometheus_conventions() {
    let found = render(&everything());
    for (name, kind) in &found.types {
        assert!(name.starts_with("soak_"), "{name} lacks the prefix");
        assert!(found.helps.get(name).is_some_and(|help| help.ends_with('.')), "{name} has no help");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(!["gauge", "counter", "histogram", "bucket", "sum", "count"].iter().any(|word| name.ends_with(word)));
        let lower = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(lower && !name.contains("__"), "{name} is not snake case");
        for unit in ["millis", "_ms", "minutes", "hours", "kilobytes", "percent"] {
            assert!(!name.contains(unit), "{name} is not in a base unit");
        }
        if kind == "histogram" || name.contains("duration") || name.contains("timestamp") {
            assert!(name.ends_with("_seconds"), "{name} does not name its unit");
        }
    }
    for sample in &found.samples {
        assert!(!sample.labels.contains_key("instance") && !sample.labels.contains_key("job"), "{sample:?}");
    }
}

#[test]
fn nothing_is_left_of_a_forgotten_run() {
    let metrics = Metrics::new("1");
    let before = metrics.render().expect("renders");
    fill(&metrics, "team-a", "nightly");
    fill(&metrics, "team-b", "nightly");
    metrics.forget_run("team-a", "nightly");
    let text = metrics.render().expect("renders");
    assert!(!text.contains("team-a"), "{text}");
    assert!(text.contains("team-b"), "the other tenant's run of the same name stays");
    metrics.forget_run("team-b", "nightly");
    metrics.forget_run("team-b", "never-there");
    assert_eq!(metrics.render().expect("renders"), before);
}

#[test]
fn runs_whose_labels_join_to_the_same_text_are_kept_apart() {
    let metrics = Metrics::new("1");
    metrics.set_current_cycle("ab", "c", 1);
    metrics.set_current_cycle("a", "bc", 2);
    let found = render(&metrics);
    assert_eq!(value(&found, "soak_run_current_cycle", &[("namespace", "ab"), ("run", "c")]), Some(1.0));
    assert_eq!(value(&found, "soak_run_current_cycle", &[("namespace", "a"), ("run", "bc")]), Some(2.0));
}

#[test]
fn the_cap_holds_with_a_hundred_thousand_runs() {
    let metrics = Metrics::new("1");
    for run in 0..100_000 {
        metrics.set_current_cycle("load", &format!("run-{run}"), 1);
    }
    let found = render(&metrics);
    assert_eq!(found.samples.iter().filter(|s| s.name == "soak_run_current_cycle").count(), 1_000);
    assert_eq!(value(&found, "soak_dropped_series_total", &[]), Some(99_000.0));
    metrics.forget_run("load", "run-7");
    metrics.set_current_cycle("load", "run-99999", 1);
    let found = render(&metrics);
    assert_eq!(value(&found, "soak_run_current_cycle", &[("run", "run-99999")]), Some(1.0), "room was made");
}

#[test]
fn phases_and_outputs_of_a_run_are_capped_and_so_are_all_histograms() {
    let metrics = Metrics::with_limits("1", Limits { histograms: 100, ..Limits::default() });
    for n in 0..80 {
        for run in ["one", "two"] {
            metrics.observe_phase("ns", run, &format!("phase-{n}"), Duration::from_secs(1));
        }
    }
    let names: Vec<_> = (0..40).map(|n| format!("output{n}")).collect();
    metrics.set_outputs("ns", "one", names.iter().map(|name| (name.as_str(), 1.0)));
    let found = render(&metrics);
    let count = |name: &str| found.samples.iter().filter(|s| s.name == name).count();
    assert_eq!(count("soak_phase_duration_seconds_count"), 100);
    assert_eq!(count("soak_output"), 32);
    assert_eq!(value(&found, "soak_dropped_series_total", &[]), Some(60.0 + 8.0));
    metrics.forget_run("ns", "one");
    metrics.observe_phase("ns", "three", "p", Duration::from_secs(1));
    assert!(value(&render(&metrics), "soak_phase_duration_seconds_count", &[("run", "three")]).is_some());
}

#[test]
fn outputs_of_an_earlier_cycle_do_not_look_current() {
    let metrics = Metrics::new("1");
    metrics.set_outputs("ns", "run", [("a", 1.0), ("b", 1.0)]);
    metrics.set_outputs("ns", "run", [("b", 2.0)]);
    let found = render(&metrics);
    assert_eq!(value(&found, "soak_output", &[("output", "a")]), None);
    assert_eq!(value(&found, "soak_output", &[("output", "b")]), Some(2.0));
}

#[test]
fn reasons_past_the_cap_become_other() {
    let metrics = Metrics::new("1");
    for n in 0..1_000 {
        metrics.step_failed("pod", &format!("Reason{n}"));
        metrics.step_failed("wait", &format!("Reason{n}"));
    }
    let found = render(&metrics);
    let reasons: BTreeSet<_> = found.samples.iter().filter_map(|s| s.labels.get("reason")).collect();
    assert_eq!(reasons.len(), 65);
    assert_eq!(value(&found, "soak_step_failures_total", &[("kind", "wait"), ("reason", OTHER)]), Some(936.0));
}

#[test]
fn a_phase_that_has_no_more_runs_is_not_reported() {
    let metrics = Metrics::new("1");
    metrics.set_runs(&BTreeMap::from([("Running", 2)]));
    metrics.set_runs(&BTreeMap::from([("Failed", 2)]));
    let found = render(&metrics);
    assert_eq!(value(&found, "soak_runs", &[("phase", "Running")]), None);
    assert_eq!(value(&found, "soak_runs", &[("phase", "Failed")]), Some(2.0));
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new("1");
    metrics.set_outputs("ns", "run", [("odd\"\\\nname", 1.0)]);
    assert_eq!(value(&render(&metrics), "soak_output", &[("output", "odd\"\\\nname")]), Some(1.0));
}

#[test]
fn a_schedule_has_series_until_it_goes() {
    let metrics = Metrics::with_limits("test", Limits { schedules: 1, ..Limits::default() });
    let state = ScheduleState { last_schedule: Some(1_700_000_000.0), active: 1, ..ScheduleState::default() };
    metrics.set_schedule("n", "nightly", state);
    metrics.set_schedule("n", "weekly", state);
    let found = parse(&metrics.render().unwrap());
    let nightly = [("namespace", "n"), ("schedule", "nightly")];
    assert_eq!(value(&found, "soak_schedule_last_schedule_timestamp_seconds", &nightly), Some(1_700_000_000.0));
    assert_eq!(value(&found, "soak_schedule_active_runs", &nightly), Some(1.0));
    assert_eq!(value(&found, "soak_schedule_last_success_timestamp_seconds", &nightly), None);
    assert_eq!(value(&found, "soak_dropped_series_total", &[]), Some(1.0));
    metrics.keep_schedules(|_, name| name != "nightly");
    assert_eq!(value(&parse(&metrics.render().unwrap()), "soak_schedule_active_runs", &nightly), None);
}
