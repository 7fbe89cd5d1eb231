//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

/// Writes numbered keys to etcd, keeps a ledger of what was acknowledged, checks that nothing was lost, and watches who leads.
///
/// Exit status: 0 good, 1 the cluster is at fault, 2 it could not be found out.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Where the outputs go as one JSON object, besides standard output (default: /dev/termination-log, if there is one).
    #[arg(long, global = true)]
    pub outputs: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Command {
    /// Waits until every member answers, they agree on a leader, and a linearizable read works.
    Healthy(Healthy),
    /// Writes keys and appends each acknowledged one to the ledger.
    Write(Write),
    /// Checks that every acknowledged key is there, and none that nobody wrote.
    Verify(Verify),
    /// Watches who leads and who falls back, until SIGTERM.
    Observe(Observe),
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct Cluster {
    /// The members: host, host:port or http://host:port, separated by commas.
    #[arg(long, required = true, value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// The longest that one request may take.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub request_timeout: Duration,
}

/// Which keys, and where they are noted.
#[derive(Debug, Args)]
pub struct Keys {
    /// The ledger file.
    #[arg(long)]
    pub ledger: PathBuf,
    /// Start of all keys. Two ledgers on one cluster need two prefixes, as the keys of one look invented to the other.
    #[arg(long, default_value = "/soak")]
    pub prefix: String,
    /// How long to wait for another process that has the ledger.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub lock_timeout: Duration,
}

/// `healthy`
#[derive(Debug, Args)]
pub struct Healthy {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Also tell the address of the host beside each member: this ending after the member's name.
    #[arg(long)]
    pub beside: Option<String>,
    /// Voting members that the cluster must have (default: as many as there are endpoints).
    #[arg(long)]
    pub members: Option<usize>,
    /// How long to wait.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
}

/// `write`
#[derive(Debug, Args)]
pub struct Write {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Which keys.
    #[command(flatten)]
    pub keys: Keys,
    /// The soak's cycle.
    #[arg(long)]
    pub cycle: u32,
    /// Keys to attempt.
    #[arg(long, required_unless_present = "until_terminated", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Go on until SIGTERM (or SIGINT), then report within a second.
    #[arg(long, conflicts_with = "count")]
    pub until_terminated: bool,
    /// Attempts a second (`100/s`, `100`) or a minute (`600/m`), of all streams together.
    #[arg(long, default_value = "100/s", value_parser = rate)]
    pub rate: f64,
    /// Writes at the same time; each stream's keys must keep their order.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub streams: u16,
    /// Size of a value.
    #[arg(long, default_value_t = 128)]
    pub value_bytes: usize,
    /// Make a new connection for every write.
    #[arg(long)]
    pub no_reuse: bool,
    /// Good is when no write is acknowledged at all: what an isolated leader and a cluster without a quorum owe.
    #[arg(long)]
    pub expect_none: bool,
    /// Shortest median of a write that is good: the proof that a delay was felt.
    #[arg(long, value_parser = duration)]
    pub min_median: Option<Duration>,
    /// Fewest writes that are not acknowledged: the proof that a loss was felt.
    #[arg(long, default_value_t = 0)]
    pub min_not_acknowledged: u64,
}

/// `observe`
#[derive(Debug, Args)]
pub struct Observe {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Longest re-election that is good.
    #[arg(long, value_parser = duration)]
    pub max_reelection: Option<Duration>,
    /// The quorum goes on purpose: the time without a leader is told as `outageSeconds`, and not as a re-election.
    #[arg(long, conflicts_with = "max_reelection")]
    pub quorum_lost: bool,
    /// So many times the leader must change at least.
    #[arg(long, default_value_t = 0)]
    pub min_leader_changes: u64,
    /// So many entries some member must miss at least, and catch up with.
    #[arg(long, default_value_t = 0)]
    pub min_missed: u64,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Which keys.
    #[command(flatten)]
    pub keys: Keys,
    /// Only look at this cycle and later ones.
    #[arg(long, default_value_t = 0)]
    pub since_cycle: u32,
    /// After a good verification: delete the keys, let etcd compact its history, and shorten the ledger.
    #[arg(long)]
    pub forget_verified: bool,
    /// How long to go on trying while no member answers.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// Succeed even when the ledger has no acknowledged key to look for.
    #[arg(long)]
    pub allow_empty: bool,
    /// Also compare the members' data with each other.
    #[arg(long)]
    pub compare_members: bool,
}

fn number(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim().parse().map_err(|_| format!("{text:?} is not a number"))?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err(format!("{text:?} is not above 0")) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} has no unit: ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number(digits)? * seconds).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let (count, per) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match per {
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("{text:?} is neither a second's (/s) nor a minute's (/m)")),
    };
    let rate = number(count)? / seconds;
    if (0.001..=100_000.0).contains(&rate) { Ok(rate) } else { Err(format!("{text:?} is out of range")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
        let parse = |line: &str| Options::try_parse_from(line.split(' '));
        assert!(parse("x healthy --endpoints a,b,c --members 3 --timeout 1m").is_ok());
        assert!(parse("x write --endpoints a --ledger l --cycle 1 --count 5 --rate 100/s").is_ok());
        assert!(parse("x write --endpoints a --ledger l --cycle 1 --until-terminated --outputs o").is_ok());
        assert!(parse("x write --endpoints a --ledger l --cycle 1").is_err(), "no end");
        assert!(parse("x write --endpoints a --ledger l --cycle 1 --count 1 --until-terminated").is_err());
        assert!(parse("x verify --endpoints a --ledger l --since-cycle 3 --forget-verified").is_ok());
        assert!(parse("x verify --ledger l").is_err(), "no cluster");
        assert!(parse("x observe --endpoints a,b --max-reelection 10s --min-missed 250").is_ok());
    }

    #[test]
    fn durations_and_rates_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert!(["5", "", "s", "-1s", "1d", "NaNs"].iter().all(|text| duration(text).is_err()));
        assert_eq!((rate("100/s"), rate("100"), rate("600/m")), (Ok(100.0), Ok(100.0), Ok(10.0)));
        assert!(["0/s", "-5", "5/h", "x", "inf"].iter().all(|text| rate(text).is_err()));
    }
}
