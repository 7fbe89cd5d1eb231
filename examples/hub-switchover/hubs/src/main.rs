//! Plays the controllers of two management hubs, so that a switchover between them can be soaked without the product.
//!
//! It looks at both hubs several times a second and moves each object on as the product's controllers would: backups take
//! time, a restore takes time and can fail, managed clusters re-attach one by one, pods take time to start. Timings are
//! options.

mod hub;
mod timing;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;

use hub::{Agents, Hub};
use timing::Timing;

/// How often both hubs are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Plays the controllers of two hubs.
#[derive(Parser)]
struct Options {
    /// The first hub's kubeconfig.
    #[arg(long)]
    hub_a: PathBuf,
    /// The second hub's kubeconfig.
    #[arg(long)]
    hub_b: PathBuf,
    #[command(flatten)]
    timing: Timing,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(options: Options) -> Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another provider of TLS is installed"))?;
    let timing = options.timing;
    let mut hubs = [
        Hub::connect(&options.hub_a).await.with_context(|| format!("{}", options.hub_a.display()))?,
        Hub::connect(&options.hub_b).await.with_context(|| format!("{}", options.hub_b.display()))?,
    ];
    let mut agents = Agents::default();
    for hub in &hubs {
        agents.backup = agents.backup.max(hub.newest_backup().await?);
    }
    let mut random = fastrand::Rng::with_seed(timing.seed);
    println!("playing the controllers of two hubs");
    loop {
        tokio::select! {
            ended = tokio::signal::ctrl_c() => return ended.context("signals can't be received"),
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(error) = look(&mut hubs, &mut agents, &timing, &mut random).await {
            // A hub that stumbles, or an object that changed in between: it is looked at again.
            eprintln!("{error:#}");
        }
    }
}

async fn look(hubs: &mut [Hub; 2], agents: &mut Agents, timing: &Timing, random: &mut fastrand::Rng) -> Result<()> {
    for index in 0..hubs.len() {
        let other_writes = hubs[1 - index].writes_backups().await?;
        let [one, two] = hubs;
        let (hub, other) = if index == 0 { (one, two) } else { (two, one) };
        hub.back_up(agents, timing).await?;
        hub.restore(agents, other_writes, timing, random).await?;
        hub.attach(index, other, agents, timing).await?;
        hub.start_pods(timing).await?;
        hub.observe().await?;
    }
    Ok(())
}
