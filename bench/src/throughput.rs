//! `throughput`: runs of ten podless steps, against bare status patches of an equally large object by 32 clients.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    Options,
    cluster::{CLIENTS, Cluster, Namespace, each},
    figures::{Figures, number},
    operator::{Operator, SCRAPE},
};

/// Runs in the two rounds.
const ROUNDS: [usize; 2] = [200, 1_000];
const STEPS: usize = 10;
/// How long each half of the limit is measured.
const LIMIT_SECONDS: u64 = 4;
const PATIENCE: Duration = Duration::from_mins(5);

/// Measures.
pub async fn measure(cluster: &Cluster, options: &Options) -> Result<Figures> {
    let mut figures = Figures::of("throughput");
    for runs in ROUNDS {
        let namespace = cluster.namespace(&format!("runs{runs}")).await?;
        namespace.create("configmaps", &json!({"metadata": {"name": "gate"}, "data": {"open": "yes"}})).await?;
        each(0..runs, |number| {
            let namespace = namespace.clone();
            async move {
                let target = format!("target-{number}");
                namespace.create("configmaps", &json!({"metadata": {"name": target}, "data": {"n": "0"}})).await?;
                namespace.create_run(&format!("run-{number}"), &spec(&target)).await
            }
        })
        .await?;
        eprintln!("{runs} runs of {STEPS} podless steps");
        let mut operator = Operator::start(&options.operator, &cluster.kubeconfig, &namespace.name)?;
        let began = chrono::Utc::now();
        operator.until_metric("soak_runs{phase=\"Succeeded\"}", number(runs), SCRAPE, PATIENCE).await?;
        let (cpu, resident) = (operator.cpu()?, operator.resident_megabytes()?);
        operator.kill()?;
        let (seconds, status) = outcome(&namespace, began).await?;
        let rate = number(runs * STEPS) / seconds;
        let limit = patches_a_second(cluster, &status).await?;
        eprintln!("  {rate:.0} steps/s, {limit:.0} status patches/s");
        let name = |what: &str| if runs == ROUNDS[1] { what.to_owned() } else { format!("{what}Of{runs}") };
        figures.at_least(&name("ratio"), rate / limit, 1.0);
        figures.at_most(&name("cpuMillisPerStep"), cpu.as_secs_f64() * 1e3 / number(runs * STEPS), 0.3);
        figures.tell(&name("stepsPerSecond"), rate.round());
        figures.tell(&name("patchesPerSecond"), limit.round());
        figures.tell(&name("residentMegabytes"), resident.round());
        figures.tell(&name("seconds"), seconds);
    }
    figures.tell("runs", ROUNDS[1]);
    Ok(figures)
}

/// `sleep`, a satisfied `wait` and `patch` by turns, one after the other.
fn spec(target: &str) -> Value {
    let config_map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name});
    let step = |number: usize| match number % 3 {
        0 => json!({"name": format!("pause-{number}"), "sleep": {"duration": "0s"}}),
        1 => {
            json!({"name": format!("gate-{number}"), "wait": {"resource": config_map("gate"), "until": "object.data.open == 'yes'"}})
        }
        _ => {
            json!({"name": format!("write-{number}"), "patch": {"resource": config_map(target), "patch": {"data": {"n": number.to_string()}}}})
        }
    };
    let steps: Vec<Value> = (0..STEPS).map(step).collect();
    json!({"serviceAccountName": "soak", "cycles": 1, "phases": [{"name": "work", "steps": steps}]})
}

/// Seconds until the last run had ended, and the status of one of them.
async fn outcome(namespace: &Namespace, began: chrono::DateTime<chrono::Utc>) -> Result<(f64, Value)> {
    let runs = namespace.list("soakruns").await?;
    let ends = runs
        .iter()
        .filter_map(|run| run["status"]["finishedAt"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok());
    let last = ends.max().context("no run has ended")?;
    let status = runs.into_iter().next().context("there are no runs")?["status"].take();
    Ok(((last - began).as_seconds_f64(), status))
}

/// The limit: one field of a status changed by a merge patch, again and again, each client on an object of its own.
async fn patches_a_second(cluster: &Cluster, status: &Value) -> Result<f64> {
    let namespace = cluster.namespace("limit").await?;
    let spec = spec("nothing");
    each(0..CLIENTS, |client| {
        let (namespace, spec) = (namespace.clone(), spec.clone());
        async move {
            let name = format!("run-{client}");
            namespace.create_run(&name, &spec).await?;
            namespace.patch("soakruns", &format!("{name}/status"), &json!({"status": status})).await
        }
    })
    .await?;
    let began = Instant::now();
    let end = began + Duration::from_secs(LIMIT_SECONDS);
    let done = std::sync::atomic::AtomicU64::new(0);
    each(0..CLIENTS, |client| {
        let (namespace, done) = (namespace.clone(), &done);
        async move {
            let name = format!("run-{client}/status");
            for number in 0_u64.. {
                if Instant::now() > end {
                    break;
                }
                namespace.patch("soakruns", &name, &json!({"status": {"position": number.to_string()}})).await?;
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        }
    })
    .await?;
    Ok(number(done.into_inner()) / began.elapsed().as_secs_f64())
}
