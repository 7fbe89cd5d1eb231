//! `scale`: many live runs; what they cost while nothing happens, and how fast each reacts when something does.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::{
    Options,
    cluster::{Cluster, name_of},
    figures::{Figures, number, percentile, rounded},
    fleet::{Fleet, run_name},
};

const IDLE: Duration = Duration::from_secs(20);
/// Between two events: 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// Reactions that are told apart, and in what steps of seconds: stalls of the server show as many in a row.
const SLOW: Duration = Duration::from_millis(100);
const WINDOW: u64 = 10;
/// How long after the last event the last status write may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures.
pub async fn measure(cluster: &Cluster, options: &Options) -> Result<Figures> {
    let mut figures = Figures::of("scale");
    let fleet = Fleet::start(cluster, options).await?;
    figures.tell("runs", options.runs);
    // What the start has left to do is done first.
    tokio::time::sleep(IDLE / 4).await;
    let (cpu, since) = (fleet.operator.cpu()?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let idle = (fleet.operator.cpu()?.saturating_sub(cpu)).as_secs_f64() / since.elapsed().as_secs_f64();
    figures.at_most("idleCpuPercent", idle * 100.0, 1.0);
    figures.at_most("residentMegabytes", fleet.operator.resident_megabytes()?, 100.0);
    let (mut reactions, mut requests) = events(&fleet, options.runs).await?;
    if reactions.len() < options.runs {
        bail!("only {} of {} events were answered by a status write", reactions.len(), options.runs);
    }
    figures.tell("p50Millis", rounded(percentile(&mut reactions, 0.5).as_secs_f64() * 1e3));
    figures.at_most("p99Millis", percentile(&mut reactions, 0.99).as_secs_f64() * 1e3, 100.0);
    figures.tell("requestP50Millis", rounded(percentile(&mut requests, 0.5).as_secs_f64() * 1e3));
    figures.tell("requestP99Millis", rounded(percentile(&mut requests, 0.99).as_secs_f64() * 1e3));
    figures.tell("residentMegabytesAfter", rounded(fleet.operator.resident_megabytes()?));
    fleet.operator.kill()?;
    Ok(figures)
}

/// Marks one ConfigMap after the other; how long after each request's start its run's status was written, as a watch tells, and
/// how long each request took by itself: what the server needs when nobody but it has a part in the answer.
async fn events(fleet: &Fleet, runs: usize) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let mut changes = fleet.namespace.watch("soakruns").await?;
    let sent: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let (namespace, sink) = (fleet.namespace.clone(), sent.clone());
    let answered: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let answers = answered.clone();
    let sender = tokio::spawn(async move {
        let mut pace = tokio::time::interval(PACE);
        for index in 0..runs {
            pace.tick().await;
            let (name, namespace, answers) = (run_name(index), namespace.clone(), answers.clone());
            sink.lock().expect("no panic holds it").insert(name.clone(), Instant::now());
            tokio::spawn(async move {
                let change = json!({"data": {"mark": "1"}});
                let since = Instant::now();
                match namespace.patch("configmaps", &name, &change).await {
                    Ok(_) => answers.lock().expect("no panic holds it").push(since.elapsed()),
                    Err(error) => eprintln!("  {error:#}"),
                }
            });
        }
    });
    let mut reactions = Vec::with_capacity(runs);
    let (began, mut slow) = (Instant::now(), BTreeMap::<u64, usize>::new());
    while reactions.len() < runs {
        let wait = if sender.is_finished() { PATIENCE } else { Duration::from_mins(1) };
        let Ok(change) = tokio::time::timeout(wait, changes.next()).await else { break };
        let change: Value = change.context("the watch of runs ended")??;
        let object = &change["object"];
        let first_is_over = object["status"]["current"]["phases"][0]["steps"][0]["state"] == "Succeeded";
        if first_is_over && let Some(since) = sent.lock().expect("no panic holds it").remove(&name_of(object)) {
            let reaction = since.elapsed();
            reactions.push(reaction);
            if reaction > SLOW {
                *slow.entry(began.elapsed().as_secs() / WINDOW).or_default() += 1;
            }
        }
        if reactions.len().is_multiple_of(1_000) {
            eprintln!("  {} of {runs} events answered", number(reactions.len()));
        }
    }
    for (window, count) in slow {
        eprintln!("  {count} of more than {} ms in the {WINDOW} s from {} s on", SLOW.as_millis(), window * WINDOW);
    }
    sender.await?;
    let requests = std::mem::take(&mut *answered.lock().expect("no panic holds it"));
    Ok((reactions, requests))
}
