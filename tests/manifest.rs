//! A run's manifest tells who asked for what with which versions, and snapshots tell what was there.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::{Namespace, Operator};

#[tokio::test]
async fn a_summary_tells_who_asked_for_what_and_what_was_there_at_each_moment() {
    let namespace = Namespace::create("manifest").await;
    let watched = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch"]}]);
    namespace.allow("soak-maps", watched).await;
    let map = |generation: u32| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "state", "labels": {"app": "x"}}, "data": {"secret": "hunter2", "n": generation.to_string()}});
    namespace.apply(map(1)).await;
    let _operator = Operator::start(&namespace);
    let run = json!({
        "apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun",
        "metadata": {"name": "told", "annotations": {
            "soak.dev/requested-by": "ana", "argocd.argoproj.io/tracking-id": "soaks:soak.dev/SoakRun:x/told",
            "soak.dev/git-commit": "5a1f0c2", "unrelated": "left out",
        }},
        "spec": {
            "serviceAccountName": "soak", "cycles": 1, "criteria": {"minSuccessRate": "0"},
            "snapshot": [
                {"apiVersion": "v1", "kind": "ConfigMap", "labels": {"app": "${params.app}"}},
                {"apiVersion": "v1", "kind": "Service"},
            ],
            "parameters": [{"name": "app", "value": "x"}],
            "phases": [{"name": "work", "steps": [
                {"name": "change", "patch": {
                    "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "state"},
                    "patch": {"data": {"n": "2"}},
                }},
                {"name": "fails", "wait": {
                    "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "state"}, "until": "false",
                }, "timeout": "1s"},
            ]}],
        },
    });
    let watching = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["watch"]}]);
    namespace.allow("soak-watch", watching).await;
    namespace.runs().create(&PostParams::default(), &serde_json::from_value(run).unwrap()).await.unwrap();
    namespace.until("told", "began", |run| run.status.as_ref().is_some_and(|it| it.started_at.is_some())).await;
    // What a tool writes later is not what was asked for.
    let later = Patch::Merge(json!({"metadata": {"annotations": {"soak.dev/git-commit": "fffffff"}}}));
    namespace.runs().patch("told", &PatchParams::default(), &later).await.unwrap();
    let ended = namespace.ended("told").await;
    let summary = &namespace.records(&ended, "summary").await[0];
    let manifest = &summary["manifest"];
    assert_eq!((&manifest["requestedBy"], &manifest["commit"]), (&json!("ana"), &json!("5a1f0c2")), "{summary:#}");
    assert_eq!(manifest["annotations"].as_object().unwrap().len(), 2, "{manifest:#}");
    assert_eq!(manifest["specDigest"], json!(ended.status.as_ref().unwrap().spec_digest));
    assert_eq!(manifest["spec"]["phases"][0]["name"], "work");
    assert_eq!(manifest["operatorVersion"], env!("CARGO_PKG_VERSION"));
    assert!(manifest["kubernetesVersion"].as_str().unwrap().starts_with('v'), "{manifest:#}");
    let crd = &manifest["crds"][0];
    assert_eq!((&crd["name"], &crd["served"]), (&json!("soakruns.soak.dev"), &json!(["v1alpha1"])), "{manifest:#}");
    assert!(summary["startedAt"].is_string() && summary["finishedAt"].is_string());

    let version =
        |snapshot: &Value| snapshot["objects"][0]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let (start, end) = (&summary["snapshots"][0], &summary["snapshots"][1]);
    assert_eq!((&start["moment"], &end["moment"]), (&json!("Start"), &json!("End")));
    assert!(version(start) < version(end), "{start:#} {end:#}");
    let failure = &namespace.records(&ended, "cycle").await[0]["snapshot"];
    assert_eq!((&failure["moment"], version(failure)), (&json!("Failure"), version(end)));
    assert!(start["problems"][0].as_str().unwrap().contains("services"), "what may not be read is told: {start:#}");
    assert!(!summary.to_string().contains("hunter2"), "contents are nobody's business");
    namespace.delete().await;
}
