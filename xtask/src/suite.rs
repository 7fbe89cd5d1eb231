//! `cargo xtask test`: everything that has to hold, from formatting to the chart in a real cluster.

use std::{path::Path, time::Instant};

use anyhow::Result;

use crate::{cluster, faults, generate, hub_switchover, operator_image, tools, toxiproxy, workspace};

/// The cluster that the tests use and remove.
const CLUSTER: &str = "test";
/// The one that the fault campaign breaks.
const BREAKABLE: &str = "faulty";

/// What is tested.
#[derive(clap::Args)]
pub struct Options {
    /// Leave the clusters running afterwards.
    #[arg(long)]
    keep_cluster: bool,
    /// The hub switchover in its fast form, and the long form of the fault campaign: 1,000 seeds, each write crashed before and after. Takes
    /// hours.
    #[arg(long)]
    all: bool,
}

/// Runs everything.
///
/// Errors: the first part that fails. Its cluster is removed then as well, unless it is to be kept.
pub fn run(options: &Options) -> Result<()> {
    part("formatting", || workspace::run("cargo", &["fmt", "--all", "--check"], &[]))?;
    part("lints", || {
        workspace::run("cargo", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"], &[])
    })?;
    // From here on everything is built for the whole workspace, tests included, so that each dependency is built once.
    part("unit tests", || workspace::run("cargo", &["test", "--workspace", "--lib", "--bins"], &[]))?;
    part("generated files", || generate::generate(true))?;
    let cluster = part("a cluster", || cluster::up(&cluster::Options::named(CLUSTER)))?;
    removing(CLUSTER, options, || against(&cluster))?;
    if !options.all {
        return Ok(());
    }
    let [one, other] = hub_switchover::HUBS;
    removing(one, options, || removing(other, options, || part("the hub switchover", switchover)))?;
    removing(BREAKABLE, options, || {
        part("the fault campaign", || faults::run(&faults::Options::campaign(faults::LONG, BREAKABLE)))
    })
}

fn switchover() -> Result<()> {
    println!("{}", hub_switchover::run(&hub_switchover::Options { fast: true, cycles: 20 })?);
    Ok(())
}

/// Does something with a cluster that is removed afterwards.
fn removing(cluster: &str, options: &Options, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let result = work();
    if !options.keep_cluster {
        part("the cluster goes", || cluster::down(cluster))?;
    }
    result
}

/// The tests that need a cluster.
fn against(cluster: &cluster::Running) -> Result<()> {
    let image = part("the operator's image", operator_image::build)?;
    cluster.load_image(&image.tar)?;
    cluster.load_image(&part("Toxiproxy", toxiproxy::build)?)?;
    let helm = part("helm", || tools::path("helm"))?;
    let prometheus = part("Prometheus", tools::prometheus)?;
    let versitygw = part("an S3 server", || tools::path("versitygw"))?;
    let environment = [
        ("SOAK_TEST_VERSITYGW", text(&versitygw)),
        ("SOAK_TEST_KUBECONFIG", text(&cluster.kubeconfig)),
        ("SOAK_TEST_KUBECTL", text(&cluster.kubectl)),
        ("SOAK_TEST_HELM", text(&helm)),
        ("SOAK_TEST_IMAGE", image.reference),
        ("SOAK_TEST_PROMETHEUS", text(&prometheus)),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // One binary after the other, each with its own operator; inside of one the tests share it.
    part("tests in a cluster", || {
        workspace::run("cargo", &["test", "--workspace", "--test", "*", "--no-fail-fast"], &environment)
    })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn part<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {what}");
    let began = Instant::now();
    let result = work();
    let outcome = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("== {what}: {outcome} after {:.0} s", began.elapsed().as_secs_f64());
    result
}
