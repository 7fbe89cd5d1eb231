//! The kubectl plugin against real runs: reports, comparisons, and errors as users of kubectl expect them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use support::{Namespace, Operator, plugin as soak};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn runs_are_reported_compared_and_listed() {
    let namespace = Namespace::create("plugin").await;
    let operator = Operator::start(&namespace);
    let spec =
        json!({"cycles": 6, "phases": [{"name": "rest", "steps": [{"name": "s", "sleep": {"duration": "0s"}}]}]});
    for name in ["before", "after"] {
        namespace.run(name, spec.clone()).await;
        namespace.ended(name).await;
    }
    operator.terminate();

    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&namespace.name);
    let made = soak(
        &namespace,
        &["report", "after", "--baseline", "before", "--exit-code", "--output", folder.to_str().unwrap()],
    );
    assert!(made.status.success(), "{}", text(&made.stderr));
    let paths = text(&made.stdout);
    assert_eq!(paths.lines().count(), 5, "{paths}");
    assert!(text(&made.stderr).starts_with("Passed: 6 of 6 cycles passed"), "{}", text(&made.stderr));
    let summary: Value = serde_json::from_str(&fs::read_to_string(folder.join("summary.json")).unwrap()).unwrap();
    assert_eq!(
        (&summary["stored"], &summary["cycles"]["passed"], &summary["run"]["name"]),
        (&json!(6), &json!(6), &json!("after"))
    );
    assert_eq!(summary["baseline"]["run"]["name"], "before");
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("phases.rest") && page.contains("With 95 % confidence"));
    let seen = support::browser::document(&folder.join("report.html"));
    assert_eq!(seen.matches("<svg").count(), page.matches("<svg").count(), "each drawing is one for a browser, too");

    let compared = soak(&namespace, &["compare", "before", "after"]);
    assert!(compared.status.success());
    assert!(text(&compared.stdout).starts_with("METRIC "), "{}", text(&compared.stdout));
    let rows: Value =
        serde_json::from_slice(&soak(&namespace, &["compare", "before", "after", "--json"]).stdout).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2, "{rows}");

    let trend = soak(&namespace, &["trend", "before", "after"]);
    assert!(trend.status.success(), "{}", text(&trend.stderr));
    let told = "0 of 0 metrics changed over 2 runs. For 3 more there are too few runs.\n";
    assert_eq!(text(&trend.stdout), told);
    let rows: Value =
        serde_json::from_slice(&soak(&namespace, &["trend", "before", "after", "--json"]).stdout).unwrap();
    assert_eq!(rows[0]["name"], "successRate", "{rows}");
    let nobody = soak(&namespace, &["report", "after", "--baseline-selector", "schedule=nightly"]);
    assert!(text(&nobody.stderr).contains("no other run of labels schedule=nightly"), "{}", text(&nobody.stderr));
    let baseline = ["--baseline-selector", "!schedule", "--baseline-last", "1", "--output", folder.to_str().unwrap()];
    let pooled = soak(&namespace, &[&["report", "after"][..], &baseline].concat());
    assert!(pooled.status.success(), "{}", text(&pooled.stderr));
    let summary: Value = serde_json::from_str(&fs::read_to_string(folder.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["baseline"]["run"]["name"], "before", "the run is not compared with itself");

    let listed = text(&soak(&namespace, &["cycles", "after"]).stdout);
    assert_eq!(listed.lines().filter(|line| line.contains("Succeeded")).count(), 6, "{listed}");

    let missing = soak(&namespace, &["report", "nobody"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stderr).starts_with("error: soakruns.soak.dev \"nobody\" not found"),
        "{}",
        text(&missing.stderr)
    );
    assert_eq!(soak(&namespace, &["report"]).status.code(), Some(2), "bad usage");
    namespace.delete().await;
}

#[tokio::test]
async fn a_run_without_records_says_so() {
    let namespace = Namespace::create("plugin").await;
    // No operator drives it.
    namespace
        .run("young", json!({"phases": [{"name": "p", "steps": [{"name": "s", "sleep": {"duration": "1s"}}]}]}))
        .await;
    let made = soak(&namespace, &["cycles", "young"]);
    assert_eq!(made.status.code(), Some(1));
    assert!(text(&made.stderr).contains("has no records yet"), "{}", text(&made.stderr));
    namespace.delete().await;
}
