//! The main job from nothing: a cluster, the operator, a real soak with live progress, and where to look next.

use anyhow::Result;

use crate::{cluster, example, workspace};

/// The cluster that the demo leaves running, to be looked at.
const CLUSTER: &str = "demo";

/// Runs the demo; the last line on stdout is one line of JSON with its figures.
pub fn run() -> Result<()> {
    eprintln!("1. a Kubernetes cluster on this machine (the first time it is built, which takes a while)");
    let cluster = cluster::up(&cluster::Options::named(CLUSTER))?;
    eprintln!("2. the operator, and a soak of a real etcd: three members, restarted one by one under load");
    let log = workspace::target().join("demo").join("operator.log");
    let figures = example::run(example::find("etcd-rolling-restart")?, &cluster, &log)?;
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
    println!("{figures}");
    Ok(())
}
