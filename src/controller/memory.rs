//! What the shell remembers of a run between two looks at it. Losing all of it costs observations, never correctness.

mod connections;
mod task;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use crate::{
    api::{
        SoakRun, SoakRunSpec,
        status::{RecordRef, Section},
    },
    engine::{Forwarding, LockSeen, RecordSeen, StepKey, StepSeen, Validation, monitor::MonitorSeen},
    monitors::Monitors,
    steps::Follow,
};

use super::{artifacts::Artifacts, redaction::Redactor, streams::Streams};

pub use connections::Connections;
pub use task::{Basis, Fact, Outcome, Task};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// After so long without another failure a task's pauses begin small again.
const FORGIVEN: Duration = Duration::from_mins(2);
/// After so long without a sign of an attempt the server is asked.
pub const DOUBT: Duration = Duration::from_secs(5);

/// What is known of one attempt of a step.
#[derive(Clone, Default)]
pub struct StepMemory {
    /// Something certain: an end, or its absence.
    pub certain: Option<StepSeen>,
    /// What is kept while it is live.
    pub follow: Option<Arc<Follow>>,
    /// Since when nothing is known of it.
    pub unknown_since: Option<Instant>,
}

#[derive(Default)]
struct Inner {
    newest: Option<Arc<SoakRun>>,
    attempt: u32,
    /// When an answer on the spec was last asked for.
    asked_to_validate: Option<Instant>,
    validation: Option<(Basis, Validation)>,
    /// Boxed, because a map has room for a dozen at once and most runs have one.
    steps: BTreeMap<StepKey, Box<StepMemory>>,
    record: Option<((Section, u32), RecordSeen)>,
    summary: RecordSeen,
    lock: LockSeen,
    forwarding: Forwarding,
    released: HashSet<String>,
    redactor: Option<(Instant, Redactor)>,
    under_way: HashSet<Task>,
    pauses: HashMap<Task, (u32, Instant)>,
    errors: u32,
    /// In a row.
    conflicts: u32,
    monitors: Option<Monitors>,
    resolved: Option<(u32, Arc<SoakRunSpec>)>,
}

/// The memory of one run.
#[derive(Default)]
pub struct Memory(Mutex<Inner>, Connections, Streams, Artifacts);

/// What is remembered, as a decision needs it.
pub struct Recalled {
    /// The answer on the spec.
    pub validation: Option<Validation>,
    /// The record of this pass.
    pub record: ((Section, u32), RecordSeen),
    /// The summary.
    pub summary: RecordSeen,
    /// The key of `spec.exclusive`.
    pub lock: LockSeen,
    /// The records that wait for the object store.
    pub forwarding: Forwarding,
    /// Held objects that are gone.
    pub released: Vec<String>,
}

impl Memory {
    /// The run as the last write left it, unless the cache (which may lag behind writes) holds a newer one.
    pub fn newest(&self, cached: &ObjectMeta) -> Option<Arc<SoakRun>> {
        self.0.lock().newest.clone().filter(|written| version(&written.metadata) >= version(cached))
    }

    /// Lets the parsed run go when the cache holds the same: runs that rest should cost little.
    pub fn rest(&self, cached: &ObjectMeta) {
        let mut inner = self.0.lock();
        if inner.newest.as_ref().is_some_and(|written| version(&written.metadata) <= version(cached)) {
            inner.newest = None;
        }
    }

    /// Remembers the object that a write returned. A new attempt of the run forgets what was found out for the last.
    pub fn written(&self, run: Arc<SoakRun>) {
        let mut inner = self.0.lock();
        let attempt = run.status.as_ref().map_or(0, |status| status.attempt);
        if attempt != inner.attempt {
            let (under_way, redactor) = (std::mem::take(&mut inner.under_way), inner.redactor.take());
            // What the attempt was resolved to was found out before it began.
            let resolved = inner.resolved.take().filter(|(of, _)| *of == attempt);
            // A first attempt may be validated before anything is written.
            let validation = inner.validation.take().filter(|(of, _)| of.attempt == attempt);
            *inner = Inner { attempt, validation, redactor, under_way, resolved, ..Inner::default() };
        }
        (inner.errors, inner.conflicts) = (0, 0);
        inner.newest = Some(run);
    }

