//! The logs of a pass's pods: the end of each in its record, and all of it in the object store.

use std::{collections::BTreeMap, io::Write};

use flate2::{Compression, write::GzEncoder};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use tracing::warn;

use crate::{
    api::status::{Pass, StepStatus},
    cluster::Cluster,
    results::{LogTail, Objects, RecordPart, RunRef, StoreError},
    steps::{self, RunIdentity},
};

use super::{
    memory::Memory,
    observe::identity,
    perform::Subject,
    redaction::{self, Redactor},
    streams::END_PATIENCE,
};

/// Logs that are read at the same time.
const READERS: usize = 8;

/// A pod, and the end of its log.
type Named = (String, LogTail);

/// The log of a step's pod.
struct Wanted<'a> {
    cluster: &'a Cluster,
    pod: String,
    /// Where it lies in the store.
    file: String,
}

/// What is needed to read any of them.
struct Reader<'a> {
    identity: RunIdentity,
    memory: &'a Memory,
    redactor: Redactor,
    /// Where all of each log is to go, if anywhere.
    objects: Option<(&'a Objects, &'a RunRef)>,
}

/// The end of each pod's log, by pod, without the values of Secrets. With an object store, all of each log is there afterwards.
///
/// Errors: the store does not take one. A log that can't be read (its node is gone) is no error.
pub async fn collect(
    subject: &Subject,
    pass: &Pass,
    objects: Option<(&Objects, &RunRef)>,
) -> Result<BTreeMap<String, LogTail>, StoreError> {
    let identity = identity(&subject.run);
    let memory = subject.shell.memories.of(&identity.uid);
    let clusters = memory.connections().clusters(&subject.shell.clusters);
    let part = RecordPart::from((pass.section, pass.cycle));
    let steps = pass.phases.iter().flat_map(|phase| phase.steps.iter().map(move |step| (phase.name.as_str(), step)));
    let wanted = |(phase, step): (&str, &StepStatus)| {
        let cluster = clusters.get(step.target.as_deref().unwrap_or_default()).ok()?;
        Some(Wanted { cluster, pod: step.pod.clone()?, file: file_name(part, phase, &step.name, step.attempt) })
    };
    let wanted: Vec<Wanted<'_>> = steps.filter_map(wanted).collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let redactor = redaction::load(&subject.shell, &subject.run).await;
    let reader = Reader { identity, memory: &memory, redactor, objects };
    // Boxed, because the compiler can't prove a stream of borrowing closures to be Send.
    let reads: Vec<BoxFuture<'_, Result<Option<Named>, StoreError>>> =
        wanted.into_iter().map(|log| reader.read(log).boxed()).collect();
    let found: Vec<_> = stream::iter(reads).buffer_unordered(READERS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

impl Reader<'_> {
    async fn read(&self, log: Wanted<'_>) -> Result<Option<Named>, StoreError> {
        let followed = self.memory.streams().ended(&log.pod, self.objects.is_some(), END_PATIENCE).await;
        if let Some((tail, stored)) = followed {
            // A record that is kept until the store is back names the file as well, which comes with it (`records::forward`).
            if self.objects.is_some() {
                stored?;
            }
            return Ok(Some((log.pod, tail)));
        }
        let Some(mut tail) = self.tail(log.cluster, &log.pod).await else { return Ok(None) };
        if let Some((objects, of)) = self.objects
            && let Some(content) = self.whole(log.cluster, &log.pod).await
        {
            objects.write(of, &log.file, content).await?;
            tail.file = Some(log.file);
        }
        Ok(Some((log.pod, tail)))
    }

    async fn tail(&self, cluster: &Cluster, pod: &str) -> Option<LogTail> {
        match steps::tail(cluster, &self.identity, pod, None, steps::MAX_LOG_LINES, steps::MAX_LOG_BYTES).await {
            Ok(tail) => {
                let bytes = tail.text.len() as u64;
                Some(LogTail { text: self.redactor.text(tail.text), truncated: tail.truncated, bytes, file: None })
            }
            Err(failure) => {
                warn!(pod, %failure, "a log could not be read");
                None
            }
        }
    }

    /// All of a log that is kept, compressed; none if it can't be read.
    async fn whole(&self, cluster: &Cluster, pod: &str) -> Option<Vec<u8>> {
        match steps::whole(cluster, &self.identity, pod).await {
            Ok(log) => gzip(&self.redactor.text(log.text())).ok(),
            Err(failure) => {
                warn!(pod, %failure, "a log could not be read");
                None
            }
        }
    }
}

/// Where the log of an attempt of a step lies below the attempt of the run. The same log always has the same place.
pub fn file_name(part: RecordPart, phase: &str, step: &str, attempt: u32) -> String {
    format!("logs/{part}/{phase}/{step}-{attempt}.log.gz")
}

/// A text as it is stored.
pub fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
