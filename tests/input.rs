//! Bad input gets a clear error and loses nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as CoreNamespace, ServiceAccount};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use soak_operator::api::{ConditionStatus, SoakRun, condition, status::RunPhase};
use support::{Namespace, Operator, is_condition, script, step, wait_for};

#[expect(clippy::needless_pass_by_value, reason = "it is always a literal")]
fn phases(steps: Value) -> Value {
    json!({"phases": [{"name": "work", "steps": steps}]})
}

fn wait(kind: &str, name: &str, until: &str) -> Value {
    json!({"resource": {"apiVersion": "v1", "kind": kind, "name": name}, "until": until})
}

fn message(run: &SoakRun, type_: &str) -> String {
    let conditions = run.status.iter().flat_map(|it| &it.conditions).cloned().collect::<Vec<_>>();
    condition::find(&conditions, type_).map(|it| it.message.clone()).unwrap_or_default()
}

#[tokio::test]
async fn what_can_be_known_before_is_refused_by_its_path_and_nothing_begins() {
    let namespace = Namespace::create("input").await;
    let _operator = Operator::start(&namespace);
    let pod = json!({"name": "first", "pod": script("true")});
    let after = |step: Value| phases(json!([pod, step]));
    // Name, spec, the field, and what the message must say about it.
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        (
            "no-parse",
            after(json!({"name": "w", "wait": wait("ConfigMap", "x", "object.data.a ==")})),
            "spec.phases[0].steps[1].wait.until",
            "",
        ),
        (
            "no-bool",
            after(json!({"name": "w", "wait": wait("ConfigMap", "x", "1 + 1")})),
            "spec.phases[0].steps[1].wait.until",
            "bool",
        ),
        (
            "wrong-types",
            after(json!({"name": "w", "wait": wait("ConfigMap", "x", "1 + 'a' == 2")})),
            "spec.phases[0].steps[1].wait.until",
            "",
        ),
        (
            "unknown-variable",
            after(json!({"name": "p", "pod": script("echo ${parms.word}")})),
            "spec.phases[0].steps[1].pod.command[2]",
            "parms",
        ),
        (
            "unknown-parameter",
            after(json!({"name": "p", "pod": script("echo ${params.word}")})),
            "spec.phases[0].steps[1].pod",
            "word",
        ),
        (
            "unknown-step",
            after(json!({"name": "p", "pod": script("echo ${steps.nobody.outputs.answer}")})),
            "spec.phases[0].steps[1].pod",
            "nobody",
        ),
        (
            "later-step",
            phases(
                json!([{"name": "p", "pod": script("echo ${steps.later.outputs.x}")}, {"name": "later", "pod": script("true")}]),
            ),
            "spec.phases[0].steps[0].pod",
            "later",
        ),
        (
            "parameters",
            json!({
                "parameters": [{"name": "a", "value": "${params.b}"}, {"name": "b", "value": "${params.a}"}],
                "phases": [{"name": "work", "steps": [pod]}],
            }),
            "spec.parameters",
            "a",
        ),
        (
            "no-outputs",
            after(json!({"name": "z", "sleep": {"duration": "1s"}, "outputs": [{"name": "a", "value": "1"}]})),
            "spec.phases[0].steps[1].outputs[0].value",
            "sleep",
        ),
    ];
    join_all(cases.iter().map(|(name, spec, ..)| namespace.run(name, spec.clone()))).await;
    for (name, _, field, about) in &cases {
        let run = namespace.ended(name).await;
        assert!(is_condition(&run, "Stalled", ConditionStatus::True), "{name}");
        let text = message(&run, "Stalled");
        assert!(text.starts_with(field) && text[field.len()..].contains(about), "{name}: {text}");
        let status = run.status.unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, "InvalidSpec"), "{name}");
    }
    assert!(namespace.pods().list(&ListParams::default()).await.unwrap().items.is_empty(), "nothing was begun");
    namespace.delete().await;
}

#[tokio::test]
async fn an_output_that_never_came_fails_the_step_that_needs_it() {
    let namespace = Namespace::create("input").await;
    let _operator = Operator::start(&namespace);
    namespace
        .run(
            "missing",
            phases(json!([
                {"name": "say", "pod": script("true")},
                {"name": "use", "pod": script("echo ${steps.say.outputs.answer}")},
            ])),
        )
        .await;
    let run = namespace.ended("missing").await;
    let record = &namespace.records(&run, "cycle").await[0];
    let step = &record["phases"][0]["steps"][1];
    assert_eq!((&step["state"], &step["reason"]), (&json!("Failed"), &json!("InvalidExpression")), "{step:#}");
    assert!(step["message"].as_str().unwrap().contains("answer"), "{step:#}");
    namespace.delete().await;
}

#[tokio::test]
async fn an_object_that_never_comes_ends_in_a_timeout_that_names_it() {
    let namespace = Namespace::create("input").await;
    let maps = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]);
    namespace.allow("soak-maps", maps).await;
    let _operator = Operator::start(&namespace);
    let wait = wait("ConfigMap", "godot", "object.data.here == 'yes'");
    namespace.run("never", phases(json!([{"name": "w", "timeout": "2s", "wait": wait}]))).await;
    let run = namespace.ended("never").await;
    let record = &namespace.records(&run, "cycle").await[0];
    let step = &record["phases"][0]["steps"][0];
    assert_eq!(step["reason"], "Timeout", "{step:#}");
    assert!(step["message"].as_str().unwrap().contains("godot"), "{step:#}");
    namespace.delete().await;
}

