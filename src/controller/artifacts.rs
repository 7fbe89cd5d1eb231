//! The files that steps leave behind: read from the helper beside each step, without the values of Secrets, and brought to the store.
//!
//! Reading begins when the step's container has ended, so that the files outlive the pod. The record of the pass waits for it, and the
//! pods of a pass stay until its record is stored: an operator that ends in between reads them again.

mod helper;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    AsyncReadExt,
    future::{BoxFuture, FutureExt, try_join_all},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use crate::{
    api::{
        SoakRun,
        status::{Pass, Section},
        step::Action,
    },
    cluster::{Cluster, targets::RunClusters},
    engine::Plan,
    helper::artifacts::{self as packing, Packed, PackedFile},
    results::{ArtifactRecord, ArtifactsRecord, LeftOutRecord, RecordPart, StoreError, stored_name},
    steps::{self, RunIdentity},
};

use self::helper::{GONE, Helper, PATIENCE as HELPER_PATIENCE, judge, patience};
use super::{
    Shell,
    observe::identity,
    perform::Subject,
    redaction::{self, Redactor},
    uploads::{self, Source, Told, Uploads},
};

/// Pods whose files are in memory at the same time, over all runs: each holds 5 MiB, and 40 MiB for a moment.
const MAX_HELD: usize = 8;
/// How long a pod waits to be one of them.
const PLACE_PATIENCE: Duration = Duration::from_mins(2);
/// How long a record waits for files to be read. All other limits here are shorter.
const RECORD_PATIENCE: Duration = Duration::from_mins(10);
/// How long a record waits for the operator to know the pods, after its start.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);
/// How often the caches are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often a log is read that is not whole: its last bytes may be on their way.
const MAX_TRIES: u32 = 4;
/// Pause between two of them.
const AGAIN: Duration = Duration::from_secs(1);
/// Files that are written at the same time.
const WRITERS: usize = 8;
/// Files that a record names.
const NAMED: usize = 32;

static PLACES: Semaphore = Semaphore::const_new(MAX_HELD);

/// The artifacts of one run that are brought to the store, by the name of the pod.
pub type Artifacts = Uploads<ArtifactsRecord>;

/// Begins to read what helpers have to hand on, of pods whose first container has ended or that are being deleted, or of `all`
/// pods of the pass in which it has begun.
pub fn follow(artifacts: &Artifacts, shell: &Arc<Shell>, run: &Arc<SoakRun>, clusters: &RunClusters, all: bool) {
    if run.spec.results.object_store.is_none() {
        return;
    }
    artifacts.keep(run);
    for (cluster, pod, of) in uploads::pods_of_pass(run, clusters) {
        let begins = pod.ended() || pod.has_started() && (all || pod.deleting_at.is_some());
        if !pod.has_artifacts || !begins {
            continue;
        }
        let folder = folder(uploads::part_of(&of), &of.phase, &of.step, of.attempt);
        artifacts.start(&pod.name, of, |told| {
            let reader = Reader {
                shell: shell.clone(),
                run: run.clone(),
                identity: identity(run),
                cluster: cluster.clone(),
                pod: pod.name.clone(),
                folder,
                told,
            };
            reader.work()
        });
    }
}

/// What each pod of a pass has left behind, by pod, as far as it was to leave anything. With `stored`, all of it is in the store.
///
/// Errors: the store does not take it. Files that can't be read any more are no error; the record says so.
pub async fn collect(
    subject: &Subject,
    pass: &Pass,
    stored: bool,
) -> Result<BTreeMap<String, ArtifactsRecord>, StoreError> {
    let Subject { shell, plan, run, .. } = subject;
    let wanted = wanted(plan, pass);
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let memory = shell.memories.of(run.metadata.uid.as_deref().unwrap_or_default());
    let clusters = memory.connections().clusters(&shell.clusters);
    let since = Instant::now();
    while !clusters.all().all(|(_, cluster)| cluster.pods.synced()) && since.elapsed() < SYNC_PATIENCE {
        sleep(LOOK).await;
    }
    let artifacts = memory.artifacts();
    let attempt = run.status.as_ref().map_or(0, |status| status.attempt);
    follow(artifacts, shell, run, &clusters, true);
    // Earlier attempts of a step have no place of their own in the record, but their pods go with the others.
    let mut found = BTreeMap::new();
    for pod in artifacts.pods(attempt, pass) {
        let left = RECORD_PATIENCE.saturating_sub(since.elapsed());
        let Some((record, result)) = artifacts.ended(&pod, stored, left).await else { continue };
        // A record that is kept until the store is back tells of them as if they were there: they come with it (`records::forward`).
        if stored {
            result?;
        }
        found.insert(pod, record);
    }
    for (pod, folder) in wanted {
        let why = if artifacts.has(&pod) { "they could not be read in time" } else { GONE };
        found.entry(pod).or_insert_with(|| lost(folder, why.into()));
    }
    Ok(found)
}

