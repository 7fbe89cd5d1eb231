//! The object store: where each file lies, and records in it.

use std::{fmt, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use regex::Regex;
use serde_json::Value;

use super::{
    configmap::{ConfigMapRecord, RecordPart},
    kube_error::StoreError,
    record::RunRef,
    records::Records,
    store::{Stored, StoredRecord},
    text::digest,
};

/// Longest time that one call may take, its tries included.
const DEADLINE: Duration = Duration::from_secs(40);
/// Calls at the same time while many objects are read.
const READERS: usize = 8;
/// The file that is written last.
pub(super) const INDEX: &str = "index.json";

/// The results of runs below a prefix of a bucket, a container or a volume.
#[derive(Clone)]
pub struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// For messages.
    place: String,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl Objects {
    /// Results in a store. `place` is what people call it.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, place: String) -> Self {
        Self { store, prefix, place }
    }

    /// The folder of everything of a namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> Path {
        self.prefix.clone().join(namespace)
    }

    fn of_run(&self, run: &RunRef) -> Path {
        self.of_namespace(&run.namespace).join(run.name.as_str()).join(run.uid.as_str())
    }

    /// The folder of an attempt of a run.
    pub(super) fn folder(&self, run: &RunRef) -> Path {
        self.of_run(run).join(format!("a{}", run.attempt))
    }

    /// Where a file of an attempt lies; `name` may have several parts, separated by slashes.
    pub(super) fn file(&self, run: &RunRef, name: &str) -> Path {
        name.split('/').fold(self.folder(run), Path::join)
    }

    /// Makes sure that the store answers and takes the credentials. Nothing is written.
    pub async fn probe(&self, run: &RunRef) -> Result<(), StoreError> {
        let doing = format!("looking into {}", self.place);
        match within(self.store.head(&self.file(run, INDEX))).await {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(failure(&doing, &error)),
        }
        // A bucket that is not there looks like a file that is not there; a list tells them apart.
        let mut files = self.store.list(Some(&self.folder(run)));
        within(async { files.try_next().await }).await.map(|_| ()).map_err(|error| failure(&doing, &error))
    }

    /// Writes a file of an attempt, whatever was there before.
    pub async fn write(&self, run: &RunRef, name: &str, content: Vec<u8>) -> Result<(), StoreError> {
        let path = self.file(run, name);
        within(self.store.put(&path, content.into()))
            .await
            .map(|_| ())
            .map_err(|error| failure(&self.doing("storing", &path), &error))
    }

    /// Reads a file of an attempt; none if it is not there.
    pub async fn load(&self, run: &RunRef, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.bytes(&self.file(run, name)).await
    }

    /// Brings a record from where it waited. It has been counted, so it takes the place of one that has not: an upload whose
    /// answer was lost may have left another text of the same record.
    pub async fn forward(&self, run: &RunRef, record: &StoredRecord) -> Result<(), StoreError> {
        let name = file_name(record.part);
        self.write(run, &name, record.text.clone().into_bytes()).await?;
        match self.load(run, &name).await? {
            Some(found) if digest(&String::from_utf8_lossy(&found)) == record.digest => Ok(()),
            _ => Err(StoreError::Transient(format!(
                "{}: the store shows other content than it was given; it is tried again",
                self.doing("storing", &self.file(run, &name))
            ))),
        }
    }

    /// Whether a record is there.
    pub async fn has(&self, run: &RunRef, part: RecordPart) -> Result<bool, StoreError> {
        let path = self.file(run, &file_name(part));
        match within(self.store.head(&path)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failure(&self.doing("looking for", &path), &error)),
        }
    }

    /// The files below a folder.
    pub(super) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let files = self.store.list(Some(folder)).try_collect::<Vec<_>>();
        within(files).await.map_err(|error| failure(&self.doing("listing", folder), &error))
    }

    async fn create(&self, record: &ConfigMapRecord) -> Result<Stored, StoreError> {
        let path = self.file(&record.run, &file_name(record.part));
        let doing = self.doing("storing", &path);
        let ours = record.text().digest();
        let content = record.text().text().as_bytes().to_vec();
        let once = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = within(self.store.put_opts(&path, content.clone().into(), once)).await;
        match put {
            Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            // A store without conditional writes: the path has the run's uid and the pass, so only this run writes there.
            Err(Error::NotSupported { .. } | Error::NotImplemented { .. }) => {
                let put = within(self.store.put(&path, content.into())).await;
                put.map_err(|error| failure(&doing, &error))?;
            }
            Err(error) => return Err(failure(&doing, &error)),
        }
        // What counts is what the store shows now, whoever wrote it and whatever the answer said.
        let Some(found) = self.bytes(&path).await? else {
            return Err(StoreError::Transient(format!("{doing}: it is not there; it is tried again")));
        };
        let found = String::from_utf8_lossy(&found).into_owned();
        let there = digest(&found);
        if there != ours && !is_of(&found, &record.run, record.part) {
            return Err(StoreError::Terminal(format!(
                "{doing}: there is something else: look at it, and delete it if it is not needed"
            )));
        }
        Ok(Stored { adopted: there != ours, digest: there, uid: String::new() })
    }

    async fn remove(&self, run: &RunRef, cycles: &[u32]) -> Result<(), StoreError> {
        for cycle in cycles {
            let path = self.file(run, &file_name(RecordPart::Cycle(*cycle)));
            match within(self.store.delete(&path)).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(failure(&self.doing("deleting", &path), &error)),
            }
        }
        Ok(())
    }

    async fn read_all(&self, run: &RunRef) -> Result<Vec<StoredRecord>, StoreError> {
        let files = self.list(&self.of_run(run)).await?;
        let parts = files.into_iter().filter_map(|file| {
            let (attempt, part) = self.part_of(run, &file.location)?;
            Some((file.location, attempt, part))
        });
        let reads: Vec<BoxFuture<'_, _>> =
            parts.map(|(path, attempt, part)| async move { self.record(path, attempt, part).await }.boxed()).collect();
        let found: Vec<Option<StoredRecord>> = stream::iter(reads).buffer_unordered(READERS).try_collect().await?;
        let mut records: Vec<StoredRecord> = found.into_iter().flatten().collect();
        records.sort_by_key(|record| (record.attempt, record.part));
        Ok(records)
    }

    async fn record(&self, path: Path, attempt: u32, part: RecordPart) -> Result<Option<StoredRecord>, StoreError> {
        let Some(bytes) = self.bytes(&path).await? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let outcome = json["outcome"].as_str().or(json["verdict"]["phase"].as_str()).unwrap_or_default().to_owned();
        let digest = digest(&text);
        Ok(Some(StoredRecord { name: path.to_string(), attempt, part, outcome, digest, intact: !json.is_null(), text }))
    }

    /// What a file of a run is a record of, if it is one.
    pub(super) fn part_of(&self, run: &RunRef, path: &Path) -> Option<(u32, RecordPart)> {
        let folder = self.of_run(run);
        let rest: Vec<String> = path.prefix_match(&folder)?.map(|part| part.as_ref().to_owned()).collect();
        let attempt = rest.first()?.strip_prefix('a')?.parse().ok()?;
        Some((attempt, part_of_name(&rest[1..].join("/"))?))
    }

    pub(super) async fn bytes(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        let read = async { self.store.get(path).await?.bytes().await };
        match within(read).await {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure(&self.doing("reading", path), &error)),
        }
    }

    pub(super) fn doing(&self, what: &str, path: &Path) -> String {
        format!("{what} {path} in {}", self.place)
    }
}

