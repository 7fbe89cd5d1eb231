//! `spec.exclusive`: of the runs with one key one works at a time, whatever happens to the operator.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use soak_operator::api::{SoakRun, names::reason, status::RunPhase};
use support::{Namespace, Operator, phase, wait_for};

fn spec(seconds: u32) -> Value {
    json!({"exclusive": {"key": "hubs"}, "phases": [{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": format!("{seconds}s")}}]}]})
}

fn waits_for(run: &SoakRun, holder: &str) -> bool {
    let status = run.status.clone().unwrap_or_default();
    status.reason == reason::WAITING_FOR_KEY && status.message.contains(&format!("run {holder},"))
}

#[tokio::test]
async fn two_runs_take_turns_though_the_operator_is_killed_while_one_waits() {
    let namespace = Namespace::create("exclusive").await;
    let operator = Operator::start(&namespace);
    namespace.run("first", spec(600)).await;
    namespace.until("first", "began", |run| phase(run) == RunPhase::Running).await;
    namespace.run("second", spec(1)).await;
    namespace.until("second", "waits", |run| waits_for(run, "first")).await;
    operator.kill();
    let _operator = Operator::start(&namespace);
    // A third one shows that the restarted operator still knows the holder.
    namespace.run("third", spec(1)).await;
    namespace.until("third", "waits", |run| waits_for(run, "first")).await;
    assert_eq!(phase(&namespace.runs().get("second").await.unwrap()), RunPhase::Validating);
    namespace.patch_run("first", json!({"abort": true})).await;
    let (one, other) = (namespace.ended("second").await, namespace.ended("third").await);
    let times = |run: &SoakRun| {
        let status = run.status.clone().unwrap();
        assert_eq!(status.phase, RunPhase::Succeeded);
        (status.started_at.unwrap(), status.finished_at.unwrap())
    };
    let (one, other) = (times(&one), times(&other));
    assert!(one.1 <= other.0 || other.1 <= one.0, "they worked at the same time: {one:?} {other:?}");
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
    wait_for("the key's return", || async { leases.get_opt("soak-key-hubs").await.unwrap().is_none().then_some(()) })
        .await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_key_does_not_stay_with_a_run_that_is_gone() {
    let namespace = Namespace::create("exclusive").await;
    let operator = Operator::start(&namespace);
    namespace.run("first", spec(600)).await;
    let first = namespace.until("first", "began", |run| phase(run) == RunPhase::Running).await;
    operator.kill();
    // Somebody takes the run away by force.
    namespace
        .runs()
        .patch("first", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
        .await
        .unwrap();
    namespace.runs().delete("first", &DeleteParams::background()).await.unwrap();
    wait_for("the run's end", || async { namespace.runs().get_opt("first").await.unwrap().is_none().then_some(()) })
        .await;
    assert!(first.uid().is_some());
    let _operator = Operator::start(&namespace);
    namespace.run("second", spec(1)).await;
    assert_eq!(phase(&namespace.ended("second").await), RunPhase::Succeeded);
    namespace.delete().await;
}
