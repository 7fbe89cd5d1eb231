//! `growth`: one run of many cycles. A late cycle must cost what an early one does.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use crate::{
    Options,
    cluster::Cluster,
    figures::{Figures, number},
    operator::Operator,
    proxy::{Count, Proxy},
};

/// Cycles whose mean is taken, so that one hiccup does not decide.
const WINDOW: usize = 100;
/// By now as many records are kept as ever will be, so that each cycle deletes one.
const EARLY: usize = 60;
const PATIENCE: Duration = Duration::from_mins(20);

/// Measures.
pub async fn measure(cluster: &Cluster, options: &Options) -> Result<Figures> {
    let mut figures = Figures::of("growth");
    let namespace = cluster.namespace("growth").await?;
    let proxy = Proxy::start(cluster.client.clone()).await?;
    let operator = Operator::start(&options.operator, &proxy.kubeconfig, &namespace.name)?;
    let step = json!({"name": "pause", "sleep": {"duration": "0s"}});
    let spec =
        json!({"serviceAccountName": "soak", "cycles": options.cycles, "phases": [{"name": "work", "steps": [step]}]});
    namespace.create_run("growth", &spec).await?;
    namespace.ended("growth", PATIENCE).await?;
    operator.kill()?;
    let records = proxy.records();
    // The last record is the summary's.
    let Some(late) = records.len().checked_sub(WINDOW + 2).filter(|late| *late > EARLY + WINDOW) else {
        bail!("{} cycles are too few: take at least {}", options.cycles, EARLY + 2 * WINDOW + 2);
    };
    let early = Costs::between(&records[EARLY], &records[EARLY + WINDOW]);
    let late = Costs::between(&records[late], &records[late + WINDOW]);
    figures.tell("cycles", options.cycles);
    figures.at_most("statusBytes", number(proxy.largest_status()), 32_768.0);
    figures.at_most("costRatio", late.ratio(&early), 1.1);
    figures.tell("millisPerCycle", crate::figures::rounded(late.seconds * 1e3));
    figures.tell("requestsPerCycle", late.requests);
    figures.tell("bytesPerCycle", late.bytes.round());
    figures.tell("millisRatio", crate::figures::rounded(late.seconds / early.seconds));
    figures.tell("requestsRatio", crate::figures::rounded(late.requests / early.requests));
    figures.tell("bytesRatio", crate::figures::rounded(late.bytes / early.bytes));
    Ok(figures)
}

/// What a cycle costs.
struct Costs {
    seconds: f64,
    requests: f64,
    bytes: f64,
}

impl Costs {
    fn between(from: &Count, to: &Count) -> Self {
        let cycles = number(WINDOW);
        Self {
            seconds: (to.at - from.at).as_secs_f64() / cycles,
            requests: number(to.total() - from.total()) / cycles,
            bytes: number(to.bytes - from.bytes) / cycles,
        }
    }

    /// By how much the one that grew most has grown.
    fn ratio(&self, early: &Self) -> f64 {
        let ratios = [self.seconds / early.seconds, self.requests / early.requests, self.bytes / early.bytes];
        ratios.into_iter().fold(0.0, f64::max)
    }
}
