//! What the shell remembers of injections between two looks. Losing all of it costs time, never correctness.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::{
    api::{FailureInjection, failureinjection::JournalEntry, names::reason},
    cluster::{Cluster, object::BRIEF_SECONDS, targets::RemoteLease},
    engine::injection::{Claim, Found, Holder, claims, conflict},
    faults::HealthWatch,
};

/// How long a write whose answer was lost may still have an effect: the server gives it up, and a decision that old is not acted on.
const OPEN: Duration = Duration::from_secs(BRIEF_SECONDS as u64 + 3);
/// How long a fault that such a write makes late may last before it is looked for again.
const LATE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Inner {
    newest: Option<FailureInjection>,
    pauses: HashMap<String, (u32, Instant)>,
    open: HashMap<usize, Instant>,
    health: Option<HealthWatch>,
    held: Vec<Claim>,
    /// This process has stored its journal, and has tried nothing of it yet.
    untried: bool,
    /// It is certain that nobody came first to what the journal holds.
    cleared: bool,
    errors: u32,
    /// In a row.
    conflicts: u32,
}

/// The memory of one injection.
pub(super) struct Memory {
    /// Since when this process knows it: whatever an earlier process sent may still take effect for a while.
    since: Instant,
    inner: Mutex<Inner>,
    remote: Mutex<Option<Remote>>,
}

/// The connection to another cluster that is hit.
struct Remote {
    lease: RemoteLease,
    /// The cluster as it was connected to last: undoing must not fail because the Secret went first.
    last: Option<Cluster>,
}

impl Memory {
    fn new() -> Self {
        Self { since: Instant::now(), inner: Mutex::default(), remote: Mutex::default() }
    }

