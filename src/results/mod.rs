//! What a run leaves behind: a record of each pass and of the whole run, and the store that keeps them.
//!
//! A record is plain data, versioned by its `schema` field, and bounded: see [`RecordText`]. The store keeps each in an immutable
//! ConfigMap whose name follows from the run and the pass, so that storing twice stores once.

mod bound;
mod configmap;
mod from_pass;
mod kube_error;
mod manifest;
mod monitor;
mod record;
mod schema;
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
pub use from_pass::LogTail;
pub use kube_error::StoreError;
pub use manifest::{CrdVersion, Manifest, Moment, ObjectState, Snapshot};
pub use monitor::{AlertRecord, BucketRecord, MonitorRecord};
pub use record::{CycleRecord, CycleSchema, Environment, LogRecord, PhaseRecord, RunRef, StepRecord};
pub use schema::schemas;
pub use store::{Pruned, Stored, StoredRecord, delete_stored, prune, read, store};
pub use summary::{MetricSummary, SectionSummary, SuccessRate, SummaryRecord, SummarySchema, Verdict};
pub use text::{MAX_RECORD_BYTES, RecordText, digest};
