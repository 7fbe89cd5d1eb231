//! From what a source tells to what holds.

use super::*;
use crate::api::{Duration, monitor::Severity};

fn monitor(spec: &Value) -> MonitorPlan {
    let mut monitor = json!({"name": "m"});
    monitor.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    parse(&[serde_json::from_value(monitor).unwrap()]).unwrap().remove(0)
}

fn look(plan: &MonitorPlan, value: Value) -> Result<(Option<f64>, Vec<String>), String> {
    let subject = Subject { name: "s".into(), sample: None, value };
    let judged = judge(plan, &Scope::new(), vec![subject]).map_err(|Broken(why)| why)?.remove(0);
    Ok((judged.sample, judged.holds.into_iter().map(|(rule, _)| plan.rules[rule].name.clone()).collect()))
}

#[test]
fn a_value_is_a_number_or_not_there_and_all_else_is_a_broken_monitor() {
    let resource = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let plan = |value: &str| {
        let alerts = json!([{"name": "High", "when": "value > 3.0"}]);
        monitor(&json!({"resource": resource, "value": value, "alerts": alerts}))
    };
    let object = json!({"lag": 5, "text": "12", "word": "many", "none": null, "zero": 0});
    for (value, sample) in [
        ("object.lag", Some(5.0)),
        ("object.text", Some(12.0)),
        ("object.lag > 3", Some(1.0)),
        ("object.none", None),
        ("object.missing", None),
    ] {
        let holds = if sample > Some(3.0) { vec!["High".to_owned()] } else { vec![] };
        assert_eq!(look(&plan(value), object.clone()), Ok((sample, holds)), "{value}");
    }
    for (value, told) in [
        ("object.word", "value: expected a number, got \"many\""),
        ("object.lag / object.zero", "value: `object.lag / object.zero` failed"),
    ] {
        let why = look(&plan(value), object.clone()).unwrap_err();
        assert!(why.starts_with(told), "{value}: {why}");
    }
}

#[test]
fn a_rule_on_what_is_not_there_does_not_hold_and_one_that_fails_breaks_the_monitor() {
    let plan = |value: &str, when: &str| {
        let alerts = json!([{"name": "High", "when": when}]);
        monitor(&json!({"resource": {"apiVersion": "v1", "kind": "ConfigMap"}, "value": value, "alerts": alerts}))
    };
    let object = json!({"lag": 5, "zero": 0});
    let calm = |sample| Ok((sample, vec![]));
    for (value, when, expected) in [
        ("object.lag", "object.missing > 3", calm(Some(5.0))),
        ("object.missing", "value > 3.0", calm(None)),
        ("object.lag", "1 / (int(value) - 5) > 0", Err("alert High: ")),
        ("object.missing", "1 / object.zero > 0", Err("alert High: ")),
    ] {
        match (look(&plan(value, when), object.clone()), expected) {
            (Err(why), Err(told)) => assert!(why.starts_with(told), "{when}: {why}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{when}"),
        }
    }
}

#[test]
fn rules_see_the_run_beside_their_subject() {
    let when = "run.name == 'run' && run.namespace == 'ns' && run.uid == 'uid' && run.attempt == 2 && params.size == '3' && labels.x == '1'";
    let source = json!({"url": "http://p", "query": "q"});
    let plan = monitor(&json!({"promql": source, "alerts": [{"name": "A", "when": when}]}));
    let mut world = world(json!({}));
    world.plan.parameters = BTreeMap::from([("size".to_owned(), "3".to_owned())]);
    let subject = Subject { name: "s".into(), sample: None, value: json!({"x": "1"}) };
    let judged = judge(&plan, &scope(&world.plan, &world.run, 2), vec![subject]).unwrap();
    assert_eq!(judged[0].holds.len(), 1);
}

#[test]
fn more_subjects_than_can_be_judged_break_the_monitor() {
    let plan = monitor(&json!({"promql": {"url": "http://p", "query": "q"}}));
    let subjects = |count| vec![Subject { name: "s".into(), sample: Some(1.0), value: json!({}) }; count];
    assert_eq!(judge(&plan, &Scope::new(), subjects(200)).unwrap().len(), 200);
    let Broken(why) = judge(&plan, &Scope::new(), subjects(201)).unwrap_err();
    assert!(why.starts_with("201 subjects, at most 200 are judged"), "{why}");
}

