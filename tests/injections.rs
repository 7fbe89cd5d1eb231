//! Failure injections: each has its effect, is undone and read back, whatever happens meanwhile.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use chrono::Utc;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use soak_operator::api::{
    FailureInjection,
    failureinjection::{EntryState, InjectionPhase, Undo},
};
use support::{Namespace, Operator, script, wait_for};
use tokio::task::JoinSet;

/// A namespace that has agreed to injections, with an account that may do what they need.
async fn place() -> Namespace {
    let namespace = Namespace::create("inject").await;
    namespace
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": {"soak.dev/injection": "allowed"}}}))
        .await;
    namespace
        .allow(
            "inject",
            json!([
                {"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["get", "list", "watch", "create", "delete", "patch"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch", "patch"]},
                {"apiGroups": ["soak.dev"], "resources": ["failureinjections"], "verbs": ["get", "list", "watch", "create", "delete", "patch"]},
            ]),
        )
        .await;
    namespace
}

fn operator(namespace: &Namespace) -> Operator {
    Operator::start_beside(namespace, &own(namespace), &[])
}

/// The operator's own namespace need not exist until the kill switch is put there.
fn own(namespace: &Namespace) -> String {
    format!("{}-own", namespace.name)
}

fn injections(namespace: &Namespace) -> Api<FailureInjection> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

async fn inject(namespace: &Namespace, name: &str, mut spec: Value) -> FailureInjection {
    spec["serviceAccountName"] = json!("soak");
    let injection = json!({"apiVersion": "soak.dev/v1alpha1", "kind": "FailureInjection", "metadata": {"name": name}, "spec": spec});
    injections(namespace).create(&PostParams::default(), &serde_json::from_value(injection).unwrap()).await.unwrap()
}

async fn until(namespace: &Namespace, name: &str, phase: InjectionPhase) -> FailureInjection {
    let api = injections(namespace);
    wait_for(&format!("phase {} of injection {name}", phase.as_str()), || async {
        let injection = api.get(name).await.ok()?;
        let now = injection.status.as_ref().map(|it| it.phase).unwrap_or_default();
        assert!(now == phase || !now.is_final(), "{name} ended otherwise: {:#}", json!(injection.status));
        (now == phase).then_some(injection)
    })
    .await
}

async fn gone(namespace: &Namespace, name: &str) {
    let api = injections(namespace);
    wait_for(&format!("the end of injection {name}"), || async {
        api.get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await;
}

fn maps(namespace: &Namespace) -> Api<ConfigMap> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

async fn map(namespace: &Namespace, name: &str) -> ConfigMap {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}, "data": {"mode": "good", "other": "1"}});
    serde_json::from_value(namespace.apply(map).await).unwrap()
}

async fn mode(namespace: &Namespace, name: &str) -> Option<String> {
    maps(namespace).get(name).await.unwrap().data.unwrap().get("mode").cloned()
}

fn break_map(name: &str, duration: &str) -> Value {
    json!({
        "target": {"apiVersion": "v1", "kind": "ConfigMap", "name": name},
        "patch": {"patch": {"data": {"mode": "bad", "extra": "x"}}}, "duration": duration,
    })
}

fn states(injection: &FailureInjection) -> Vec<EntryState> {
    injection.status.iter().flat_map(|status| &status.journal).map(|entry| entry.state).collect()
}

#[tokio::test]
async fn a_patch_is_made_journaled_and_undone() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    let before = map(&namespace, "settings").await;
    inject(&namespace, "patch", break_map("settings", "6s")).await;
    let injected = until(&namespace, "patch", InjectionPhase::Injected).await;
    assert_eq!(mode(&namespace, "settings").await.as_deref(), Some("bad"));
    let status = injected.status.unwrap();
    assert_eq!(status.journal[0].target.uid, before.uid().unwrap());
    assert!(injected.metadata.finalizers.unwrap_or_default().contains(&"soak.dev/cleanup".to_owned()));
    let recovered = until(&namespace, "patch", InjectionPhase::Recovered).await;
    assert_eq!(states(&recovered), [EntryState::Reverted]);
    let after = maps(&namespace).get("settings").await.unwrap();
    assert_eq!(after.data, before.data);
    let status = recovered.status.unwrap();
    let active = (status.reverted_at.unwrap() - status.injected_at.unwrap()).as_seconds_f64();
    assert!(active >= 6.0, "it lasted {active} s only");
    wait_for("the finalizer to go", || async {
        injections(&namespace).get("patch").await.ok()?.finalizers().is_empty().then_some(())
    })
    .await;
    namespace.delete().await;
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_stays() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    map(&namespace, "settings").await;
    inject(&namespace, "patch", break_map("settings", "8s")).await;
    until(&namespace, "patch", InjectionPhase::Injected).await;
    let theirs = Patch::Merge(json!({"data": {"mode": "theirs", "new": "2"}}));
    maps(&namespace).patch("settings", &PatchParams::default(), &theirs).await.unwrap();
    until(&namespace, "patch", InjectionPhase::Recovered).await;
    let data = maps(&namespace).get("settings").await.unwrap().data.unwrap();
    assert_eq!(
        json!(data),
        json!({"mode": "theirs", "other": "1", "new": "2"}),
        "only the field that nobody touched went back"
    );
    namespace.delete().await;
}

