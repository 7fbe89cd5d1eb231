//! How long things take on a hub.

use std::time::Duration;

use clap::Args;

/// Timings, and how often a restore fails.
#[derive(Args, Clone, Debug)]
pub struct Timing {
    /// Seconds that a restore takes. A passive one, whose data is there already, takes half.
    #[arg(long, default_value_t = 60.0)]
    restore: f64,
    /// Seconds from one managed cluster's re-attaching to the next one's.
    #[arg(long, default_value_t = 30.0)]
    attach: f64,
    /// Seconds that a backup takes.
    #[arg(long, default_value_t = 120.0)]
    backup: f64,
    /// Seconds that a pod takes to start.
    #[arg(long, default_value_t = 10.0)]
    pod: f64,
    /// Share of restores that end with errors, of those tried for the first time: 0.15 was measured.
    #[arg(long, default_value_t = 0.15)]
    pub flaky: f64,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// All of it thirty times as fast.
    #[arg(long)]
    fast: bool,
}

impl Timing {
    fn scaled(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.fast { seconds / 30.0 } else { seconds }.max(0.0))
    }

    /// How long a restore takes.
    pub fn restore(&self, passive: bool) -> Duration {
        self.scaled(if passive { self.restore / 2.0 } else { self.restore })
    }

    /// How long the next cluster takes to re-attach.
    pub fn attach(&self) -> Duration {
        self.scaled(self.attach)
    }

    /// How long a backup takes.
    pub fn backup(&self) -> Duration {
        self.scaled(self.backup)
    }

    /// How long a pod takes to start.
    pub fn pod(&self) -> Duration {
        self.scaled(self.pod)
    }
}
