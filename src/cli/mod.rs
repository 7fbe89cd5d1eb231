//! `kubectl soak`: what runs say, for people at a terminal.
//!
//! It acts with its user's kubeconfig and rights, reads SoakRuns and ConfigMaps, and writes nothing to the cluster but the run that
//! `trigger` creates.

mod connect;
mod rerun;
mod table;
mod text;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    api::status::RunPhase,
    report::{self, ReportError, RunRecords},
};

use connect::{Cluster, ClusterError};

/// Reports on soak runs and compares them.
#[derive(Debug, Parser)]
#[command(name = "kubectl soak", bin_name = "kubectl soak", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Which cluster and namespace, as kubectl's own options name them.
#[derive(Clone, Debug, Args)]
struct ClusterOptions {
    /// Path of the kubeconfig file; otherwise as kubectl finds it.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The runs' namespace; otherwise the context's.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the report of a run: HTML, Markdown, JSON, JUnit and CTRF.
    Report {
        /// The run.
        run: String,
        #[command(flatten)]
        baseline: Baseline,
        /// An earlier attempt of the run; otherwise the newest.
        #[arg(long)]
        attempt: Option<u32>,
        /// The folder to write to, made if need be.
        #[arg(short, long, value_name = "DIR", default_value = "soak-report")]
        output: PathBuf,
        /// End with 1 when the run failed, was aborted or is inconclusive.
        #[arg(long)]
        exit_code: bool,
    },
    /// Compare two runs, metric by metric.
    Compare {
        /// The run before.
        before: String,
        /// The run after.
        after: String,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// End with 1 when a duration became longer.
        #[arg(long)]
        exit_code: bool,
    },
    /// Tell since which run something is different, over a series of runs such as nightly ones.
    Trend {
        /// The runs; otherwise all that the selector chooses.
        #[arg(required_unless_present = "selector")]
        runs: Vec<String>,
        /// Labels of the runs, as kubectl takes them.
        #[arg(short = 'l', long, conflicts_with = "runs")]
        selector: Option<String>,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Print a run of one step alone, with the inputs that it had in a cycle: pipe it to `kubectl create -f -`.
    Step {
        /// The run.
        run: String,
        /// The step as PHASE/STEP, or PHASE/GROUP/MEMBER; setup/STEP and cleanup/STEP without a cycle.
        step: String,
        /// The cycle.
        #[arg(long)]
        cycle: Option<u32>,
        /// An earlier attempt of the run; otherwise the newest.
        #[arg(long)]
        attempt: Option<u32>,
    },
    /// Create a run of a schedule now, as `kubectl create job --from=cronjob/NAME` does.
    Trigger {
        /// The schedule.
        schedule: String,
        /// The run's name; otherwise one is made up.
        #[arg(long)]
        name: Option<String>,
    },
    /// List the cycles of a run whose records are stored.
    Cycles {
        /// The run.
        run: String,
        /// An earlier attempt of the run; otherwise the newest.
        #[arg(long)]
        attempt: Option<u32>,
    },
}

/// What a run is compared with.
#[derive(Debug, Args)]
struct Baseline {
    /// The run to compare with.
    #[arg(id = "baseline", long, value_name = "RUN", conflicts_with = "selector")]
    run: Option<String>,
    /// Compare with the newest runs of these labels that succeeded, taken together.
    #[arg(long = "baseline-selector", value_name = "SELECTOR")]
    selector: Option<String>,
    /// So many of them.
    #[arg(long = "baseline-last", value_name = "N", default_value_t = 5, requires = "selector", value_parser = clap::value_parser!(u16).range(1..))]
    last: u16,
}

/// Why a command could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("{path} can't be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    NoRecords(String),
    #[error("{0}")]
    NoStep(String),
    #[error("no threads to work with: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("the result can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs a command. As with kubectl, errors go to stderr and end with 1; bad usage ends with 2.
pub fn main(arguments: Arguments) -> ExitCode {
    // Several TLS libraries may be linked; the choice must be made once.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime);
    match runtime.and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    let ClusterOptions { kubeconfig, context, namespace } = arguments.cluster;
    let cluster = Cluster::connect(kubeconfig, context, namespace).await?;
    match arguments.command {
        Command::Report { run, baseline, attempt, output, exit_code } => {
            let records = records(&cluster, &run, attempt).await?;
            let baseline = self::baseline(&cluster, &run, baseline).await?;
            let report = report::report(&records, baseline.as_ref());
            let files = report::files(&report, &records, baseline.as_ref())?;
            let failed = |path: PathBuf| move |source| CliError::Write { path, source };
            fs::create_dir_all(&output).map_err(failed(output.clone()))?;
            for (name, content) in files {
                let path = output.join(name);
                fs::write(&path, content).map_err(failed(path.clone()))?;
                println!("{}", path.display());
            }
            eprintln!("{}: {}", report::words::verdict(report.verdict.phase), report.words);
            let bad = exit_code && !report::has_passed(&report);
            Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Compare { before, after, json, exit_code } => {
            let (old, new) = (records(&cluster, &before, None).await?, records(&cluster, &after, None).await?);
            let rows = report::compare(&report::series(&old.cycles), &report::series(&new.cycles));
            if json {
                println!("{}", serde_json::to_string_pretty(&rows)?);
            } else {
                print!("{}", text::comparison(&rows));
            }
            let slower = rows.iter().any(|row| report::words::change(row) == "slower");
            Ok(if exit_code && slower { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Trend { runs, selector, json } => {
            let runs = match selector {
                Some(selector) => {
                    cluster.select(&selector).await?.iter().filter_map(|run| run.metadata.name.clone()).collect()
                }
                None => runs,
            };
            let mut summaries = Vec::new();
            for run in &runs {
                // A run that runs has no verdict yet: it is no part of the series.
                summaries.extend(records(&cluster, run, None).await?.summary.filter(|it| it.verdict.phase.is_final()));
            }
            let rows = report::trend(&summaries);
            if json {
                println!("{}", serde_json::to_string_pretty(&rows)?);
            } else {
                print!("{}", text::trend(&rows, summaries.len()));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Step { run, step, cycle, attempt } => {
            let (of, stored) = cluster.read(&run).await?;
            let records = RunRecords::of(&stored, attempt).ok_or_else(|| no_records(&cluster, &run, attempt))?;
            let record = match cycle {
                Some(number) => records.cycles.iter().find(|record| record.cycle == number),
                None if step.starts_with("cleanup/") => records.cleanup.as_ref(),
                None => records.setup.as_ref(),
            };
            let none = || CliError::NoStep(format!("soakrun \"{run}\" has no record of that: name a cycle by --cycle"));
            let manifest = rerun::manifest(&of, &records, record.ok_or_else(none)?, &step).map_err(CliError::NoStep)?;
            println!("{}", serde_json::to_string_pretty(&manifest)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Trigger { schedule, name } => {
            println!("soakrun.soak.dev/{} created", cluster.trigger(&schedule, name).await?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Cycles { run, attempt } => {
            print!("{}", text::cycles(&records(&cluster, &run, attempt).await?));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What a report is compared with: a run, or the newest good ones of a selector, the run itself left out.
async fn baseline(cluster: &Cluster, run: &str, chosen: Baseline) -> Result<Option<RunRecords>, CliError> {
    if let Some(name) = chosen.run {
        return Ok(Some(records(cluster, &name, None).await?));
    }
    let Some(selector) = chosen.selector else { return Ok(None) };
    let mut good = cluster.select(&selector).await?;
    good.retain(|it| it.status.as_ref().is_some_and(|status| status.phase == RunPhase::Succeeded));
    good.sort_by_key(|it| it.status.as_ref().and_then(|status| status.started_at));
    let names = good.iter().filter_map(|it| it.metadata.name.as_deref()).filter(|name| *name != run);
    let mut newest: Vec<&str> = names.collect();
    newest.drain(..newest.len().saturating_sub(usize::from(chosen.last)));
    let mut pool = Vec::new();
    for name in newest {
        pool.push(records(cluster, name, None).await?);
    }
    let none = || {
        CliError::NoRecords(format!(
            "no other run of labels {selector} in namespace {} has succeeded",
            cluster.namespace()
        ))
    };
    RunRecords::pooled(pool).ok_or_else(none).map(Some)
}

fn no_records(cluster: &Cluster, name: &str, attempt: Option<u32>) -> CliError {
    let which = attempt.map_or_else(String::new, |attempt| format!(" of attempt {attempt}"));
    CliError::NoRecords(format!(
        "soakrun \"{name}\" in namespace {} has no records{which} yet: wait for its first cycle to end",
        cluster.namespace()
    ))
}

/// The records of an attempt of a run; while it runs, with a summary of what its status tells.
async fn records(cluster: &Cluster, name: &str, attempt: Option<u32>) -> Result<RunRecords, CliError> {
    let (run, stored) = cluster.read(name).await?;
    let mut records = RunRecords::of(&stored, attempt).ok_or_else(|| no_records(cluster, name, attempt))?;
    for name in &records.damaged {
        eprintln!("warning: record {name} was changed since it was stored, or can't be read; it is left out");
    }
    let status = run.status.unwrap_or_default();
    if records.summary.is_none() && status.attempt == records.run.attempt {
        records.summary = Some(report::standing(&records, &status));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        let parsed =
            Arguments::try_parse_from(["kubectl-soak", "report", "a", "-n", "team", "--baseline", "b"]).unwrap();
        assert_eq!(parsed.cluster.namespace.as_deref(), Some("team"), "options of the cluster may stand anywhere");
        assert!(Arguments::try_parse_from(["kubectl-soak", "compare", "a"]).is_err(), "two runs are compared");
        assert!(Arguments::try_parse_from(["kubectl-soak", "trend"]).is_err(), "runs or a selector");
        assert!(Arguments::try_parse_from(["kubectl-soak", "trend", "-l", "schedule=nightly"]).is_ok());
        let both = ["kubectl-soak", "report", "a", "--baseline", "b", "--baseline-selector", "x=y"];
        assert!(Arguments::try_parse_from(both).is_err(), "one baseline");
    }
}
