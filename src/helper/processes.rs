//! Signals to the processes of a container.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::places::{Place, is_in, processes, state};

/// How long processes may take to stand still, or to go on. One that waits for a disk takes no signal meanwhile.
const LIMIT: Duration = Duration::from_secs(5);
const BREATH: Duration = Duration::from_millis(10);

/// Sends a signal to one process, if it still belongs to the place: a number may be another process's by now. Whether it was sent.
fn send(proc: &Path, pid: u32, place: Place<'_>, signal: Signal) -> io::Result<bool> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    // From here on the descriptor means this very process.
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if !is_in(proc, pid, place) {
        return Ok(false);
    }
    match pidfd_send_signal(&process, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to all processes of a place once; how many there were.
pub(super) fn send_all(proc: &Path, place: Place<'_>, signal: Signal) -> io::Result<usize> {
    let mut sent = 0;
    // The first process first: the others end with it where the signal is a deadly one.
    for pid in processes(proc, place)? {
        sent += usize::from(send(proc, pid, place, signal)?);
    }
    Ok(sent)
}

/// What a process is doing.
fn stands_still(state: char) -> bool {
    matches!(state, 'T' | 't')
}

fn has_ended(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// How many processes of a place stand still, and how many run.
pub(super) fn count(proc: &Path, place: Place<'_>) -> io::Result<(usize, usize)> {
    let states: Vec<char> = processes(proc, place)?.into_iter().filter_map(|pid| state(proc, pid)).collect();
    let still = states.iter().filter(|state| stands_still(**state)).count();
    Ok((still, states.iter().filter(|state| !has_ended(**state)).count() - still))
}

/// Stops all processes of a place, those as well that the others have made meanwhile; how many. None is left running after it.
///
/// Errors: one can't be stopped; then some may stand still.
pub(super) fn stop(proc: &Path, place: Place<'_>) -> io::Result<usize> {
    settle(proc, place, Signal::STOP, stands_still)
}

/// Lets all processes of a place go on. None is left standing after it.
pub(super) fn go_on(proc: &Path, place: Place<'_>) -> io::Result<usize> {
    settle(proc, place, Signal::CONT, |state| !stands_still(state))
}

fn settle(proc: &Path, place: Place<'_>, signal: Signal, is_settled: fn(char) -> bool) -> io::Result<usize> {
    let began = Instant::now();
    loop {
        let mut all = 0;
        let mut left = Vec::new();
        for pid in processes(proc, place)? {
            match state(proc, pid) {
                None => {}
                Some(state) if has_ended(state) => {}
                Some(state) => {
                    all += 1;
                    if !is_settled(state) {
                        left.push(pid);
                    }
                }
            }
        }
        if left.is_empty() {
            return Ok(all);
        }
        if began.elapsed() > LIMIT {
            return Err(io::Error::other(format!("{} of {all} processes do not take the signal", left.len())));
        }
        for pid in left {
            send(proc, pid, place, signal)?;
        }
        std::thread::sleep(BREATH);
    }
}
