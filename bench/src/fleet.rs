//! Many live runs: each waits for a mark on a ConfigMap of its own, and after it for one that never comes.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::{
    Options,
    cluster::{Cluster, Namespace, each},
    figures::number,
    operator::{Operator, SCRAPE},
};

const PATIENCE: Duration = Duration::from_mins(10);

/// The runs, and the operator that drives them.
pub struct Fleet {
    /// Where they live.
    pub namespace: Namespace,
    /// It has seen all of them.
    pub operator: Operator,
}

impl Fleet {
    /// Makes the runs and waits until all of them wait.
    pub async fn start(cluster: &Cluster, options: &Options) -> Result<Self> {
        let runs = options.runs;
        let namespace = cluster.namespace("fleet").await?;
        each(0..runs, |index| {
            let namespace = namespace.clone();
            async move {
                let name = run_name(index);
                namespace.create("configmaps", &json!({"metadata": {"name": name}, "data": {"mark": "0"}})).await?;
                let wait = |mark: &str| {
                    json!({
                        "name": format!("mark-{mark}"), "timeout": "24h",
                        "wait": {
                            "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "${run.name}"},
                            "until": format!("object.data.mark == '{mark}'"),
                        },
                    })
                };
                let phase = json!({"name": "marks", "steps": [wait("1"), wait("never")]});
                let spec = json!({"serviceAccountName": "soak", "cycles": 1, "cycleTimeout": "24h", "phases": [phase]});
                namespace.create_run(&name, &spec).await
            }
        })
        .await?;
        eprintln!("{runs} runs are made");
        let mut operator = Operator::start(&options.operator, &cluster.kubeconfig, &namespace.name)?;
        operator.until_metric("soak_runs{phase=\"Running\"}", number(runs), SCRAPE, PATIENCE).await?;
        eprintln!("{runs} runs are live after {:.1} s", operator.started.elapsed().as_secs_f64());
        Ok(Self { namespace, operator })
    }
}

/// The name of a run, and of the ConfigMap that it waits for.
pub fn run_name(index: usize) -> String {
    format!("run-{index:05}")
}
