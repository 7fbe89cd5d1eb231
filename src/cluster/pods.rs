//! The operator's own view of the pods that runs have made: one watch, trimmed before anything is kept.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, runtime::watcher::Event};
use tokio::task::AbortHandle;

use super::{
    OnWatchFailure, RunRef, Wake,
    error::ApiFailure,
    follow::{Selection, follow},
};
use crate::api::names::label;

pub use super::pod_summary::{ContainerState, ContainerSummary, Coordinates, PodCondition, PodSummary};

/// A pod that has gone is remembered for so long, so that its end can still be judged.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Pods that have gone and are remembered, at most.
const MAX_REMEMBERED: usize = 4_096;

#[derive(Default)]
struct Index {
    synced: bool,
    /// On another cluster no controller tells whose a pod is, only its labels do.
    remote: bool,
    /// By run uid, then by pod uid.
    runs: HashMap<String, HashMap<String, Arc<PodSummary>>>,
    gone: VecDeque<(Instant, String, String)>,
    /// The uids of a list that is being read; none between lists.
    listing: Option<HashSet<String>>,
}

/// The pods of all runs.
#[derive(Clone)]
pub struct Pods {
    index: Arc<Mutex<Index>>,
    watch: Arc<Watch>,
}

/// The watch, once it was begun.
struct Watch {
    api: Api<Pod>,
    wake: Wake,
    failed: OnWatchFailure,
    task: OnceLock<AbortOnDrop>,
}

pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pods {
    /// Begins to watch pods that carry the label `soak.dev/run-uid`, in all namespaces, as the operator.
    /// The watch ends with the last clone. Must be called inside a tokio runtime.
    ///
    /// `wake` is called for each change of a pod whose controller is a run; `failed` for each failure of the watch.
    pub fn start(client: &Client, namespace: Option<&str>, wake: Wake, failed: OnWatchFailure) -> Self {
        let api: Api<Pod> =
            namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
        let pods = Self::of(api, wake, failed, false);
        pods.ensure();
        pods
    }

    /// Pods in a namespace of another cluster, which are watched once [`ensure`](Self::ensure) was called.
    pub fn prepare(client: &Client, namespace: &str, wake: Wake, failed: OnWatchFailure) -> Self {
        Self::of(Api::namespaced(client.clone(), namespace), wake, failed, true)
    }

    fn of(api: Api<Pod>, wake: Wake, failed: OnWatchFailure, remote: bool) -> Self {
        let index = Arc::new(Mutex::new(Index { remote, ..Index::default() }));
        Self { index, watch: Arc::new(Watch { api, wake, failed, task: OnceLock::new() }) }
    }

    /// Begins to watch, if that has not been done.
    pub fn ensure(&self) {
        let Watch { api, wake, failed, task } = &*self.watch;
        task.get_or_init(|| {
            let (api, wake, failed, sink) = (api.clone(), wake.clone(), failed.clone(), self.index.clone());
            AbortOnDrop(tokio::spawn(watch(api, wake, failed, sink)).abort_handle())
        });
    }

    /// Whether all pods have been listed once.
    pub fn synced(&self) -> bool {
        lock(&self.index).synced
    }

    /// The run's pods that are in the cluster.
    pub fn pods_of(&self, run_uid: &str) -> Vec<Arc<PodSummary>> {
        let index = lock(&self.index);
        index.runs.get(run_uid).into_iter().flat_map(HashMap::values).filter(|pod| !pod.gone).cloned().collect()
    }

    /// The run's pod of that name; one that has gone is remembered for some minutes, with what was last seen of it.
    pub fn find(&self, run_uid: &str, name: &str) -> Option<Arc<PodSummary>> {
        let index = lock(&self.index);
        index.runs.get(run_uid)?.values().filter(|pod| pod.name == name).min_by_key(|pod| pod.gone).cloned()
    }
}

async fn watch(api: Api<Pod>, wake: Wake, failed: OnWatchFailure, index: Arc<Mutex<Index>>) {
    let selection = Selection { labels: Some(label::RUN_UID.into()), fields: None };
    follow(api, selection, |event| {
        let changed = match event {
            Ok(event) => lock(&index).take_in(event, Instant::now()),
            Err(failure) => {
                report(&failure);
                failed("pods", &failure);
                Vec::new()
            }
        };
        for run in &changed {
            wake(run);
        }
    })
    .await;
}

