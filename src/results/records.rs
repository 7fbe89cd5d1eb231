//! Where records are kept: what every store can do, and the default one.

use std::num::NonZeroUsize;

use futures::{FutureExt, future::BoxFuture};
use kube::Client;
use lru::LruCache;
use parking_lot::Mutex;

use super::{
    configmap::{ConfigMapRecord, RecordPart, record_name},
    kube_error::StoreError,
    record::RunRef,
    store::{self, Stored, StoredRecord},
};

/// Records whose uid is remembered. Older ones are read before they are deleted.
const KNOWN_RECORDS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// A store of records. Each of its calls may be made any number of times; whatever was stored before is met again.
pub trait Records: Send + Sync {
    /// Stores a record once, and has seen it there on success. One that was stored before is adopted as it is.
    fn put<'a>(&'a self, record: &'a ConfigMapRecord) -> BoxFuture<'a, Result<Stored, StoreError>>;

    /// Deletes the records of these cycles of an attempt of a run. What is gone already is no error.
    fn delete<'a>(&'a self, of: &'a RunRef, cycles: &'a [u32]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// All records of a run, of all its attempts, in the order of attempt, setup, cycles, cleanup, summary.
    fn read<'a>(&'a self, of: &'a RunRef) -> BoxFuture<'a, Result<Vec<StoredRecord>, StoreError>>;
}

/// Immutable ConfigMaps that belong to the run and are collected with it.
pub struct ConfigMaps {
    client: Client,
    /// Uids of records that this process has stored, by namespace and name: whoever knows it can delete one without reading it before.
    known: Mutex<LruCache<(String, String), String>>,
}

impl ConfigMaps {
    /// The ConfigMaps of the cluster that the client talks to, written as the client's user.
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::new(LruCache::new(KNOWN_RECORDS)) }
    }

    /// One record; none if it is not there.
    pub async fn get(&self, of: &RunRef, part: RecordPart) -> Result<Option<StoredRecord>, StoreError> {
        store::get(self.client.clone(), &of.namespace, &record_name(of, part)).await
    }

    /// Deletes one record.
    pub async fn remove(&self, of: &RunRef, part: RecordPart) -> Result<(), StoreError> {
        let name = record_name(of, part);
        let known = self.known.lock().pop(&(of.namespace.clone(), name.clone()));
        if let Some(uid) = known {
            return store::delete_stored(self.client.clone(), &of.namespace, &name, &uid).await;
        }
        store::prune(self.client.clone(), &of.namespace, &of.uid, &[name]).await.map(|_| ())
    }
}

impl Records for ConfigMaps {
    fn put<'a>(&'a self, record: &'a ConfigMapRecord) -> BoxFuture<'a, Result<Stored, StoreError>> {
        async move {
            let namespace = &record.run.namespace;
            let stored = store::store(self.client.clone(), record).await?;
            self.known.lock().put((namespace.clone(), record.name()), stored.uid.clone());
            Ok(stored)
        }
        .boxed()
    }

    fn delete<'a>(&'a self, of: &'a RunRef, cycles: &'a [u32]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            for cycle in cycles {
                self.remove(of, RecordPart::Cycle(*cycle)).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(&'a self, of: &'a RunRef) -> BoxFuture<'a, Result<Vec<StoredRecord>, StoreError>> {
        store::read(self.client.clone(), &of.namespace, &of.uid).boxed()
    }
}