#[tokio::test]
async fn who_writes_beside_a_fault_all_the_time_does_not_put_its_undoing_off() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    map(&namespace, "settings").await;
    inject(&namespace, "patch", break_map("settings", "6s")).await;
    until(&namespace, "patch", InjectionPhase::Injected).await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let maps = maps(&namespace);
        writers.spawn(async move {
            for beat in 0_u64.. {
                let theirs = Patch::Merge(json!({"data": {"other": format!("{writer} {beat}")}}));
                maps.patch("settings", &PatchParams::default(), &theirs).await.unwrap();
            }
        });
    }
    let recovered = until(&namespace, "patch", InjectionPhase::Recovered).await;
    writers.shutdown().await;
    let status = recovered.status.unwrap();
    let late = (status.reverted_at.unwrap() - status.deadline.unwrap()).as_seconds_f64();
    assert!(late < 10.0, "undone {late} s after its deadline");
    assert_eq!(mode(&namespace, "settings").await.as_deref(), Some("good"));
    namespace.delete().await;
}

#[tokio::test]
async fn an_operator_that_was_down_past_the_deadline_undoes_it_when_it_is_back() {
    let namespace = place().await;
    let first = operator(&namespace);
    map(&namespace, "settings").await;
    inject(&namespace, "patch", break_map("settings", "6s")).await;
    until(&namespace, "patch", InjectionPhase::Injected).await;
    first.kill();
    let deadline = injections(&namespace).get("patch").await.unwrap().status.unwrap().deadline.unwrap();
    wait_for("the deadline", || async { (Utc::now() > deadline + Duration::from_secs(1)).then_some(()) }).await;
    assert_eq!(mode(&namespace, "settings").await.as_deref(), Some("bad"), "nobody was there to undo it");
    let _second = operator(&namespace);
    until(&namespace, "patch", InjectionPhase::Recovered).await;
    assert_eq!(mode(&namespace, "settings").await.as_deref(), Some("good"));
    namespace.delete().await;
}

#[tokio::test]
async fn a_deleted_injection_is_undone_before_it_goes() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    map(&namespace, "settings").await;
    inject(&namespace, "patch", break_map("settings", "1h")).await;
    until(&namespace, "patch", InjectionPhase::Injected).await;
    injections(&namespace).delete("patch", &DeleteParams::default()).await.unwrap();
    gone(&namespace, "patch").await;
    assert_eq!(mode(&namespace, "settings").await.as_deref(), Some("good"));
    namespace.delete().await;
}

#[tokio::test]
async fn a_target_that_is_gone_or_made_anew_is_left_alone() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    for name in ["gone", "again"] {
        map(&namespace, name).await;
        inject(&namespace, name, break_map(name, "8s")).await;
        until(&namespace, name, InjectionPhase::Injected).await;
        maps(&namespace).delete(name, &DeleteParams::default()).await.unwrap();
    }
    let anew = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "again"}, "data": {"mode": "bad"}});
    namespace.apply(anew).await;
    for name in ["gone", "again"] {
        assert_eq!(states(&until(&namespace, name, InjectionPhase::Recovered).await), [EntryState::Gone], "{name}");
    }
    assert_eq!(mode(&namespace, "again").await.as_deref(), Some("bad"), "the new object is somebody else's");
    namespace.delete().await;
}

