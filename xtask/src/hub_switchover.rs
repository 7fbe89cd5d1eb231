//! The hub switchover: two control planes whose controllers a program plays, and a run that swaps their roles.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::{
    cluster::{self, Mode, Running},
    example,
    kubectl::Kubectl,
    operator::Operator,
    workspace,
};

/// The example's name, its folder's and its run's.
pub const NAME: &str = "hub-switchover";
const NAMESPACE: &str = "hub-soak";
const BACKUP: &str = "open-cluster-management-backup";
/// The account on both hubs.
const ACCOUNT: &str = "switchover";
/// The hubs, the first one being the primary and the one that the operator runs in.
pub const HUBS: [&str; 2] = ["hub-a", "hub-b"];
/// Longest time that a cycle may take with the times of real hubs, its cooldown and retries included.
const CYCLE_LIMIT: Duration = Duration::from_mins(15);
/// How long kinds may take to be served.
const SERVED: Duration = Duration::from_secs(30);

/// How it is run.
pub struct Options {
    /// Everything takes a thirtieth of its time.
    pub fast: bool,
    /// So many cycles.
    pub cycles: u32,
    /// Follow the run that is there instead of beginning one: its operator was killed, or this program was.
    pub resume: bool,
}

/// The program that plays the hubs' controllers; it ends with this.
struct Controllers(Child);

impl Drop for Controllers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the example and answers with its figures, read from the stored records.
///
/// Errors: when the run does not end, or not well.
pub fn run(options: &Options) -> Result<Value> {
    let mut hubs = Vec::new();
    for name in HUBS {
        hubs.push(cluster::up(&cluster::Options { name: name.into(), mode: Some(Mode::ControlPlane) })?);
    }
    let kubectls: Vec<Kubectl> = hubs.iter().map(|hub| Kubectl::new(&hub.kubectl, &hub.kubeconfig)).collect();
    let logs = workspace::target().join("examples");
    fs::create_dir_all(&logs)?;
    if !options.resume {
        prepare(&kubectls)?;
    }
    let _controllers = play(&hubs, options, &logs.join("hub-controllers.log"))?;
    // Both API servers listen on this machine's loopback address.
    let options_of_operator = ["--allow-local-http".to_owned()];
    let log = logs.join(format!("{NAME}.log"));
    let operator = Operator::start_binary(&workspace::operator(&[])?, &kubectls[0], &log, &options_of_operator)?;
    let result = drive(&kubectls, options);
    // The operator's end is part of the example: it must be clean even after a failure.
    let stopped = operator.stop();
    let figures = result?;
    stopped?;
    Ok(figures)
}

