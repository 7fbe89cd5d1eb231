//! Writes numbered keys at a steady rate, and notes what became of each.
//!
//! Each stream is a thread with one write under way. A single further thread owns the ledger: it writes what has
//! gathered while the last group was synced, syncs it, and only then counts it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    etcd::{Etcd, Failure},
    key::Coordinates,
    latency::Latencies,
    ledger::{Entry, Ledger},
};

/// Numbers reserved at a time: a sync of its own each, so not too few.
const BLOCK: u64 = 200;
/// Entries that one sync may stand for.
const GROUP: usize = 256;
/// After a signal: how long writes under way may still take to be counted, within the promised second.
const GRACE: Duration = Duration::from_millis(600);

/// What to write.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Start of all keys.
    pub prefix: String,
    /// The cycle that the keys belong to.
    pub cycle: u32,
    /// Writes at the same time.
    pub streams: u16,
    /// Keys to attempt; `None` until told to stop.
    pub count: Option<u64>,
    /// Attempts a second, of all streams together.
    pub rate: f64,
    /// Size of a value.
    pub value_bytes: usize,
}

enum Event {
    Reserve { stream: u16, from: u64, done: SyncSender<()> },
    Acknowledged { stream: u16, n: u64, rev: i64, at: Instant, took: Duration },
    NotAcknowledged { stream: u16, n: u64, failure: Failure },
    Close,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Outcome {
    acknowledged: u64,
    failed: u64,
    unknown: u64,
    longest_gap: Duration,
    latencies: Latencies,
    last: Option<Instant>,
    last_failure: Option<String>,
}

impl Outcome {
    /// Whether anything was acknowledged at all.
    pub fn any(&self) -> bool {
        self.acknowledged > 0
    }

    /// Whether anything was tried.
    pub fn attempted(&self) -> bool {
        self.acknowledged + self.failed + self.unknown > 0
    }

    /// What should have been felt and was not: a median of at least that, and so many writes without acknowledgement.
    pub fn unfelt(&self, median: Option<Duration>, not_acknowledged: u64) -> Option<String> {
        let millis = self.latencies.percentile_millis(0.5).unwrap_or(0.0);
        if let Some(median) = median.filter(|median| millis < median.as_secs_f64() * 1000.0) {
            return Some(format!(
                "half of the writes took no longer than {millis} ms, and {median:?} should have been felt"
            ));
        }
        let found = self.failed + self.unknown;
        (found < not_acknowledged)
            .then(|| format!("{found} writes were not acknowledged, and {not_acknowledged} should not have been"))
    }

    /// The most recent reason for which a write was not acknowledged.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// As the outputs of the step. Without an acknowledged write there are no percentiles: an output is never null.
    pub fn outputs(&self) -> Value {
        let mut outputs = json!({
            "writesAcknowledged": self.acknowledged,
            "writesFailed": self.failed,
            "writesUnknown": self.unknown,
            "longestGapMillis": u64::try_from(self.longest_gap.as_millis()).unwrap_or(u64::MAX),
        });
        for (name, share) in [("p50Millis", 0.5), ("p99Millis", 0.99)] {
            if let Some(millis) = self.latencies.percentile_millis(share) {
                outputs[name] = millis.into();
            }
        }
        outputs
    }

    /// A gap is a time without any acknowledgement, from the start and to the end too.
    fn gap_until(&mut self, at: Instant) {
        if let Some(last) = self.last {
            self.longest_gap = self.longest_gap.max(at.saturating_duration_since(last));
        }
        // Streams report in any order, and an older report must not reopen a gap.
        self.last = self.last.max(Some(at));
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Acknowledged { at, took, .. } => {
                self.acknowledged += 1;
                self.latencies.add(*took);
                self.gap_until(*at);
            }
            Event::NotAcknowledged { failure, .. } => {
                match failure {
                    Failure::Unknown(_) => self.unknown += 1,
                    Failure::NeverSent(_) | Failure::Refused(_) => self.failed += 1,
                }
                self.last_failure = Some(failure.to_string());
            }
            Event::Reserve { .. } | Event::Close => {}
        }
    }
}

