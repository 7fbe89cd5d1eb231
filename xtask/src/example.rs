//! Examples: each is a folder of manifests, a program, and runs that are followed to their verdicts.

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
    raft, workspace,
};

/// One example.
pub struct Example {
    /// Its name, and its folder's below `examples/`.
    pub name: &'static str,
    namespace: &'static str,
    /// Its runs, each by a manifest below its folder; with a name, only that scenario.
    runs: fn(Option<&str>) -> Result<Vec<String>>,
    /// Options of the operator, after what they need was made.
    options: fn(&Running, &Kubectl) -> Result<Vec<String>>,
    prepare: fn(&Running, &Kubectl) -> Result<()>,
    figures: fn(&Kubectl, &[Ended]) -> Result<Figures>,
}

/// Every example.
pub const EXAMPLES: &[Example] = &[
    Example {
        name: "etcd-rolling-restart",
        namespace: "etcd-soak",
        runs: one_run,
        options: |_, _| Ok(Vec::new()),
        prepare: prepare_etcd,
        figures: etcd_figures,
    },
    Example {
        name: "raft-resilience",
        namespace: raft::NAMESPACE,
        runs: raft::runs,
        options: raft::allow_helpers,
        prepare: raft::prepare,
        figures: raft::figures,
    },
];

/// What an example comes to.
pub struct Figures {
    /// The last line.
    pub line: Value,
    /// What is wrong with it.
    pub wrong: Option<String>,
}

/// A run that has ended.
pub struct Ended {
    /// The run's name.
    pub name: String,
    /// Its last status.
    pub status: Value,
    /// The records of its cycles.
    pub records: Vec<Value>,
    seconds: f64,
}

impl Ended {
    /// Whether its verdict is that it passed.
    pub fn passed(&self) -> bool {
        self.status["phase"] == "Succeeded"
    }

    /// Every step of every cycle, as recorded.
    pub fn steps(&self) -> impl Iterator<Item = &Value> {
        steps(&self.records)
    }

    /// An output of every step that has it, as a number.
    pub fn numbers(&self, output: &str) -> impl Iterator<Item = f64> {
        let path = format!("/outputs/{output}");
        self.steps().filter_map(move |step| step.pointer(&path)?.as_f64())
    }
}

/// Longest time that most runs may take to their verdicts.
pub const LIMIT: Duration = Duration::from_mins(30);
/// Between two looks at a run.
const LOOK: Duration = Duration::from_secs(1);
/// Where the manifests put volumes on the node; here, they lie in the cluster's own folder instead.
const VOLUMES: &str = "/var/lib/soak-examples";

/// Finds an example by its name.
pub fn find(name: &str) -> Result<&'static Example> {
    EXAMPLES.iter().find(|example| example.name == name).with_context(|| {
        let names: Vec<&str> = EXAMPLES.iter().map(|example| example.name).collect();
        format!("there is no example {name}; there are {}, {}", names.join(", "), crate::hub_switchover::NAME)
    })
}

/// Runs an example, or one scenario of it, on a cluster and answers with its figures, read from the stored records.
///
/// Errors: when a run does not end, or not well.
pub fn run(example: &Example, cluster: &Running, log: &Path, scenario: Option<&str>) -> Result<Value> {
    let runs = (example.runs)(scenario)?;
    let kubectl = Kubectl::new(&cluster.kubectl, &cluster.kubeconfig);
    let options = (example.options)(cluster, &kubectl)?;
    let operator = Operator::start(&kubectl, log, &options)?;
    let result = drive(example, &runs, cluster, &kubectl);
    // The operator's end is part of the example: it must be clean even after a failure.
    let stopped = operator.stop();
    let figures = result?;
    stopped?;
    Ok(figures)
}

fn drive(example: &Example, runs: &[String], cluster: &Running, kubectl: &Kubectl) -> Result<Value> {
    (example.prepare)(cluster, kubectl)?;
    let mut ended = Vec::new();
    for path in runs {
        ended.push(run_to_end(kubectl, example.namespace, &format!("examples/{}/{path}", example.name))?);
    }
    let Figures { line, wrong } = (example.figures)(kubectl, &ended)?;
    if let Some(wrong) = wrong {
        println!("{line}");
        bail!("{wrong}");
    }
    Ok(line)
}

fn run_to_end(kubectl: &Kubectl, namespace: &str, path: &str) -> Result<Ended> {
    let manifest = workspace::read(path)?;
    let name = name_of(&manifest).with_context(|| format!("{path} names no run"))?;
    kubectl.run(&["delete", "soakrun", &name, "-n", namespace, "--ignore-not-found", "--wait", "--timeout=120s"])?;
    eprintln!("{name}");
    let began = Instant::now();
    kubectl.apply(&manifest)?;
    let status = follow(kubectl, namespace, &name, LIMIT)?;
    let records = records(kubectl, namespace, &name, "cycle", &status)?;
    Ok(Ended { name, status, records, seconds: began.elapsed().as_secs_f64() })
}

