//! Which runs wait for a visit. kube's controller does not tell the length of its queue, so both ends are counted here.

use std::collections::HashSet;

use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

use crate::telemetry::Metrics;

use super::cached::CachedRun;

/// The runs that changed or were woken since their last visit began; a run counts once however often it was woken.
pub struct Queue {
    waiting: Mutex<HashSet<ObjectRef<CachedRun>>>,
    metrics: Metrics,
}

impl Queue {
    /// Nothing waits.
    pub fn new(metrics: Metrics) -> Self {
        Self { waiting: Mutex::default(), metrics }
    }

    /// A run changed or was woken.
    pub fn joins(&self, run: ObjectRef<CachedRun>) {
        self.changed(|waiting| {
            waiting.insert(run);
        });
    }

    /// A visit begins.
    pub fn leaves(&self, run: &ObjectRef<CachedRun>) {
        self.changed(|waiting| {
            waiting.remove(run);
        });
    }

    /// Only these runs are left: kube's controller drops a run from its queue when it is gone by its turn.
    pub fn keep(&self, mut known: impl FnMut(&ObjectRef<CachedRun>) -> bool) {
        self.changed(|waiting| waiting.retain(|run| known(run)));
    }

    fn changed(&self, change: impl FnOnce(&mut HashSet<ObjectRef<CachedRun>>)) {
        let mut waiting = self.waiting.lock();
        change(&mut waiting);
        self.metrics.set_queue_depth(waiting.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> ObjectRef<CachedRun> {
        ObjectRef::new(name).within("soaks")
    }

    #[test]
    fn the_depth_is_the_number_of_runs_that_wait() {
        let metrics = Metrics::new("test");
        let queue = Queue::new(metrics.clone());
        let depth = || {
            let text = metrics.render().unwrap();
            let line = text.lines().find(|line| line.starts_with("soak_reconcile_queue_depth ")).unwrap().to_owned();
            line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
        };
        for name in ["a", "b", "c", "a"] {
            queue.joins(run(name));
        }
        assert_eq!(depth(), 3, "a run that was woken twice is visited once");
        queue.leaves(&run("b"));
        assert_eq!(depth(), 2);
        queue.keep(|waiting| waiting.name == "c");
        assert_eq!(depth(), 1, "a run that is gone does not wait for ever");
    }
}