#[tokio::test]
async fn a_manifest_of_two_megabytes_is_refused_with_the_reason() {
    let namespace = Namespace::create("input").await;
    let args: Vec<String> = (0..64).map(|_| "x".repeat(32_768)).collect();
    let spec = json!({
        "serviceAccountName": "soak", "cycles": 1,
        "phases": [{"name": "work", "steps": [{"name": "p", "pod": {"image": "x", "args": args}}]}],
    });
    let run = json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": "big"}, "spec": spec});
    let run: SoakRun = serde_json::from_value(run).unwrap();
    let error = namespace.runs().create(&PostParams::default(), &run).await.unwrap_err().to_string();
    assert!(error.contains("large"), "{error}");
    namespace.delete().await;
}

#[tokio::test]
async fn an_account_that_comes_late_is_waited_for() {
    let namespace = Namespace::create("input").await;
    let _operator = Operator::start(&namespace);
    let mut spec = phases(json!([{"name": "nap", "sleep": {"duration": "10ms"}}]));
    spec["serviceAccountName"] = json!("late");
    namespace.run("late", spec).await;
    let run = namespace
        .until("late", "told what it waits for", |run| {
            run.status.as_ref().is_some_and(|status| status.message.contains("/late"))
        })
        .await;
    assert!(!is_condition(&run, "Completed", ConditionStatus::True));
    assert_eq!(run.status.unwrap().reason, "NotFound");
    namespace.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "late"}})).await;
    assert_eq!(namespace.ended("late").await.status.unwrap().phase, RunPhase::Succeeded);
    namespace.delete().await;
}

#[tokio::test]
async fn an_account_that_goes_fails_the_steps_and_not_the_operator() {
    let namespace = Namespace::create("input").await;
    let _operator = Operator::start(&namespace);
    namespace
        .run(
            "orphan",
            phases(json!([
                {"name": "before", "pod": script("sleep 8")},
                {"name": "after", "pod": script("true")},
            ])),
        )
        .await;
    namespace
        .until("orphan", "ran its first step", |run| step(run, "before").is_some_and(|it| it.running_at.is_some()))
        .await;
    let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), &namespace.name);
    accounts.delete("soak", &DeleteParams::default()).await.unwrap();
    let run = namespace.ended("orphan").await;
    let record = &namespace.records(&run, "cycle").await[0];
    let step = &record["phases"][0]["steps"][1];
    assert_eq!(step["state"], "Failed", "{step:#}");
    assert!(step["message"].as_str().unwrap().contains("soak"), "it names the account: {step:#}");
    namespace.delete().await;
}

#[tokio::test]
async fn a_namespace_that_is_deleted_takes_its_run_along() {
    let namespace = Namespace::create("input").await;
    let _operator = Operator::start(&namespace);
    let busy = script("trap 'exit 0' TERM; while true; do sleep 0.1; done");
    let mut spec = phases(json!([{"name": "busy", "pod": busy}]));
    spec["cleanup"] = json!([{"name": "tidy", "pod": script("true")}]);
    namespace.run("gone", spec).await;
    namespace.until("gone", "ran its step", |run| step(run, "busy").is_some_and(|it| it.running_at.is_some())).await;
    let namespaces: Api<CoreNamespace> = Api::all(namespace.client.clone());
    namespaces.delete(&namespace.name, &DeleteParams::background()).await.unwrap();
    wait_for("the namespace's end", || async {
        namespaces.get_opt(&namespace.name).await.ok()?.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn records_that_somebody_deletes_are_missed_by_nobody_but_the_reader() {
    let namespace = Namespace::create("input").await;
    let _operator = Operator::start(&namespace);
    let mut spec = phases(json!([{"name": "nap", "sleep": {"duration": "500ms"}}]));
    spec["cycles"] = json!(4);
    namespace.run("robbed", spec).await;
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let of_cycles = ListParams::default().labels("soak.dev/record=cycle");
    let stolen = wait_for("the second record", || async {
        let mut names: Vec<String> = maps.list(&of_cycles).await.ok()?.iter().map(ResourceExt::name_any).collect();
        names.sort();
        (names.len() >= 2).then_some(names)
    })
    .await;
    for name in &stolen {
        maps.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let run = namespace.ended("robbed").await;
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.cycles.completed, status.cycles.passed), (RunPhase::Succeeded, 4, 4));
    let numbers: Vec<u64> =
        namespace.records(&run, "cycle").await.iter().map(|record| record["cycle"].as_u64().unwrap()).collect();
    let left = 4 - stolen.len() as u64;
    assert_eq!(numbers, (5 - left..=4).collect::<Vec<_>>());
    assert_eq!(namespace.records(&run, "summary").await[0]["cycles"]["passed"], 4);
    namespace.delete().await;
}
