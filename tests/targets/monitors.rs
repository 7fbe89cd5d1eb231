//! Monitors of a target.

use serde_json::{Value, json};
use soak_operator::api::{
    SoakRun,
    status::{Alert, AlertState, RunPhase},
};

use crate::{
    support::{Namespace, Operator, phase},
    world::{Other, Way, message, put_secret, targets},
};

/// A monitor of a ConfigMap's `depth`.
fn depth(target: &str) -> Value {
    json!({
        "name": "queue", "target": target, "interval": "1s", "value": "double(object.data.depth)",
        "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "queue"},
        "alerts": [{"name": "Deep", "when": "value > 10.0"}],
    })
}

async fn set_depth(namespace: &Namespace, depth: &str) {
    namespace
        .apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "queue"}, "data": {"depth": depth}}),
        )
        .await;
}

fn alert(run: &SoakRun, name: &str) -> Option<Alert> {
    let alerts = run.status.as_ref()?.alerts.as_ref()?;
    alerts.list.iter().find(|alert| alert.alert == name && alert.state != AlertState::Pending).cloned()
}

#[tokio::test]
async fn a_monitor_sees_a_target_as_its_kubeconfigs_user_and_keeps_its_alerts_while_that_is_away() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    let mut way = Way::open(other.address()).await;
    put_secret(&namespace, &other.by(&way)).await;
    set_depth(&namespace, "11").await;
    let _operator = Operator::start(&namespace);
    let nap = json!([{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": "1h"}}]}]);
    namespace.run("watches", json!({"targets": targets(), "phases": nap, "monitors": [depth("hub-b")]})).await;
    let run = namespace.until("watches", "saw it", |run| alert(run, "Deep").is_some()).await;
    let deep = alert(&run, "Deep").unwrap();
    assert_eq!((deep.state, deep.subject.as_str()), (AlertState::Firing, "hub-b/queue"));
    way.close().await;
    let blind = |run: &SoakRun| alert(run, "MonitorBroken").map(|it| it.state);
    let run = namespace.until("watches", "saw nothing", |run| blind(run) == Some(AlertState::Firing)).await;
    assert_eq!(alert(&run, "Deep").as_ref(), Some(&deep), "what can't be seen has not ended");
    way.reopen().await;
    let run = namespace.until("watches", "saw again", |run| blind(run) == Some(AlertState::Resolved)).await;
    assert_eq!(alert(&run, "Deep").as_ref(), Some(&deep));
    set_depth(&namespace, "1").await;
    let calm = |run: &SoakRun| alert(run, "Deep").is_some_and(|it| it.state == AlertState::Resolved);
    namespace.until("watches", "calmed", calm).await;
    namespace.patch_run("watches", json!({"abort": true})).await;
    namespace.ended("watches").await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_monitor_of_a_role_follows_it_and_an_alert_counts_for_no_cycle_after_the_swap() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    let maps = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    namespace.allow("soak-maps", maps).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    set_depth(&namespace, "11").await;
    let _operator = Operator::start(&namespace);
    let spec = json!({
        "cycles": 3, "targets": targets(), "monitors": [depth("primary")],
        "roles": {"primary": "hub-a", "secondary": "hub-b", "rotate": "AfterEveryCycle"},
        "phases": [{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": "10s"}}]}],
    });
    namespace.run("follows", spec).await;
    let run = namespace.ended("follows").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    let records = namespace.records(&run, "cycle").await;
    for (record, primary) in records.iter().zip(["hub-a", "hub-b", "hub-a"]) {
        let alerts = record["alerts"].as_array().unwrap();
        assert_eq!(alerts.len(), 1, "{alerts:#?}");
        assert_eq!(alerts[0]["subject"], format!("{primary}/queue"));
    }
    namespace.delete().await;
}