#[tokio::test]
async fn a_namespace_with_an_active_injection_can_be_deleted() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    map(&namespace, "settings").await;
    inject(&namespace, "patch", break_map("settings", "1h")).await;
    until(&namespace, "patch", InjectionPhase::Injected).await;
    let (client, name) = (namespace.client.clone(), namespace.name.clone());
    namespace.delete().await;
    let all: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
    wait_for("the end of the namespace", || async { all.get_opt(&name).await.ok()?.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn of_two_injections_on_one_field_one_waits() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    map(&namespace, "settings").await;
    inject(&namespace, "first", break_map("settings", "10s")).await;
    until(&namespace, "first", InjectionPhase::Injected).await;
    let mut other = break_map("settings", "1s");
    other["patch"]["patch"]["data"]["mode"] = json!("worse");
    inject(&namespace, "second", other).await;
    inject(&namespace, "same", break_map("settings", "1s")).await;
    let mut partly = break_map("settings", "1s");
    partly["patch"]["patch"] = json!({"data": {"mode": "bad", "other": "2"}});
    inject(&namespace, "partly", partly).await;
    let waits = wait_for("the second injection to say why it waits", || async {
        let status = injections(&namespace).get("second").await.ok()?.status?;
        (status.reason == "Conflict").then_some(status)
    })
    .await;
    assert!(waits.message.contains("first"), "{}", waits.message);
    assert!(waits.journal.is_empty(), "nothing is touched while it waits");
    let first = until(&namespace, "first", InjectionPhase::Recovered).await.status.unwrap();
    let second = until(&namespace, "second", InjectionPhase::Recovered).await.status.unwrap();
    assert!(second.journaled_at.unwrap() >= first.reverted_at.unwrap());
    // One wants what the first had made already, the other that and something else.
    for name in ["same", "partly"] {
        let status = until(&namespace, name, InjectionPhase::Recovered).await.status.unwrap();
        assert!(status.journaled_at.unwrap() >= first.reverted_at.unwrap(), "{name}");
        let Undo::Fields { fields, .. } = &status.journal[0].undo else { panic!("{status:#?}") };
        assert!(fields.iter().any(|it| it.path == "/data/mode" && it.before != it.after), "{name}: {fields:?}");
    }
    assert_eq!(mode(&namespace, "settings").await.as_deref(), Some("good"));
    namespace.delete().await;
}

#[tokio::test]
async fn the_kill_switch_undoes_what_is_active_and_lets_nothing_begin() {
    let namespace = place().await;
    let own = own(&namespace);
    namespace.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": own}})).await;
    let _operator = operator(&namespace);
    map(&namespace, "settings").await;
    inject(&namespace, "active", break_map("settings", "1h")).await;
    until(&namespace, "active", InjectionPhase::Injected).await;
    let switches: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &own);
    let switch = json!({"metadata": {"name": "soak-kill-switch"}, "data": {"halt": "true", "reason": "release day"}});
    switches.create(&PostParams::default(), &serde_json::from_value(switch).unwrap()).await.unwrap();
    let halted = until(&namespace, "active", InjectionPhase::Recovered).await;
    assert_eq!(halted.status.unwrap().reason, "Halted");
    assert_eq!(mode(&namespace, "settings").await.as_deref(), Some("good"));
    inject(&namespace, "later", break_map("settings", "500ms")).await;
    wait_for("the later injection to say why it waits", || async {
        let status = injections(&namespace).get("later").await.ok()?.status?;
        (status.reason == "Halted" && status.message.contains("release day")).then_some(())
    })
    .await;
    switches.delete("soak-kill-switch", &DeleteParams::default()).await.unwrap();
    until(&namespace, "later", InjectionPhase::Recovered).await;
    let all: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(namespace.client.clone());
    all.delete(&own, &DeleteParams::background()).await.unwrap();
    namespace.delete().await;
}

