//! `cargo xtask faults`: the fault campaign against a cluster of this machine (docs/reliability.md).

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Result, bail};
use clap::Args;
use soak_faults::{
    api::Server,
    campaign,
    session::{Machine, Setup},
    tls::Identity,
};

use crate::{cluster, kubectl::Kubectl, operator, tools, workspace};

/// Sessions side by side, on two cores.
const PARALLEL: usize = 4;

/// Seeds of the short form: one of each scenario.
pub const SHORT: u64 = 24;
/// Seeds of the long form, which also crashes each write before and after.
pub const LONG: u64 = 1_000;

/// Options of the campaign.
#[derive(Args)]
pub struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = SHORT)]
    seeds: u64,
    /// Only this scenario.
    #[arg(long)]
    scenario: Option<String>,
    /// Only this seed once more, without guards being taken away.
    #[arg(long)]
    replay: Option<u64>,
    /// Crash each write of the reference workload before and after, also when fewer than 1,000 seeds run.
    #[arg(long)]
    cover: bool,
    /// Do not take guards away.
    #[arg(long)]
    no_guards: bool,
    /// How many sessions run side by side.
    #[arg(long, default_value_t = PARALLEL)]
    parallel: usize,
    /// The cluster; started if need be.
    #[arg(long, default_value = "faults")]
    cluster: String,
    /// Run pods on a real node. Without it they are simulated, which is much faster on two cores.
    #[arg(long)]
    node: bool,
}

impl Options {
    /// A whole campaign on a simulated cluster of that name.
    pub fn campaign(seeds: u64, cluster: &str) -> Self {
        Self {
            seeds,
            scenario: None,
            replay: None,
            cover: false,
            no_guards: false,
            parallel: PARALLEL,
            cluster: cluster.into(),
            node: false,
        }
    }
}

impl Machine for cluster::Running {
    fn restart(&self, daemon: &str) -> Result<()> {
        self.restart_daemon(daemon)
    }

    fn signal(&self, daemon: &str, signal: &str) -> Result<()> {
        self.signal_daemon(daemon, signal)
    }

    fn compact(&self) -> Result<()> {
        self.compact_etcd()
    }
}

/// Runs the campaign; the last line on stdout has its figures.
///
/// Errors: a promise was not kept, a missing guard was not noticed, or there is no cluster to work on.
pub fn run(options: &Options) -> Result<()> {
    let mode = if options.node { cluster::Mode::Node } else { cluster::Mode::Simulated };
    let cluster = cluster::up(&cluster::Options { name: options.cluster.clone(), mode: Some(mode) })?;
    operator::install_crds(&Kubectl::new(&cluster.kubectl, &cluster.kubeconfig))?;
    let folder = workspace::target().join("faults");
    fs::create_dir_all(&folder)?;
    let guards = !options.no_guards && options.replay.is_none() && options.scenario.is_none();
    // Both builds have the same name, so the one with switches is built first and put aside.
    let switchable = if guards { Some(build(&["test-switches"], folder.join("operator-switches"))?) } else { None };
    let setup = Setup {
        server: Server::from_kubeconfig(&cluster.kubeconfig)?,
        identity: Identity::new()?,
        program: build(&[], folder.join("operator"))?,
        toxiproxy: tools::path("toxiproxy-server")?,
        without: None,
        machine: Arc::new(cluster),
        folder,
        keep: options.replay.is_some(),
    };
    let campaign = campaign::Options {
        seeds: options.seeds,
        scenario: options.scenario.clone(),
        replay: options.replay,
        parallel: options.parallel,
        cover: options.cover || options.seeds >= LONG,
        switchable,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(campaign::run(setup, &campaign))?;
    println!("{}", figures.to_json());
    if !figures.passed() {
        bail!("the campaign was not passed: see the violations and guards above");
    }
    Ok(())
}

/// Builds the operator and puts a copy where later builds do not touch it.
fn build(features: &[&str], copy: PathBuf) -> Result<PathBuf> {
    let binary = workspace::operator(features)?;
    // A program that runs can't be overwritten, only replaced.
    let _ = fs::remove_file(&copy);
    fs::copy(binary, &copy)?;
    Ok(copy)
}
