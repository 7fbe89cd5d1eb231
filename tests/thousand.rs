//! Many short cycles with kills of the operator and outages of the store: what is stored, counted from outside.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::json;
use soak_operator::api::{SoakRun, status::RunPhase};
use support::{
    Namespace, Operator,
    bucket::{Bucket, Fault, SECRET},
};

/// Cycles, kills of the operator, and outages of the store.
const SIZE: (u32, u32, u32) = (1_000, 10, 3);

fn completed(run: &SoakRun) -> u32 {
    run.status.as_ref().map_or(0, |status| status.cycles.completed)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_stored_once_whatever_is_killed() {
    let (cycles, kills, outages) = SIZE;
    let namespace = Namespace::create("thousand").await;
    let bucket = Bucket::start("thousand").await;
    bucket.secret(&namespace, SECRET).await;
    let mut operator = Operator::start(&namespace);
    namespace
        .run(
            "many",
            json!({
                "cycles": cycles, "results": {"objectStore": bucket.spec()},
                "phases": [{"name": "rest", "steps": [{"name": "s", "sleep": {"duration": "0s"}}]}],
            }),
        )
        .await;
    // Kills and outages are spread evenly, and an outage is long enough for records to wait.
    let mut moments: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
    for number in 0..kills {
        moments.entry(cycles * (number + 1) / (kills + 1)).or_default().0 = true;
    }
    for number in 0..outages {
        moments.entry(cycles * (2 * number + 1) / (2 * outages)).or_default().1 = true;
    }
    let (mut killed, mut out) = (0, 0);
    for (cycle, (kill, outage)) in moments {
        namespace.until("many", "went on", |run| completed(run) >= cycle).await;
        if outage {
            bucket.fault(if out % 2 == 0 { Fault::Closed } else { Fault::Busy });
            out += 1;
            namespace
                .until("many", "let records wait", |run| {
                    run.status.as_ref().is_some_and(|status| !status.records.waiting.is_empty())
                })
                .await;
        }
        if kill {
            operator.kill();
            operator = Operator::start(&namespace);
            killed += 1;
            // The moment of the next kill depends on how far it comes; nothing is waited for here but that.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..200))).await;
        }
        bucket.fault(Fault::None);
    }
    let run = namespace.ended("many").await;
    let records = bucket.cycles(&run);
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for record in &records {
        *seen.entry(record["cycle"].as_u64().unwrap()).or_default() += 1;
    }
    let missing = (1..=u64::from(cycles)).filter(|cycle| !seen.contains_key(cycle)).count();
    let left = namespace.records(&run, "cycle").await.len();
    let duplicates = records.len() - seen.len() + left;
    println!(
        "{}",
        json!({"records": records.len(), "cycles": completed(&run), "kills": killed, "outages": out, "missing": missing, "duplicates": duplicates})
    );
    let status = run.status.unwrap();
    assert_eq!(status.phase, RunPhase::Succeeded, "{status:#?}");
    assert_eq!((records.len(), status.cycles.completed), (cycles as usize, cycles));
    assert_eq!((killed, out, missing, duplicates), (kills, outages, 0, 0));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&namespace.name);
    let made = support::plugin(&namespace, &["report", "many", "--output", folder.to_str().unwrap()]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let seen = support::browser::document(&folder.join("report.html"));
    assert!(seen.contains("1000 of 1000 cycles passed"), "the page of all cycles");
    namespace.delete().await;
}
