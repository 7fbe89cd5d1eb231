//! Examples: each is a folder of manifests, a program, and a run that is followed to its verdict.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    cluster::Running,
    image::{self, ImageSpec},
    kubectl::Kubectl,
    operator::Operator,
    workspace,
};

/// One example.
pub struct Example {
    /// Its name, and its folder's below `examples/`.
    pub name: &'static str,
    namespace: &'static str,
    prepare: fn(&Running, &Kubectl) -> Result<()>,
}

/// Every example.
pub const EXAMPLES: &[Example] =
    &[Example { name: "etcd-rolling-restart", namespace: "etcd-soak", prepare: prepare_etcd }];

/// Longest time that an example may take to its verdict.
const LIMIT: Duration = Duration::from_mins(30);
/// Where the manifests put volumes on the node; here, they lie in the cluster's own folder instead.
const VOLUMES: &str = "/var/lib/soak-examples";

/// Finds an example by its name.
pub fn find(name: &str) -> Result<&'static Example> {
    EXAMPLES.iter().find(|example| example.name == name).with_context(|| {
        let names: Vec<&str> = EXAMPLES.iter().map(|example| example.name).collect();
        format!("there is no example {name}; there are {}", names.join(", "))
    })
}

/// Runs an example on a cluster and answers with its figures, read from the stored records.
///
/// Errors: when the run does not end, or not well.
pub fn run(example: &Example, cluster: &Running, log: &Path) -> Result<Value> {
    let kubectl = Kubectl::new(&cluster.kubectl, &cluster.kubeconfig);
    let operator = Operator::start(&kubectl, log)?;
    let result = drive(example, cluster, &kubectl);
    // The operator's end is part of the example: it must be clean even after a failure.
    let stopped = operator.stop();
    let figures = result?;
    stopped?;
    Ok(figures)
}

fn drive(example: &Example, cluster: &Running, kubectl: &Kubectl) -> Result<Value> {
    (example.prepare)(cluster, kubectl)?;
    let manifest = workspace::read(&format!("examples/{}/soakrun.yaml", example.name))?;
    let namespace = example.namespace;
    kubectl.run(&[
        "delete",
        "soakrun",
        example.name,
        "-n",
        namespace,
        "--ignore-not-found",
        "--wait",
        "--timeout=120s",
    ])?;
    let began = Instant::now();
    kubectl.apply(&manifest)?;
    let status = follow(kubectl, namespace, example.name)?;
    let seconds = began.elapsed().as_secs_f64();
    let figures = figures(kubectl, namespace, example.name, &status, seconds)?;
    let verdict = figures["verdict"].as_str().unwrap_or_default();
    if verdict != "Succeeded" || figures["lostWrites"] != 0 {
        println!("{figures}");
        bail!("the run ended as {verdict}: {}", text(&status, "message"));
    }
    Ok(figures)
}

/// Shows a run's progress on stderr until it has ended; the answer is its last status.
fn follow(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<Value> {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < LIMIT {
        let run = kubectl.json(&["get", "soakrun", name, "-n", namespace])?;
        let status = &run["status"];
        let line =
            format!("{:<12} {:<6} {}", text(status, "phase"), text(status, "progress"), text(status, "position"));
        if line != last {
            eprintln!("  {:>6.1}s  {line}", began.elapsed().as_secs_f64());
            last = line;
        }
        let completed = status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "Completed" && it["status"] == "True");
        if completed {
            eprintln!(
                "  {:>6.1}s  {}: {}",
                began.elapsed().as_secs_f64(),
                text(status, "reason"),
                text(status, "message")
            );
            return Ok(status.clone());
        }
        thread::sleep(Duration::from_millis(200));
    }
    bail!("soakrun {namespace}/{name} did not end within {} s", LIMIT.as_secs())
}

/// The figures, from the records in the cluster.
fn figures(kubectl: &Kubectl, namespace: &str, name: &str, status: &Value, seconds: f64) -> Result<Value> {
    let attempt = status["attempt"].as_u64().unwrap_or(0);
    let selector = format!("soak.dev/run={name},soak.dev/record=cycle,soak.dev/run-attempt={attempt}");
    let records = kubectl.json(&["get", "configmaps", "-n", namespace, "-l", &selector])?;
    let records = records["items"].as_array().cloned().unwrap_or_default();
    let mut lost = 0;
    let mut verified = 0;
    let mut passed = 0;
    for record in &records {
        let record: Value = serde_json::from_str(
            record.pointer("/data/record.json").and_then(Value::as_str).context("a record is empty")?,
        )?;
        passed += u64::from(record["outcome"] == "Succeeded");
        for step in record["phases"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|phase| phase["steps"].as_array().into_iter().flatten())
        {
            lost += step.pointer("/outputs/lostWrites").and_then(Value::as_u64).unwrap_or(0);
            verified += step.pointer("/outputs/keysVerified").and_then(Value::as_u64).unwrap_or(0);
        }
    }
    Ok(json!({
        "verdict": status["phase"],
        "cycles": status.pointer("/cycles/completed"),
        "cyclesPassed": passed,
        "lostWrites": lost,
        "keysVerified": verified,
        "seconds": (seconds * 10.0).round() / 10.0,
        "records": records.len(),
    }))
}

fn prepare_etcd(cluster: &Running, kubectl: &Kubectl) -> Result<()> {
    let binary = workspace::cargo_build_static(&["--package", "etcd-ledger"])?.join("etcd-ledger");
    let image = image::build(
        &ImageSpec::new("localhost/etcd-ledger:1")
            .file(&binary, "bin/etcd-ledger", 0o755)
            .entrypoint(&["/bin/etcd-ledger"]),
    )?;
    cluster.load_image(&image)?;
    // The node is this machine: in a place that the manifest names, two clusters' members would share one log.
    let volumes = cluster.volumes();
    if kubectl.run(&["get", "namespace", "etcd-soak"]).is_err() && volumes.exists() {
        fs::remove_dir_all(&volumes).with_context(|| format!("{} can't be removed", volumes.display()))?;
    }
    let manifest = workspace::read("examples/etcd-rolling-restart/etcd.yaml")?;
    kubectl.apply(&manifest.replace(VOLUMES, &volumes.display().to_string()))?;
    eprintln!("waiting for three members of etcd");
    kubectl.run(&["rollout", "status", "statefulset/etcd", "-n", "etcd-soak", "--timeout=180s"])?;
    Ok(())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