/// The pods of a pass that have run and were to leave files, and where those go.
fn wanted(plan: &Plan, pass: &Pass) -> Vec<(String, String)> {
    let Pass { section, cycle, phases, .. } = pass;
    let part = RecordPart::from((*section, *cycle));
    let steps = phases.iter().flat_map(|phase| phase.steps.iter().map(move |step| (phase.name.as_str(), step)));
    steps
        .filter(|(phase, step)| step.running_at.is_some() && leaves_files(plan, *section, phase, &step.name))
        .filter_map(|(phase, step)| Some((step.pod.clone()?, folder(part, phase, &step.name, step.attempt))))
        .collect()
}

fn leaves_files(plan: &Plan, section: Section, phase: &str, step: &str) -> bool {
    plan.leaf(section, phase, step)
        .is_some_and(|leaf| matches!(&leaf.action, Action::Pod(step) if step.artifacts.is_some()))
}

/// Where the files of an attempt of a step lie below the attempt of the run.
fn folder(part: RecordPart, phase: &str, step: &str, attempt: u32) -> String {
    format!("artifacts/{part}/{phase}/{step}-{attempt}")
}

fn lost(folder: String, why: String) -> ArtifactsRecord {
    ArtifactsRecord { folder, lost: Some(why), ..ArtifactsRecord::default() }
}

struct Reader {
    shell: Arc<Shell>,
    run: Arc<SoakRun>,
    identity: RunIdentity,
    cluster: Cluster,
    pod: String,
    folder: String,
    told: Told<ArtifactsRecord>,
}

impl Reader {
    async fn work(self) {
        let mut along = Packed::default();
        let mut ended = self.ended(true).await;
        if matches!(ended, Ok(Helper::Leaves)) {
            if let Some((packed, _place)) = self.read_along().await {
                if packed.cut.is_none() {
                    return self.tell(packed, None).await;
                }
                along = packed;
            }
            ended = self.ended(false).await;
        }
        if let Err(why) = ended {
            return self.tell(along, Some(why)).await;
        }
        let Ok(Ok(_place)) = timeout(PLACE_PATIENCE, PLACES.acquire()).await else {
            let why = "those of too many pods wait for the store already";
            return self.tell(Packed::default(), Some(why.into())).await;
        };
        let (packed, why) = self.read().await;
        let packed = if packed.files.len() < along.files.len() { along } else { packed };
        self.tell(packed, why).await;
    }

    /// Tells what was read, once the store has it.
    async fn tell(&self, packed: Packed, why: Option<String>) {
        if let Some(why) = &why {
            warn!(pod = self.pod, why, "artifacts are lost");
        }
        let record = record(self.folder.clone(), &packed, why);
        let upload = Upload { reader: self, files: packed.files, written: AtomicUsize::new(0) };
        if let Err(failure) = uploads::store(&self.told, record, &upload).await {
            warn!(pod = self.pod, folder = self.folder, failure, "artifacts could not be stored");
        }
    }

    /// Waits until the helper has printed all, or, if that is `told`, until its pod is being deleted. Errors: why nothing will come.
    async fn ended(&self, told: bool) -> Result<Helper, String> {
        let since = Instant::now();
        loop {
            let pod = self.cluster.pods.find(&self.identity.uid, &self.pod);
            match judge(pod.as_deref(), since.elapsed()) {
                Helper::Leaves if told => return Ok(Helper::Leaves),
                Helper::Runs | Helper::Leaves => sleep(LOOK).await,
                Helper::Ended => return Ok(Helper::Ended),
                Helper::Lost(why) => return Err(why),
            }
        }
    }

    /// What a helper prints whose pod is being deleted, read while it does so, as far as it comes, and the place that this takes.
    async fn read_along(&self) -> Option<(Packed, SemaphorePermit<'static>)> {
        let mut log = vec![0; 4_096];
        let mut stream = steps::artifacts_stream(&self.cluster, &self.identity, &self.pod).await.ok()?;
        // Nothing is printed before the step's container has ended, which may take all of the pod's grace period.
        let patience =
            self.cluster.pods.find(&self.identity.uid, &self.pod).map_or(HELPER_PATIENCE, |pod| patience(&pod));
        let begun = timeout(patience, stream.read(&mut log)).await.ok()?.ok()?;
        let place = timeout(PLACE_PATIENCE, PLACES.acquire()).await.ok()?.ok()?;
        log.truncate(begun);
        let mut rest = stream.take(packing::MAX_LOG as u64);
        if let Ok(Err(error)) = timeout(HELPER_PATIENCE, rest.read_to_end(&mut log)).await {
            warn!(pod = self.pod, %error, "what a pod leaves behind that is being deleted could not be read to its end");
        }
        let redactor = redaction::load(&self.shell, &self.run).await;
        let packed = tokio::task::spawn_blocking(move || redacted(packing::read(&log), &redactor)).await.ok()?;
        Some((packed, place))
    }

