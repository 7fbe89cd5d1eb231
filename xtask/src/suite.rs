//! `cargo xtask test`: everything that has to hold, from formatting to the chart in a real cluster.

use std::{fs, path::Path, thread, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{
    cluster, faults, generate, hub_switchover, operator_image, tools, toxiproxy,
    workspace::{self, Profile},
};

/// The cluster that the tests use and remove.
const CLUSTER: &str = "test";
/// The one of those tests that wait most of their time, and so run beside the others.
const BESIDE: &str = "beside";
/// Those tests.
const LONG: [&str; 4] = ["crash", "lifecycle", "object_store", "thousand"];
/// The one that the fault campaign breaks.
const BREAKABLE: &str = "faulty";

/// What is tested.
#[derive(clap::Args)]
pub struct Options {
    /// Leave the clusters running afterwards.
    #[arg(long)]
    keep_cluster: bool,
    /// The hub switchover in its fast form, the image as it is released, and the long form of the fault campaign: 1,000 seeds, each write
    /// crashed before and after. Takes hours.
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
    removing(CLUSTER, options, || {
        let beside = part("another cluster", || cluster::up(&cluster::Options::named(BESIDE)))?;
        removing(BESIDE, options, || against(&cluster, &beside, options))
    })?;
    if options.all {
        let [one, other] = hub_switchover::HUBS;
        removing(one, options, || removing(other, options, || part("the hub switchover", switchover)))?;
    }
    removing(BREAKABLE, options, || {
        part("the fault campaign", || {
            let seeds = if options.all { faults::LONG } else { faults::SHORT };
            faults::run(&faults::Options::campaign(seeds, BREAKABLE))
        })
    })
}

fn switchover() -> Result<()> {
    println!("{}", hub_switchover::run(&hub_switchover::Options { fast: true, cycles: 20, resume: false })?);
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

/// The tests that need a cluster: the long ones in one of their own, at the same time.
fn against(cluster: &cluster::Running, beside: &cluster::Running, options: &Options) -> Result<()> {
    let profile = if options.all { Profile::Release } else { Profile::Quick };
    let image = part("the operator's image", || operator_image::build(profile))?;
    let toxiproxy = part("Toxiproxy", toxiproxy::build)?;
    cluster.load_image(&toxiproxy)?;
    for cluster in [cluster, beside] {
        cluster.load_image(&image.tar)?;
    }
    let helm = part("helm", || tools::path("helm"))?;
    let prometheus = part("Prometheus", tools::prometheus)?;
    let versitygw = part("an S3 server", || tools::path("versitygw"))?;
    let chromium = part("Chromium", tools::chromium)?;
    let environment = |cluster: &cluster::Running| {
        [
            ("SOAK_TEST_CHROMIUM", text(&chromium)),
            ("SOAK_TEST_VERSITYGW", text(&versitygw)),
            ("SOAK_TEST_KUBECONFIG", text(&cluster.kubeconfig)),
            ("SOAK_TEST_KUBECTL", text(&cluster.kubectl)),
            ("SOAK_TEST_HELM", text(&helm)),
            ("SOAK_TEST_IMAGE", image.reference.clone()),
            ("SOAK_TEST_PROMETHEUS", text(&prometheus)),
        ]
    };
    part("tests are built", || workspace::run("cargo", &["test", "--workspace", "--test", "*", "--no-run"], &[]))?;
    let (long, others): (Vec<String>, Vec<String>) =
        binaries()?.into_iter().partition(|name| LONG.contains(&name.as_str()));
    // One binary after the other, each with its own operator; inside of one the tests share it.
    part("tests in clusters", || {
        let output = workspace::target().join("long-tests.log");
        let (here, there) = thread::scope(|scope| {
            let there = scope.spawn(|| {
                let environment = environment(beside);
                workspace::run_into(&output, "cargo", &arguments(&long), &borrowed(&environment))
            });
            let here = workspace::run("cargo", &arguments(&others), &borrowed(&environment(cluster)));
            (here, there.join())
        });
        eprint!("{}", fs::read_to_string(&output).unwrap_or_default());
        here.and(there.unwrap_or_else(|_| bail!("the long tests could not be watched")))
    })
}

/// The names of the test binaries.
fn binaries() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace::root().join("tests")).context("tests/ can't be read")? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").is_file() {
            names.extend(path.file_stem().map(|it| it.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn arguments(tests: &[String]) -> Vec<&str> {
    let chosen = tests.iter().flat_map(|name| ["--test", name]);
    ["test", "--workspace", "--no-fail-fast"].into_iter().chain(chosen).collect()
}

fn borrowed<'a>(environment: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
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
