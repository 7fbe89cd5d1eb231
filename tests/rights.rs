//! Everything that a run does is done as its service account, and a missing right is named.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use futures::future::join_all;
use k8s_openapi::api::{core::v1::Pod, rbac::v1::RoleBinding};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use soak_operator::api::{ConditionStatus, SoakRun, status::RunPhase};
use support::{Namespace, Operator, is_condition, script};

fn one(step: Value) -> Value {
    let mut step = step;
    step["name"] = json!("one");
    json!({"phases": [{"name": "work", "steps": [step]}]})
}

/// A run that only watches, by the target's role.
fn watching(monitor: Value) -> Value {
    let mut spec = one(json!({"sleep": {"duration": "1s"}}));
    let mut monitor = monitor;
    monitor["name"] = json!("eye");
    monitor["target"] = json!("primary");
    spec["monitors"] = json!([monitor]);
    spec["targets"] = json!([{"name": "here"}]);
    spec["roles"] = json!({"primary": "here"});
    spec
}

async fn waits_for_the_right(namespace: &Namespace, name: &str, right: &str) -> String {
    let place = format!("in namespace {}", namespace.name);
    let run = namespace.until(name, "told the missing right", |run| text(run).contains(right)).await;
    assert!(text(&run).contains(&place) && text(&run).contains("nobody"), "{name}: {}", text(&run));
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Validating, "PermissionDenied"), "{name}");
    assert!(!is_condition(&run, "Completed", ConditionStatus::True), "{name}: it waits for the right");
    text(&run).to_owned()
}

async fn start_as_nobody(namespace: &Namespace, name: &str, mut spec: Value) {
    spec["serviceAccountName"] = json!("nobody");
    namespace.run(name, spec).await;
}

fn text(run: &SoakRun) -> &str {
    run.status.as_ref().map_or("", |status| &status.message)
}

/// The pod of a run's first step, as soon as there is one.
async fn pod_of(namespace: &Namespace, run: &str) -> Pod {
    let selector = ListParams::default().labels(&format!("soak.dev/run={run}"));
    let pods = namespace.pods();
    support::wait_for("the pod", || async { pods.list(&selector).await.ok()?.items.into_iter().next() }).await
}

#[tokio::test]
async fn the_right_that_a_step_lacks_is_named_with_verb_resource_and_namespace() {
    let namespace = Namespace::create("rights").await;
    namespace.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}})).await;
    let _operator = Operator::start(&namespace);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "m"});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let job = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let cases = [
        ("pod", json!({"pod": script("true")}), "create pods"),
        ("job", json!({"jobTemplate": job}), "create jobs.batch"),
        ("wait", json!({"wait": {"resource": reference, "until": "true"}}), "list configmaps"),
        ("apply", json!({"apply": {"manifest": map}}), "create configmaps"),
        ("patch", json!({"patch": {"resource": reference, "patch": {"data": {"a": "b"}}}}), "patch configmaps named m"),
        ("scale", json!({"scale": {"resource": web, "replicas": 1}}), "patch deployments/scale.apps named web"),
        ("delete", json!({"delete": {"resource": reference}}), "delete configmaps named m"),
        ("resource", json!({"resource": {"manifest": map, "successCondition": "true"}}), "create configmaps"),
    ];
    join_all(cases.iter().map(|(name, step, _)| start_as_nobody(&namespace, name, one(step.clone())))).await;
    for (name, _, right) in &cases {
        waits_for_the_right(&namespace, name, right).await;
    }
    assert!(namespace.pods().list(&ListParams::default()).await.unwrap().items.is_empty());
    let missing_kind = json!({"apiVersion": "test.example/v1", "kind": "Nowhere"});
    let watches = [
        ("watch", json!({"resource": reference}), "list configmaps"),
        ("watch-pods", json!({"podHealth": {}}), "list pods"),
    ];
    join_all(watches.iter().map(|(name, it, _)| start_as_nobody(&namespace, name, watching(it.clone())))).await;
    for (name, monitor, right) in &watches {
        let message = waits_for_the_right(&namespace, name, right).await;
        let field = format!("spec.monitors[0].{}", monitor.as_object().unwrap().keys().next().unwrap());
        assert!(message.contains("watch") && message.ends_with(&field), "{name}: {message}");
    }
    // Its setup might install the kind.
    start_as_nobody(&namespace, "watch-nothing", watching(json!({"resource": missing_kind}))).await;
    namespace.ended("watch-nothing").await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_right_that_is_revoked_during_a_run_fails_the_step_by_name() {
    let namespace = Namespace::create("rights").await;
    let _operator = Operator::start(&namespace);
    namespace
        .run(
            "revoked",
            json!({"phases": [{"name": "work", "steps": [
                {"name": "before", "pod": script("sleep 8")},
                {"name": "after", "pod": script("true")},
            ]}]}),
        )
        .await;
    // That the step is active is written before its pod is created, so only the pod tells that the right was used.
    pod_of(&namespace, "revoked").await;
    let bindings: Api<RoleBinding> = Api::namespaced(namespace.client.clone(), &namespace.name);
    bindings.delete("soak-pods", &DeleteParams::default()).await.unwrap();
    let run = namespace.ended("revoked").await;
    let record = &namespace.records(&run, "cycle").await[0];
    let step = &record["phases"][0]["steps"][1];
    assert_eq!(step["reason"], "PermissionDenied", "{:#}", record["phases"]);
    let message = step["message"].as_str().unwrap();
    assert!(message.contains("pods") && message.contains("soak"), "{message}");
    namespace.delete().await;
}

#[tokio::test]
async fn pods_are_created_by_the_account_and_not_by_the_operator() {
    let namespace = Namespace::create("rights").await;
    let _operator = Operator::start(&namespace);
    namespace.run("mine", one(json!({"pod": script("sleep 1")}))).await;
    let pod = pod_of(&namespace, "mine").await;
    // The operator of this test is the administrator, who could use any account; the pod must have the run's.
    assert_eq!(pod.spec.as_ref().unwrap().service_account_name.as_deref(), Some("soak"), "{}", pod.name_any());
    let managers = pod.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect::<Vec<_>>();
    assert!(managers.contains(&"soak-run"), "{managers:?}");
    namespace.ended("mine").await;
    namespace.delete().await;
}
