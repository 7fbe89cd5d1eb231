//! Results in an object store: a real S3 server, the faults that one has, and an operator that is killed meanwhile.
#![allow(clippy::unwrap_used, clippy::panic)]

mod artifacts;
mod records;
#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use soak_operator::api::{
    ConditionStatus, SoakRun,
    names::condition_type::RECORDS_STORED,
    status::{RunPhase, SoakRunStatus},
};
use support::{
    Namespace,
    bucket::{Bucket, SECRET},
    is_condition,
};

fn spec(bucket: &Bucket, cycles: u32) -> Value {
    let mut store = bucket.spec();
    store["maxWaiting"] = json!(3);
    json!({
        "cycles": cycles, "cooldown": "300ms", "results": {"objectStore": store},
        "phases": [{"name": "rest", "steps": [{"name": "s", "sleep": {"duration": "0s"}}]}],
    })
}

fn status(run: &SoakRun) -> SoakRunStatus {
    run.status.clone().unwrap_or_default()
}

/// Checks that the store has exactly the records of these cycles, that nothing waits, and that the index came last.
async fn check(namespace: &Namespace, bucket: &Bucket, run: &SoakRun, cycles: u32) {
    let ended = status(run);
    assert_eq!((ended.phase, ended.cycles.passed), (RunPhase::Succeeded, cycles), "{ended:#?}");
    let numbers: Vec<u64> = bucket.cycles(run).iter().map(|record| record["cycle"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=u64::from(cycles)).collect::<Vec<_>>());
    for kind in ["setup", "cycle", "cleanup", "summary"] {
        assert!(namespace.records(run, kind).await.is_empty(), "a {kind} is left in a ConfigMap");
    }
    assert!(is_condition(run, RECORDS_STORED, ConditionStatus::True));
    let index = bucket.json(run, "index.json").expect("there is an index");
    let indexed = index["files"].as_array().unwrap();
    let digests: Vec<&Value> = indexed.iter().map(|file| &file["digest"]).filter(|digest| !digest.is_null()).collect();
    assert_eq!(digests.len(), cycles as usize + 1, "each cycle and the summary: {index:#}");
    let last = &ended.recent.last().unwrap().digest;
    assert!(digests.iter().any(|digest| *digest == last), "what was counted is what is stored");
    for (path, bytes) in bucket.everything() {
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{} has the secret", path.display());
    }
    assert!(!json!(run).to_string().contains(SECRET));
}

/// What `kubectl soak` prints.
fn plugin(namespace: &Namespace, arguments: &[&str]) -> String {
    let output = support::plugin(namespace, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
