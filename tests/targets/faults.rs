//! Faults on a target: undone though the target, its credentials or the operator go away in between.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use soak_operator::api::{FailureInjection, failureinjection::InjectionPhase, status::RunPhase};

use crate::{
    support::{Namespace, Operator, phase, wait_for},
    world::{Other, Way, message, put_secret, secrets, targets},
};

/// A ConfigMap on the other side that may be hit. The run's account has no right on ConfigMaps.
async fn victim(namespace: &Namespace) {
    namespace
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": {"soak.dev/injection": "allowed"}}}))
        .await;
    namespace
        .apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hit"}, "data": {"mode": "good"}}))
        .await;
}

/// The victim and an injection that changes it, once that is there.
async fn struck(namespace: &Namespace) {
    victim(namespace).await;
    namespace
        .apply(json!({"apiVersion": "soak.dev/v1alpha1", "kind": "FailureInjection", "metadata": {"name": "there"}, "spec": {
            "serviceAccountName": "soak", "kubeconfigSecretRef": {"name": "hub-b"}, "duration": "1h",
            "target": {"apiVersion": "v1", "kind": "ConfigMap", "name": "hit"}, "patch": {"patch": {"data": {"mode": "bad"}}}}}))
        .await;
    let injections = injections(namespace);
    wait_for("the fault", || async {
        let phase = injections.get("there").await.ok()?.status?.phase;
        (phase == InjectionPhase::Injected).then_some(())
    })
    .await;
    assert_eq!(mode(namespace).await, "bad");
}

/// An operator whose own namespace is another one: that would be protected.
fn beside(namespace: &Namespace) -> Operator {
    Operator::start_beside(namespace, &format!("{}-own", namespace.name), &[])
}

fn injections(namespace: &Namespace) -> Api<FailureInjection> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

async fn mode(namespace: &Namespace) -> String {
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    maps.get("hit").await.unwrap().data.unwrap()["mode"].clone()
}

#[tokio::test]
async fn a_fault_on_a_cluster_that_goes_away_is_undone_when_it_is_back() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    let mut way = Way::open(other.address()).await;
    put_secret(&namespace, &other.by(&way)).await;
    let operator = beside(&namespace);
    struck(&namespace).await;
    way.close().await;
    let abort = Patch::Merge(json!({"spec": {"abort": true}}));
    injections(&namespace).patch("there", &PatchParams::default(), &abort).await.unwrap();
    wait_for("a condition that tells why it is not undone", || async {
        let status = injections(&namespace).get("there").await.ok()?.status?;
        let told = status.conditions.iter().any(|it| it.type_ == "Recovered" && it.message.contains("hub-b"));
        (status.phase == InjectionPhase::Reverting && told).then_some(())
    })
    .await;
    assert_eq!(mode(&namespace).await, "bad");
    // What is left to be undone outlives the process.
    operator.kill();
    let _operator = beside(&namespace);
    way.reopen().await;
    wait_for("the end of the fault", || async {
        let phase = injections(&namespace).get("there").await.ok()?.status?.phase;
        (phase == InjectionPhase::Recovered).then_some(())
    })
    .await;
    assert_eq!(mode(&namespace).await, "good");
    namespace.delete().await;
}

#[tokio::test]
async fn a_fault_is_undone_though_the_secret_goes_first() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let _operator = beside(&namespace);
    struck(&namespace).await;
    secrets(&namespace).delete("hub-b", &DeleteParams::default()).await.unwrap();
    injections(&namespace).delete("there", &DeleteParams::default()).await.unwrap();
    wait_for("the end of the injection", || async {
        injections(&namespace).get_opt("there").await.ok()?.is_none().then_some(())
    })
    .await;
    assert_eq!(mode(&namespace).await, "good");
    namespace.delete().await;
}

#[tokio::test]
async fn a_runs_injection_is_made_on_its_target_and_undone_though_the_operator_is_killed_in_between() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let verbs = ["get", "list", "watch", "create", "delete", "patch"];
    let rules = json!([{"apiGroups": ["soak.dev"], "resources": ["failureinjections"], "verbs": verbs}]);
    namespace.allow("soak-injects", rules).await;
    victim(&namespace).await;
    let operator = beside(&namespace);
    let fault = json!({"target": {"apiVersion": "v1", "kind": "ConfigMap", "name": "hit"}, "patch": {"patch": {"data": {"mode": "bad"}}}, "duration": "15s"});
    let spec = json!({
        "targets": targets(), "roles": {"primary": "hub-a", "secondary": "hub-b"},
        "phases": [{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": "30s"}}]}],
        "injections": [{"name": "fault", "atPhase": "work", "target": "secondary", "template": fault}],
    });
    namespace.run("struck", spec).await;
    wait_for("the fault", || async { (mode(&namespace).await == "bad").then_some(()) }).await;
    operator.kill();
    let made = injections(&namespace).list(&ListParams::default()).await.unwrap().items;
    assert_eq!(made.len(), 1, "it is journaled beside the run");
    assert_eq!(made[0].spec.kubeconfig_secret_ref.as_ref().map(|it| it.name.as_str()), Some("hub-b"));
    assert_eq!(mode(&namespace).await, "bad", "nobody is there to undo it");
    let _operator = beside(&namespace);
    let run = namespace.ended("struck").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    assert_eq!(mode(&namespace).await, "good");
    let records = namespace.records(&run, "cycle").await;
    let steps = records[0]["phases"][0]["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["name"] == "fault").unwrap();
    assert_eq!((&step["target"], &step["outcome"]), (&json!("hub-b"), &json!("Succeeded")), "{step:#}");
    assert!(step["outputs"]["injectedAt"].is_string(), "{step:#}");
    namespace.until("struck", "let go", |run| run.finalizers().is_empty()).await;
    assert!(injections(&namespace).list(&ListParams::default()).await.unwrap().items.is_empty());
    namespace.delete().await;
}
