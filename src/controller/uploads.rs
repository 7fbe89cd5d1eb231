//! What pods leave behind and tasks beside the run bring to the object store: a task a pod, for whose result the record of its pass waits.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    api::{
        SoakRun,
        status::{Pass, RecordRef},
    },
    cluster::{
        Cluster,
        pod_summary::{Coordinates, PodSummary},
        targets::RunClusters,
    },
    results::{Objects, RecordPart, RunRef, StoreError},
};

use super::{Shell, template};

/// Pause after the first upload that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two tries of an upload.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long an upload is tried: as long as a run waits for its records.
const PATIENCE: Duration = Duration::from_hours(1);

/// How far it is.
#[derive(Clone, Debug)]
pub enum Progress<T> {
    /// It is read from the pod.
    Reading,
    /// All is read; why the store did not take it, if it was asked yet.
    Storing(T, Option<String>),
    /// All is in the store.
    Stored(T),
}

/// Where a task tells how far it is, and is told to try again.
pub struct Told<T> {
    progress: watch::Sender<Progress<T>>,
    again: Arc<Notify>,
}

/// What is brought to the store.
pub trait Source {
    /// Brings all of it there. It may be called again after a failure.
    fn upload(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

struct Upload<T> {
    of: Coordinates,
    task: JoinHandle<()>,
    progress: watch::Receiver<Progress<T>>,
    /// Ends a pause before the next try.
    again: Arc<Notify>,
}

impl<T> Drop for Upload<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The uploads of one run, by the name of the pod.
pub struct Uploads<T>(Mutex<HashMap<String, Upload<T>>>);

impl<T> Default for Uploads<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Uploads<T> {
    /// Forgets what is in the store and belongs to a pass whose record is as well.
    pub fn keep(&self, run: &SoakRun) {
        let (attempt, pass) = current(run);
        self.0.lock().retain(|_, upload| {
            is_current(&upload.of, attempt, pass) || (upload.of.run_attempt == attempt && !upload.task.is_finished())
        });
    }

    /// Whether there is one for that pod.
    pub fn has(&self, pod: &str) -> bool {
        self.0.lock().contains_key(pod)
    }

    /// The pods of a pass of which there is one.
    pub fn pods(&self, attempt: u32, pass: &Pass) -> Vec<String> {
        let uploads = self.0.lock();
        let current = uploads.iter().filter(|(_, upload)| is_current(&upload.of, attempt, Some(pass)));
        current.map(|(pod, _)| pod.clone()).collect()
    }

    /// Starts one, unless there is one for that pod. Must be called inside a tokio runtime.
    pub fn start<F>(&self, pod: &str, of: Coordinates, work: impl FnOnce(Told<T>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.lock().entry(pod.to_owned()).or_insert_with(|| {
            let (told, progress) = watch::channel(Progress::Reading);
            let again = Arc::new(Notify::new());
            let told = Told { progress: told, again: again.clone() };
            Upload { of, task: tokio::spawn(work(told)), progress, again }
        });
    }

    /// What was read of a pod that has ended, and whether all of it is in the store. None: there is no upload of it, or nothing was
    /// read within `patience`.
    ///
    /// The store is waited for only where `wait` says so.
    pub async fn ended(&self, pod: &str, wait: bool, patience: Duration) -> Option<(T, Result<(), StoreError>)> {
        let mut progress = self.0.lock().get(pod)?.progress.clone();
        let decided = |progress: &Progress<T>| match progress {
            Progress::Reading => false,
            Progress::Storing(_, failure) => !wait || failure.is_some(),
            Progress::Stored(_) => true,
        };
        let told = timeout(patience, progress.wait_for(decided)).await.ok()?.ok()?.clone();
        match told {
            Progress::Reading => None,
            Progress::Storing(result, failure) => {
                let message = failure.unwrap_or_else(|| "it is on its way to the store".into());
                Some((result, Err(StoreError::Transient(message))))
            }
            Progress::Stored(result) => Some((result, Ok(()))),
        }
    }
}

impl<T: Clone + Send + Sync> Uploads<T> {
    /// Waits until all that was read of a pass is in the store, or given up. What pauses is tried at once.
    ///
    /// Errors: something is not there within `patience`.
    pub async fn stored(&self, attempt: u32, of: RecordRef, patience: Duration) -> Result<(), StoreError> {
        let waiting: Vec<_> = {
            let uploads = self.0.lock();
            let of_pass = uploads
                .iter()
                .filter(|(_, it)| (it.of.run_attempt, it.of.section, it.of.cycle) == (attempt, of.section, of.cycle));
            of_pass.map(|(pod, it)| (pod.clone(), it.progress.clone(), it.again.clone())).collect()
        };
        for (_, _, again) in &waiting {
            again.notify_one();
        }
        let until = Instant::now() + patience;
        for (pod, mut progress, _) in waiting {
            let arrived = progress.wait_for(|it| !matches!(it, Progress::Storing(..)));
            // An error says that its task has ended: it was given up.
            if timeout_at(until, arrived).await.is_err() {
                let why = match &*progress.borrow() {
                    Progress::Storing(_, Some(failure)) => failure.clone(),
                    _ => "it is on its way to the store".into(),
                };
                return Err(StoreError::Transient(format!("what pod {pod} has left is not there yet: {why}")));
            }
        }
        Ok(())
    }
}

/// Brings something to the store, however often that has to be tried within an hour.
///
/// Errors: what the store said at last.
pub async fn store<T: Clone + Send + Sync>(told: &Told<T>, result: T, source: &impl Source) -> Result<(), String> {
    told.progress.send_replace(Progress::Storing(result.clone(), None));
    let (since, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let failure = match source.upload().await {
            Ok(()) => {
                told.progress.send_replace(Progress::Stored(result));
                return Ok(());
            }
            Err(error) => error.to_string(),
        };
        told.progress.send_replace(Progress::Storing(result.clone(), Some(failure.clone())));
        if since.elapsed() > PATIENCE {
            return Err(failure);
        }
        // Or until somebody has seen that the store is back.
        let _ = timeout(pause, told.again.notified()).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The pods of the pass in which a run is, each with its cluster and what it is of.
pub fn pods_of_pass<'a>(
    run: &'a SoakRun,
    clusters: &'a RunClusters,
) -> impl Iterator<Item = (&'a Cluster, Arc<PodSummary>, Coordinates)> {
    let (attempt, pass) = current(run);
    let uid = run.metadata.uid.as_deref().unwrap_or_default();
    let all = clusters
        .all()
        .flat_map(move |(_, cluster)| cluster.pods.pods_of(uid).into_iter().map(move |pod| (cluster, pod)));
    all.filter_map(move |(cluster, pod)| {
        let of = pod.coordinates.clone().filter(|of| is_current(of, attempt, pass))?;
        Some((cluster, pod, of))
    })
}

/// Where the files of a run's attempt go; none if it has no store.
///
/// Errors: the store can't be reached, or what it needs is not there.
pub async fn place(shell: &Shell, run: &SoakRun) -> Result<Option<(Arc<Objects>, RunRef)>, StoreError> {
    let objects = shell.stores.objects(shell.clusters.own(), run).await?;
    Ok(objects.map(|objects| (objects, template::run_ref(run, current(run).0))))
}

/// The attempt and the pass in which a run is.
fn current(run: &SoakRun) -> (u32, Option<&Pass>) {
    run.status.as_ref().map_or((0, None), |status| (status.attempt, status.current.as_ref()))
}

/// Whether an attempt of a step belongs to a pass.
fn is_current(of: &Coordinates, attempt: u32, pass: Option<&Pass>) -> bool {
    of.run_attempt == attempt && pass.is_some_and(|pass| (of.section, of.cycle) == (pass.section, pass.cycle))
}

/// What part of a run an attempt belongs to.
pub fn part_of(of: &Coordinates) -> RecordPart {
    RecordPart::from((of.section, of.cycle))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::api::status::Section;

    use super::*;

    /// A store that may be out.
    #[derive(Default)]
    struct Store {
        back: AtomicBool,
    }

    impl Source for Arc<Store> {
        async fn upload(&self) -> Result<(), StoreError> {
            if self.back.load(Ordering::SeqCst) { Ok(()) } else { Err(StoreError::Transient("it is out".into())) }
        }
    }

    #[tokio::test]
    async fn what_a_waiting_record_names_is_waited_for_and_tried_at_once() {
        let place = Arc::new(Store::default());
        let uploads: Uploads<u8> = Uploads::default();
        let of = |cycle| Coordinates {
            run_attempt: 1,
            section: Section::Cycle,
            cycle,
            phase: "p".into(),
            step: "s".into(),
            attempt: 1,
        };
        let record = |cycle| RecordRef { section: Section::Cycle, cycle };
        let source = place.clone();
        uploads.start("pod", of(1), |told| async move { drop(store(&told, 7, &source).await) });
        uploads.start("reads", of(2), |told| async move {
            let _told = told;
            std::future::pending::<()>().await;
        });
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(20));
        assert!(uploads.stored(1, record(3), short).await.is_ok(), "there is nothing of it");
        assert!(uploads.stored(1, record(2), short).await.is_ok(), "what is not read yet is in no record");
        assert!(uploads.stored(2, record(1), short).await.is_ok(), "of another attempt of the run");
        assert!(uploads.ended("pod", false, long).await.is_some(), "it is read at once");
        let missing = uploads.stored(1, record(1), short).await.unwrap_err().to_string();
        assert!(missing.contains("pod pod") && missing.contains("it is out"), "{missing}");
        // By now the pause is longer than this test may take.
        for _ in 0..6 {
            let _ = uploads.stored(1, record(1), short).await;
        }
        place.back.store(true, Ordering::SeqCst);
        let since = Instant::now();
        uploads.stored(1, record(1), long).await.unwrap();
        assert!(since.elapsed() < long / 2, "{:?}", since.elapsed());
        assert!(uploads.stored(1, record(1), short).await.is_ok(), "it is there");
    }
}