#[tokio::test]
async fn pods_are_killed_by_chance_that_a_seed_repeats_and_recovery_is_timed() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    let mut template = script("trap 'exit 0' TERM; while true; do sleep 0.1; done")["template"].clone();
    template["metadata"] = json!({"labels": {"app": "web"}});
    let container = json!({"name": "web", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"]});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 2, "containers": [container]}}},
    });
    namespace.apply(deployment).await;
    let ready = || async {
        let pods = namespace.pods().list(&ListParams::default().labels("app=web")).await.ok()?.items;
        let ready = |pod: &&Pod| {
            pod.status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|it| it.type_ == "Ready" && it.status == "True")
        };
        let names: Vec<String> = pods.iter().filter(ready).map(ResourceExt::name_any).collect();
        (names.len() == 3).then_some(names)
    };
    let before = wait_for("three pods", ready).await;
    let kill = json!({
        "target": {"labelSelector": "app=web", "count": 2}, "podKill": {"force": true}, "seed": "7",
        "recovery": {"resource": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "until": "object.?status.?readyReplicas.orValue(0) == 3"},
    });
    let mut preview = kill.clone();
    preview["dryRun"] = json!(true);
    inject(&namespace, "preview", preview).await;
    let preview = until(&namespace, "preview", InjectionPhase::Skipped).await.status.unwrap();
    assert_eq!((preview.preview.len(), preview.candidates), (2, Some(3)));
    assert_eq!(wait_for("three pods", ready).await, before, "a dry run touches nothing");
    inject(&namespace, "kill", kill).await;
    let killed = until(&namespace, "kill", InjectionPhase::Recovered).await.status.unwrap();
    assert_eq!(killed.preview, preview.preview, "the same seed chooses the same pods");
    assert!(killed.time_to_recover_seconds.is_some_and(|seconds| seconds > 0.0), "{killed:?}");
    let after = wait_for("three pods", ready).await;
    assert_eq!(after.iter().filter(|name| before.contains(name)).count(), 1, "{before:?} became {after:?}");
    namespace.delete().await;
}

#[tokio::test]
async fn bad_input_is_told_by_field_and_touches_nothing() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    map(&namespace, "settings").await;
    let target = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "settings"});
    for (name, spec, reason, message) in [
        (
            "no-duration",
            json!({"target": target, "patch": {"patch": {"data": {"mode": "x"}}}}),
            "InvalidSpec",
            "spec.duration",
        ),
        ("no-target", json!({"patch": {"patch": {}}, "duration": "1s"}), "InvalidSpec", "spec.target"),
        (
            "no-change",
            json!({"target": target, "patch": {"patch": {"data": {"mode": "good"}}}, "duration": "1s"}),
            "NoChange",
            "nothing to inject",
        ),
        (
            "none-there",
            json!({"target": {"apiVersion": "v1", "kind": "ConfigMap", "name": "none"}, "patch": {"patch": {"data": {"a": "b"}}}, "duration": "1s"}),
            "NoTarget",
            "ConfigMap",
        ),
        (
            "no-kind",
            json!({"target": {"apiVersion": "x.example/v1", "kind": "Nothing", "name": "none"}, "patch": {"patch": {"data": {"a": "b"}}}, "duration": "1s"}),
            "NotFound",
            "Nothing",
        ),
        (
            "refused",
            json!({"target": target, "patch": {"patch": {"data": {"mode": 7}}}, "duration": "1s"}),
            "Invalid",
            "ConfigMap.data",
        ),
        (
            "protected",
            json!({"target": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "kube-system", "labelSelector": "a=b"}, "patch": {"patch": {"data": {"a": "b"}}}, "duration": "1s"}),
            "NotAllowed",
            "protected",
        ),
        (
            "not-agreed",
            json!({"target": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "default", "labelSelector": "a=b"}, "patch": {"patch": {"data": {"a": "b"}}}, "duration": "1s"}),
            "NotAllowed",
            "soak.dev/injection=allowed",
        ),
        (
            "expression",
            json!({"target": {"apiVersion": "v1", "kind": "ConfigMap", "filter": "object.metadata.nme ="}, "patch": {"patch": {"data": {"a": "b"}}}, "duration": "1s"}),
            "InvalidSpec",
            "spec.target.filter",
        ),
    ] {
        inject(&namespace, name, spec).await;
        let status = until(&namespace, name, InjectionPhase::Failed).await.status.unwrap();
        assert_eq!(status.reason, reason, "{name}: {}", status.message);
        assert!(status.message.contains(message), "{name}: {}", status.message);
        assert!(status.journal.is_empty(), "{name}");
    }
    inject(&namespace, "skipped", json!({"target": {"apiVersion": "v1", "kind": "ConfigMap", "labelSelector": "no=such"}, "patch": {"patch": {"data": {"a": "b"}}}, "duration": "1s", "onNoTarget": "Skip"})).await;
    until(&namespace, "skipped", InjectionPhase::Skipped).await;
    assert_eq!(mode(&namespace, "settings").await.as_deref(), Some("good"));
    namespace.delete().await;
}

