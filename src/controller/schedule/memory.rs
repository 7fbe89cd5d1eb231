//! What the shell remembers of schedules between two visits: what failed, and when it is tried again. Losing it costs time only.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::engine::schedule::Problem;

/// What failed is tried again after this, doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Something that a schedule wants done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Try,
    Create,
    Abort(String),
    Delete(String),
    /// The visit itself.
    Visit,
}

struct Failure {
    problem: Option<Problem>,
    times: u32,
    due: Instant,
}

/// The memory of one schedule.
#[derive(Default)]
pub(super) struct Memory(Mutex<BTreeMap<Task, Failure>>);

impl Memory {
    /// Whether a task that failed is not due yet.
    pub(super) fn rests(&self, task: &Task) -> bool {
        self.0.lock().get(task).is_some_and(|failure| Instant::now() < failure.due)
    }

    /// Notes that a task failed. The answer is whether that is news, and how long it rests.
    pub(super) fn failed(&self, task: Task, problem: Option<Problem>) -> (bool, Duration) {
        let mut failures = self.0.lock();
        let before = failures.get(&task);
        let times = before.map_or(0, |failure| failure.times) + 1;
        let news = before.is_none_or(|failure| failure.problem != problem);
        let pause = FIRST_PAUSE.saturating_mul(1 << (times - 1).min(16)).min(LONGEST_PAUSE);
        failures.insert(task, Failure { problem, times, due: Instant::now() + pause });
        (news, pause)
    }

    /// Notes that a task succeeded.
    pub(super) fn done(&self, task: &Task) {
        self.0.lock().remove(task);
    }

    /// What stands against a task.
    pub(super) fn problem(&self, task: &Task) -> Option<Problem> {
        self.0.lock().get(task)?.problem.clone()
    }

    /// What stands against the upkeep of the runs.
    pub(super) fn upkeep(&self) -> Option<Problem> {
        let failures = self.0.lock();
        let mut upkeep = failures.iter().filter(|(task, _)| matches!(task, Task::Abort(_) | Task::Delete(_)));
        upkeep.find_map(|(_, failure)| failure.problem.clone())
    }

    /// Forgets what is not wanted any more.
    pub(super) fn keep(&self, wanted: &[Task]) {
        self.0.lock().retain(|task, _| *task == Task::Visit || wanted.contains(task));
    }

    /// When the first of the tasks that failed is due.
    pub(super) fn next_try(&self) -> Option<Duration> {
        let now = Instant::now();
        self.0.lock().values().map(|failure| failure.due.saturating_duration_since(now)).min()
    }
}

/// The memories of all schedules, by uid.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<String, Arc<Memory>>>);

impl Memories {
    pub(super) fn of(&self, uid: &str) -> Arc<Memory> {
        self.0.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// Only these schedules are left.
    pub(super) fn keep(&self, known: impl Fn(&str) -> bool) {
        self.0.lock().retain(|uid, _| known(uid));
    }
}
