//! What proxies, watcher and driver of one session share: the script's progress, counts, the recorder.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use http::Method;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::{
    history::Recorder,
    script::{Around, OnEvent, OnWrite, Script, When},
};

/// How old the truth is that a stale cache is filled with.
const AGE_MILLIS: u128 = 1_500;

struct Progress {
    script: Script,
    writes: u32,
    events: u32,
}

/// From when a life's caches are filled.
#[derive(Default)]
struct Stale {
    life: u32,
    version: Option<u64>,
    listed: BTreeSet<String>,
}

/// What the parts of a session share.
pub struct Shared {
    /// Both histories.
    pub recorder: Recorder,
    progress: Mutex<Progress>,
    armed: AtomicBool,
    cut_until: watch::Sender<Option<Instant>>,
    around: mpsc::UnboundedSender<Around>,
    counts: Mutex<BTreeMap<String, u64>>,
    stale: Mutex<Stale>,
    /// What others have done to the workload.
    done: Mutex<BTreeSet<&'static str>>,
    /// What is being undone, by name, and until when that is denied, once it was tried.
    undoing: Mutex<BTreeMap<String, Option<Instant>>>,
    down_until: Mutex<Option<Instant>>,
}

impl Shared {
    /// Begins a script. What is to happen around comes through the receiver.
    pub fn new(script: Script) -> (Self, mpsc::UnboundedReceiver<Around>) {
        let (around, receiver) = mpsc::unbounded_channel();
        let shared = Self {
            recorder: Recorder::default(),
            progress: Mutex::new(Progress { script, writes: 0, events: 0 }),
            armed: AtomicBool::new(true),
            cut_until: watch::Sender::new(None),
            around,
            counts: Mutex::default(),
            stale: Mutex::default(),
            done: Mutex::default(),
            undoing: Mutex::default(),
            down_until: Mutex::default(),
        };
        (shared, receiver)
    }

    /// No fault from here on.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Counts a fault of a kind.
    pub fn count(&self, kind: &str) {
        *self.counts.lock().entry(kind.to_owned()).or_default() += 1;
    }

    /// Faults that struck so far, by kind.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    /// What the script has for this write.
    pub fn on_write(&self, key: &str, method: &Method, path: &str) -> Option<OnWrite> {
        if !self.armed.load(Ordering::Relaxed) || key == "lease" {
            return None;
        }
        let mut progress = self.progress.lock();
        progress.writes += 1;
        let writes = progress.writes;
        while progress.script.around.first().is_some_and(|(at, _)| *at <= writes) {
            let (_, around) = progress.script.around.remove(0);
            // The receiver goes only with the session.
            let _ = self.around.send(around);
        }
        let due = progress.script.writes.iter().position(|(when, what)| {
            let comes = match when {
                When::Nth(at) => *at <= writes,
                When::Key(wanted) => wanted == key,
                When::Prefix(wanted) => key.starts_with(wanted),
            };
            comes && applies(what, key, method, path)
        })?;
        let (_, what) = progress.script.writes.remove(due);
        drop(progress);
        self.count(&kind(&format!("{what:?}")));
        Some(what)
    }

    /// What the script has for this event.
    pub fn on_event(&self) -> Option<OnEvent> {
        if !self.armed.load(Ordering::Relaxed) {
            return None;
        }
        let mut progress = self.progress.lock();
        progress.events += 1;
        let events = progress.events;
        progress.script.events.first().filter(|(at, _)| *at <= events)?;
        let (_, what) = progress.script.events.remove(0);
        drop(progress);
        self.count(&kind(&format!("{what:?}")));
        Some(what)
    }

    /// Notes that somebody has done something to the workload.
    pub fn act(&self, what: &'static str) {
        self.done.lock().insert(what);
    }

    /// Whether somebody has done that.
    pub fn did(&self, what: &str) -> bool {
        self.done.lock().contains(what)
    }

    /// For a while from now on no operator can work as it should.
    pub fn outage(&self, time: Duration) {
        let now = self.recorder.now();
        self.recorder.outage(now, now + time.as_millis());
    }

    /// Takes in the status of an injection that was stored.
    pub fn injection_stored(&self, status: &Value) {
        let undone = status["phase"] == "Reverting";
        let mut undoing = self.undoing.lock();
        for entry in status["journal"].as_array().into_iter().flatten() {
            let names = [&entry["target"]["name"], &entry["undo"]["object"]["name"]];
            for name in names.into_iter().filter_map(Value::as_str) {
                if undone {
                    undoing.entry(name.to_owned()).or_default();
                } else {
                    undoing.remove(name);
                }
            }
        }
    }

