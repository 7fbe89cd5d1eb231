//! The main job from nothing: a cluster, the operator, a real soak with live progress, and where to look next.

use anyhow::Result;

use crate::{cluster, example, workspace};

/// The cluster that the demo leaves running, to be looked at.
const CLUSTER: &str = "demo";

/// Runs the demo; the last line on stdout is one line of JSON with its figures.
pub fn run() -> Result<()> {
    eprintln!("1. a Kubernetes cluster on this machine (the first time, building it takes about ten minutes)");
    let cluster = cluster::up(&cluster::Options::named(CLUSTER))?;
    eprintln!("2. the operator, and a soak of a real etcd: three members, restarted one by one under load");
    let log = workspace::target().join("demo").join("operator.log");
    let figures = example::run(example::find("etcd-rolling-restart")?, &cluster, &log)?;
    let kubeconfig = cluster.kubeconfig.display();
    eprintln!();
    eprintln!("The cluster is still there. Look at");
    eprintln!("  export KUBECONFIG={kubeconfig}");
    eprintln!("  kubectl -n etcd-soak get soakruns -o wide              the verdict");
    eprintln!("  kubectl -n etcd-soak describe soakrun etcd-rolling-restart    conditions and events");
    eprintln!("  kubectl -n etcd-soak get configmaps -l soak.dev/record    a record a cycle, and the summary");
    eprintln!("  {}    the operator's log", log.display());
    eprintln!("and remove it by");
    eprintln!("  cargo xtask cluster down --name {CLUSTER}");
    println!("{figures}");
    Ok(())
}
