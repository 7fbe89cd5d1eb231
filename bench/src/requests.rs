//! `requests`: what the operator asks of the API server for a step and for a cycle, counted on the way.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    Options,
    cluster::Cluster,
    figures::{Figures, number, rounded},
    operator::Operator,
    proxy::Proxy,
};

const CYCLES: usize = 8;
/// Cycles before the count begins: watches are opened, kinds are looked up.
const WARM_UP: usize = 2;
const PATIENCE: Duration = Duration::from_mins(3);

/// Measures a run of pods and one without.
pub async fn measure(cluster: &Cluster, options: &Options) -> Result<Figures> {
    let mut figures = Figures::of("requests");
    let pod = json!({"name": "pod", "pod": {"image": "localhost/busybox:1", "command": ["/bin/true"],
        "template": {"spec": {"containers": [{"name": "step", "imagePullPolicy": "Never"}]}}}});
    let pods = cycle(cluster, options, "pods", &[pod]).await?;
    let of = |counts: &BTreeMap<String, f64>, begin: &str| {
        rounded(counts.iter().filter(|(key, _)| key.starts_with(begin)).fold(0.0, |sum, (_, count)| sum + count))
    };
    figures.tell("requestsPerCycle", json!(pods));
    figures.tell("requestsPerStep", of(&pods, ""));
    figures.at_most("lists", of(&pods, "list "), 0.0);
    // The log of a pod can only be had by a GET; it is told apart.
    let logs = of(&pods, "get pods/log");
    figures.tell("logReads", logs);
    figures.at_most("gets", of(&pods, "get ") - logs, 0.0);
    figures.at_most("podCreates", of(&pods, "create pods"), 1.0);
    figures.at_most("podDeletes", of(&pods, "delete pods"), 1.0);
    // Begun, ended and counted are the transitions of a cycle of one pod step; being pending and running are told as well.
    figures.at_most("statusWrites", of(&pods, "update soakruns/status"), 5.0);

    let gate = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gate"});
    let podless = [
        json!({"name": "pause", "sleep": {"duration": "0s"}}),
        json!({"name": "gate", "wait": {"resource": gate, "until": "object.data.open == 'yes'"}}),
        json!({"name": "write", "patch": {"resource": gate, "patch": {"data": {"n": "${string(cycle.number)}"}}}}),
    ];
    let podless = cycle(cluster, options, "podless", &podless).await?;
    figures.tell("podlessRequestsPerCycle", json!(podless));
    figures.tell("podlessRequestsPerStep", rounded(of(&podless, "") / 3.0));
    figures.at_most("podlessReads", of(&podless, "get ") + of(&podless, "list "), 0.0);
    // The intent of the patch, the pass that has ended, the count with the next cycle's begin.
    figures.at_most("podlessStatusWrites", of(&podless, "update soakruns/status"), 3.0);
    Ok(figures)
}

/// Requests of one cycle by verb and resource, in steady state.
async fn cycle(cluster: &Cluster, options: &Options, name: &str, steps: &[Value]) -> Result<BTreeMap<String, f64>> {
    let namespace = cluster.namespace(name).await?;
    namespace.create("configmaps", &json!({"metadata": {"name": "gate"}, "data": {"open": "yes"}})).await?;
    let proxy = Proxy::start(cluster.client.clone()).await?;
    let operator = Operator::start(&options.operator, &proxy.kubeconfig, &namespace.name)?;
    // As many records are kept as there are in the warm-up, so that each cycle of the count deletes one.
    let spec = json!({
        "serviceAccountName": "soak", "cycles": CYCLES, "results": {"retention": {"passed": 1}},
        "phases": [{"name": "work", "steps": steps}],
    });
    namespace.create_run(name, &spec).await?;
    namespace.ended(name, PATIENCE).await?;
    operator.kill()?;
    let records = proxy.records();
    ensure!(records.len() == CYCLES + 1, "{} records were stored, not {CYCLES} and a summary", records.len());
    let (from, to) = (records.get(WARM_UP).context("no cycle")?, records.get(CYCLES - 1).context("no cycle")?);
    let per_cycle = |(key, count): (String, u64)| (key, rounded(number(count) / number(CYCLES - 1 - WARM_UP)));
    Ok(to.since(from).into_iter().map(per_cycle).collect())
}
