//! Follows what a run's pods print, and brings it to the object store while they run: a log survives its pod.
//!
//! An object can't be appended to, so each upload writes the file anew, which is small: head and tail of the log, compressed.
//! What this process forgets when it ends is read anew from the pod by the next one.

use std::{sync::Arc, time::Duration};

use futures::AsyncReadExt;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use crate::{
    api::SoakRun,
    cluster::{Cluster, error::ApiFailure, targets::RunClusters},
    results::{LogTail, StoreError},
    steps::{self, RunIdentity, WholeLog},
};

use super::{
    Shell, logs,
    observe::identity,
    redaction,
    uploads::{self, Source, Told, Uploads},
};

/// Logs that are followed at the same time, over all runs: each may hold 3 MiB. Others are read when their pass has ended.
const MAX_FOLLOWED: usize = 32;
/// Pause between two uploads of a log that grows.
const UPLOAD_EVERY: Duration = Duration::from_secs(10);
/// How long a record waits for the end of a log whose container has ended.
pub const END_PATIENCE: Duration = Duration::from_mins(1);
/// How long the watch may lag behind the end of a log.
const LAG: Duration = Duration::from_secs(3);
/// Pause before a log whose connection broke is read on.
const AGAIN: Duration = Duration::from_secs(1);
/// How often that is tried in a row.
const MAX_TRIES: u32 = 5;

static PLACES: Semaphore = Semaphore::const_new(MAX_FOLLOWED);

/// The logs of one run that are followed, by the name of the pod.
pub type Streams = Uploads<LogTail>;

/// Follows what has begun to print, and forgets what is in the store and belongs to a pass whose record is as well.
pub fn follow(streams: &Streams, shell: &Arc<Shell>, run: &Arc<SoakRun>, clusters: &RunClusters) {
    if run.spec.results.object_store.is_none() {
        return;
    }
    streams.keep(run);
    for (cluster, pod, of) in uploads::pods_of_pass(run, clusters) {
        if !pod.has_started() || streams.has(&pod.name) {
            continue;
        }
        let Ok(place) = PLACES.try_acquire() else { return };
        let file = logs::file_name(uploads::part_of(&of), &of.phase, &of.step, of.attempt);
        streams.start(&pod.name, of, |told| {
            let follower = Follower {
                shell: shell.clone(),
                run: run.clone(),
                identity: identity(run),
                cluster: cluster.clone(),
                pod: pod.name.clone(),
                file,
                told,
                _place: place,
            };
            follower.work()
        });
    }
}

struct Follower {
    shell: Arc<Shell>,
    run: Arc<SoakRun>,
    identity: RunIdentity,
    cluster: Cluster,
    pod: String,
    file: String,
    told: Told<LogTail>,
    _place: SemaphorePermit<'static>,
}

impl Follower {
    async fn work(self) {
        let mut log = WholeLog::default();
        let mut tries = 0;
        while tries < MAX_TRIES {
            let before = log.bytes();
            let read = self.read(&mut log).await;
            if read.is_ok() && self.has_ended().await {
                break;
            }
            // Or else the connection has ended before the container did.
            if let (Err(failure), true) = (read, tries + 1 == MAX_TRIES) {
                warn!(pod = self.pod, %failure, "a log could not be followed to its end");
            }
            tries = if log.bytes() > before { 0 } else { tries + 1 };
            sleep(AGAIN * tries.max(1)).await;
        }
        let tail = self.tail(&log).await;
        let upload = Upload { follower: &self, log: &log };
        if let Err(failure) = uploads::store(&self.told, tail, &upload).await {
            warn!(pod = self.pod, file = self.file, failure, "a log could not be stored");
        }
    }

    /// Reads until the stream ends. What an earlier connection has told is left out.
    async fn read(&self, log: &mut WholeLog) -> Result<(), ApiFailure> {
        let mut stream = steps::stream(&self.cluster, &self.identity, &self.pod).await?;
        let mut known = log.bytes();
        let mut chunk = vec![0; 65_536];
        let mut upload_at = Instant::now() + UPLOAD_EVERY;
        let mut grown = false;
        loop {
            let count = tokio::select! {
                read = stream.read(&mut chunk) => read.map_err(kube::Error::ReadEvents)?,
                () = sleep_until(upload_at), if grown => {
                    // The last upload is what counts; this one is for whoever looks meanwhile, and for the operator's crash.
                    let _ = self.upload(log).await;
                    (grown, upload_at) = (false, Instant::now() + UPLOAD_EVERY);
                    continue;
                }
            };
            if count == 0 {
                return Ok(());
            }
            let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(count);
            known -= skipped as u64;
            if skipped < count {
                log.push(&chunk[skipped..count]);
                grown = true;
            }
        }
    }

    /// Whether the container has ended, as far as the watch tells within a moment.
    async fn has_ended(&self) -> bool {
        let until = Instant::now() + LAG;
        loop {
            if self.cluster.pods.find(&self.identity.uid, &self.pod).is_none_or(|pod| pod.ended()) {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            sleep(LAG / 20).await;
        }
    }

    async fn tail(&self, log: &WholeLog) -> LogTail {
        let redactor = redaction::load(&self.shell, &self.run).await;
        let tail = log.tail();
        LogTail {
            text: redactor.text(tail.text),
            truncated: tail.truncated,
            bytes: log.bytes(),
            file: Some(self.file.clone()),
        }
    }

    async fn upload(&self, log: &WholeLog) -> Result<(), StoreError> {
        let Some((objects, run)) = uploads::place(&self.shell, &self.run).await? else { return Ok(()) };
        let redactor = redaction::load(&self.shell, &self.run).await;
        let text = redactor.text(log.text());
        let content = logs::gzip(&text).map_err(|error| StoreError::Terminal(error.to_string()))?;
        objects.write(&run, &self.file, content).await
    }
}

struct Upload<'a> {
    follower: &'a Follower,
    log: &'a WholeLog,
}

impl Source for Upload<'_> {
    async fn upload(&self) -> Result<(), StoreError> {
        self.follower.upload(self.log).await
    }
}