    /// Takes in what the server had when a write met a conflict. The answer is how many there were in a row.
    pub fn conflicted(&self, stored: SoakRun) -> u32 {
        let mut inner = self.0.lock();
        inner.newest = Some(Arc::new(stored));
        inner.conflicts = inner.conflicts.saturating_add(1);
        inner.conflicts
    }

    /// Forgets the object, so that the next look uses what the watch has.
    pub fn doubt(&self) {
        self.0.lock().newest = None;
    }

    /// Counts an error; the pause before the next try, with up to a quarter of jitter.
    pub fn error_pause(&self) -> Duration {
        let mut inner = self.0.lock();
        inner.errors = inner.errors.saturating_add(1);
        pause(inner.errors)
    }

    /// What was found out; the answer on the spec only if it is on that basis.
    pub fn recall(&self, basis: &Basis) -> Recalled {
        let inner = self.0.lock();
        Recalled {
            validation: inner.validation.as_ref().filter(|(of, _)| of == basis).map(|(_, answer)| answer.clone()),
            record: inner.record.clone().unwrap_or_default(),
            summary: inner.summary.clone(),
            lock: inner.lock.clone(),
            forwarding: inner.forwarding.clone(),
            released: inner.released.iter().cloned().collect(),
        }
    }

    /// What that attempt of the run was resolved to by its template, if it is known.
    pub fn resolved(&self, attempt: u32) -> Option<Arc<SoakRunSpec>> {
        self.0.lock().resolved.as_ref().filter(|(of, _)| *of == attempt).map(|(_, spec)| spec.clone())
    }

    /// Remembers what that attempt was resolved to.
    pub fn resolve(&self, attempt: u32, spec: Arc<SoakRunSpec>) {
        self.0.lock().resolved = Some((attempt, spec));
    }

    /// What the run's monitors have seen; `start` starts them if they are not at work, and `tell` tells them where to look. See
    /// [`Monitors::seen`].
    pub fn monitors(
        &self,
        recorded: &BTreeMap<String, DateTime<Utc>>,
        start: impl FnOnce() -> Monitors,
        tell: impl FnOnce(&Monitors),
    ) -> BTreeMap<String, MonitorSeen> {
        let mut inner = self.0.lock();
        let monitors = inner.monitors.get_or_insert_with(start);
        tell(monitors);
        monitors.seen(recorded)
    }

    /// What monitors that are at work have seen.
    pub fn monitors_at_work(&self) -> BTreeMap<String, MonitorSeen> {
        self.0.lock().monitors.as_ref().map(|monitors| monitors.seen(&BTreeMap::new())).unwrap_or_default()
    }

    /// Ends the run's monitors.
    pub fn end_monitors(&self) {
        self.0.lock().monitors = None;
    }

    /// What is known of an attempt of a step.
    pub fn step(&self, key: &StepKey) -> StepMemory {
        self.0.lock().steps.get(key).map(|step| (**step).clone()).unwrap_or_default()
    }

    /// What is kept out of what the run leaves behind, if it was found out within that time.
    pub fn redactor(&self, within: Duration) -> Option<Redactor> {
        let inner = self.0.lock();
        inner.redactor.as_ref().filter(|(since, _)| since.elapsed() < within).map(|(_, redactor)| redactor.clone())
    }

    /// Notes what is to be kept out; what is not complete is soon found out anew.
    pub fn redact(&self, redactor: Redactor, complete: bool) {
        let now = Instant::now();
        let since = if complete { Some(now) } else { now.checked_sub(Duration::from_secs(50)) };
        self.0.lock().redactor = Some((since.unwrap_or(now), redactor));
    }

    /// Whether something is under way for an attempt whose result will tell about it.
    pub fn is_busy(&self, key: &StepKey) -> bool {
        let inner = self.0.lock();
        [Task::Begin(key.clone()), Task::Resume(key.clone()), Task::Confirm(key.clone())]
            .iter()
            .any(|task| inner.under_way.contains(task))
    }

    /// The connections to other clusters.
    pub const fn connections(&self) -> &Connections {
        &self.1
    }

    /// The logs that are followed.
    pub const fn streams(&self) -> &Streams {
        &self.2
    }

