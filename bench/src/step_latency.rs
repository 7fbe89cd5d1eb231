//! `step-latency`: pod steps one after the other, against bare pods that a minimal client creates and watches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::{
    Options,
    cluster::{Cluster, Namespace},
    figures::{Figures, number},
    operator::Operator,
};

const STEPS: usize = 20;
const PATIENCE: Duration = Duration::from_mins(5);

/// Measures. Half of the bare pods come before the run and half after it, so that a drift of the machine is in both.
pub async fn measure(cluster: &Cluster, options: &Options) -> Result<Figures> {
    let mut figures = Figures::of("step-latency");
    let namespace = cluster.namespace("latency").await?;
    // The first pod of a namespace waits for its account's token.
    bare_pods(&namespace, "warm", 1).await?;
    let before = bare_pods(&namespace, "before", STEPS / 2).await?;
    let operator = Operator::start(&options.operator, &cluster.kubeconfig, &namespace.name)?;
    let steps: Vec<Value> = (0..STEPS).map(|step| json!({"name": format!("step-{step}"), "pod": pod_step()})).collect();
    let spec = json!({"serviceAccountName": "soak", "cycles": 1, "phases": [{"name": "pods", "steps": steps}]});
    namespace.create_run("latency", &spec).await?;
    let run = namespace.ended("latency", PATIENCE).await?;
    operator.kill()?;
    let after = bare_pods(&namespace, "after", STEPS / 2).await?;
    let cycle = run["status"]["recent"][0]["millis"].as_f64().context("the run tells no cycle")? / 1e3;
    let bare = (before + after).as_secs_f64();
    figures.at_most("ratio", cycle / bare, 1.05);
    figures.tell("secondsPerStep", crate::figures::rounded(cycle / number(STEPS)));
    figures.tell("secondsPerBarePod", crate::figures::rounded(bare / number(STEPS)));
    Ok(figures)
}

fn pod_step() -> Value {
    json!({"image": "localhost/busybox:1", "command": ["/bin/true"],
        "template": {"spec": {"containers": [{"name": "step", "imagePullPolicy": "Never"}]}}})
}

/// The time from the first create to the last end. A pod is over when its container has ended, as it is for the operator: its
/// phase tells that a second later.
async fn bare_pods(namespace: &Namespace, prefix: &str, pods: usize) -> Result<Duration> {
    let mut changes = namespace.watch("pods").await?;
    let began = Instant::now();
    for index in 0..pods {
        let name = format!("{prefix}-{index}");
        let container = json!({"name": "step", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["/bin/true"]});
        let spec = json!({"restartPolicy": "Never", "serviceAccountName": "soak", "containers": [container]});
        namespace.create("pods", &json!({"metadata": {"name": name}, "spec": spec})).await?;
        loop {
            let change = changes.next().await.context("the watch of pods ended")??;
            let pod = &change["object"];
            let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
            if pod["metadata"]["name"] != name.as_str() || ended.is_null() {
                continue;
            }
            if ended["exitCode"] != 0 {
                bail!("bare pod {name} failed: {}", pod["status"]);
            }
            break;
        }
    }
    let took = began.elapsed();
    eprintln!("  {pods} bare pods: {:.2} s each", took.as_secs_f64() / number(pods));
    Ok(took)
}
