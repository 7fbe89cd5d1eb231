//! `cargo xtask bench`: a release build of the operator, measured in a real cluster (docs/performance.md).

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{cluster, kubectl::Kubectl, operator, operator_image, tools, workspace};

/// The benches, in the order in which they run.
const BENCHES: [&str; 9] =
    [ANALYSIS, REPORT, "start", "step-latency", "throughput", "requests", "growth", "scale", "recovery"];
/// Those that need no cluster.
const ANALYSIS: &str = "analysis";
const REPORT: &str = "report";

/// Whether a bench needs a cluster.
fn needs_cluster(name: &str) -> bool {
    ![ANALYSIS, REPORT].contains(&name)
}

/// What is measured, and where.
#[derive(clap::Args)]
pub struct Options {
    /// One of analysis, report, start, step-latency, throughput, requests, growth, scale, recovery; all when absent.
    name: Option<String>,
    /// The cluster; it is started if need be, and stays.
    #[arg(long, default_value = "bench")]
    cluster: String,
    /// Leaves the image out of `start`: building it takes minutes.
    #[arg(long)]
    no_image: bool,
    /// Live runs of `scale` and `recovery` (default 10,000).
    #[arg(long)]
    runs: Option<usize>,
    /// Cycles of `growth` and `analysis` (default 10,000).
    #[arg(long)]
    cycles: Option<u64>,
}

/// Runs one bench, whose line of JSON is the last on stdout, or all of them, which end with a table.
///
/// Errors: a bench did not run well. A goal that is missed is told and no error.
pub fn run(options: &Options) -> Result<()> {
    let names: Vec<&str> = match &options.name {
        None => BENCHES.to_vec(),
        Some(name) => match BENCHES.iter().find(|bench| *bench == name) {
            Some(bench) => vec![bench],
            None => bail!("there is no bench {name}: name one of {}", BENCHES.join(", ")),
        },
    };
    eprintln!("building for release");
    workspace::run(
        "cargo",
        &["build", "--quiet", "--release", "--package", "soak-operator", "--package", "soak-bench"],
        &[],
    )?;
    let cluster = if names.iter().any(|name| needs_cluster(name)) {
        let cluster = cluster::up(&cluster::Options::named(&options.cluster))?;
        operator::install_crds(&Kubectl::new(&cluster.kubectl, &cluster.kubeconfig))?;
        Some(cluster)
    } else {
        None
    };
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        eprintln!("== {name}");
        let line = match measure(name, cluster.as_ref(), options) {
            Ok(line) => line,
            Err(error) => {
                eprintln!("  failed: {error:#}");
                failed.push(name);
                continue;
            }
        };
        for missed in line["missed"].as_array().into_iter().flatten() {
            eprintln!("  missed: {}", missed.as_str().unwrap_or_default());
        }
        lines.push(line);
    }
    if options.name.is_none() {
        println!("{}", table(&lines));
    }
    // One bench: its own line. All: a line of lines.
    println!("{}", if lines.len() == 1 { lines.remove(0) } else { Value::Array(lines) });
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

fn measure(name: &str, cluster: Option<&cluster::Running>, options: &Options) -> Result<Value> {
    let release = workspace::target().join("release");
    let mut command = Command::new(release.join("soak-bench"));
    command.arg(name);
    if let Some(cluster) = cluster.filter(|_| needs_cluster(name)) {
        command.arg("--kubeconfig").arg(&cluster.kubeconfig).arg("--operator").arg(release.join("soak-operator"));
    }
    if name == "start" && !options.no_image {
        command.arg("--image").arg(operator_image::build(workspace::Profile::Release)?.tar);
    }
    if name == REPORT {
        command.arg("--chromium").arg(tools::chromium()?).arg("--folder").arg(workspace::target().join("bench-report"));
    }
    if let Some(runs) = options.runs.filter(|_| needs_cluster(name)) {
        command.args(["--runs", &runs.to_string()]);
    }
    if let Some(cycles) = options.cycles.filter(|_| name != REPORT) {
        command.args(["--cycles", &cycles.to_string()]);
    }
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("soak-bench can't be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("it ended with {}", output.status);
    }
    serde_json::from_str(text.lines().last().unwrap_or_default()).context("its last line is not JSON")
}

/// Each figure of each bench in a line of its own.
fn table(lines: &[Value]) -> String {
    let mut rows = vec![format!("{:<14} {:<26} {:>12}", "bench", "figure", "value")];
    for line in lines {
        let bench = line["bench"].as_str().unwrap_or_default();
        for (figure, value) in line.as_object().into_iter().flatten() {
            if value.is_number() {
                rows.push(format!("{bench:<14} {figure:<26} {value:>12}"));
            }
        }
        for missed in line["missed"].as_array().into_iter().flatten() {
            rows.push(format!("{bench:<14} MISSED: {}", missed.as_str().unwrap_or_default()));
        }
    }
    rows.join("\n")
}