    /// The artifacts that are brought to the store.
    pub const fn artifacts(&self) -> &Artifacts {
        &self.3
    }

    /// Forgets what is kept of an attempt, so that it is taken up anew.
    pub fn unfollow(&self, key: &StepKey) {
        if let Some(step) = self.0.lock().steps.get_mut(key) {
            step.follow = None;
        }
    }

    /// Lets a task be tried again at once.
    pub fn hurry(&self, task: &Task) {
        self.0.lock().pauses.remove(task);
    }

    /// Notes whether nothing is known of an attempt at present.
    pub fn note_silence(&self, key: &StepKey, silent: bool) {
        let mut inner = self.0.lock();
        let step = inner.steps.entry(key.clone()).or_default();
        step.unknown_since = if silent { step.unknown_since.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Forgets steps that are no longer live, objects that are no longer held, records that no longer wait.
    pub fn keep(&self, live: &[StepKey], held: &[String], waiting: &[RecordRef]) {
        let mut inner = self.0.lock();
        inner.steps.retain(|key, _| live.contains(key));
        inner.released.retain(|name| held.contains(name));
        inner.forwarding.done.retain(|record| waiting.contains(record));
        let now = Instant::now();
        inner.pauses.retain(|_, (_, until)| *until + FORGIVEN > now);
    }

    /// Takes a task on, unless it is under way or has to pause after a failure.
    pub fn take_on(&self, task: &Task) -> bool {
        let mut inner = self.0.lock();
        let pausing = inner.pauses.get(task).is_some_and(|(_, until)| *until > Instant::now());
        if pausing || !inner.under_way.insert(task.clone()) {
            return false;
        }
        if let Task::Begin(key) = task {
            // What was known is about an earlier try of the same attempt.
            inner.steps.remove(key);
        }
        if *task == Task::Validate {
            inner.asked_to_validate = Some(Instant::now());
        }
        true
    }

    /// Whether an answer on the spec is on its way, and was asked for within that time.
    pub fn is_validating(&self, within: Duration) -> bool {
        let inner = self.0.lock();
        inner.under_way.contains(&Task::Validate) && inner.asked_to_validate.is_some_and(|at| at.elapsed() < within)
    }

    /// Notes what became of a task.
    pub fn note(&self, task: &Task, outcome: Outcome) {
        let mut inner = self.0.lock();
        inner.under_way.remove(task);
        let (fact, again) = match outcome {
            Outcome::Done => (None, false),
            Outcome::TryAgain => (None, true),
            Outcome::Told(fact) => {
                let again = matches!(fact, Fact::Validation(_, Validation::NotYet { .. }));
                (Some(fact), again)
            }
            Outcome::Failed(fact) => (Some(fact), true),
        };
        match fact {
            None => {}
            Some(Fact::Validation(basis, validation)) => inner.validation = Some((basis, validation)),
            Some(Fact::Step(told)) => {
                let (key, seen, follow) = *told;
                let step = inner.steps.entry(key).or_default();
                step.unknown_since = None;
                step.follow = follow.map(Arc::new).or(step.follow.take());
                if matches!(seen, StepSeen::Ended(_) | StepSeen::Absent) {
                    step.certain = Some(seen);
                }
            }
            Some(Fact::Record(pass, seen)) => inner.record = Some((pass, seen)),
            Some(Fact::Summary(seen)) => inner.summary = seen,
            Some(Fact::Lock(seen)) => inner.lock = seen,
            Some(Fact::Forwarded(done, failure)) => {
                inner.forwarding.done.extend(done);
                inner.forwarding.failure = failure;
            }
            Some(Fact::Released(name)) => {
                inner.released.insert(name);
            }
        }
        if again {
            let failures = inner.pauses.get(task).map_or(0, |(failures, _)| *failures).saturating_add(1);
            inner.pauses.insert(task.clone(), (failures, Instant::now() + pause(failures)));
        } else {
            inner.pauses.remove(task);
        }
    }

    /// The shortest time until a task may be tried again, or a silent step is doubted.
    pub fn next_try(&self) -> Option<Duration> {
        let inner = self.0.lock();
        let now = Instant::now();
        let tries = inner.pauses.values().map(|(_, until)| *until);
        let doubts = inner.steps.values().filter_map(|step| step.unknown_since).map(|since| since + DOUBT);
        tries.chain(doubts).filter(|at| *at > now).map(|at| at - now).min()
    }
}

/// Resource versions of one resource are numbers that grow (KEP-5504).
fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn pause(failures: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
    pause + pause.mul_f64(fastrand::f64() / 4.0)
}

/// The memories of all runs, by uid.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<String, Arc<Memory>>>);

impl Memories {
    /// The memory of a run; a new one if there is none.
    pub fn of(&self, uid: &str) -> Arc<Memory> {
        let mut memories = self.0.lock();
        if let Some(memory) = memories.get(uid) {
            return memory.clone();
        }
        memories.entry(uid.to_owned()).or_default().clone()
    }

    /// Forgets a run.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SoakRunStatus;

    fn run(version: &str) -> Arc<SoakRun> {
        let mut run = SoakRun::new("x", crate::api::SoakRunSpec::default());
        run.metadata.resource_version = Some(version.into());
        Arc::new(run)
    }

    #[test]
    fn a_cache_that_lags_behind_a_write_is_not_believed() {
        let memory = Memory::default();
        memory.written(run("12"));
        assert!(memory.newest(&run("9").metadata).is_some());
        memory.rest(&run("9").metadata);
        assert!(memory.newest(&run("12").metadata).is_some(), "the cache had not caught up when the run rested");
        assert!(memory.newest(&run("101").metadata).is_none());
        memory.rest(&run("12").metadata);
        assert!(memory.newest(&run("9").metadata).is_none());
    }

    #[test]
    fn an_answer_on_the_spec_holds_for_its_attempt_and_spec_and_outlives_the_first_write() {
        let memory = Memory::default();
        let basis = |attempt, digest: &str| Basis { attempt, digest: digest.into() };
        let begins = |attempt| {
            let status = SoakRunStatus { attempt, ..SoakRunStatus::default() };
            Arc::new(SoakRun { status: Some(status), ..(*run("1")).clone() })
        };
        assert!(memory.take_on(&Task::Validate));
        assert!(memory.is_validating(Duration::from_hours(1)) && !memory.is_validating(Duration::ZERO));
        memory.note(&Task::Validate, Outcome::Told(Fact::Validation(basis(1, "a"), Validation::Accepted)));
        assert!(!memory.is_validating(Duration::from_hours(1)));
        memory.written(begins(1));
        assert_eq!(memory.recall(&basis(1, "a")).validation, Some(Validation::Accepted));
        assert_eq!(memory.recall(&basis(1, "b")).validation, None, "the spec was changed");
        assert_eq!(memory.recall(&basis(2, "a")).validation, None, "rights may have gone since");
        memory.written(begins(2));
        assert_eq!(memory.recall(&basis(1, "a")).validation, None);
    }

    #[test]
    fn a_task_runs_once_at_a_time_and_pauses_after_a_failure() {
        let memory = Memory::default();
        assert!(memory.take_on(&Task::Summary));
        assert!(!memory.take_on(&Task::Summary));
        memory.note(&Task::Summary, Outcome::TryAgain);
        assert!(!memory.take_on(&Task::Summary), "it pauses first");
        assert!(memory.next_try().is_some());
        memory.note(&Task::Summary, Outcome::Done);
        assert!(memory.take_on(&Task::Summary));
    }

    #[test]
    fn an_attempt_that_could_not_be_begun_is_known_to_be_absent_and_pauses() {
        let memory = Memory::default();
        let (phase, step) = ("work".to_owned(), "load".to_owned());
        let key = StepKey { run_attempt: 1, section: Section::Cycle, cycle: 1, phase, step, attempt: 1 };
        let begin = Task::Begin(key.clone());
        assert!(memory.take_on(&begin));
        memory.note(&begin, Outcome::Failed(Fact::Step(Box::new((key.clone(), StepSeen::Absent, None)))));
        assert!(!memory.take_on(&begin), "its cluster may take a while");
        assert_eq!(memory.step(&key).certain, Some(StepSeen::Absent), "what is known stays until it is tried again");
        memory.hurry(&begin);
        assert!(memory.take_on(&begin));
        assert_eq!(memory.step(&key).certain, None);
    }
}