    /// The files, without the values of Secrets, and why some may be missing.
    async fn read(&self) -> (Packed, Option<String>) {
        let redactor = redaction::load(&self.shell, &self.run).await;
        let mut best = (Packed::default(), None);
        for attempt in 0..MAX_TRIES {
            if attempt > 0 {
                sleep(AGAIN * attempt).await;
            }
            let log = match steps::artifacts(&self.cluster, &self.identity, &self.pod, packing::MAX_LOG).await {
                Ok(log) => log,
                Err(failure) => {
                    best.1 = Some(format!("the helper's log can't be read: {failure}"));
                    continue;
                }
            };
            let redactor = redactor.clone();
            let Ok(packed) = tokio::task::spawn_blocking(move || redacted(packing::read(&log), &redactor)).await else {
                best.1 = Some("what the helper printed can't be unpacked".into());
                continue;
            };
            match packed.cut.clone() {
                None => return (packed, None),
                Some(cut) => {
                    best = (
                        packed,
                        Some(format!(
                            "the helper's log is not whole ({cut}): it was killed, or the node has cut its log"
                        )),
                    );
                }
            }
        }
        best
    }

    async fn put(&self, file: PackedFile) -> Result<(), StoreError> {
        let Some((objects, run)) = uploads::place(&self.shell, &self.run).await? else { return Ok(()) };
        let name = format!("{}/{}", self.folder, file.path);
        // It was unpacked before.
        let content = tokio::task::spawn_blocking(move || file.unpack()).await;
        let content = content.map_err(|error| error.to_string()).and_then(|content| content);
        let content = content.map_err(|error| StoreError::Terminal(format!("{name}: {error}")))?;
        objects.write(&run, &name, content).await
    }
}

/// What a record says of files that were read.
fn record(folder: String, packed: &Packed, lost: Option<String>) -> ArtifactsRecord {
    let Packed { files, left, more, cut: _ } = packed;
    let named = |file: &PackedFile| ArtifactRecord { path: stored_name(&file.path), bytes: file.bytes };
    ArtifactsRecord {
        folder,
        count: u32::try_from(files.len()).unwrap_or(u32::MAX),
        bytes: files.iter().map(|file| file.bytes).sum(),
        files: files.iter().take(NAMED).map(named).collect(),
        left_out: left.iter().map(|it| LeftOutRecord { path: it.path.clone(), why: it.why.clone() }).collect(),
        more_left_out: *more,
        lost,
    }
}

/// Files without the values of Secrets, in content and name.
fn redacted(packed: Packed, redactor: &Redactor) -> Packed {
    if redactor.is_idle() {
        return packed;
    }
    let Packed { files, mut left, more, cut } = packed;
    for it in &mut left {
        it.path = redactor.name(std::mem::take(&mut it.path));
    }
    let file = |file: PackedFile| {
        // Only what can be unpacked has been read.
        let content = file.unpack().ok()?;
        let (clean, path) = (redactor.bytes(content.clone()), redactor.name(file.path.clone()));
        Some(if clean == content && path == file.path { file } else { PackedFile::pack(path, &clean) })
    };
    Packed { files: files.into_iter().filter_map(file).collect(), left, more, cut }
}

struct Upload<'a> {
    reader: &'a Reader,
    files: Vec<PackedFile>,
    /// How many of them are in the store.
    written: AtomicUsize,
}

impl Source for Upload<'_> {
    async fn upload(&self) -> Result<(), StoreError> {
        let rest = &self.files[self.written.load(Ordering::Relaxed)..];
        for files in rest.chunks(WRITERS) {
            // Boxed, because the compiler can't prove a stream of borrowing closures to be Send.
            let writes: Vec<BoxFuture<'_, Result<(), StoreError>>> =
                files.iter().map(|file| self.reader.put(file.clone()).boxed()).collect();
            try_join_all(writes).await?;
            self.written.fetch_add(files.len(), Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_value_of_a_secret_is_in_no_file_and_in_no_name() {
        let redactor = Redactor::of([ByteString(b"canary".to_vec())]);
        let files = [("plain", "nothing"), ("canary.txt", "a canary, Y2FuYXJ5 and \u{0}canary")]
            .map(|(path, content)| PackedFile::pack(path.into(), content.as_bytes()));
        let left = vec![packing::LeftOut { path: "big-canary".into(), why: "large".into() }];
        let packed = redacted(Packed { files: files.to_vec(), left, ..Packed::default() }, &redactor);
        assert_eq!(packed.files[0], files[0]);
        let content = String::from_utf8(packed.files[1].unpack().unwrap()).unwrap();
        assert_eq!(content, "a [redacted], [redacted] and \u{0}[redacted]");
        let record = record("artifacts/x".into(), &packed, None);
        assert_eq!((record.count, record.bytes), (2, 7 + content.len() as u64));
        assert_eq!((record.files[1].path.as_str(), record.left_out[0].path.as_str()), ("redacted.txt", "big-redacted"));
    }
}
