//! Records in a real cluster: stored once, immutable, adopted after a crash, pruned, gone with their run (S4, S11).
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use chrono::Utc;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use soak_operator::{
    api::status::{Outcome, Pass, PhaseStatus, Section, StepState, StepStatus},
    results::{
        self, ConfigMapRecord, CycleRecord, Environment, LogTail, MAX_RECORD_BYTES, RecordPart, RunRef, SummaryRecord,
        record_name,
    },
};
use support::{Namespace, wait_for};

/// A run that no operator drives, for records to belong to.
async fn run(namespace: &Namespace) -> RunRef {
    let run = namespace
        .run("recorded", json!({"phases": [{"name": "p", "steps": [{"name": "s", "sleep": {"duration": "1s"}}]}]}))
        .await;
    RunRef { name: run.name_any(), namespace: namespace.name.clone(), uid: run.uid().unwrap(), attempt: 1 }
}

fn record(run: &RunRef, cycle: u32, log: &str) -> CycleRecord {
    let now = Utc::now();
    let step =
        StepStatus { name: "s".into(), state: StepState::Succeeded, pod: Some("pod".into()), ..StepStatus::default() };
    let phase = PhaseStatus {
        name: "p".into(),
        attempt: 1,
        first_started_at: now,
        started_at: now,
        deadline: None,
        finished_at: Some(now),
        outcome: Some(Outcome::Succeeded),
        failure: None,
        steps: vec![step; 64],
    };
    let pass = Pass {
        section: Section::Cycle,
        cycle,
        started_at: now,
        deadline: now,
        phases: vec![phase],
        outcome: Some(Outcome::Succeeded),
        failure: None,
        finished_at: Some(now),
    };
    let logs = BTreeMap::from([(
        "pod".to_owned(),
        LogTail { text: log.into(), truncated: false, bytes: log.len() as u64, file: None },
    )]);
    CycleRecord::from_pass(run, &pass, &logs, &Environment::default())
}

fn maps(namespace: &Namespace) -> Api<ConfigMap> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

#[tokio::test]
async fn a_record_is_stored_once_and_can_not_be_changed() {
    let namespace = Namespace::create("records").await;
    let run = run(&namespace).await;
    let first = ConfigMapRecord::from(&record(&run, 1, "first\n"));
    let stored = results::store(namespace.client.clone(), &first).await.unwrap();
    assert_eq!((stored.digest.as_str(), stored.adopted), (first.text().digest(), false));

    let later = ConfigMapRecord::from(&record(&run, 1, "later\n"));
    let adopted = results::store(namespace.client.clone(), &later).await.unwrap();
    assert_eq!((adopted.digest, adopted.adopted), (stored.digest, true), "what is stored counts, not what is at hand");

    let change = Patch::Merge(json!({"data": {"record.json": "{}"}}));
    let error = maps(&namespace).patch(&first.name(), &PatchParams::default(), &change).await.unwrap_err();
    assert!(error.to_string().contains("immutable"), "{error}");
    let managers = maps(&namespace).get(&first.name()).await.unwrap().metadata.managed_fields.unwrap();
    assert_eq!(managers[0].manager.as_deref(), Some("soak-operator"));
    namespace.delete().await;
}

#[tokio::test]
async fn the_largest_record_is_accepted() {
    let namespace = Namespace::create("records").await;
    let run = run(&namespace).await;
    let large = ConfigMapRecord::from(&record(&run, 1, &"\"\\ a line that JSON escapes\n".repeat(1_200)));
    assert!(large.text().is_truncated() && large.text().text().len() > MAX_RECORD_BYTES / 4);
    results::store(namespace.client.clone(), &large).await.unwrap();
    let read = results::read(namespace.client.clone(), &namespace.name, &run.uid).await.unwrap();
    assert!(read[0].intact && read[0].cycle().unwrap().truncated);
    namespace.delete().await;
}

#[tokio::test]
async fn a_stranger_of_the_same_name_is_neither_adopted_nor_pruned() {
    let namespace = Namespace::create("records").await;
    let run = run(&namespace).await;
    let record = ConfigMapRecord::from(&record(&run, 1, ""));
    let stranger = json!({"metadata": {"name": record.name()}, "data": {"a": "b"}});
    maps(&namespace).create(&PostParams::default(), &serde_json::from_value(stranger).unwrap()).await.unwrap();
    let error = results::store(namespace.client.clone(), &record).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("belongs to somebody else"), "{error}");
    let pruned = results::prune(namespace.client.clone(), &namespace.name, &run.uid, &[record.name()]).await.unwrap();
    assert_eq!((pruned.deleted, pruned.foreign), (0, vec![record.name()]));
    namespace.delete().await;
}

#[tokio::test]
async fn many_records_are_read_in_order_and_pruned_by_name() {
    let namespace = Namespace::create("records").await;
    let run = run(&namespace).await;
    let client = || namespace.client.clone();
    results::store(client(), &(&SummaryRecord { run: run.clone(), ..SummaryRecord::default() }).into()).await.unwrap();
    // More than a page.
    for cycle in (1..=40).rev() {
        results::store(client(), &(&record(&run, cycle, "")).into()).await.unwrap();
    }
    let parts = |records: Vec<results::StoredRecord>| records.into_iter().map(|record| record.part).collect::<Vec<_>>();
    let expected: Vec<RecordPart> = (1..=40).map(RecordPart::Cycle).chain([RecordPart::Summary]).collect();
    assert_eq!(parts(results::read(client(), &namespace.name, &run.uid).await.unwrap()), expected);

    let names: Vec<String> = (0..=39).map(|cycle| record_name(&run, RecordPart::Cycle(cycle))).collect();
    assert_eq!(
        results::prune(client(), &namespace.name, &run.uid, &names).await.unwrap().deleted,
        39,
        "there is no cycle 0"
    );
    let left = parts(results::read(client(), &namespace.name, &run.uid).await.unwrap());
    assert_eq!(left, [RecordPart::Cycle(40), RecordPart::Summary]);
    namespace.delete().await;
}

#[tokio::test]
async fn records_go_with_their_run() {
    let namespace = Namespace::create("records").await;
    let run = run(&namespace).await;
    results::store(namespace.client.clone(), &(&record(&run, 1, "")).into()).await.unwrap();
    namespace.runs().delete(&run.name, &DeleteParams::default()).await.unwrap();
    wait_for("the end of the record", || async {
        let left = results::read(namespace.client.clone(), &namespace.name, &run.uid).await.ok()?;
        left.is_empty().then_some(())
    })
    .await;
    namespace.delete().await;
}

#[tokio::test]
async fn errors_of_the_namespace_say_what_to_do() {
    let namespace = Namespace::create("records").await;
    let run = run(&namespace).await;
    let error = results::store(
        namespace.client.clone(),
        &(&record(&RunRef { namespace: "no-such-namespace".into(), ..run.clone() }, 1, "")).into(),
    )
    .await
    .unwrap_err();
    assert!(
        !error.is_transient() && error.to_string().contains("create the namespace no-such-namespace again"),
        "{error}"
    );

    let maps = maps(&namespace);
    let held = json!({"metadata": {"name": "held", "finalizers": ["test.soak.dev/hold"]}});
    maps.create(&PostParams::default(), &serde_json::from_value(held).unwrap()).await.unwrap();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(namespace.client.clone());
    namespaces.delete(&namespace.name, &DeleteParams::default()).await.unwrap();
    let error = results::store(namespace.client.clone(), &(&record(&run, 2, "")).into()).await.unwrap_err();
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &release).await.unwrap();
    assert!(!error.is_transient() && error.to_string().contains("is being deleted"), "{error}");
}