impl Records for Objects {
    fn put<'a>(&'a self, record: &'a ConfigMapRecord) -> BoxFuture<'a, Result<Stored, StoreError>> {
        self.create(record).boxed()
    }

    fn delete<'a>(&'a self, of: &'a RunRef, cycles: &'a [u32]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.remove(of, cycles).boxed()
    }

    fn read<'a>(&'a self, of: &'a RunRef) -> BoxFuture<'a, Result<Vec<StoredRecord>, StoreError>> {
        self.read_all(of).boxed()
    }
}

/// Makes a call within the deadline.
async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(DEADLINE, call).await.unwrap_or_else(|_| {
        Err(Error::Generic { store: "results", source: format!("no answer within {} s", DEADLINE.as_secs()).into() })
    })
}

/// A name as the store tells it: some characters can't be in the path of an object.
pub fn stored_name(name: &str) -> String {
    name.split('/').fold(Path::default(), Path::join).to_string()
}

/// The file of a record below its attempt's folder.
pub(super) fn file_name(part: RecordPart) -> String {
    match part {
        RecordPart::Cycle(_) => format!("cycles/{part}.json"),
        part => format!("{part}.json"),
    }
}

fn part_of_name(name: &str) -> Option<RecordPart> {
    match name {
        "setup.json" => Some(RecordPart::Setup),
        "cleanup.json" => Some(RecordPart::Cleanup),
        "summary.json" => Some(RecordPart::Summary),
        name => name.strip_prefix("cycles/c")?.strip_suffix(".json")?.parse().ok().map(RecordPart::Cycle),
    }
}

