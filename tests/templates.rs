//! A run keeps what its template resolved to, whatever becomes of the template.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use soak_operator::api::{SoakRun, SoakTemplate, status::RunPhase};
use support::{Namespace, Operator};

fn template(step: &str) -> Value {
    json!({
        "apiVersion": "soak.dev/v1alpha1", "kind": "SoakTemplate", "metadata": {"name": "base"},
        "spec": {
            "parameters": [
                {"name": "pause", "type": "Duration", "default": "3s", "maximum": "10s"},
                {"name": "word"},
            ],
            "run": {
                "cycles": 2,
                "phases": [{"name": "work", "steps": [{"name": step, "sleep": {"duration": "3s"}}]}],
            },
        },
    })
}

async fn apply(namespace: &Namespace, template: Value) {
    let templates: Api<SoakTemplate> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let name = template["metadata"]["name"].as_str().unwrap().to_owned();
    templates.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(template)).await.unwrap();
}

/// Creates a run that has nothing but a reference and values.
async fn run(namespace: &Namespace, name: &str, parameters: Value) {
    let spec = json!({"serviceAccountName": "soak", "templateRef": {"name": "base"}, "parameters": parameters});
    let run = json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": name}, "spec": spec});
    namespace.runs().create(&kube::api::PostParams::default(), &serde_json::from_value(run).unwrap()).await.unwrap();
}

fn word() -> Value {
    json!([{"name": "word", "value": "w"}])
}

/// The names of the steps of each cycle.
async fn steps(namespace: &Namespace, run: &SoakRun) -> Vec<String> {
    let records = namespace.records(run, "cycle").await;
    records.iter().map(|it| it["phases"][0]["steps"][0]["name"].as_str().unwrap().to_owned()).collect()
}

async fn frozen(namespace: &Namespace) -> Vec<ConfigMap> {
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    maps.list(&ListParams::default().labels("soak.dev/record=spec")).await.unwrap().items
}

#[tokio::test]
async fn a_template_that_changes_during_a_run_changes_nothing_in_it() {
    let namespace = Namespace::create("templates").await;
    apply(&namespace, template("old")).await;
    let operator = Operator::start(&namespace);
    run(&namespace, "kept", word()).await;
    let began = |run: &SoakRun| run.status.as_ref().is_some_and(|it| it.current.is_some());
    namespace.until("kept", "began", began).await;
    apply(&namespace, template("new")).await;
    operator.kill();
    let _operator = Operator::start(&namespace);
    let ended = namespace.ended("kept").await;
    assert_eq!(ended.status.as_ref().unwrap().phase, RunPhase::Succeeded, "{:#?}", ended.status);
    assert_eq!(steps(&namespace, &ended).await, ["old", "old"]);
    let frozen = &frozen(&namespace).await[0];
    let spec: Value = serde_json::from_str(&frozen.data.as_ref().unwrap()["spec.json"]).unwrap();
    assert_eq!((&spec["cycles"], &spec["parameters"][0]["value"]), (&json!(2), &json!("3s")));
    namespace.patch_run("kept", json!({"rerun": "2"})).await;
    namespace.until("kept", "began anew", |run| run.status.as_ref().is_some_and(|it| it.attempt == 2)).await;
    let again = namespace.ended("kept").await;
    assert_eq!(again.status.as_ref().unwrap().attempt, 2);
    assert_eq!(
        steps(&namespace, &again).await,
        ["old", "old", "new", "new"],
        "a new attempt takes the template as it is"
    );
    namespace.delete().await;
}

#[tokio::test]
async fn values_are_checked_before_anything_is_done() {
    let namespace = Namespace::create("templates").await;
    apply(&namespace, template("step")).await;
    let _operator = Operator::start(&namespace);
    for (name, parameters, told) in [
        ("missing", json!([]), "parameter word has no default"),
        ("unknown", json!([{"name": "word", "value": "w"}, {"name": "x", "value": "1"}]), "no parameter x"),
        ("wrong", json!([{"name": "word", "value": "w"}, {"name": "pause", "value": "1m"}]), "`1m` is more than 10s"),
    ] {
        run(&namespace, name, parameters).await;
        let ended = namespace.ended(name).await;
        let status = ended.status.as_ref().unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, "InvalidSpec"), "{name}");
        assert!(status.message.contains(told), "{name}: {}", status.message);
    }
    assert!(frozen(&namespace).await.is_empty());
    namespace.delete().await;
}

#[tokio::test]
async fn a_run_waits_for_a_template_that_comes_later() {
    let namespace = Namespace::create("templates").await;
    let _operator = Operator::start(&namespace);
    run(&namespace, "early", word()).await;
    namespace
        .run("other", json!({"phases": [{"name": "p", "steps": [{"name": "s", "sleep": {"duration": "1s"}}]}]}))
        .await;
    namespace.ended("other").await;
    apply(&namespace, template("late")).await;
    let ended = namespace.ended("early").await;
    assert_eq!(steps(&namespace, &ended).await, ["late", "late"]);
    namespace.delete().await;
}

#[tokio::test]
async fn an_empty_list_of_a_run_leaves_out_what_the_template_has() {
    let namespace = Namespace::create("templates").await;
    let mut template = template("step");
    for list in ["setup", "cleanup"] {
        template["spec"]["run"][list] = json!([{"name": "more", "sleep": {"duration": "1s"}}]);
    }
    apply(&namespace, template).await;
    let _operator = Operator::start(&namespace);
    let spec = json!({"serviceAccountName": "soak", "templateRef": {"name": "base"}, "parameters": word(), "setup": [], "dryRun": true});
    // Not by the typed client, which leaves empty lists out.
    namespace
        .apply(
            json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": "less"}, "spec": spec}),
        )
        .await;
    namespace.ended("less").await;
    let frozen = &frozen(&namespace).await[0];
    let spec: Value = serde_json::from_str(&frozen.data.as_ref().unwrap()["spec.json"]).unwrap();
    assert_eq!((spec.get("setup"), &spec["cleanup"][0]["name"]), (None, &json!("more")), "{spec:#}");
    namespace.delete().await;
}
