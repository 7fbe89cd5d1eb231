//! Records: complete in the store whatever happens to it meanwhile, and readable from there.

use kube::api::{Patch, PatchParams};
use serde_json::json;
use soak_operator::api::{ConditionStatus, names::condition_type::RECORDS_STORED, status::RunPhase};

use crate::{
    check, plugin, spec, status,
    support::{
        Namespace, Operator,
        bucket::{Bucket, Fault, SECRET},
        is_condition,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn records_are_in_the_store_and_the_plugin_reads_them() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("plain").await;
    bucket.secret(&namespace, SECRET).await;
    let operator = Operator::start(&namespace);
    namespace.run("plain", spec(&bucket, 4)).await;
    let run = namespace.ended("plain").await;
    check(&namespace, &bucket, &run, 4).await;

    let listed = plugin(&namespace, &["cycles", "plain"]);
    assert_eq!(listed.lines().filter(|line| line.contains("Succeeded")).count(), 4, "{listed}");
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&namespace.name);
    plugin(&namespace, &["report", "plain", "--exit-code", "--output", folder.to_str().unwrap()]);
    assert!(plugin(&namespace, &["compare", "plain", "plain"]).starts_with("METRIC "));

    let mut other = bucket.spec();
    other["url"] = json!("s3://soak/elsewhere");
    let change = Patch::Merge(json!({"spec": {"results": {"objectStore": other}}}));
    let refused = namespace.runs().patch("plain", &PatchParams::default(), &change).await.unwrap_err();
    assert!(refused.to_string().contains("a run's spec is fixed"), "{refused}");
    assert!(!operator.logged().contains(SECRET));
    namespace.delete().await;
}

/// The store is out in the middle of a run, the operator is killed while records wait, and then the store is back.
async fn survives(name: &str, breaks: impl AsyncFn(&Bucket), mends: impl AsyncFn(&Bucket)) {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start(name).await;
    bucket.secret(&namespace, SECRET).await;
    let operator = Operator::start(&namespace);
    namespace.run(name, spec(&bucket, 20)).await;
    namespace.until(name, "stored a record", |run| status(run).cycles.completed >= 1).await;
    breaks(&bucket).await;
    let run = namespace
        .until(name, "paused", |run| {
            let status = status(run);
            status.records.waiting.len() == 3 && status.message.starts_with("paused")
        })
        .await;
    assert!(is_condition(&run, RECORDS_STORED, ConditionStatus::False));
    let counted = status(&run).cycles.completed;
    operator.kill();
    let _operator = Operator::start(&namespace);
    mends(&bucket).await;
    let run = namespace.ended(name).await;
    assert!(counted < 20);
    check(&namespace, &bucket, &run, 20).await;
    namespace.delete().await;
}

async fn survives_fault(name: &str, fault: Fault) {
    survives(name, async |bucket| bucket.fault(fault), async |bucket| bucket.fault(Fault::None)).await;
}

#[tokio::test]
async fn a_store_that_closes_connections() {
    survives_fault("closed", Fault::Closed).await;
}

#[tokio::test]
async fn a_store_that_is_too_busy() {
    survives_fault("busy", Fault::Busy).await;
}

#[tokio::test]
async fn a_store_that_is_full() {
    survives_fault("full", Fault::Full).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_of_a_record() {
    survives_fault("cut", Fault::Cut).await;
}

#[tokio::test]
async fn a_store_that_never_answers() {
    survives_fault("silent", Fault::Silent).await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again() {
    survives("killed", async |bucket| bucket.kill(), async |bucket| bucket.serve().await).await;
}

#[tokio::test]
async fn a_slow_store_only_takes_longer() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("slow").await;
    bucket.secret(&namespace, SECRET).await;
    bucket.fault(Fault::Slow);
    let _operator = Operator::start(&namespace);
    namespace.run("slow", spec(&bucket, 2)).await;
    let run = namespace.ended("slow").await;
    check(&namespace, &bucket, &run, 2).await;
    namespace.delete().await;
}

#[tokio::test]
async fn wrong_credentials_hold_a_run_up_and_right_ones_let_it_go() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("wrong").await;
    bucket.secret(&namespace, "another-secret-key").await;
    let operator = Operator::start(&namespace);
    namespace.run("wrong", spec(&bucket, 1)).await;
    let run = namespace.until("wrong", "told what is wrong", |run| status(run).reason == "StoreUnavailable").await;
    assert!(status(&run).message.contains("check the credentials in the Secret"), "{}", status(&run).message);
    assert!(!json!(run).to_string().contains("another-secret-key"));
    assert!(!operator.logged().contains("another-secret-key"));
    bucket.secret(&namespace, SECRET).await;
    let run = namespace.ended("wrong").await;
    check(&namespace, &bucket, &run, 1).await;
    namespace.delete().await;
}

#[tokio::test]
async fn ended_runs_beyond_the_retention_go() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("retention").await;
    bucket.secret(&namespace, SECRET).await;
    let _operator = Operator::start(&namespace);
    let mut spec = spec(&bucket, 1);
    spec["results"]["objectStore"]["retention"] = json!({"maxRuns": 1});
    let mut runs = Vec::new();
    for name in ["first", "second"] {
        namespace.run(name, spec.clone()).await;
        runs.push(namespace.ended(name).await);
    }
    assert_eq!(bucket.json(&runs[0], "index.json"), None, "the older one is gone");
    assert!(bucket.cycles(&runs[0]).is_empty());
    check(&namespace, &bucket, &runs[1], 1).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_volume_is_a_store_as_well_where_there_is_one() {
    let namespace = Namespace::create("store").await;
    let volume = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-volume", namespace.name));
    let operator = Operator::start(&namespace);
    let spec = json!({
        "cycles": 2, "results": {"objectStore": {"url": "file:///nightly"}},
        "phases": [{"name": "rest", "steps": [{"name": "s", "sleep": {"duration": "0s"}}]}],
    });
    namespace.run("kept", spec).await;
    let run = namespace.until("kept", "told what is missing", |run| status(run).reason == "StoreUnavailable").await;
    assert!(status(&run).message.contains("--store-volume"), "{}", status(&run).message);
    operator.kill();
    let _operator = Operator::start_with(&namespace, &["--store-volume", volume.to_str().unwrap()]);
    let run = namespace.ended("kept").await;
    assert_eq!(status(&run).phase, RunPhase::Succeeded, "{:#?}", status(&run));
    let attempt = volume.join("nightly").join(&namespace.name).join("kept").join(run.metadata.uid.unwrap()).join("a1");
    for file in ["cycles/c000001.json", "cycles/c000002.json", "summary.json", "series.jsonl", "index.json"] {
        assert!(attempt.join(file).is_file(), "{file}");
    }
    std::fs::remove_dir_all(volume).unwrap();
    namespace.delete().await;
}
