//! The ConfigMap store: storing once, reading, deleting.
//!
//! These are the operator's own writes (S12), made as the operator. The client's retry of POST must be off: what an ambiguous
//! answer left behind is found out by reading.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};

use crate::api::names::{OPERATOR_FIELD_MANAGER, label};

use super::{
    configmap::{ConfigMapRecord, KEY, RecordPart},
    kube_error::{Failed, StoreError, failed},
    record::CycleRecord,
    summary::SummaryRecord,
    text::digest,
};

/// Longest time that one call may take.
const DEADLINE: Duration = Duration::from_secs(30);
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

/// Stores a record once.
///
/// Guarantees: on success the server has shown content with the returned digest, under the record's name, owned by the run. A
/// record that was stored before (a crash came between storing and counting) is adopted as it is. Nothing is ever overwritten.
///
/// Errors: transient ones may be tried again at once or later, any number of times; terminal ones say what has to be changed.
pub async fn store(client: Client, namespace: &str, record: &ConfigMapRecord) -> Result<Stored, StoreError> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let name = record.name();
    let doing = format!("storing the record {namespace}/{name}");
    let parameters = PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let ours = record.text().digest();
    match call(api.create(&parameters, &record.manifest()), &doing, namespace).await {
        Ok(created) if content_digest(&created).as_deref() == Some(ours) => {
            Ok(Stored { digest: ours.to_owned(), uid: created.uid().unwrap_or_default(), adopted: false })
        }
        Ok(_) => Err(StoreError::Terminal(format!(
            "{doing}: the server stored other content than it was given: exempt ConfigMaps labelled {} from the admission webhook that changes them, then delete this one",
            label::RECORD
        ))),
        Err(Failed::Exists) => match call(api.get(&name), &doing, namespace).await {
            Ok(found) => adopt(&found, record, &doing),
            Err(failure) => Err(failure.into_error(&doing)),
        },
        // A second POST would be harmless because of the name, but it would not tell whether the first one is still on its way.
        Err(Failed::Ambiguous(message)) => match call(api.get(&name), &doing, namespace).await {
            Ok(found) => adopt(&found, record, &doing),
            Err(Failed::Missing) => {
                Err(StoreError::Transient(format!("{doing}: {message}; it is not there: it is tried again")))
            }
            Err(failure) => Err(failure.into_error(&doing)),
        },
        // Only a namespace can be missing for a POST.
        Err(Failed::Missing) => Err(StoreError::Terminal(format!(
            "{doing}: there is no such namespace: create it again, or delete the run"
        ))),
        Err(Failed::Refused(error)) => Err(error),
    }
}

/// Accepts what is in the store already, if it is this record and whole.
fn adopt(found: &ConfigMap, record: &ConfigMapRecord, doing: &str) -> Result<Stored, StoreError> {
    let refuse = |problem: &str| {
        Err(StoreError::Terminal(format!(
            "{doing}: there is a ConfigMap of that name that {problem}: look at it, and delete it if it is not needed"
        )))
    };
    let labels = found.labels();
    let owned = found.owner_references().iter().any(|owner| owner.uid == record.run.uid);
    let ours = owned && labels.get(label::RUN_UID) == Some(&record.run.uid);
    if !ours && !crate::switches::without("uid-check") {
        return refuse("belongs to somebody else");
    }
    let attempt = labels.get(label::RUN_ATTEMPT).and_then(|attempt| attempt.parse().ok());
    if attempt != Some(record.run.attempt) || RecordPart::from_labels(labels) != Some(record.part) {
        return refuse("is labelled as another record");
    }
    match content_digest(found) {
        Some(content) if found.annotations().get(label::DIGEST) == Some(&content) => {
            Ok(Stored { digest: content, uid: found.uid().unwrap_or_default(), adopted: true })
        }
        _ => refuse("does not match its digest: it was changed"),
    }
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

fn content_digest(map: &ConfigMap) -> Option<String> {
    map.data.as_ref()?.get(KEY).map(|text| digest(text))
}

/// Makes a call within the deadline. What became of a call that took longer is not known.
async fn call<T>(call: impl Future<Output = kube::Result<T>>, doing: &str, namespace: &str) -> Result<T, Failed> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| failed(&error, doing, namespace)),
        Err(_) => Err(Failed::Ambiguous(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}