    /// The injection as it was written last, if the cache lags behind that.
    pub(super) fn newest(&self, cached: &FailureInjection) -> FailureInjection {
        let mut inner = self.inner.lock();
        let version = |it: &FailureInjection| {
            it.metadata.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        match &inner.newest {
            Some(newest) if version(newest) > version(cached) => {
                let mut newest = newest.clone();
                // The spec is never written here; what the cache has of it may be newer.
                if cached.metadata.generation > newest.metadata.generation {
                    newest.spec = cached.spec.clone();
                }
                newest
            }
            _ => {
                inner.newest = None;
                cached.clone()
            }
        }
    }

    pub(super) fn written(&self, injection: FailureInjection) {
        let mut inner = self.inner.lock();
        (inner.errors, inner.conflicts) = (0, 0);
        inner.newest = Some(injection);
    }

    /// Takes in what the server had when a write met a conflict. The answer is how many there were in a row.
    ///
    /// What has no journal yet waits for the watch, which tells of the others as well: whoever begins has to know who holds
    /// what (S8).
    pub(super) fn conflicted(&self, stored: FailureInjection) -> u32 {
        let mut inner = self.inner.lock();
        let has_begun = stored.status.as_ref().is_some_and(|status| !status.journal.is_empty());
        inner.newest = has_begun.then_some(stored);
        inner.conflicts = inner.conflicts.saturating_add(1);
        inner.conflicts
    }

    /// A growing pause after errors of the reconcile.
    pub(super) fn pause(&self) -> Duration {
        let mut inner = self.inner.lock();
        inner.newest = None;
        inner.errors += 1;
        backoff(inner.errors)
    }

    /// Whether a task that failed is not due yet.
    pub(super) fn rests(&self, task: &str) -> bool {
        self.inner.lock().pauses.get(task).is_some_and(|(_, due)| Instant::now() < *due)
    }

    /// Notes what came of a task. Before `open_until` it can't succeed; until then it is tried each second, however long its pause
    /// has become.
    pub(super) fn tried(&self, task: &str, again: bool, open_until: Option<Instant>) {
        let mut inner = self.inner.lock();
        if again {
            let failures = inner.pauses.get(task).map_or(0, |(failures, _)| *failures) + 1;
            let (now, pause) = (Instant::now(), backoff(failures));
            let due =
                open_until.filter(|until| *until > now).map_or(now + pause, |until| until.min(now + pause.min(LATE)));
            inner.pauses.insert(task.to_owned(), (failures, due));
        } else {
            inner.pauses.remove(task);
        }
    }

    /// When the first of the tasks that failed is due.
    pub(super) fn next_try(&self) -> Option<Duration> {
        let now = Instant::now();
        self.inner.lock().pauses.values().map(|(_, due)| due.saturating_duration_since(now)).min()
    }

    /// A call that makes the fault of an entry begins.
    pub(super) fn opens(&self, index: usize) {
        self.inner.lock().open.insert(index, Instant::now() + OPEN);
    }

    /// It is certain what became of it.
    pub(super) fn closes(&self, index: usize) {
        self.inner.lock().open.insert(index, Instant::now());
    }

    /// Until when a call may still make the fault of an entry, whatever its answer was.
    pub(super) fn open_until(&self, index: usize) -> Instant {
        self.inner.lock().open.get(&index).copied().unwrap_or(self.since + OPEN)
    }

    pub(super) fn take_health(&self) -> HealthWatch {
        self.inner.lock().health.take().unwrap_or_default()
    }

    pub(super) fn keep_health(&self, watch: HealthWatch) {
        self.inner.lock().health = Some(watch);
    }

    /// A journal was stored by this process.
    pub(super) fn journaled(&self) {
        let mut inner = self.inner.lock();
        (inner.untried, inner.cleared) = (true, false);
    }

    /// Nobody came first to what the journal holds: from here on it is tried.
    pub(super) fn clear(&self) {
        let mut inner = self.inner.lock();
        (inner.untried, inner.cleared) = (false, true);
    }

    /// Whether this process has stored the journal, and has tried nothing of it yet.
    pub(super) fn is_untried(&self) -> bool {
        self.inner.lock().untried
    }

    /// Whether it is certain that nobody came first to what the journal holds.
    pub(super) fn is_cleared(&self) -> bool {
        self.inner.lock().cleared
    }

    /// The other cluster that is hit, connected to by `connect` the first time. With `undo`, the one that was connected to last will do
    /// when there are no credentials any more.
    ///
    /// Errors: why it can't be asked.
    pub(super) fn remote(&self, connect: impl FnOnce() -> RemoteLease, undo: bool) -> Result<Cluster, String> {
        let mut remote = self.remote.lock();
        let remote = remote.get_or_insert_with(|| Remote { lease: connect(), last: None });
        let (cluster, health) = (remote.lease.cluster(), remote.lease.health());
        if cluster.is_some() {
            remote.last.clone_from(&cluster);
        }
        let usable = match cluster {
            Some(cluster) => health.reachable.then_some(cluster),
            None => remote.last.clone().filter(|_| undo),
        };
        usable.ok_or(health.message)
    }

    /// Nothing is held any more.
    pub(super) fn release(&self) {
        self.inner.lock().held.clear();
    }
}

fn backoff(failures: u32) -> Duration {
    (FIRST_PAUSE * 2u32.saturating_pow(failures.saturating_sub(1).min(8))).min(LONGEST_PAUSE)
}

/// The memories of all injections, and what each holds of the world.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<String, Arc<Memory>>>);

impl Memories {
    pub(super) fn of(&self, uid: &str) -> Arc<Memory> {
        self.0.lock().entry(uid.to_owned()).or_insert_with(|| Arc::new(Memory::new())).clone()
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// What others than `uid` hold. `stored` are all injections as the cache has them.
    pub(super) fn holders<'a>(&self, uid: &str, stored: impl Iterator<Item = &'a FailureInjection>) -> Vec<Holder> {
        let mut holders = active(uid, stored);
        holders.extend(remembered(&self.0.lock(), uid));
        holders
    }

    /// Takes hold of what a journal touches, before it is stored: of two that want the same, one has to wait (S8). The answer says
    /// whom it waits for. `before` are the holders from before the journal was made: of a fault that was undone meanwhile, it may
    /// have noted what that had made.
    pub(super) fn hold<'a>(
        &self,
        uid: &str,
        journal: &[JournalEntry],
        max_active: usize,
        before: &[Holder],
        stored: impl Iterator<Item = &'a FailureInjection>,
    ) -> Option<Found> {
        let wanted = claims(journal);
        // One lock for all: looking and taking hold are one step.
        let memories = self.0.lock();
        let active = active(uid, stored);
        if active.len() >= max_active {
            return Some(Found::NotYet {
                reason: reason::TOO_MANY_ACTIVE.into(),
                message: format!("{} injections are active, and no more may be", active.len()),
            });
        }
        let remembered = remembered(&memories, uid);
        if let Some((holder, claim)) = conflict(&wanted, before.iter().chain(&active).chain(&remembered)) {
            let part = if claim.part.is_empty() { "the whole object" } else { &claim.part };
            return Some(Found::NotYet {
                reason: reason::CONFLICT.into(),
                message: format!("{} holds {part}", holder.name),
            });
        }
        if let Some(memory) = memories.get(uid) {
            memory.inner.lock().held = wanted;
        }
        None
    }
}

