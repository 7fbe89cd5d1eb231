//! The life of a helper: begin in time, keep the effect until its time is over or somebody says so, undo, read back.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use chrono::Utc;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Act, End, NodeHelper,
    work::{Job, Outcome},
};

/// How often it is looked whether the time is over: a clock that is set must not make a fault longer.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks whether the place is still there.
const LOOK: u32 = 10;
/// How long a container or pod without processes may come back: a container that is started again in the same pod.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long undoing what another helper left is tried.
const UNDO_LIMIT: Duration = Duration::from_secs(10);

fn tell(what: &serde_json::Value) {
    println!("{what}");
}

/// Does what a helper is asked.
pub(super) async fn run(helper: &NodeHelper) -> End {
    let NodeHelper { act, pod, container, key, work, .. } = helper;
    let job = Job { proc: Path::new("/proc"), pod, container, key, work };
    match act {
        Act::Make => make(helper, &job).await,
        Act::Check => match job.is_there() {
            Ok(true) => End::Good,
            Ok(false) => End::Bad,
            Err(error) => {
                eprintln!("{error}");
                End::Bad
            }
        },
        Act::Undo => undo(&job, Some(UNDO_LIMIT)).await,
    }
}

async fn make(helper: &NodeHelper, job: &Job<'_>) -> End {
    // From here on a signal is a reason to undo, not to die.
    let signals = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut term, mut int) = match signals {
        Ok(signals) => signals,
        Err(error) => return never(&format!("signals can't be received: {error}")),
    };
    if [helper.not_after, helper.until].into_iter().flatten().any(|latest| Utc::now() >= latest) {
        return never("its time to begin is over");
    }
    match job.make() {
        Ok(Outcome::Gone) => {
            tell(&json!({"injected": false, "message": "there is no process of it"}));
            return End::Gone;
        }
        Ok(Outcome::Done(message)) => tell(&json!({"injected": true, "message": message})),
        Err(error) => {
            eprintln!("{error}");
            return match undo(job, Some(UNDO_LIMIT)).await {
                End::Good => End::NeverBegan,
                end => end,
            };
        }
    }
    if job.is_at_once() {
        return End::Good;
    }
    let why = hold(helper, job, &mut term, &mut int).await;
    tell(&json!({"ending": why}));
    undo(job, None).await
}

fn never(why: &str) -> End {
    eprintln!("it did not begin: {why}");
    End::NeverBegan
}

/// Waits until it is to be undone; the answer says why.
async fn hold(helper: &NodeHelper, job: &Job<'_>, term: &mut Signal, int: &mut Signal) -> &'static str {
    let began = Instant::now();
    let mut absent = None;
    let mut ticks: u32 = 0;
    loop {
        tokio::select! {
            _ = term.recv() => return "asked to",
            _ = int.recv() => return "asked to",
            () = tokio::time::sleep(TICK) => {}
        }
        let over = helper.until.is_some_and(|until| Utc::now() >= until)
            || helper.for_ms.is_some_and(|length| began.elapsed() >= Duration::from_millis(length));
        if over {
            return "its time is over";
        }
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(LOOK) {
            match job.place_is_there() {
                Ok(false) if absent.is_some_and(|since: Instant| since.elapsed() > PATIENCE) => return "it is gone",
                Ok(false) => _ = absent.get_or_insert_with(Instant::now),
                _ => absent = None,
            }
        }
    }
}

/// Undoes until that was seen, or the limit is reached.
async fn undo(job: &Job<'_>, limit: Option<Duration>) -> End {
    let began = Instant::now();
    let mut told = false;
    loop {
        match job.undo() {
            Ok(Outcome::Done(message)) => {
                tell(&json!({"reverted": true, "message": message}));
                return End::Good;
            }
            Ok(Outcome::Gone) => {
                tell(&json!({"reverted": true, "message": "there is no process of it any more"}));
                return End::Gone;
            }
            // What uses the node's network was never cut.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return never(&error.to_string()),
            Err(error) => {
                if !told {
                    eprintln!("{error}");
                    told = true;
                }
                if limit.is_some_and(|limit| began.elapsed() > limit) {
                    return End::Bad;
                }
            }
        }
        tokio::time::sleep(TICK).await;
    }
}
