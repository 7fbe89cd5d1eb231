//! The runs of schedules, as the watch of all runs tells of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kube::{
    Resource,
    core::DeserializeGuard,
    runtime::{reflector::ObjectRef, watcher::Event},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{api::SoakSchedule, controller::cached::CachedRun, engine::schedule::RunSeen};

/// A schedule to be looked at.
pub type Woken = ObjectRef<DeserializeGuard<SoakSchedule>>;

/// A run, and the schedule that controls it.
#[derive(Clone)]
struct OwnedRun {
    schedule: Woken,
    schedule_uid: String,
    resource_version: String,
    seen: RunSeen,
}

/// By the runs' uids.
type Runs = HashMap<String, OwnedRun>;

#[derive(Default)]
struct Inner {
    runs: Runs,
    /// The list that the watch is about to have read.
    listed: Runs,
    complete: bool,
}

/// The runs that schedules control. A schedule is woken when one of its runs has changed in what it has to know. Clones share them.
#[derive(Clone)]
pub struct Owned {
    inner: Arc<Mutex<Inner>>,
    wake: mpsc::UnboundedSender<Woken>,
}

impl Owned {
    /// None yet, and where schedules are woken.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Woken>) {
        let (wake, woken) = mpsc::unbounded_channel();
        (Self { inner: Arc::default(), wake }, woken)
    }

    /// Whether the watch has told of all runs.
    pub fn is_complete(&self) -> bool {
        self.inner.lock().complete
    }

    /// The runs of a schedule, with the version of each.
    pub fn of(&self, schedule_uid: &str) -> Vec<(RunSeen, String)> {
        let inner = self.inner.lock();
        let runs = inner.runs.values().filter(|run| run.schedule_uid == schedule_uid);
        runs.map(|run| (run.seen.clone(), run.resource_version.clone())).collect()
    }

    /// Takes in an event of the watch.
    pub fn follow(&self, event: &Event<CachedRun>) {
        let mut inner = self.inner.lock();
        let Inner { runs, listed, complete } = &mut *inner;
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(run) => {
                let run = owned(run);
                listed.extend(run.map(|run| (run.seen.uid.clone(), run)));
            }
            Event::InitDone => {
                let before = std::mem::replace(runs, std::mem::take(listed));
                *complete = true;
                let uids: HashSet<&String> = before.keys().chain(runs.keys()).collect();
                for uid in uids {
                    self.changed(before.get(uid), runs.get(uid));
                }
            }
            Event::Apply(run) => {
                let uid = run.meta().uid.clone().unwrap_or_default();
                let now = owned(run);
                let before = runs.remove(&uid);
                self.changed(before.as_ref(), now.as_ref());
                runs.extend(now.map(|run| (uid, run)));
            }
            Event::Delete(run) => {
                let before = run.meta().uid.as_ref().and_then(|uid| runs.remove(uid));
                self.changed(before.as_ref(), None);
            }
        }
    }

    fn changed(&self, before: Option<&OwnedRun>, now: Option<&OwnedRun>) {
        if before.map(|run| &run.seen) == now.map(|run| &run.seen) {
            return;
        }
        let before = before.filter(|before| now.is_none_or(|now| now.schedule != before.schedule));
        for run in [before, now].into_iter().flatten() {
            // The receiver goes only with the process.
            let _ = self.wake.send(run.schedule.clone());
        }
    }
}

fn owned(run: &CachedRun) -> Option<OwnedRun> {
    let (name, uid) = run.schedule()?;
    let metadata = run.meta();
    Some(OwnedRun {
        schedule: ObjectRef::new(name).within(metadata.namespace.as_deref().unwrap_or_default()),
        schedule_uid: uid.to_owned(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        seen: run.seen()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(uid: &str, schedule: Option<&str>, phase: &str, version: &str) -> CachedRun {
        let owner = schedule.map(|uid| json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakSchedule", "name": uid, "uid": uid, "controller": true}));
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "n", "uid": uid, "resourceVersion": version, "ownerReferences": Vec::from_iter(owner)},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn a_schedule_is_woken_by_what_it_has_to_know_and_by_nothing_else() {
        let (owned, mut woken) = Owned::new();
        let mut told = || std::iter::from_fn(|| woken.try_recv().ok().map(|it| it.name)).collect::<Vec<_>>();
        owned.follow(&Event::Init);
        owned.follow(&Event::InitApply(run("a", Some("s"), "Running", "1")));
        owned.follow(&Event::InitApply(run("b", None, "Running", "1")));
        assert!(told().is_empty() && !owned.is_complete());
        owned.follow(&Event::InitDone);
        assert!(owned.is_complete());
        assert_eq!(told(), ["s"]);
        owned.follow(&Event::Apply(run("a", Some("s"), "Running", "2")));
        owned.follow(&Event::Apply(run("b", None, "Succeeded", "2")));
        assert!(told().is_empty(), "progress within a run is none of its schedule's business");
        assert_eq!(owned.of("s")[0].1, "2", "but the version is the newest");
        owned.follow(&Event::Apply(run("a", Some("s"), "Succeeded", "3")));
        assert_eq!(told(), ["s"]);
        owned.follow(&Event::Delete(run("a", Some("s"), "Succeeded", "4")));
        assert_eq!((told(), owned.of("s").len()), (vec!["s".to_owned()], 0));
        owned.follow(&Event::Apply(run("c", Some("s"), "Running", "5")));
        owned.follow(&Event::Apply(run("c", None, "Running", "6")));
        assert_eq!((told().len(), owned.of("s").len()), (2, 0), "a run that was released is not owned any more");
        owned.follow(&Event::Apply(run("d", Some("s"), "Running", "7")));
        owned.follow(&Event::Init);
        owned.follow(&Event::InitDone);
        assert_eq!((told().len(), owned.of("s").len()), (2, 0), "one that went while the watch was down, too");
    }
}