    /// Whether a write would undo something that may not be undone yet.
    pub fn denies(&self, path: &str, body: &Value) -> bool {
        let Some(millis) = self.progress.lock().script.deny_undo else { return false };
        if !self.armed.load(Ordering::Relaxed) {
            return false;
        }
        let mut undoing = self.undoing.lock();
        let is_it = |name: &str| path.split('/').any(|part| part == name) || body["metadata"]["name"] == name;
        let Some((_, until)) = undoing.iter_mut().find(|(name, _)| is_it(name)) else { return false };
        let time = Duration::from_millis(millis);
        let first = until.is_none();
        let until = *until.get_or_insert_with(|| Instant::now() + time);
        drop(undoing);
        if first {
            self.outage(time);
        }
        Instant::now() < until
    }

    /// An operator that ends is not started again for a while.
    pub fn stay_down(&self, time: Duration) {
        *self.down_until.lock() = Some(Instant::now() + time);
    }

    /// Until when no operator is started.
    pub fn down_until(&self) -> Option<Instant> {
        *self.down_until.lock()
    }

    /// Cuts all connections for a while.
    pub fn cut(&self, time: Duration) {
        self.outage(time);
        self.cut_until.send_replace(Some(Instant::now() + time));
    }

    /// Whether connections are cut now.
    pub fn is_cut(&self) -> bool {
        self.cut_until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits for connections to be cut.
    pub async fn cut_comes(&self) {
        let mut cut = self.cut_until.subscribe();
        cut.mark_unchanged();
        if cut.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// From here on the next life's caches are filled with what was true a while ago.
    pub fn grow_stale(&self, life: u32) {
        let now = self.recorder.now();
        let version = self.recorder.with(|history| {
            let old = history.versions.iter().filter(|version| version.at + AGE_MILLIS < now);
            old.map(super::history::Version::revision).max()
        });
        *self.stale.lock() = Stale { life, version, listed: BTreeSet::new() };
    }

    /// The revision that a list of this life is answered from. Only the first list of each path is old: within a life no
    /// server goes back in time.
    pub fn stale_version(&self, life: u32, path: &str, method: &str) -> Option<u64> {
        let listed = ["/soakruns", "/failureinjections", "/pods"].iter().any(|end| path.ends_with(end));
        let mut stale = self.stale.lock();
        if stale.life != life || !listed || method != "GET" || !stale.listed.insert(path.to_owned()) {
            return None;
        }
        stale.version
    }
}

/// Whether a fault makes sense for a write.
fn applies(what: &OnWrite, key: &str, method: &Method, path: &str) -> bool {
    match what {
        // A conflict on a tenant's object is the step's own failure, and no fault of the connection.
        OnWrite::Refuse(409) => path.contains("/soakruns/") || path.contains("/failureinjections/"),
        // Whoever restores what was deleted is welcome, whoever that is.
        OnWrite::Squat => {
            let fits = path.ends_with("/pods") || path.ends_with("/configmaps");
            method == Method::POST && fits && !key.ends_with("t-restore")
        }
        _ => true,
    }
}

/// A fault's kind: its name, and the code that it answers with.
pub fn kind(text: &str) -> String {
    let name = text.split('(').next().unwrap_or_default();
    let code = text.strip_prefix(name).unwrap_or_default().trim_matches(['(', ')']);
    let has_code = matches!(name, "Refuse" | "CommitAndRefuse");
    if has_code { format!("{name}{code}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(writes: Vec<(When, OnWrite)>) -> Shared {
        Shared::new(Script { writes, ..Script::default() }).0
    }

    #[test]
    fn a_fault_strikes_once_at_its_write_or_at_the_next_that_it_fits() {
        let shared = shared(vec![(When::Nth(2), OnWrite::Squat), (When::Key("status a".into()), OnWrite::KillBefore)]);
        assert_eq!(shared.on_write("POST pods a", &Method::POST, "/n/pods"), None);
        assert_eq!(shared.on_write("status b", &Method::PUT, "/soakruns/b/status"), None);
        assert_eq!(shared.on_write("POST pods b", &Method::POST, "/n/pods"), Some(OnWrite::Squat));
        assert_eq!(shared.on_write("status a", &Method::PUT, "/soakruns/a/status"), Some(OnWrite::KillBefore));
        assert_eq!(shared.on_write("status a", &Method::PUT, "/soakruns/a/status"), None);
        assert_eq!(shared.counts()["Squat"], 1);
    }

    #[test]
    fn kinds_tell_codes_and_leave_times_out() {
        assert_eq!(kind("CommitAndRefuse(504)"), "CommitAndRefuse504");
        assert_eq!(kind("Delay(120)"), "Delay");
    }
}