/// Writes until the count is reached or `stop` is set, and returns within a second of that.
///
/// # Errors
/// When the ledger can't be written: then nothing more may be acknowledged.
pub fn run(etcd: &Etcd, mut ledger: Ledger, plan: &Plan, stop: &Arc<AtomicBool>) -> std::io::Result<Outcome> {
    let writer = format!("{:x}-{:x}", std::process::id(), micros_since_1970());
    let next_of = |stream| ledger.content.get(&(plan.cycle, stream)).map_or(1, super::ledger::Stream::next);
    let firsts: Vec<_> = (0..plan.streams).map(|stream| (stream, next_of(stream))).collect();
    let (events, inbox) = mpsc::sync_channel(4 * GROUP);
    let (ended, ends) = mpsc::channel();
    let attempts = Arc::new(AtomicU64::new(0));

    for (stream, first) in firsts {
        let (etcd, plan, writer) = (etcd.clone(), plan.clone(), writer.clone());
        let (events, ended, stop, attempts) = (events.clone(), ended.clone(), stop.clone(), attempts.clone());
        thread::spawn(move || {
            stream_writes(&etcd, &plan, &writer, (stream, first), &events, &stop, &attempts);
            // Nobody listens any more when the time after the signal was up.
            let _ = ended.send(());
        });
    }
    drop(ended);

    let (cycle, stop_all) = (plan.cycle, stop.clone());
    let keeper = thread::spawn(move || {
        let kept = keep(&mut ledger, cycle, &writer, &inbox);
        stop_all.store(true, Ordering::Relaxed);
        kept
    });
    let left = wait_for_streams(&ends, usize::from(plan.streams), stop);
    // The ledger's thread may have ended already, on an error.
    let _ = events.send(Event::Close);
    let mut outcome = keeper.join().map_err(|_| std::io::Error::other("the ledger's thread panicked"))??;
    outcome.unknown += left;
    Ok(outcome)
}