/// Those of the cache that are active.
fn active<'a>(uid: &str, stored: impl Iterator<Item = &'a FailureInjection>) -> Vec<Holder> {
    stored.filter(|it| it.metadata.uid.as_deref() != Some(uid)).filter_map(Holder::of).collect()
}

/// Those that this process has let begin; the cache may not know of them yet.
fn remembered(memories: &HashMap<String, Arc<Memory>>, uid: &str) -> Vec<Holder> {
    let others = memories.iter().filter(|(other, _)| *other != uid);
    let holder = |(other, memory): (&String, &Arc<Memory>)| Holder {
        name: format!("another injection (uid {other})"),
        claims: memory.inner.lock().held.clone(),
    };
    others.map(holder).filter(|holder| !holder.claims.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        FailureInjectionSpec, FailureInjectionStatus,
        failureinjection::{FieldChange, InjectionPhase, Undo},
    };

    #[test]
    fn after_a_conflict_only_what_has_begun_goes_on_without_the_watch() {
        let version = |version: &str, status: FailureInjectionStatus| {
            let mut it = FailureInjection::new("x", FailureInjectionSpec::default());
            it.metadata.resource_version = Some(version.into());
            it.status = Some(status);
            it
        };
        let pending = FailureInjectionStatus::default();
        let begun = FailureInjectionStatus { journal: vec![JournalEntry::default()], ..pending.clone() };
        let memory = Memory::new();
        let cached = version("5", pending.clone());
        assert_eq!(memory.conflicted(version("7", pending)), 1);
        assert_eq!(memory.newest(&cached).metadata.resource_version.as_deref(), Some("5"));
        assert_eq!(memory.conflicted(version("8", begun)), 2, "in a row");
        assert_eq!(memory.newest(&cached).metadata.resource_version.as_deref(), Some("8"));
    }

    #[test]
    fn what_was_held_when_it_was_looked_at_is_looked_at_again() {
        let undo = |after: &str| {
            let change = FieldChange { path: "/data/mode".into(), after: Some(after.into()), ..FieldChange::default() };
            let mut entry = JournalEntry {
                undo: Undo::Fields { subresource: String::new(), fields: vec![change] },
                ..JournalEntry::default()
            };
            entry.target.uid = "target".into();
            vec![entry]
        };
        let mut first = FailureInjection::new("first", FailureInjectionSpec::default());
        first.metadata.uid = Some("a".into());
        let status =
            |phase| FailureInjectionStatus { phase, journal: undo("bad"), ..FailureInjectionStatus::default() };
        first.status = Some(status(InjectionPhase::Reverting));
        let all = Memories::default();
        let before = all.holders("b", [&first].into_iter());
        first.status = Some(status(InjectionPhase::Recovered));
        let hold = |before: &[Holder]| all.hold("b", &undo("worse"), 9, before, [&first].into_iter());
        let waits = hold(&before);
        assert!(
            matches!(&waits, Some(Found::NotYet { message, .. }) if message.ends_with("first holds /data/mode")),
            "{waits:?}"
        );
        assert_eq!(hold(&all.holders("b", [&first].into_iter())), None);
    }

    #[test]
    fn what_an_earlier_call_may_still_make_is_looked_for_each_second_and_at_its_end() {
        let memory = Memory::new();
        let next = |until: Duration| {
            memory.tried("revert 0", true, Some(Instant::now() + until));
            memory.next_try().unwrap()
        };
        for _ in 0..6 {
            assert!(next(Duration::from_secs(8)) <= LATE);
        }
        assert!(next(Duration::from_millis(300)) <= Duration::from_millis(300), "that is its end");
        assert!(next(Duration::ZERO) > LATE, "it has failed for another reason");
    }
}
