//! The index of an attempt's files, written last, and which ended runs stay.

use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use object_store::{Error, ObjectMeta, ObjectStoreExt, path::Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::object_store::ArchiveRetention;

use super::{
    kube_error::StoreError,
    objects::{INDEX, Objects, failure},
    record::RunRef,
    text::digest,
};

/// Files whose digest is worked out at the same time.
const READERS: usize = 8;

/// The schema of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IndexSchema {
    /// The first.
    #[default]
    #[serde(rename = "soak.dev/index/v1")]
    V1,
}

/// What an ended attempt of a run has left in the store. It is written last: where it is, everything that it names is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// The schema's name and version.
    pub schema: IndexSchema,
    /// The run.
    pub run: RunRef,
    /// When the index was written.
    pub written_at: DateTime<Utc>,
    /// All files but the index, by path.
    pub files: Vec<IndexedFile>,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IndexedFile {
    /// Its path below the attempt's folder.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The digest of a record, `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// An attempt of a run in the store.
#[derive(Clone, Debug, PartialEq)]
struct Archive {
    folder: Path,
    /// When its index was written; none while it runs.
    ended: Option<DateTime<Utc>>,
    bytes: u64,
    files: Vec<Path>,
}

impl Objects {
    /// Writes the index of an attempt whose every other file is there. Writing it again does no harm.
    pub async fn write_index(&self, run: &RunRef, now: DateTime<Utc>) -> Result<(), StoreError> {
        let folder = self.folder(run);
        let listed = self.list(&folder).await?;
        let reads: Vec<BoxFuture<'_, _>> = listed
            .into_iter()
            .filter_map(|file| Some((below(&folder, &file.location)?, file)))
            .filter(|(path, _)| path != INDEX)
            .map(|(path, file)| self.indexed(run, path, file).boxed())
            .collect();
        let mut files: Vec<IndexedFile> = stream::iter(reads).buffer_unordered(READERS).try_collect().await?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let index = Index { schema: IndexSchema::V1, run: run.clone(), written_at: now, files };
        let text = serde_json::to_vec_pretty(&index).unwrap_or_default();
        self.write(run, INDEX, text).await
    }

    async fn indexed(&self, run: &RunRef, path: String, file: ObjectMeta) -> Result<IndexedFile, StoreError> {
        let is_record = self.part_of(run, &file.location).is_some();
        let text = if is_record { self.bytes(&file.location).await? } else { None };
        let digest = text.map(|text| digest(&String::from_utf8_lossy(&text)));
        Ok(IndexedFile { path, bytes: file.size, digest })
    }

    /// Deletes what the retention no longer keeps of the ended runs in the namespace of `run`, which stays itself. An index goes
    /// last, so that a deletion that was interrupted is met again. Answers how many attempts were deleted.
    pub async fn retire(
        &self,
        run: &RunRef,
        retention: &ArchiveRetention,
        now: DateTime<Utc>,
    ) -> Result<usize, StoreError> {
        if *retention == ArchiveRetention::default() {
            return Ok(0);
        }
        let root = self.of_namespace(&run.namespace);
        let archives = archives(&root, &self.list(&root).await?);
        let gone = beyond(&archives, &self.folder(run), retention, now);
        for archive in &gone {
            for path in archive.files.iter().chain([&archive.folder.clone().join(INDEX)]) {
                match self.store.delete(path).await {
                    Ok(()) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(failure(&self.doing("deleting", path), &error)),
                }
            }
        }
        Ok(gone.len())
    }
}

fn below(folder: &Path, path: &Path) -> Option<String> {
    let parts: Vec<String> = path.prefix_match(folder)?.map(|part| part.as_ref().to_owned()).collect();
    Some(parts.join("/"))
}

/// The attempts below the folder of a namespace: NAME/UID/aATTEMPT.
fn archives(root: &Path, files: &[ObjectMeta]) -> Vec<Archive> {
    let mut found: std::collections::BTreeMap<Path, Archive> = std::collections::BTreeMap::new();
    for file in files {
        let Some(parts) = file.location.prefix_match(root) else { continue };
        let parts: Vec<_> = parts.take(3).collect();
        if parts.len() < 3 {
            continue;
        }
        let folder = parts.into_iter().fold(root.clone(), Path::join);
        let archive =
            found.entry(folder.clone()).or_insert_with(|| Archive { folder, ended: None, bytes: 0, files: Vec::new() });
        archive.bytes += file.size;
        if file.location == archive.folder.clone().join(INDEX) {
            archive.ended = Some(file.last_modified);
        } else {
            archive.files.push(file.location.clone());
        }
    }
    found.into_values().collect()
}

/// Those that a limit leaves out. What has no index yet runs, or may be looked into: it stays.
fn beyond<'a>(
    archives: &'a [Archive],
    current: &Path,
    retention: &ArchiveRetention,
    now: DateTime<Utc>,
) -> Vec<&'a Archive> {
    let mut ended: Vec<(&Archive, DateTime<Utc>)> = archives
        .iter()
        .filter_map(|archive| {
            // The run that has just ended is the newest, whatever the clock of the store says.
            let is_current = archive.folder == *current;
            Some((archive, if is_current { now } else { archive.ended? }))
        })
        .collect();
    ended.sort_by_key(|(archive, ended)| (archive.folder != *current, std::cmp::Reverse(*ended)));
    let mut bytes = 0_u64;
    ended
        .into_iter()
        .enumerate()
        .filter(|(place, (archive, ended))| {
            bytes = bytes.saturating_add(archive.bytes);
            let old = retention.max_age.is_some_and(|age| now - *ended > age.as_chrono());
            let many = retention.max_runs.is_some_and(|most| *place >= usize::try_from(most).unwrap_or(usize::MAX));
            let large = retention.max_bytes.is_some_and(|most| bytes > most);
            archive.folder != *current && (old || many || large)
        })
        .map(|(_, (archive, _))| archive)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeDelta;
    use object_store::memory::InMemory;

    use super::*;
    use crate::{
        api::Duration,
        results::{ConfigMapRecord, RecordPart, Records, samples},
    };

    fn archive(name: &str, ended: Option<i64>, bytes: u64) -> Archive {
        Archive {
            folder: Path::from(name),
            ended: ended.map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap()),
            bytes,
            files: Vec::new(),
        }
    }

    fn gone(archives: &[Archive], retention: &ArchiveRetention) -> Vec<String> {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let found = beyond(archives, &Path::from("now"), retention, now);
        found.iter().map(|archive| archive.folder.to_string()).collect()
    }

    #[test]
    fn each_limit_leaves_out_the_oldest_and_never_what_runs_or_has_just_ended() {
        let all = [
            archive("now", None, 100),
            archive("old", Some(100), 10),
            archive("new", Some(900), 10),
            archive("middle", Some(500), 10),
            archive("runs", None, 1_000),
        ];
        let none = ArchiveRetention::default();
        let age = ArchiveRetention { max_age: Some(Duration::from_secs(600)), ..none.clone() };
        assert_eq!(gone(&all, &age), ["old"]);
        assert_eq!(gone(&all, &ArchiveRetention { max_runs: Some(2), ..none.clone() }), ["middle", "old"]);
        assert_eq!(gone(&all, &ArchiveRetention { max_runs: Some(1), ..none.clone() }).len(), 3);
        assert_eq!(gone(&all, &ArchiveRetention { max_bytes: Some(120), ..none.clone() }), ["old"]);
        assert_eq!(gone(&all, &ArchiveRetention { max_bytes: Some(0), ..none.clone() }).len(), 3);
        assert!(gone(&all, &none).is_empty());
    }

    #[tokio::test]
    async fn the_index_names_every_file_and_a_retired_run_is_gone() {
        let objects = Objects::new(Arc::new(InMemory::new()), Path::from("p"), "memory".into());
        let (old, new) = (samples::run(), RunRef { uid: "other".into(), ..samples::run() });
        let record = ConfigMapRecord::from(&samples::record());
        objects.put(&record).await.unwrap();
        objects.write(&old, "logs/c000012/x.log.gz", b"log".to_vec()).await.unwrap();
        let now = Utc::now();
        objects.write_index(&old, now).await.unwrap();
        objects.write_index(&old, now).await.unwrap();
        let index: Index = serde_json::from_slice(&objects.load(&old, INDEX).await.unwrap().unwrap()).unwrap();
        let files: Vec<&str> = index.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(files, ["cycles/c000012.json", "logs/c000012/x.log.gz"]);
        assert_eq!(index.files[0].digest.as_deref(), Some(record.text().digest()));
        let retention = ArchiveRetention { max_runs: Some(1), ..ArchiveRetention::default() };
        assert_eq!(objects.retire(&old, &retention, now + TimeDelta::seconds(1)).await.unwrap(), 0, "it is the newest");
        objects.write(&new, "summary.json", b"{}".to_vec()).await.unwrap();
        assert_eq!(objects.retire(&new, &retention, now + TimeDelta::seconds(1)).await.unwrap(), 1);
        assert!(!objects.has(&old, RecordPart::Cycle(12)).await.unwrap());
        assert!(objects.has(&new, RecordPart::Summary).await.unwrap());
        assert_eq!(objects.load(&old, INDEX).await.unwrap(), None);
    }
}
