//! `cargo xtask`: the local cluster, the demo, the tests, generated files.

mod bench;
mod cluster;
mod demo;
mod example;
mod faults;
mod generate;
mod hub_switchover;
mod image;
mod kubectl;
mod mutants;
mod operator;
mod operator_image;
mod raft;
mod suite;
mod tools;
mod toxiproxy;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Everything around the code: clusters, demo, tests, generated files.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job: a cluster, the operator, and a real soak with live progress.
    Demo,
    /// All tests; needs nothing but Rust, Go and root.
    Test(suite::Options),
    /// Run an example to its verdict.
    Example {
        /// Its name: a folder below examples/.
        name: String,
        /// The cluster that it runs on; started if need be. hub-switchover has two of its own.
        #[arg(long, default_value = "demo")]
        cluster: String,
        /// Only this one of its scenarios.
        #[arg(long)]
        scenario: Option<String>,
        /// hub-switchover: everything takes a thirtieth of its time.
        #[arg(long)]
        fast: bool,
        /// hub-switchover: so many cycles.
        #[arg(long, default_value_t = 20)]
        cycles: u32,
        /// hub-switchover: follow the run that is there, after this program or the operator was killed.
        #[arg(long)]
        resume: bool,
    },
    /// The fault campaign: the operator behind a proxy that misbehaves, and a checker of what came of it.
    Faults(faults::Options),
    /// Change the engine in many small ways and tell which changes no test notices; the last line is JSON.
    Mutants(mutants::Options),
    /// Measure a release build against what the cluster can do at all; the last line is JSON.
    Bench(bench::Options),
    /// Write the files that are made from the code.
    Generate {
        /// Only tell what is stale.
        #[arg(long)]
        check: bool,
    },
    /// Build a program from its pinned Go modules if need be; the last line on stdout is its path.
    Tool {
        /// Its name, such as versitygw, the S3 server that tests use.
        name: String,
    },
    /// Build the operator's image; the last line on stdout is the OCI tar's path.
    Image,
    /// Kubernetes on this machine, from source.
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Start a cluster; the last line on stdout is its kubeconfig's path.
    Up {
        /// Its name; each is a cluster of its own.
        #[arg(long, default_value = "dev")]
        name: String,
        /// A node that only pretends to run pods (the default without root).
        #[arg(long)]
        simulated: bool,
        /// No node at all.
        #[arg(long, conflicts_with = "simulated")]
        control_plane: bool,
    },
    /// Stop a cluster and leave nothing behind.
    Down {
        /// Its name.
        #[arg(long, default_value = "dev")]
        name: String,
        /// Every cluster.
        #[arg(long)]
        all: bool,
    },
    /// Tell which clusters there are and what of them runs.
    Status,
    /// Print the path of a cluster's kubeconfig.
    Kubeconfig {
        /// Its name.
        #[arg(long, default_value = "dev")]
        name: String,
    },
    /// Make an image in an OCI tar known to a cluster's node.
    LoadImage {
        /// The tar.
        tar: PathBuf,
        /// The cluster's name.
        #[arg(long, default_value = "dev")]
        name: String,
    },
    /// Only build the programs (all of them when none is named).
    Build {
        /// Names of programs.
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo => demo::run(),
        Command::Test(options) => suite::run(&options),
        Command::Example { name, fast, cycles, resume, .. } if name == hub_switchover::NAME => {
            println!("{}", hub_switchover::run(&hub_switchover::Options { fast, cycles, resume })?);
            Ok(())
        }
        Command::Example { name, cluster, scenario, .. } => {
            let example = example::find(&name)?;
            let cluster = cluster::up(&cluster::Options::named(&cluster))?;
            let log = workspace::target().join("examples").join(format!("{name}.log"));
            let figures = example::run(example, &cluster, &log, scenario.as_deref())?;
            println!("{figures}");
            Ok(())
        }
        Command::Faults(options) => faults::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Generate { check } => generate::generate(check),
        Command::Tool { name } => {
            println!("{}", tools::path(&name)?.display());
            Ok(())
        }
        Command::Image => {
            println!("{}", operator_image::build(workspace::Profile::Release)?.tar.display());
            Ok(())
        }
        Command::Cluster(command) => run_cluster(command),
    }
}

fn run_cluster(command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Up { name, simulated, control_plane } => {
            let mode = match (simulated, control_plane) {
                (true, _) => Some(cluster::Mode::Simulated),
                (_, true) => Some(cluster::Mode::ControlPlane),
                _ => None,
            };
            println!("{}", cluster::up(&cluster::Options { name, mode })?.kubeconfig.display());
        }
        ClusterCommand::Down { all: true, .. } => cluster::down_all()?,
        ClusterCommand::Down { name, .. } => cluster::down(&name)?,
        ClusterCommand::Status => cluster::status()?.iter().for_each(|line| println!("{line}")),
        ClusterCommand::Kubeconfig { name } => println!("{}", cluster::running(&name)?.kubeconfig.display()),
        ClusterCommand::LoadImage { tar, name } => cluster::running(&name)?.load_image(&tar)?,
        ClusterCommand::Build { names } => {
            let names: Vec<&str> =
                if names.is_empty() { tools::names() } else { names.iter().map(String::as_str).collect() };
            println!("{}", tools::build(&names)?.display());
        }
    }
    Ok(())
}