#[test]
fn a_monitor_that_declares_no_alerts_has_those_of_its_source() {
    use AlertPolicy::{FailCycle, Record};
    use Severity::{Critical, Warning};
    let pods = monitor(&json!({"podHealth": {"policy": "failCycle"}}));
    let rules = |plan: &MonitorPlan| -> Vec<_> {
        plan.rules.iter().map(|it| (it.name.clone(), it.severity, it.policy, it.hold.as_std().as_secs())).collect()
    };
    let broken = || ("MonitorBroken".to_owned(), Warning, Record, 15);
    let rule = |name: &str, severity, seconds| (name.to_owned(), severity, FailCycle, seconds);
    let expected = [
        rule("OOMKilled", Critical, 0),
        rule("CrashLoop", Critical, 0),
        rule("Restarted", Warning, 0),
        rule("NotReady", Warning, 60),
        broken(),
    ];
    assert_eq!(rules(&pods), expected);
    let well = json!({"oomKilled": false, "crashLoop": false, "restarted": false, "ready": true, "ended": false});
    for (change, holds) in [
        (json!({}), &[][..]),
        (json!({"oomKilled": true}), &["OOMKilled"]),
        (json!({"crashLoop": true, "ready": false}), &["CrashLoop", "NotReady"]),
        (json!({"restarted": true}), &["Restarted"]),
        (json!({"ready": false, "ended": true}), &[]),
    ] {
        let mut pod = well.clone();
        pod.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(look(&pods, pod).unwrap().1, holds, "{change}");
    }
    let http = monitor(&json!({"http": {"url": "http://x"}}));
    assert_eq!(rules(&http), [("Unavailable".to_owned(), Warning, Record, 0), broken()]);
    for (status, holds) in [(0, true), (200, false), (399, false), (400, true), (503, true)] {
        assert_eq!(look(&http, json!({"status": status})).unwrap().1.len(), usize::from(holds), "{status}");
    }
    for source in [
        json!({"promql": {"url": "http://p", "query": "q"}}),
        json!({"resource": {"apiVersion": "v1", "kind": "ConfigMap"}}),
    ] {
        assert_eq!(rules(&monitor(&source)), [broken()]);
    }
    let often = monitor(&json!({"interval": "10ms", "http": {"url": "http://x"}}));
    assert_eq!(often.interval, Duration::from_secs(1), "no source is asked more often");
}

#[test]
fn each_source_has_its_name_and_its_variable() {
    for (source, spec, variable) in [
        ("resource", json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "${run}"}), "object"),
        ("podHealth", json!({"namespace": "${run}"}), "pod"),
        ("promql", json!({"url": "http://p", "query": "${run}"}), "labels"),
        ("http", json!({"url": "http://x/${run}"}), "response"),
    ] {
        let of = |spec: &Value| json!({"name": "m", source: spec, "alerts": [{"name": "A", "when": format!("{variable}.x == 1")}]});
        let plan = parse(&[serde_json::from_value(of(&spec)).unwrap()]).unwrap().remove(0);
        assert_eq!((plan.source.kind(), plan.source.subject()), (source, variable));
        let wrong: Value = serde_json::from_str(&spec.to_string().replace("${run}", "${nobody}")).unwrap();
        let error = parse(&[serde_json::from_value(of(&wrong)).unwrap()]).unwrap_err();
        assert!(error.path.starts_with(&format!("spec.monitors[0].{source}.")), "{error}");
    }
}

#[test]
fn a_look_is_news_when_something_begins_or_ends_to_hold_and_when_sight_is_lost_or_back() {
    let plan = monitor(&json!({
        "promql": {"url": "http://p", "query": "q"}, "alerts": [{"name": "High", "when": "value > 10.0"}],
    }));
    let mut seen = MonitorSeen::new(&plan, at(0));
    let high = |names: &[&str]| {
        let subject = |name: &&str| Subject { name: (*name).to_owned(), sample: Some(11.0), value: json!({}) };
        judge(&plan, &Scope::new(), names.iter().map(subject).collect())
    };
    let lost = || Err(Broken("no answer".into()));
    for (second, (look, news)) in (1..).zip([
        (high(&[]), false),
        (high(&["a"]), true),
        (high(&["a"]), false),
        (high(&["b"]), true),
        (lost(), true),
        (lost(), false),
        (high(&["b"]), true),
        (high(&[]), true),
        (high(&[]), false),
    ]) {
        assert_eq!(seen.take_in(at(second), look, true), news, "{second}");
        let lost = seen.broken.as_ref().map(|(since, _)| *since);
        assert_eq!(lost, (5..=6).contains(&second).then(|| at(5)));
        let since = seen.holding.values().map(|it| it.since).next();
        assert_eq!(
            since,
            [None, None, Some(2), Some(2), Some(4), Some(4), Some(4), Some(4), None, None]
                [usize::try_from(second).unwrap()]
            .map(at)
        );
    }
}

#[test]
fn of_very_many_held_conditions_those_that_came_first_are_told() {
    let plan = monitor(&json!({
        "promql": {"url": "http://p", "query": "q"}, "alerts": [{"name": "High", "when": "value > 10.0"}],
    }));
    let mut seen = MonitorSeen::new(&plan, at(0));
    let look = |from: usize, to: usize| {
        let subject = |number: usize| Subject { name: format!("s{number:03}"), sample: Some(11.0), value: json!({}) };
        judge(&plan, &Scope::new(), (from..to).map(subject).collect())
    };
    seen.take_in(at(1), look(10, 74), true);
    assert!(!seen.take_in(at(2), look(10, 100), true), "no more than 64 are told");
    let names: Vec<&str> = seen.holding.keys().map(|(_, name)| name.as_str()).collect();
    assert_eq!((names.len(), names[0], names[63]), (64, "s010", "s073"));
    assert!(seen.take_in(at(3), look(20, 100), true), "some have gone, and others came in their place");
    assert_eq!((seen.holding.len(), seen.holding.values().filter(|it| it.since == at(3)).count()), (64, 10));
}
