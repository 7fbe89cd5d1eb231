//! `cargo xtask test`: everything that has to hold, from formatting to the chart in a real cluster.

use std::{path::Path, time::Instant};

use anyhow::Result;

use crate::{cluster, generate, operator_image, tools, workspace};

/// The cluster that the tests use and remove.
const CLUSTER: &str = "test";

/// Runs everything; `keep` leaves the cluster for a look afterwards.
///
/// Errors: the first part that fails. The cluster is removed then as well, unless it is to be kept.
pub fn run(keep: bool) -> Result<()> {
    part("formatting", || workspace::run("cargo", &["fmt", "--all", "--check"], &[]))?;
    part("lints", || {
        workspace::run("cargo", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"], &[])
    })?;
    part("generated files", || generate::generate(true))?;
    part("unit tests", || workspace::run("cargo", &["test", "--workspace", "--lib", "--bins"], &[]))?;
    let cluster = part("a cluster", || cluster::up(&cluster::Options::named(CLUSTER)))?;
    let result = against(&cluster);
    if !keep {
        part("the cluster goes", || cluster::down(CLUSTER))?;
    }
    result
}

/// The tests that need a cluster.
fn against(cluster: &cluster::Running) -> Result<()> {
    let image = part("the operator's image", operator_image::build)?;
    cluster.load_image(&image.tar)?;
    let helm = part("helm", || tools::path("helm"))?;
    let environment = [
        ("SOAK_TEST_KUBECONFIG", text(&cluster.kubeconfig)),
        ("SOAK_TEST_KUBECTL", text(&cluster.kubectl)),
        ("SOAK_TEST_HELM", text(&helm)),
        ("SOAK_TEST_IMAGE", image.reference),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // One binary after the other, each with its own operator; inside of one the tests share it.
    part("tests in a cluster", || {
        workspace::run("cargo", &["test", "--package", "soak-operator", "--test", "*", "--no-fail-fast"], &environment)
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