/// Returns how many streams still had a write under way when their time was up.
fn wait_for_streams(ends: &Receiver<()>, streams: usize, stop: &AtomicBool) -> u64 {
    let mut left = streams;
    let mut until: Option<Instant> = None;
    while left > 0 {
        if stop.load(Ordering::Relaxed) {
            let until = *until.get_or_insert_with(|| Instant::now() + GRACE);
            if Instant::now() >= until {
                break;
            }
        }
        match ends.recv_timeout(Duration::from_millis(25)) {
            Ok(()) => left -= 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    left as u64
}

fn stream_writes(
    etcd: &Etcd,
    plan: &Plan,
    writer: &str,
    (stream, first): (u16, u64),
    events: &SyncSender<Event>,
    stop: &AtomicBool,
    attempts: &AtomicU64,
) {
    let pause = Duration::from_secs_f64(f64::from(plan.streams) / plan.rate);
    // Streams begin one after the other, so that the rate is even.
    let mut due = Instant::now() + pause.mul_f64(f64::from(stream) / f64::from(plan.streams));
    let (mut endpoint, mut reserved_to) = (usize::from(stream), first - 1);
    for n in first.. {
        sleep_until(due, stop);
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) || plan.count.is_some_and(|count| attempt >= count) {
            return;
        }
        if n > reserved_to {
            let (done, wait) = mpsc::sync_channel(1);
            if events.send(Event::Reserve { stream, from: n, done }).is_err() || wait.recv().is_err() {
                return;
            }
            reserved_to = n + BLOCK - 1;
        }
        let at = Coordinates { cycle: plan.cycle, stream, n };
        let begun = Instant::now();
        let event = match etcd.put(endpoint, &at.key(&plan.prefix), &at.value(writer, plan.value_bytes)) {
            Ok(rev) => Event::Acknowledged { stream, n, rev, at: Instant::now(), took: begun.elapsed() },
            Err(failure) => {
                endpoint += 1;
                Event::NotAcknowledged { stream, n, failure }
            }
        };
        if events.send(event).is_err() {
            return;
        }
        // What was missed while etcd was away is not made up for: that would be a burst, not the asked rate.
        due = (due + pause).max(Instant::now());
    }
}

fn sleep_until(due: Instant, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Owns the ledger until it is told to close: every event is on disk before it is counted or answered.
fn keep(ledger: &mut Ledger, cycle: u32, writer: &str, inbox: &Receiver<Event>) -> std::io::Result<Outcome> {
    let mut outcome = Outcome { last: Some(Instant::now()), ..Outcome::default() };
    let mut open = true;
    while open {
        let Ok(first) = inbox.recv() else { break };
        let group: Vec<_> = std::iter::once(first).chain(inbox.try_iter().take(GROUP - 1)).collect();
        let entries: Vec<_> = group.iter().filter_map(|event| entry(event, cycle, writer)).collect();
        ledger.append(&entries)?;
        for event in group {
            outcome.count(&event);
            match event {
                // The stream has gone when nobody waits for the answer.
                Event::Reserve { done, .. } => drop(done.send(())),
                Event::Close => open = false,
                Event::Acknowledged { .. } | Event::NotAcknowledged { .. } => {}
            }
        }
    }
    outcome.gap_until(Instant::now());
    Ok(outcome)
}

fn entry(event: &Event, cycle: u32, writer: &str) -> Option<Entry> {
    match event {
        Event::Reserve { stream, from, .. } => Some(Entry::Reserve {
            cycle,
            stream: *stream,
            from: *from,
            to: from + BLOCK - 1,
            writer: writer.to_owned(),
        }),
        Event::Acknowledged { stream, n, rev, took, .. } => Some(Entry::Ack {
            cycle,
            stream: *stream,
            n: *n,
            rev: *rev,
            at: u64::try_from(micros_since_1970() / 1000).unwrap_or(0),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        }),
        Event::NotAcknowledged { stream, n, failure: Failure::Unknown(why) } => {
            Some(Entry::Unknown { cycle, stream: *stream, n: *n, why: why.chars().take(200).collect() })
        }
        Event::NotAcknowledged { stream, n, .. } => Some(Entry::Failed { cycle, stream: *stream, n: *n }),
        Event::Close => None,
    }
}

fn micros_since_1970() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(at: Instant) -> Event {
        Event::Acknowledged { stream: 0, n: 1, rev: 1, at, took: Duration::from_millis(5) }
    }

    #[test]
    fn the_longest_gap_counts_the_start_and_the_end_and_any_order_of_reports() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut outcome = Outcome { last: Some(start), ..Outcome::default() };
        outcome.count(&acknowledged(after(300)));
        assert_eq!(outcome.longest_gap.as_millis(), 300, "from the start");
        outcome.count(&acknowledged(after(400)));
        outcome.count(&acknowledged(after(350)));
        outcome.count(&acknowledged(after(600)));
        assert_eq!(outcome.longest_gap.as_millis(), 300, "the late report of 350 opens no gap");
        outcome.gap_until(after(1600));
        assert_eq!(outcome.outputs()["longestGapMillis"], 1000, "to the end");
        assert_eq!(outcome.outputs()["writesAcknowledged"], 4);
    }

    #[test]
    fn no_output_is_null_when_nothing_was_acknowledged() {
        let outputs = Outcome::default().outputs();
        assert!(outputs.as_object().is_some_and(|all| all.values().all(|value| !value.is_null())), "{outputs}");
    }

    #[test]
    fn only_a_request_that_may_have_arrived_is_unknown() {
        let mut outcome = Outcome::default();
        for failure in [Failure::NeverSent("a".into()), Failure::Unknown("b".into()), Failure::Refused("c".into())] {
            outcome.count(&Event::NotAcknowledged { stream: 0, n: 1, failure });
        }
        let outputs = outcome.outputs();
        assert_eq!((&outputs["writesFailed"], &outputs["writesUnknown"]), (&json!(2), &json!(1)));
        assert_eq!(outputs["p99Millis"], Value::Null, "no number is made up where none was measured");
        assert!(!outcome.any());
    }

    #[test]
    fn a_fault_that_should_be_felt_and_is_not_is_told() {
        let mut outcome = Outcome::default();
        outcome.count(&acknowledged(Instant::now()));
        assert_eq!(outcome.unfelt(None, 0), None);
        assert!(outcome.unfelt(Some(Duration::from_millis(100)), 0).is_some_and(|why| why.contains("100ms")));
        assert_eq!(outcome.unfelt(Some(Duration::from_millis(5)), 0), None);
        assert!(outcome.unfelt(None, 1).is_some());
        outcome.count(&Event::NotAcknowledged { stream: 0, n: 2, failure: Failure::Unknown("reset".into()) });
        assert_eq!(outcome.unfelt(None, 1), None);
    }

    #[test]
    fn without_any_etcd_each_attempt_fails_and_the_count_still_ends_it() {
        let folder = std::env::temp_dir().join(format!("etcd-ledger-write-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("ledger.jsonl");
        let etcd = Etcd::new(&["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()], Duration::from_secs(1));
        let plan =
            Plan { prefix: "/soak".into(), cycle: 1, streams: 3, count: Some(20), rate: 1000.0, value_bytes: 64 };
        let open = || Ledger::open(&path, true, Duration::ZERO).expect("opens");
        let outcome = run(&etcd, open(), &plan, &Arc::default()).expect("the ledger can be written");
        assert_eq!(outcome.outputs()["writesFailed"], 20);
        let ledger = open();
        let lines: usize = ledger.content.values().map(|stream| stream.keys.len()).sum();
        assert_eq!(lines, 20);
        assert!(ledger.content.values().all(|stream| stream.next() == BLOCK + 1));
        std::fs::remove_dir_all(&folder).expect("removes");
    }
}
