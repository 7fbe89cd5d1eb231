//! Looks at every member again and again, and tells what it saw when it is told to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    etcd::Etcd,
    timeline::{Look, Seen, Timeline},
};

/// Pause between two looks at a member.
const PAUSE: Duration = Duration::from_millis(100);

/// What must be so for the observation to be a good one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Longest re-election.
    pub reelection: Option<Duration>,
    /// Fewest changes of the leader.
    pub leader_changes: u64,
    /// Fewest entries that some member missed and caught up with.
    pub missed: u64,
}

/// Observes until `stop` is set; ends within half a second of that.
pub fn run(etcd: &Etcd, stop: &Arc<AtomicBool>) -> Seen {
    let begun = Instant::now();
    let (sender, looks) = mpsc::channel();
    for member in 0..etcd.endpoints.len() {
        let (etcd, stop, sender) = (etcd.clone(), stop.clone(), sender.clone());
        // Nobody waits for these: one may hang in a request when the observation ends.
        thread::spawn(move || look_again(&etcd, member, begun, &stop, &sender));
    }
    drop(sender);
    let mut timeline = Timeline::default();
    while !stop.load(Ordering::Relaxed) {
        match looks.recv_timeout(PAUSE) {
            Ok(look) => timeline.add(&look),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    timeline.end(begun.elapsed())
}

fn look_again(etcd: &Etcd, member: usize, begun: Instant, stop: &AtomicBool, looks: &Sender<Look>) {
    while !stop.load(Ordering::Relaxed) {
        let from = begun.elapsed();
        let status = etcd.status(member).ok();
        let leads = status.is_some_and(|status| status.leads());
        let proved = leads && etcd.linearizable_read(member).is_ok();
        if looks.send(Look { member, began: from, ended: begun.elapsed(), status, proved }).is_err() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// What is wrong with what was seen.
pub fn defects(seen: &Seen, limits: &Limits) -> Vec<String> {
    let mut defects = Vec::new();
    let mut check = |bad: bool, text: String| defects.extend(bad.then_some(text));
    check(seen.split_terms > 0, format!("{} terms had two leaders", seen.split_terms));
    check(seen.stale_proofs > 0, format!("a deposed leader answered {} reads", seen.stale_proofs));
    if let (Some(limit), Some(found)) = (limits.reelection, seen.reelection) {
        check(found > limit, format!("a re-election took {found:.1?}, more than {limit:?}"));
    }
    let (changes, wanted) = (seen.leader_changes, limits.leader_changes);
    check(changes < wanted, format!("the leader changed {changes} times, not {wanted}"));
    let caught_up = if seen.catch_up.is_some() { seen.missed } else { 0 };
    let wanted = limits.missed;
    check(caught_up < wanted, format!("no member caught up with {wanted} entries; the most was {caught_up}"));
    defects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_held() {
        let calm = Seen::default();
        assert!(defects(&calm, &Limits::default()).is_empty());
        let slow = Seen { reelection: Some(Duration::from_secs(11)), leader_changes: 1, ..Seen::default() };
        let limits = Limits { reelection: Some(Duration::from_secs(10)), leader_changes: 2, missed: 250 };
        let found = defects(&slow, &limits);
        assert_eq!(found.len(), 3, "{found:?}");
        let good = Seen {
            reelection: Some(Duration::from_secs(10)),
            leader_changes: 2,
            missed: 250,
            catch_up: Some(Duration::from_secs(1)),
            ..Seen::default()
        };
        assert!(defects(&good, &limits).is_empty());
        assert_eq!(defects(&Seen { stale_proofs: 1, ..good }, &limits).len(), 1);
    }

    #[test]
    fn members_that_do_not_answer_are_no_reason_to_end_late() {
        // Ports 1 and 2 of this machine: nothing listens there.
        let etcd = Etcd::new(&["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()], Duration::from_secs(1));
        let stop = Arc::new(AtomicBool::new(false));
        let ender = {
            let stop = stop.clone();
            thread::spawn(move || {
                thread::park_timeout(Duration::from_millis(300));
                stop.store(true, Ordering::Relaxed);
            })
        };
        let seen = run(&etcd, &stop);
        assert_eq!((seen.leader_changes, seen.reelection), (0, None));
        assert!(seen.leaderless >= Duration::from_millis(250), "{:?}", seen.leaderless);
        ender.join().expect("joins");
    }
}