/// Makes both hubs what they are before the first switchover.
fn prepare(hubs: &[Kubectl]) -> Result<()> {
    let read = |name: &str| workspace::read(&format!("examples/{NAME}/{name}"));
    let (kinds, hub, access) = (read("crds.yaml")?, read("hub.yaml")?, read("access.yaml")?);
    for (index, kubectl) in hubs.iter().enumerate() {
        let active = index == 0;
        kubectl.apply(&kinds)?;
        let objects = hub
            .replace("ACTIVE", &active.to_string())
            .replace("PASSIVE", &(!active).to_string())
            .replace("REPLICAS", if active { "2" } else { "0" });
        let end = Instant::now() + SERVED;
        // A kind is served some time after its definition was accepted.
        while let Err(error) = kubectl.apply(&objects) {
            if Instant::now() > end {
                return Err(error.context("the hub's objects"));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        kubectl.apply(&access)?;
    }
    Ok(())
}

fn play(hubs: &[Running], options: &Options, log: &std::path::Path) -> Result<Controllers> {
    let program = workspace::binary("hub-controllers", &[])?;
    let mut command = Command::new(&program);
    command.arg("--hub-a").arg(&hubs[0].kubeconfig).arg("--hub-b").arg(&hubs[1].kubeconfig);
    if options.fast {
        command.arg("--fast");
    }
    let output = File::create(log).with_context(|| format!("{} can't be written", log.display()))?;
    let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
    Ok(Controllers(child.with_context(|| format!("{} can't be started", program.display()))?))
}

fn drive(hubs: &[Kubectl], options: &Options) -> Result<Value> {
    let home = &hubs[0];
    if !options.resume {
        begin(hubs, options)?;
    }
    let limit = if options.fast { example::LIMIT } else { CYCLE_LIMIT * options.cycles };
    let status = example::follow(home, NAMESPACE, NAME, limit)?;
    let left = faults_left(hubs, &status)?;
    for what in &left {
        eprintln!("left behind: {what}");
    }
    let figures = figures(home, &status, left.len())?;
    if figures["verdict"] != "Succeeded" || !left.is_empty() {
        println!("{figures}");
        bail!(
            "the run ended as {} with {} faults left: {}",
            figures["verdict"],
            left.len(),
            example::text(&status, "message")
        );
    }
    Ok(figures)
}

fn begin(hubs: &[Kubectl], options: &Options) -> Result<()> {
    let home = &hubs[0];
    home.run(&["delete", "soakrun", NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=120s"])?;
    home.apply(&secret(&hubs[1])?)?;
    let mut manifest = workspace::read(&format!("examples/{NAME}/soakrun.yaml"))?
        .replace("cycles: 20", &format!("cycles: {}", options.cycles));
    if options.fast {
        manifest =
            manifest.replace("cooldown: 30s", "cooldown: 1s").replace("faultTime, value: 30s", "faultTime, value: 2s");
    }
    home.apply(&workspace::read(&format!("examples/{NAME}/template.yaml"))?)?;
    home.apply(&manifest)?;
    Ok(())
}

/// What of the faults is still there, asked from the hubs themselves and not from the operator.
fn faults_left(hubs: &[Kubectl], status: &Value) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let injections = hubs[0].json(&["get", "failureinjections", "-n", NAMESPACE])?;
    for injection in injections["items"].as_array().into_iter().flatten() {
        if !["Recovered", "Failed", "Skipped"].contains(&example::text(&injection["status"], "phase")) {
            left.push(format!("injection {} is {}", injection["metadata"]["name"], injection["status"]["phase"]));
        }
    }
    for (hub, kubectl) in HUBS.iter().zip(hubs) {
        let operator = kubectl.json(&["get", "deployment", "velero", "-n", BACKUP])?;
        if operator["spec"]["replicas"] != 1 {
            left.push(format!("the restore operator of {hub} has {} replicas", operator["spec"]["replicas"]));
        }
        let schedule = kubectl.json(&["get", "backupschedule", "schedule", "-n", BACKUP])?;
        let is_primary = status.pointer("/roles/primary").is_some_and(|target| target == hub);
        if is_primary && schedule["spec"]["paused"] == true {
            left.push(format!("the backups of {hub} are paused"));
        }
    }
    Ok(left)
}

/// The Secret with a kubeconfig of the account on the other hub.
fn secret(other: &Kubectl) -> Result<String> {
    // The flat form holds the certificates instead of their files' names.
    let admin = other.json(&["config", "view", "--raw", "--flatten"])?;
    let cluster = admin.pointer("/clusters/0/cluster").context("the kubeconfig has no cluster")?;
    let token = other.run(&["create", "token", ACCOUNT, "-n", NAMESPACE, "--duration", "24h"])?;
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "hub",
        "clusters": [{"name": "hub", "cluster": cluster}],
        "users": [{"name": ACCOUNT, "user": {"token": token.trim()}}],
        "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": ACCOUNT}}],
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": HUBS[1], "namespace": NAMESPACE},
        "stringData": {"kubeconfig": kubeconfig.to_string()},
    });
    Ok(secret.to_string())
}

/// The figures, from the records in the cluster.
fn figures(home: &Kubectl, status: &Value, faults_left: usize) -> Result<Value> {
    let records = |kind: &str| example::records(home, NAMESPACE, NAME, kind, status);
    let cycles = records("cycle")?;
    let summary = records("summary")?.pop().context("there is no summary")?;
    // What was hit, not what was called off before its time.
    let injections = example::steps(&cycles).filter(|step| step.pointer("/outputs/injectedAt").is_some()).count();
    let monitors = summary["monitors"].as_array().into_iter().flatten();
    let alerts: u64 = monitors.filter_map(|monitor| monitor["fired"].as_u64()).sum();
    let transient: usize = example::steps(&cycles)
        .map(|step| {
            let past = step["past"].as_array().into_iter().flatten().filter(|past| past["transient"] == true).count();
            past + usize::from(step["outcome"] == "Failed" && step["transient"] == true)
        })
        .sum();
    let mut phases = Map::new();
    for metric in summary["metrics"].as_array().into_iter().flatten() {
        if let Some(phase) = metric["name"].as_str().and_then(|name| name.strip_prefix("phases.")) {
            let rounded = |name: &str| metric[name].as_f64().map(|value| (value * 100.0).round() / 100.0);
            phases
                .insert(phase.to_owned(), json!({"p50": rounded("p50"), "p90": rounded("p90"), "p95": rounded("p95")}));
        }
    }
    Ok(json!({
        "verdict": status["phase"],
        "cycles": status.pointer("/cycles/completed"),
        "cyclesPassed": status.pointer("/cycles/passed"),
        "transientFailures": transient,
        "roleSwaps": status["roleSwaps"].as_u64().unwrap_or(0),
        "injections": injections,
        "alerts": alerts,
        "faultsLeft": faults_left,
        "phases": phases,
        "seconds": summary["seconds"].as_f64().map(|seconds| (seconds * 10.0).round() / 10.0),
    }))
}