/// Whether a text is a whole record of that part of a run.
fn is_of(text: &str, run: &RunRef, part: RecordPart) -> bool {
    let Ok(json) = serde_json::from_str::<Value>(text) else { return false };
    let same = json["run"]["uid"].as_str() == Some(&run.uid) && json["run"]["attempt"] == run.attempt;
    same && match part {
        RecordPart::Cycle(number) => json["cycle"] == number,
        _ => true,
    }
}

/// An error of the store, and what to do about it. It says the same each time, and holds no part of a URL that could be secret.
pub(super) fn failure(doing: &str, error: &Error) -> StoreError {
    let message = plain(&error.to_string());
    match error {
        Error::Unauthenticated { .. } => {
            StoreError::Terminal(format!("{doing}: {message}: check the credentials in the Secret"))
        }
        Error::PermissionDenied { .. } => StoreError::Terminal(format!(
            "{doing}: {message}: check the credentials in the Secret, and allow them to get, put, list and delete there"
        )),
        Error::NotFound { .. } => StoreError::Terminal(format!("{doing}: {message}: create the bucket or container")),
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::UnknownConfigurationKey { .. } => {
            StoreError::Terminal(format!("{doing}: {message}"))
        }
        _ => StoreError::Transient(format!("{doing}: {message}; it is tried again")),
    }
}

/// A message without what differs between two tries (durations, counts) and without queries, which can hold signatures.
fn plain(message: &str) -> String {
    let cuts = [
        (r" in [0-9.]+(ns|µs|ms|s)(, after [0-9]+ retries, max_retries: [0-9]+, retry_timeout: [^ ]+)?", ""),
        (r"\?[^\s)]*", ""),
        (
            r"(?i)<(RequestId|HostId|Resource|AWSAccessKeyId|StringToSign|SignatureProvided|CanonicalRequest)[A-Za-z]*>[^<]*</[A-Za-z]+>",
            "",
        ),
    ];
    let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    for (pattern, with) in cuts {
        if let Ok(pattern) = Regex::new(pattern) {
            text = pattern.replace_all(&text, with).into_owned();
        }
    }
    super::text::cut(&text, 400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::samples::{record, run};
    use object_store::memory::InMemory;

    fn objects() -> Objects {
        Objects::new(Arc::new(InMemory::new()), Path::from("soak"), "memory".into())
    }

    #[test]
    fn every_record_has_its_own_file_and_is_found_by_it() {
        let objects = objects();
        for part in [
            RecordPart::Setup,
            RecordPart::Cycle(12),
            RecordPart::Cycle(1_000_000),
            RecordPart::Cleanup,
            RecordPart::Summary,
        ] {
            let path = objects.file(&run(), &file_name(part));
            assert_eq!(objects.part_of(&run(), &path), Some((1, part)), "{path}");
        }
        let path = objects.file(&run(), "cycles/c000012.json");
        assert!(path.as_ref().starts_with("soak/") && path.as_ref().ends_with("/a1/cycles/c000012.json"), "{path}");
        assert_eq!(objects.part_of(&run(), &objects.file(&run(), "logs/c000012/x.log.gz")), None);
    }

    #[tokio::test]
    async fn storing_twice_stores_once_and_the_first_stays() {
        let objects = objects();
        let first = ConfigMapRecord::from(&record());
        let stored = objects.put(&first).await.unwrap();
        assert_eq!((stored.digest.as_str(), stored.adopted), (first.text().digest(), false));
        let mut other = record();
        other.seconds = Some(1.0);
        let adopted = objects.put(&(&other).into()).await.unwrap();
        assert_eq!((adopted.digest.as_str(), adopted.adopted), (first.text().digest(), true));
        let read = objects.read(&run()).await.unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].cycle().unwrap(), record());

        let part = RecordPart::Cycle(record().cycle);
        let path = objects.file(&run(), &file_name(part));
        objects.store.put(&path, b"{}".to_vec().into()).await.unwrap();
        assert!(objects.put(&first).await.unwrap_err().to_string().contains("something else"));
        objects.forward(&run(), &read[0]).await.unwrap();
        assert!(objects.has(&run(), part).await.unwrap());
        objects.delete(&run(), &[record().cycle, 77]).await.unwrap();
        assert!(!objects.has(&run(), part).await.unwrap());
    }

    #[test]
    fn messages_say_the_same_each_time_and_no_signature() {
        let text = "Generic S3 error: Error performing PUT http://a/b?X-Amz-Signature=abc in 12.5ms, after 2 retries, max_retries: 2, retry_timeout: 10s  - HTTP error: error sending request";
        assert_eq!(
            plain(text),
            "Generic S3 error: Error performing PUT http://a/b - HTTP error: error sending request"
        );
    }
}
