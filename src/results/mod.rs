//! What a run leaves behind: a record of each pass and of the whole run, and the store that keeps them.
//!
//! A record is plain data, versioned by its `schema` field, and bounded: see [`RecordText`]. A store ([`Records`]) keeps each
//! under a name that follows from the run and the pass, so that storing twice stores once: [`ConfigMaps`] by default, or
//! [`Objects`] in an object store.

mod bound;
mod configmap;
mod connect;
mod from_pass;
mod index;
mod kube_error;
mod manifest;
mod monitor;
mod objects;
mod once;
mod record;
mod records;
mod schema;
mod series;
mod store;
mod summary;
mod text;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod text_tests;

pub use configmap::{ConfigMapRecord, KEY, RecordPart, record_name};
pub use connect::{StoreGuard, StoreSettings, connect};
pub use from_pass::LogTail;
pub use index::{Index, IndexSchema, IndexedFile};
pub use kube_error::StoreError;
pub use manifest::{CrdVersion, Manifest, Moment, ObjectState, Snapshot};
pub use monitor::{AlertRecord, BucketRecord, MonitorRecord};
pub use objects::{Objects, stored_name};
pub use once::{Made, Once};
pub use record::{
    ArtifactRecord, ArtifactsRecord, CycleRecord, CycleSchema, Environment, LeftOutRecord, LogRecord, PhaseRecord,
    RunRef, StepRecord,
};
pub use records::{ConfigMaps, Records};
pub use schema::schemas;
pub use store::{Pruned, Stored, StoredRecord, delete_stored, prune, read, store};
pub use summary::{MetricSummary, SectionSummary, SuccessRate, SummaryRecord, SummarySchema, Verdict};
pub use text::{MAX_RECORD_BYTES, RecordText, digest};