#[tokio::test]
async fn an_object_is_deleted_and_restored_and_one_is_made_and_deleted() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    let before = map(&namespace, "settings").await;
    let target = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "settings"});
    inject(&namespace, "delete", json!({"target": target, "delete": {"restore": true}, "duration": "6s"})).await;
    until(&namespace, "delete", InjectionPhase::Injected).await;
    assert!(maps(&namespace).get_opt("settings").await.unwrap().is_none());
    until(&namespace, "delete", InjectionPhase::Recovered).await;
    let after = maps(&namespace).get("settings").await.unwrap();
    assert_eq!((after.data, after.metadata.labels), (before.data, before.metadata.labels));

    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "experiment"}, "data": {"phase": "Waiting"}});
    let spec =
        json!({"resource": {"manifest": manifest, "injectedWhen": "object.data.phase == 'Running'"}, "duration": "1s"});
    inject(&namespace, "external", spec).await;
    let made = wait_for("the experiment", || async { maps(&namespace).get_opt("experiment").await.ok()? }).await;
    assert_eq!(
        made.labels()["soak.dev/injection-uid"],
        injections(&namespace).get("external").await.unwrap().uid().unwrap()
    );
    let running = Patch::Merge(json!({"data": {"phase": "Running"}}));
    maps(&namespace).patch("experiment", &PatchParams::default(), &running).await.unwrap();
    until(&namespace, "external", InjectionPhase::Recovered).await;
    assert!(maps(&namespace).get_opt("experiment").await.unwrap().is_none());
    namespace.delete().await;
}

#[tokio::test]
async fn a_run_injects_beside_its_steps_and_records_it() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    map(&namespace, "settings").await;
    let spec = json!({
        "cycles": 2,
        "phases": [{"name": "work", "steps": [
            {"name": "wait-for-it", "wait": {"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "settings"}, "until": "cycle.number == 1 || object.data.mode == 'bad'"}},
            {"name": "step", "inject": {"template": {"target": {"apiVersion": "v1", "kind": "ConfigMap", "name": "settings"}, "patch": {"patch": {"data": {"other": "${string(cycle.number)}0"}}}, "duration": "300ms"}}},
        ]}],
        "injections": [{"name": "beside", "atPhase": "work", "every": 2, "template": break_map("settings", "1h")}],
    });
    namespace.run("injecting", spec).await;
    let run = namespace.ended("injecting").await;
    let records = namespace.records(&run, "cycle").await;
    assert_eq!(run.status.unwrap().cycles.passed, 2, "{records:#?}");
    let step = |record: &Value, name: &str| {
        record["phases"][0]["steps"].as_array().unwrap().iter().find(|step| step["name"] == name).unwrap().clone()
    };
    assert_eq!(step(&records[0], "beside")["state"], "Skipped", "only every second cycle");
    let beside = step(&records[1], "beside");
    assert_eq!((&beside["state"], &beside["outputs"]["fault"]), (&json!("Succeeded"), &json!("patch")), "{beside:#}");
    for record in &records {
        let outputs = &step(record, "step")["outputs"];
        assert_eq!(outputs["targets"], format!("ConfigMap {}/settings", namespace.name), "{outputs:#}");
        assert!(outputs["timeToRecoverSeconds"].as_f64().unwrap() >= 0.3, "{outputs:#}");
        assert!(record["environment"]["seed"].is_u64());
    }
    let data = maps(&namespace).get("settings").await.unwrap().data.unwrap();
    assert_eq!(json!(data), json!({"mode": "good", "other": "1"}));
    namespace.delete().await;
}

#[tokio::test]
async fn an_aborted_and_a_deleted_run_leave_no_fault_behind() {
    let namespace = place().await;
    let _operator = operator(&namespace);
    for (name, delete) in [("aborted", false), ("deleted", true)] {
        map(&namespace, name).await;
        let spec = json!({"phases": [{"name": "work", "steps": [{"name": "break", "inject": {"template": break_map(name, "1h")}}]}]});
        namespace.run(name, spec).await;
        wait_for("the fault", || async { (mode(&namespace, name).await.as_deref() == Some("bad")).then_some(()) })
            .await;
        if delete {
            namespace.runs().delete(name, &DeleteParams::background()).await.unwrap();
        } else {
            namespace.patch_run(name, json!({"abort": true})).await;
            namespace.ended(name).await;
        }
        wait_for("the fault to be undone", || async {
            (mode(&namespace, name).await.as_deref() == Some("good")).then_some(())
        })
        .await;
    }
    wait_for("the end of all injections", || async {
        let left = injections(&namespace).list(&ListParams::default()).await.ok()?.items;
        left.iter().all(|it| it.status.as_ref().is_some_and(|status| status.phase.is_final())).then_some(())
    })
    .await;
    namespace.delete().await;
}
