//! The workload of the etcd examples: a writer that knows what it was promised, a verifier that holds etcd to it, and an
//! observer of who leads.

mod etcd;
mod healthy;
mod key;
mod latency;
mod ledger;
mod observe;
mod options;
mod timeline;
mod verify;
mod write;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use clap::Parser;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{
    etcd::Etcd,
    ledger::{Known, Ledger},
    options::{Cluster, Command, Healthy, Observe, Options, Verify, Write},
};

const TERMINATION_LOG: &str = "/dev/termination-log";

/// How a command ended, with what it found out.
enum End {
    Good(Value),
    /// The cluster is at fault.
    Bad(Value, String),
    /// Nothing was found out.
    Broken(String),
}

fn main() -> ExitCode {
    let Options { outputs, command } = Options::parse();
    let end = match &command {
        Command::Healthy(options) => stop_on_signals().map_or_else(End::Broken, |()| healthy(options)),
        Command::Verify(options) => stop_on_signals().map_or_else(End::Broken, |()| verify(options)),
        Command::Write(options) => write(options),
        Command::Observe(options) => observe(options),
    };
    let (status, found, why) = match end {
        End::Good(found) => (ExitCode::SUCCESS, Some(found), None),
        End::Bad(found, why) => (ExitCode::from(1), Some(found), Some(why)),
        End::Broken(why) => (ExitCode::from(2), None, Some(why)),
    };
    if let Some(why) = why {
        eprintln!("etcd-ledger: {why}");
    }
    match found.map(|found| report(&found, outputs)) {
        Some(Err(error)) => {
            eprintln!("etcd-ledger: the outputs could not be written: {error}");
            ExitCode::from(2)
        }
        _ => status,
    }
}

/// The first process of a container ignores SIGTERM unless it says otherwise.
fn stop_on_signals() -> Result<(), String> {
    let always = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, always.clone())
            .map_err(|error| format!("no signal handler: {error}"))?;
    }
    Ok(())
}

fn report(found: &Value, outputs: Option<PathBuf>) -> io::Result<()> {
    println!("{found}");
    let default = || Some(PathBuf::from(TERMINATION_LOG)).filter(|path| path.exists());
    outputs.or_else(default).map_or(Ok(()), |path| std::fs::write(path, found.to_string()))
}

fn client(cluster: &Cluster) -> Etcd {
    Etcd::new(&cluster.endpoints, cluster.request_timeout)
}

fn no_ledger(path: &Path, error: &io::Error) -> End {
    End::Broken(format!("the ledger {}: {error}", path.display()))
}

fn healthy(options: &Healthy) -> End {
    let begun = Instant::now();
    let members = options.members.unwrap_or(options.cluster.endpoints.len());
    match healthy::wait(&client(&options.cluster), members, begun + options.timeout) {
        Ok(found) => {
            let seconds = timeline::seconds(begun.elapsed());
            let mut outputs = healthy::roles(&client(&options.cluster), found.leader, options.beside.as_deref());
            outputs.extend([
                ("members".into(), json!(found.members)),
                ("term".into(), json!(found.term)),
                ("healthySeconds".into(), seconds),
            ]);
            End::Good(outputs.into())
        }
        Err(missing) => End::Bad(json!({}), format!("not healthy after {:?}: {missing}", options.timeout)),
    }
}

/// A flag that SIGTERM and SIGINT set.
fn told_to_stop() -> Result<Arc<AtomicBool>, End> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|error| End::Broken(format!("no signal handler: {error}")))?;
    }
    Ok(stop)
}

fn observe(options: &Observe) -> End {
    let stop = match told_to_stop() {
        Ok(stop) => stop,
        Err(end) => return end,
    };
    let seen = observe::run(&client(&options.cluster), &stop);
    let limits = observe::Limits {
        reelection: options.max_reelection,
        leader_changes: options.min_leader_changes,
        missed: options.min_missed,
    };
    let defects = observe::defects(&seen, &limits);
    let outputs = seen.outputs(options.quorum_lost).into();
    if defects.is_empty() { End::Good(outputs) } else { End::Bad(outputs, defects.join("; ")) }
}

fn write(options: &Write) -> End {
    let stop = match told_to_stop() {
        Ok(stop) => stop,
        Err(end) => return end,
    };
    let ledger = match Ledger::open(&options.keys.ledger, true, options.keys.lock_timeout) {
        Ok(ledger) => ledger,
        Err(error) => return no_ledger(&options.keys.ledger, &error),
    };
    let plan = write::Plan {
        prefix: options.keys.prefix.clone(),
        cycle: options.cycle,
        streams: options.streams,
        count: options.count,
        rate: options.rate,
        value_bytes: options.value_bytes,
    };
    let connect = if options.no_reuse { Etcd::without_reuse } else { Etcd::new };
    match write::run(&connect(&options.cluster.endpoints, options.cluster.request_timeout), ledger, &plan, &stop) {
        Ok(outcome) if options.expect_none && outcome.attempted() => {
            if outcome.any() {
                return End::Bad(outcome.outputs(), "a write was acknowledged, and none may be".into());
            }
            End::Good(outcome.outputs())
        }
        Ok(outcome) if outcome.any() => {
            if let Some(unfelt) = outcome.unfelt(options.min_median, options.min_not_acknowledged) {
                return End::Bad(outcome.outputs(), unfelt);
            }
            if let Some(why) = outcome.last_failure() {
                eprintln!("etcd-ledger: the last write that was not acknowledged: {why}");
            }
            End::Good(outcome.outputs())
        }
        Ok(outcome) => {
            let why = outcome.last_failure().unwrap_or("nothing was attempted");
            End::Bad(outcome.outputs(), format!("no write was acknowledged: {why}"))
        }
        Err(error) => no_ledger(&options.keys.ledger, &error),
    }
}

fn verify(options: &Verify) -> End {
    let (keys, since) = (&options.keys, options.since_cycle);
    let until = Instant::now() + options.timeout;
    let mut ledger = match Ledger::open(&keys.ledger, false, keys.lock_timeout) {
        Ok(ledger) => ledger,
        Err(error) => return no_ledger(&keys.ledger, &error),
    };
    let to_find = ledger.content.range((since, 0)..).flat_map(|(_, stream)| stream.keys.values());
    if !options.allow_empty && !to_find.into_iter().any(|known| matches!(known, Known::Acknowledged(_))) {
        return End::Broken("the ledger has no acknowledged key to look for, which proves nothing".into());
    }
    let etcd = client(&options.cluster);
    let findings = match verify::verify(&etcd, &ledger.content, &keys.prefix, since, until) {
        Ok(findings) => findings,
        Err(failure) => return End::Broken(format!("etcd can't be read: {failure}")),
    };
    for defect in &findings.named {
        eprintln!("{defect}");
    }
    if !findings.good() {
        let (lost, invented, reordered) = (findings.lost, findings.invented, findings.reordered);
        return End::Bad(findings.outputs(), format!("{lost} writes lost, {invented} invented, {reordered} reordered"));
    }
    if options.compare_members
        && let Err(why) = verify::compare_members(&etcd, until)
    {
        return End::Bad(findings.outputs(), why);
    }
    if options.forget_verified {
        match verify::forget(&etcd, &mut ledger, &keys.prefix, since, until) {
            Ok(deleted) => eprintln!("etcd-ledger: {deleted} verified keys were deleted"),
            // The verification stands, and the next one deletes what is left.
            Err(why) => eprintln!("etcd-ledger: the verified keys could not all be deleted: {why}"),
        }
    }
    End::Good(findings.outputs())
}
