//! Programs of the operator's image beside it. The one that acts on a node stops the processes of a container, sends them signals, or
//! cuts a pod off from others; [`artifacts`] hands on a step's files.
//!
//! It is a part of the operator's own binary, so that one image serves all. It knows nothing of the operator and of
//! Kubernetes: it is told a container, what to do and until when. It undoes what it did by itself, whatever becomes of the
//! operator, and ends with success only after it has seen that it is undone. What is left by a helper that was killed outright
//! is undone by another one ([`Act::Undo`]), which needs to know nothing of the first.

pub mod artifacts;
mod cut;
mod lasting;
mod network;
mod places;
mod prefix;
mod processes;
mod resolv;
mod stress;
mod work;

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};

pub use prefix::Prefix;
pub use stress::Stress;
pub use work::Work;

/// Where the operator's image has its binary.
pub const PROGRAM: &str = "/soak-operator";

/// How a helper ends. Whoever started it judges by the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What was asked for was done, and nothing of it is left; for [`Act::Check`]: the effect is there.
    Good = 0,
    /// Something may be left; for [`Act::Check`]: the effect is not there.
    Bad = 1,
    /// The container is not there (any more), and nothing of the effect with it.
    Gone = 3,
    /// It did not begin, and left nothing.
    NeverBegan = 4,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        // The discriminants are small.
        Self::from(end as u8)
    }
}

/// Programs beside the operator.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Acts on the processes or the network of a container on this node.
    #[command(hide = true)]
    NodeHelper(NodeHelper),
    /// Uses up CPU, memory or disk.
    #[command(hide = true)]
    Stress(Stress),
    /// Hands on the files that a step leaves behind.
    #[command(hide = true)]
    Artifacts(artifacts::Artifacts),
}

/// What a helper is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Act {
    /// Make the effect, keep it up, undo it.
    #[default]
    Make,
    /// Tell whether the effect is there.
    Check,
    /// Undo the effect of another helper.
    Undo,
}

/// Where a helper acts, and when.
#[derive(Clone, Debug, Args)]
pub struct NodeHelper {
    /// What it is asked.
    #[arg(long, value_enum, default_value_t)]
    pub act: Act,
    /// The pod's uid.
    #[arg(long)]
    pub pod: String,
    /// The container's id, with or without the runtime's name in front.
    #[arg(long)]
    pub container: String,
    /// What is this helper's work among that of others.
    #[arg(long)]
    pub key: String,
    /// It does not begin later than this.
    #[arg(long)]
    pub not_after: Option<DateTime<Utc>>,
    /// It is undone then at the latest.
    #[arg(long)]
    pub until: Option<DateTime<Utc>>,
    /// It is undone so many milliseconds after the effect is there.
    #[arg(long = "for-ms")]
    pub for_ms: Option<u64>,
    /// What it does.
    #[command(subcommand)]
    pub work: Work,
}

/// Runs one of the programs to its end.
pub fn main(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no thread to work with: {error}");
            return End::NeverBegan.into();
        }
    };
    match command {
        Command::NodeHelper(helper) => runtime.block_on(lasting::run(&helper)).into(),
        Command::Stress(stress) => runtime.block_on(stress.run()).into(),
        Command::Artifacts(artifacts) => runtime.block_on(artifacts.run()).into(),
    }
}

/// What the binary makes of a container's command.
#[cfg(test)]
pub(crate) fn parsed(words: &serde_json::Value) -> Result<Command, clap::Error> {
    #[derive(clap::Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }
    let words: Vec<String> = serde_json::from_value(words.clone()).expect("a command is a list of texts");
    <Program as clap::Parser>::try_parse_from(words).map(|program| program.command)
}
