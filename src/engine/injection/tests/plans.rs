//! What is wrong in a spec, and what holds where it says nothing.

use serde_json::Value;

use crate::{
    api::{Duration, FailureInjectionSpec},
    engine::injection::{InjectionPlan, Share},
};

use super::*;

fn parse(more: &Value) -> Result<InjectionPlan, String> {
    let mut spec = json!({"serviceAccountName": "soak"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec: FailureInjectionSpec = serde_json::from_value(spec).unwrap();
    InjectionPlan::parse(&spec, "seed").map_err(|error| error.to_string())
}

#[test]
fn what_is_wrong_in_an_injection_is_named() {
    let pod = json!({"name": "p"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "m"});
    let toxic = json!({"url": "http://t", "proxies": ["p"], "disabled": true});
    let probe = |probe: Value| json!({"podKill": {}, "target": {"probe": probe}});
    for (spec, told) in [
        (json!({"target": pod}), "spec: set exactly one of podKill"),
        (json!({"target": map, "patch": {"patch": {}}}), "spec.duration: a patch fault lasts until it is undone"),
        (json!({"target": map, "patch": {"patch": []}, "duration": "1s"}), "spec.patch.patch: not an object"),
        (json!({"podKill": {}}), "spec.target: say what the podKill fault hits"),
        (json!({"podKill": {}, "target": {}}), "spec.target: set name, labelSelector, filter or probe"),
        (
            json!({"podKill": {}, "target": map}),
            "spec.target.kind: a podKill fault hits Pod of v1, not ConfigMap of v1",
        ),
        (
            json!({"patch": {"patch": {}}, "duration": "1s", "target": pod}),
            "spec.target.apiVersion: a patch fault may hit",
        ),
        (json!({"toxiproxy": toxic, "duration": "1s", "target": pod}), "spec.target: a toxiproxy fault names"),
        (json!({"podKill": {}, "target": {"filter": "1 + 1"}}), "spec.target.filter: "),
        (json!({"podKill": {}, "target": {"filter": "response.x"}}), "spec.target.filter: "),
        (probe(json!({"url": "${x}", "expect": "true"})), "spec.target.probe.url: "),
        (probe(json!({"url": "http://p", "body": "${x}", "expect": "true"})), "spec.target.probe.body: "),
        (probe(json!({"url": "http://p", "expect": "run.x"})), "spec.target.probe.expect: "),
        (json!({"podKill": {}, "target": pod, "recovery": {"until": "true"}}), "spec.recovery: resource and until"),
        (
            json!({"oneOf": [{"name": "a", "podKill": {}, "target": pod}, {"name": "b", "scale": {"replicas": 0}, "target": pod}]}),
            "spec.duration: a scale fault",
        ),
        (
            json!({"oneOf": [{"name": "a", "podKill": {"force": true, "gracePeriod": "1s"}, "target": pod}]}),
            "spec.oneOf[0].podKill.force: ",
        ),
        (json!({"resource": {"manifest": {}}, "duration": "1s"}), "spec.resource.manifest: it needs apiVersion"),
        (
            json!({"resource": {"manifest": {"apiVersion": "v1", "kind": "C"}, "failedWhen": "x"}, "duration": "1s"}),
            "spec.resource.failedWhen: ",
        ),
    ] {
        let error = parse(&spec).unwrap_err();
        assert!(error.starts_with(told), "{spec}: {error}");
    }
}

#[test]
fn a_target_is_chosen_by_any_one_of_its_fields() {
    for (target, share) in [
        (json!({"name": "p"}), Share::Count(1)),
        (json!({"labelSelector": "app=x", "count": 3}), Share::Count(3)),
        (json!({"filter": "object.spec.x == 1", "percent": 50}), Share::Percent(50)),
        (
            json!({"probe": {"url": "http://${object.status.podIP}", "expect": "response.status == 200"}}),
            Share::Count(1),
        ),
    ] {
        let plan = parse(&json!({"podKill": {}, "target": target})).unwrap();
        let found = plan.target.unwrap();
        assert_eq!((found.share, found.kind.as_str(), found.api_version.as_str()), (share, "Pod", "v1"), "{target}");
        assert_eq!(plan.duration, Duration::ZERO, "a kill is over at once");
    }
}

#[test]
fn where_nothing_is_said_a_fault_may_begin_and_recover_within_five_minutes() {
    let probe = json!({"url": "http://p", "expect": "response.status == 200"});
    let plan = parse(&json!({"podKill": {}, "target": {"name": "p"}, "recovery": {"probe": probe}})).unwrap();
    let recovery = plan.recovery.unwrap();
    assert!(recovery.probe.is_some() && recovery.resource.is_none());
    assert_eq!((plan.starting_deadline, recovery.timeout), (Duration::from_secs(300), Duration::from_secs(300)));
}

#[test]
fn an_object_that_is_made_says_itself_when_the_fault_is_there_and_when_it_never_will_be() {
    let manifest = json!({"apiVersion": "chaos-mesh.org/v1alpha1", "kind": "PodChaos"});
    let fault = json!({"manifest": manifest, "injectedWhen": "object.status.there", "failedWhen": "object.status.bad"});
    let plan = parse(&json!({"resource": fault, "duration": "10s"})).unwrap();
    let source = |condition: Option<crate::engine::expr::Condition>| condition.map(|it| it.source().to_owned());
    assert_eq!(source(plan.injected_when).as_deref(), Some("object.status.there"));
    assert_eq!(source(plan.failed_when).as_deref(), Some("object.status.bad"));
    assert_eq!(plan.duration, Duration::from_secs(10));
}

#[test]
fn an_alternative_that_was_chosen_is_told_and_has_its_own_target_or_the_common_one() {
    let other = json!({"name": "own"});
    let one_of = json!([{"name": "kill", "podKill": {}, "target": other}, {"name": "gone", "delete": {}}]);
    let common = json!({"apiVersion": "v1", "kind": "Pod", "name": "common"});
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let spec = json!({"serviceAccountName": "soak", "target": common, "oneOf": one_of});
        let spec: FailureInjectionSpec = serde_json::from_value(spec).unwrap();
        let plan = InjectionPlan::parse(&spec, &seed.to_string()).unwrap();
        seen.insert((plan.title(), plan.target.unwrap().name.unwrap()));
    }
    let expected = [("delete (gone)", "common"), ("podKill (kill)", "own")];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected.map(|(fault, name)| (fault.to_owned(), name.to_owned())));
    assert_eq!(parse(&json!({"podKill": {}, "target": other})).unwrap().title(), "podKill");
}
