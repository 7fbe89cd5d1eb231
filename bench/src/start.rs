//! `start`: from the start of the process to the first write that a reconcile makes; and sizes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use serde_json::json;

use crate::{
    Options,
    cluster::{Cluster, name_of},
    figures::{Figures, number, percentile},
    operator::Operator,
};

const STARTS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the median of some starts, each with a run that nobody has seen before.
pub async fn measure(cluster: &Cluster, options: &Options) -> Result<Figures> {
    let mut figures = Figures::of("start");
    let mut times = Vec::new();
    for index in 0..STARTS {
        let namespace = cluster.namespace("start").await?;
        let name = format!("run-{index}");
        let step = json!({"name": "pause", "sleep": {"duration": "0s"}});
        let spec = json!({"serviceAccountName": "soak", "cycles": 1, "phases": [{"name": "work", "steps": [step]}]});
        namespace.create_run(&name, &spec).await?;
        let mut changes = namespace.watch("soakruns").await?;
        let began = Instant::now();
        let operator = Operator::start(&options.operator, &cluster.kubeconfig, &namespace.name)?;
        let change = tokio::time::timeout(PATIENCE, changes.next()).await.context("the operator writes nothing")?;
        let took = began.elapsed();
        anyhow::ensure!(name_of(&change.context("the watch ended")??["object"]) == name, "another run was written");
        eprintln!("  start {index}: {:.0} ms", took.as_secs_f64() * 1e3);
        times.push(took);
        operator.kill()?;
    }
    figures.at_most("millis", percentile(&mut times, 0.5).as_secs_f64() * 1e3, 300.0);
    figures.tell("binaryMegabytes", megabytes(&options.operator)?);
    if let Some(image) = &options.image {
        figures.at_most("imageMegabytes", megabytes(image)?, 25.0);
    }
    Ok(figures)
}

fn megabytes(file: &std::path::Path) -> Result<f64> {
    let length = std::fs::metadata(file).with_context(|| format!("{} can't be read", file.display()))?.len();
    Ok(crate::figures::rounded(number(length) / 1e6))
}
