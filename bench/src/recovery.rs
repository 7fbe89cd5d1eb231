//! `recovery`: the operator is killed with many live runs and started again.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::{
    Options,
    cluster::{Cluster, Namespace, each, name_of},
    figures::{Figures, number},
    fleet::{Fleet, run_name},
    operator::Operator,
};

const PATIENCE: Duration = Duration::from_mins(2);
/// Runs whose event came while the operator was down: they must answer it, so that being looked at is not taken for being
/// driven. They are spread over all runs.
const PROBES: usize = 100;
/// What is written after all runs were picked up would be a repetition.
const SETTLE: Duration = Duration::from_secs(5);
/// Between two looks at whether all were picked up.
const LOOK: Duration = Duration::from_millis(500);

/// Measures.
pub async fn measure(cluster: &Cluster, options: &Options) -> Result<Figures> {
    let mut figures = Figures::of("recovery");
    let Fleet { namespace, operator } = Fleet::start(cluster, options).await?;
    operator.kill()?;
    let step = (options.runs / PROBES).max(1);
    let probed: Vec<String> = (0..options.runs).step_by(step).map(run_name).collect();
    each(probed.clone(), |name| {
        let namespace = namespace.clone();
        async move { namespace.patch("configmaps", &name, &json!({"data": {"mark": "1"}})).await }
    })
    .await?;
    let before = versions(&namespace).await?;
    let mut changes = namespace.watch("soakruns").await?;
    let mut operator = Operator::start(&options.operator, &cluster.kubeconfig, &namespace.name)?;
    let mut missing: HashSet<&str> = probed.iter().map(String::as_str).collect();
    while !missing.is_empty() {
        let change = tokio::time::timeout(PATIENCE, changes.next()).await;
        let change =
            change.with_context(|| format!("{} runs did not answer", missing.len()))?.context("the watch ended")??;
        if change["object"]["status"]["current"]["phases"][0]["steps"][0]["state"] == "Succeeded" {
            missing.remove(name_of(&change["object"]).as_str());
        }
    }
    operator.until_metric("soak_reconcile_duration_seconds_count", number(options.runs), LOOK, PATIENCE).await?;
    figures.tell("runs", options.runs);
    figures.at_most("seconds", operator.started.elapsed().as_secs_f64(), 10.0);
    tokio::time::sleep(SETTLE).await;
    let after = versions(&namespace).await?;
    let mut repeated = 0;
    for (name, version) in &after {
        let answered = probed.contains(name);
        repeated += usize::from(!answered && before.get(name) != Some(version));
    }
    figures.at_most("repeated", number(repeated), 0.0);
    figures.tell("residentMegabytes", operator.resident_megabytes()?.round());
    operator.kill()?;
    Ok(figures)
}

async fn versions(namespace: &Namespace) -> Result<HashMap<String, String>> {
    let version = |run: &Value| run["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    Ok(namespace.list("soakruns").await?.iter().map(|run| (name_of(run), version(run))).collect())
}
