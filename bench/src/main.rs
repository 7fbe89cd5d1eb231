//! Measures a release build of the operator in a real cluster. Each bench measures its own limit in the same run and
//! tells a ratio, so that a slow or busy machine changes both.
//!
//! Progress and missed goals go to stderr; the last line on stdout is one JSON object with the figures.

mod analysis;
mod browser;
mod cluster;
mod figures;
mod fleet;
mod growth;
mod operator;
mod proxy;
mod records;
mod recovery;
mod report;
mod requests;
mod scale;
mod start;
mod step_latency;
mod throughput;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::{cluster::Cluster, figures::Figures};

#[derive(Debug, Parser)]
#[command(name = "soak-bench", subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    alone: Option<Alone>,
    #[command(flatten)]
    options: Option<Options>,
}

/// A bench that needs no cluster.
#[derive(Debug, Subcommand)]
enum Alone {
    /// The figures of a report on a long run.
    Analysis {
        /// Cycles of the run and of its baseline (default 10,000).
        #[arg(long)]
        cycles: Option<u64>,
    },
    /// A report's page in a browser.
    Report {
        /// Chromium's binary.
        #[arg(long)]
        chromium: PathBuf,
        /// Where the pages are written.
        #[arg(long)]
        folder: PathBuf,
    },
}

/// One bench of the operator in a cluster.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Which one.
    bench: Bench,
    /// The cluster, with the CRDs installed.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The operator's binary, a release build.
    #[arg(long)]
    operator: PathBuf,
    /// The operator's image as an OCI tar, for its size.
    #[arg(long)]
    image: Option<PathBuf>,
    /// Live runs of `scale` and `recovery`.
    #[arg(long, default_value_t = 10_000)]
    runs: usize,
    /// Cycles of `growth`.
    #[arg(long, default_value_t = 10_000)]
    cycles: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bench {
    /// Pods one after the other, against bare pods.
    StepLatency,
    /// Podless steps a second, against status patches a second.
    Throughput,
    /// Many live runs: memory, reaction, idle time.
    Scale,
    /// A run of many cycles: does it cost more with time.
    Growth,
    /// API requests a step.
    Requests,
    /// The operator killed with many live runs.
    Recovery,
    /// Process start to first reconcile, and sizes.
    Start,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Several TLS libraries may be linked; the choice must be made once.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let figures = match Arguments::parse() {
        Arguments { alone: Some(Alone::Analysis { cycles }), .. } => analysis::measure(cycles),
        Arguments { alone: Some(Alone::Report { chromium, folder }), .. } => report::measure(&chromium, &folder),
        Arguments { options: Some(options), .. } => run(options).await,
        Arguments { alone: None, options: None } => {
            Arguments::command().error(ErrorKind::MissingRequiredArgument, "name a bench").exit()
        }
    };
    match figures {
        Ok(figures) => {
            println!("{}", figures.into_line());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<Figures> {
    let cluster = Cluster::connect(&options.kubeconfig).await?;
    let result = match options.bench {
        Bench::StepLatency => step_latency::measure(&cluster, &options).await,
        Bench::Throughput => throughput::measure(&cluster, &options).await,
        Bench::Scale => scale::measure(&cluster, &options).await,
        Bench::Growth => growth::measure(&cluster, &options).await,
        Bench::Requests => requests::measure(&cluster, &options).await,
        Bench::Recovery => recovery::measure(&cluster, &options).await,
        Bench::Start => start::measure(&cluster, &options).await,
    };
    // Also after an error, so that the next bench finds an idle cluster. What was measured is measured.
    if let Err(error) = cluster.clean_up().await {
        eprintln!("  the bench's namespaces are left: {error:#}");
    }
    result
}
