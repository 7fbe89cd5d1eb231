//! The ConfigMap store of records: storing once, reading, deleting.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};

use crate::api::names::label;

use super::{
    configmap::{ConfigMapRecord, KEY, RecordPart},
    kube_error::{Failed, StoreError, call},
    once::Made,
    record::CycleRecord,
    summary::SummaryRecord,
    text::digest,
};

/// Records read with one call. With texts of 512 KiB each that is 16 MiB at most.
const PAGE: u32 = 32;

/// A record that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The digest of the content that is in the store; not that of the record at hand if one was there before.
    pub digest: String,
    /// The uid of its ConfigMap.
    pub uid: String,
    /// Whether it had been stored before, by this operator before it crashed.
    pub adopted: bool,
}

/// Stores a record once, or adopts the one that a crash came after, as [`Once::make`](super::Once::make) says.
///
/// Errors: as there.
pub async fn store(client: Client, record: &ConfigMapRecord) -> Result<Stored, StoreError> {
    let Made { digest, uid, adopted, text: _ } = record.once().make(client, &record.manifest()).await?;
    Ok(Stored { digest, uid, adopted })
}

/// What [`prune`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many records were deleted; those that were gone already are not counted.
    pub deleted: usize,
    /// Names of ConfigMaps that were left because they are not records of the run.
    pub foreign: Vec<String>,
}

/// Deletes a record that this process has stored and whose uid it therefore knows, by one call.
///
/// Errors: a transient one as well when there is another object of that name by now; [`prune`] looks at it.
pub async fn delete_stored(client: Client, namespace: &str, name: &str, uid: &str) -> Result<(), StoreError> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let doing = format!("deleting the record {namespace}/{name}");
    let uid = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    match call(api.delete(name, &DeleteParams::default().preconditions(uid)), &doing, namespace).await {
        Ok(_) | Err(Failed::Missing) => Ok(()),
        Err(failure) => Err(failure.into_error(&doing)),
    }
}

/// Deletes records of a run by name. What is gone already, or is not a record of that run, is left alone.
///
/// Each costs two calls, a read of its metadata and a deletion that is bound to the uid that was read. A deletion by name alone
/// would be one call, but would trust that nobody else has taken the name. A deletion by label selector would be one call for
/// all, but needs the right to delete every ConfigMap in the namespace at once, a right that nobody should have to give.
pub async fn prune(client: Client, namespace: &str, run_uid: &str, names: &[String]) -> Result<Pruned, StoreError> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let mut pruned = Pruned::default();
    for name in names {
        let doing = format!("deleting the record {namespace}/{name}");
        let found = match call(api.get_metadata(name), &doing, namespace).await {
            Ok(found) => found,
            Err(Failed::Missing) => continue,
            Err(failure) => return Err(failure.into_error(&doing)),
        };
        let labels = found.labels();
        if labels.get(label::RUN_UID).map(String::as_str) != Some(run_uid) || !labels.contains_key(label::RECORD) {
            pruned.foreign.push(name.clone());
            continue;
        }
        let uid = Preconditions { uid: found.uid(), resource_version: None };
        match call(api.delete(name, &DeleteParams::default().preconditions(uid)), &doing, namespace).await {
            Ok(_) => pruned.deleted += 1,
            Err(Failed::Missing) => {}
            Err(failure) => return Err(failure.into_error(&doing)),
        }
    }
    Ok(pruned)
}

/// Reads one record by its name; none if it is not there or is none.
pub(super) async fn get(client: Client, namespace: &str, name: &str) -> Result<Option<StoredRecord>, StoreError> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let doing = format!("reading the record {namespace}/{name}");
    match call(api.get(name), &doing, namespace).await {
        Ok(map) => Ok(stored_record(map)),
        Err(Failed::Missing) => Ok(None),
        Err(failure) => Err(failure.into_error(&doing)),
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The name of its ConfigMap, or its path in the object store.
    pub name: String,
    /// The attempt of the run.
    pub attempt: u32,
    /// What it tells of.
    pub part: RecordPart,
    /// The outcome that its label tells.
    pub outcome: String,
    /// The digest that was noted when it was stored.
    pub digest: String,
    /// Whether the text still has that digest.
    pub intact: bool,
    /// The text.
    pub text: String,
}

impl StoredRecord {
    /// The record of a setup, a cycle or a cleanup.
    pub fn cycle(&self) -> Result<CycleRecord, serde_json::Error> {
        serde_json::from_str(&self.text)
    }

    /// The record of a whole attempt.
    pub fn summary(&self) -> Result<SummaryRecord, serde_json::Error> {
        serde_json::from_str(&self.text)
    }
}

/// Reads all records of a run, in the order of attempt, setup, cycles, cleanup, summary.
///
/// ConfigMaps whose labels don't tell a record are left out; a record that was changed is not [`intact`](StoredRecord::intact).
pub async fn read(client: Client, namespace: &str, run_uid: &str) -> Result<Vec<StoredRecord>, StoreError> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let doing = format!("reading the records of the run {run_uid} in {namespace}");
    let mut parameters =
        ListParams::default().labels(&format!("{}={run_uid},{}", label::RUN_UID, label::RECORD)).limit(PAGE);
    let mut records = Vec::new();
    loop {
        let page =
            call(api.list(&parameters), &doing, namespace).await.map_err(|failure| failure.into_error(&doing))?;
        records.extend(page.items.into_iter().filter_map(stored_record));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => break,
        }
    }
    records.sort_by_key(|record| (record.attempt, record.part));
    Ok(records)
}

fn stored_record(mut map: ConfigMap) -> Option<StoredRecord> {
    let text = map.data.as_mut()?.remove(KEY)?;
    let noted = map.annotations().get(label::DIGEST).cloned().unwrap_or_default();
    Some(StoredRecord {
        attempt: map.labels().get(label::RUN_ATTEMPT)?.parse().ok()?,
        part: RecordPart::from_labels(map.labels())?,
        outcome: map.labels().get(label::OUTCOME).cloned().unwrap_or_default(),
        name: map.name_any(),
        intact: digest(&text) == noted,
        digest: noted,
        text,
    })
}
