//! The main job from nothing: a cluster, the operator, a real soak with live progress, and where to look next.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{cluster, example, workspace};

/// The cluster that the demo leaves running, to be looked at.
const CLUSTER: &str = "demo";

/// Runs the demo; the last line on stdout is one line of JSON with its figures.
pub fn run() -> Result<()> {
    eprintln!("1. a Kubernetes cluster on this machine (the first time it is built, which takes a while)");
    let cluster = cluster::up(&cluster::Options::named(CLUSTER))?;
    eprintln!("2. the operator, and a soak of a real etcd: three members, restarted one by one under load");
    let log = workspace::target().join("demo").join("operator.log");
    let mut figures = example::run(example::find("etcd-rolling-restart")?, &cluster, &log, None)?;
    eprintln!("3. its report, from the records in the cluster");
    let report = report(&cluster)?;
    figures["report"] = report.display().to_string().into();
    let kubeconfig = cluster.kubeconfig.display();
    eprintln!();
    eprintln!("The cluster is still there; look at");
    eprintln!("  export KUBECONFIG={kubeconfig}");
    for (command, what) in [
        ("kubectl -n etcd-soak get soakruns -o wide", "the verdict"),
        ("kubectl -n etcd-soak describe soakrun etcd-rolling-restart", "conditions and events"),
        ("kubectl -n etcd-soak get configmaps -l soak.dev/record", "a record a cycle, and the summary"),
    ] {
        eprintln!("  {command:<60}# {what}");
    }
    eprintln!("The operator's log is {}; remove the cluster by", log.display());
    eprintln!("  cargo xtask cluster down --name {CLUSTER}");
    eprintln!("The report is {}", report.display());
    println!("{figures}");
    Ok(())
}

/// Writes the report as a user would, with the kubectl plugin; the answer is the path of its page.
fn report(cluster: &cluster::Running) -> Result<PathBuf> {
    let plugin = workspace::cargo_build(&["--package", "soak-operator", "--bin", "kubectl-soak"])?.join("kubectl-soak");
    let folder = workspace::target().join("demo").join("report");
    let output = Command::new(&plugin)
        .args(["report", "etcd-rolling-restart", "--namespace", "etcd-soak", "--kubeconfig"])
        .arg(&cluster.kubeconfig)
        .arg("--output")
        .arg(&folder)
        .output()
        .with_context(|| format!("{} can't be started", plugin.display()))?;
    if !output.status.success() {
        bail!("the report could not be made: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder.join("report.html"))
}