/// The name in a manifest's metadata, which stands alone in its line.
fn name_of(manifest: &str) -> Option<String> {
    let mut lines = manifest.lines().skip_while(|line| line.trim_end() != "metadata:");
    lines.find_map(|line| line.strip_prefix("  name: ")).map(|name| name.trim().to_owned())
}

/// Shows a run's progress on stderr until it has ended; the answer is its last status.
///
/// Errors: it has not ended within `limit`.
pub fn follow(kubectl: &Kubectl, namespace: &str, name: &str, limit: Duration) -> Result<Value> {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < limit {
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
        // Each look is a process.
        thread::sleep(LOOK);
    }
    bail!("soakrun {namespace}/{name} did not end within {} s", limit.as_secs())
}

/// Every step in records of cycles.
pub fn steps(records: &[Value]) -> impl Iterator<Item = &Value> {
    fn list<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
        of[field].as_array().into_iter().flatten()
    }
    records.iter().flat_map(|it| list(it, "phases")).flat_map(|it| list(it, "steps"))
}

/// The stored records of a run that are of this kind, such as `cycle` or `summary`.
pub fn records(kubectl: &Kubectl, namespace: &str, name: &str, kind: &str, status: &Value) -> Result<Vec<Value>> {
    let attempt = status["attempt"].as_u64().unwrap_or(0);
    let selector = format!("soak.dev/run={name},soak.dev/record={kind},soak.dev/run-attempt={attempt}");
    let found = kubectl.json(&["get", "configmaps", "-n", namespace, "-l", &selector])?;
    let read = |record: &Value| {
        let text = record.pointer("/data/record.json").and_then(Value::as_str).context("a record is empty")?;
        serde_json::from_str(text).context("a record is not JSON")
    };
    found["items"].as_array().into_iter().flatten().map(read).collect()
}

fn one_run(scenario: Option<&str>) -> Result<Vec<String>> {
    if let Some(scenario) = scenario {
        bail!("this example has no scenarios, and so no {scenario}");
    }
    Ok(vec!["soakrun.yaml".into()])
}

fn etcd_figures(_: &Kubectl, ended: &[Ended]) -> Result<Figures> {
    let run = ended.first().context("nothing was run")?;
    let sum = |output: &str| run.numbers(output).sum::<f64>();
    let lost = sum("lostWrites");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of writes")]
    let line = json!({
        "verdict": run.status["phase"],
        "cycles": run.status.pointer("/cycles/completed"),
        "cyclesPassed": run.records.iter().filter(|record| record["outcome"] == "Succeeded").count(),
        "lostWrites": lost as u64,
        "keysVerified": sum("keysVerified") as u64,
        "seconds": (run.seconds * 10.0).round() / 10.0,
        "records": run.records.len(),
    });
    let wrong = (!run.passed() || lost > 0.0)
        .then(|| format!("the run ended as {}: {}", text(&run.status, "phase"), text(&run.status, "message")));
    Ok(Figures { line, wrong })
}

fn prepare_etcd(cluster: &Running, kubectl: &Kubectl) -> Result<()> {
    load_ledger(cluster)?;
    apply_with_volumes(cluster, kubectl, "etcd-soak", &["examples/etcd-rolling-restart/etcd.yaml"])?;
    eprintln!("waiting for three members of etcd");
    kubectl.run(&["rollout", "status", "statefulset/etcd", "-n", "etcd-soak", "--timeout=180s"])?;
    Ok(())
}

/// Builds the image of the program that writes, verifies and observes, and makes it known to the node.
pub fn load_ledger(cluster: &Running) -> Result<()> {
    let binary =
        workspace::cargo_build_static(workspace::Profile::Release, &["--package", "etcd-ledger"])?.join("etcd-ledger");
    let image = image::build(
        &ImageSpec::new("localhost/etcd-ledger:1")
            .file(&binary, "bin/etcd-ledger", 0o755)
            .entrypoint(&["/bin/etcd-ledger"]),
    )?;
    cluster.load_image(&image)
}

/// Applies manifests whose volumes lie on the node's disk. Data without its namespace is of an earlier life, and goes first.
pub fn apply_with_volumes(cluster: &Running, kubectl: &Kubectl, namespace: &str, paths: &[&str]) -> Result<()> {
    // The node is this machine: in a place that the manifest names, two clusters' members would share one log.
    let volumes = cluster.volumes().join(namespace);
    if kubectl.run(&["get", "namespace", namespace]).is_err() && volumes.exists() {
        fs::remove_dir_all(&volumes).with_context(|| format!("{} can't be removed", volumes.display()))?;
    }
    for path in paths {
        kubectl.apply(&workspace::read(path)?.replace(VOLUMES, &volumes.display().to_string()))?;
    }
    Ok(())
}

/// A field that is a text; empty without one.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