fn lock(index: &Mutex<Index>) -> std::sync::MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(failure: &ApiFailure) {
    tracing::warn!(reason = failure.class.reason(), error = %failure, "the watch of pods failed; it is made anew");
}

impl Index {
    /// Takes in an event and answers with the runs for which something changed.
    fn take_in(&mut self, event: Event<Pod>, now: Instant) -> Vec<RunRef> {
        self.forget(now);
        match event {
            Event::Init => {
                self.listing = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(pod) | Event::Apply(pod) => {
                let Some(pod) = PodSummary::of(pod, self.remote) else { return Vec::new() };
                if let Some(listing) = &mut self.listing {
                    listing.insert(pod.uid.clone());
                }
                self.put(pod).into_iter().collect()
            }
            Event::Delete(pod) => {
                PodSummary::of(pod, self.remote).and_then(|pod| self.retire(pod, now)).into_iter().collect()
            }
            Event::InitDone => {
                self.synced = true;
                let listed = self.listing.take().unwrap_or_default();
                let lost: Vec<PodSummary> = self
                    .runs
                    .values()
                    .flat_map(HashMap::values)
                    .filter(|pod| !pod.gone && !listed.contains(&pod.uid))
                    .map(|pod| PodSummary::clone(pod))
                    .collect();
                lost.into_iter().filter_map(|pod| self.retire(pod, now)).collect()
            }
        }
    }

    fn put(&mut self, pod: PodSummary) -> Option<RunRef> {
        let pods = self.runs.entry(pod.run.uid.clone()).or_default();
        if pods.get(&pod.uid).is_some_and(|old| **old == pod) {
            return None;
        }
        let run = pod.run.clone();
        pods.insert(pod.uid.clone(), Arc::new(pod));
        Some(run)
    }

    fn retire(&mut self, mut pod: PodSummary, now: Instant) -> Option<RunRef> {
        pod.gone = true;
        self.gone.push_back((now, pod.run.uid.clone(), pod.uid.clone()));
        self.put(pod)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, _, _)) = self.gone.front()
            && (now.duration_since(*since) > REMEMBERED || self.gone.len() > MAX_REMEMBERED)
        {
            let Some((_, run, pod)) = self.gone.pop_front() else { return };
            if let Some(pods) = self.runs.get_mut(&run) {
                pods.remove(&pod);
                if pods.is_empty() {
                    self.runs.remove(&run);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("pod-{uid}"), "namespace": "n", "uid": uid,
                "labels": {"soak.dev/run-uid": "run-1"},
                "ownerReferences": [{"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "name": "r", "uid": "run-1", "controller": true}]},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn a_run_is_woken_by_changes_only() {
        let mut index = Index::default();
        let now = Instant::now();
        index.take_in(Event::Init, now);
        assert_eq!(index.take_in(Event::InitApply(pod("a", "Pending")), now).len(), 1);
        index.take_in(Event::InitDone, now);
        assert!(index.synced);
        assert!(index.take_in(Event::Apply(pod("a", "Pending")), now).is_empty());
        assert_eq!(index.take_in(Event::Apply(pod("a", "Running")), now)[0].name, "r");
    }

    #[test]
    fn a_pod_that_vanished_between_lists_is_remembered_as_gone_for_a_while() {
        let mut index = Index::default();
        let now = Instant::now();
        index.take_in(Event::Init, now);
        index.take_in(Event::InitApply(pod("a", "Running")), now);
        index.take_in(Event::InitDone, now);
        index.take_in(Event::Init, now);
        assert_eq!(index.take_in(Event::InitDone, now).len(), 1);
        assert!(index.runs["run-1"]["a"].gone);
        index.take_in(Event::Apply(pod("b", "Running")), now + REMEMBERED * 2);
        assert!(!index.runs["run-1"].contains_key("a"));
    }

    #[test]
    fn a_pod_without_a_run_as_its_controller_is_nobodys() {
        let mut stranger = pod("a", "Running");
        stranger.metadata.owner_references = None;
        assert!(Index::default().take_in(Event::Apply(stranger), Instant::now()).is_empty());
    }
}
