//! What the engine asks the shell to do, as plain data.

use crate::api::status::{HeldObject, RecordRef};

use super::seen::StepKey;

/// Whether an event tells of something good or of something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteType {
    /// Something happened as it should.
    Normal,
    /// Somebody may want to look.
    Warning,
}

/// A Kubernetes Event on the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Normal or warning.
    pub type_: NoteType,
    /// A stable word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Something to be done, after the status that asks for it is stored.
///
/// All but [`Begin`](Effect::Begin) and [`Notify`](Effect::Notify) are asked for again with every decision until the
/// observations show them done; the shell does not start what is already under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put the finalizer on the run.
    AddFinalizer,
    /// Take the finalizer off the run.
    RemoveFinalizer,
    /// Try the whole spec on the server as the tenant.
    Validate,
    /// Begin this attempt of a step. Asked for once for each intent; again only for steps that may be repeated.
    Begin(StepKey),
    /// Look at this live step: make sure that whatever tells about it is watched.
    Observe(StepKey),
    /// End this attempt of a step, keeping its log and what it reports.
    Stop(StepKey),
    /// Delete a pod whose step has been recorded, or that was superseded.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid, as a precondition.
        uid: String,
        /// The target that it is on; empty for the cluster that the operator runs in.
        target: String,
    },
    /// Delete an object that a step made, if it is still the run's.
    Release(HeldObject),
    /// Take this key, unless another run that works holds it.
    AcquireLock(String),
    /// Give this key back, if the run holds it.
    ReleaseLock(String),
    /// Store the record of the pass at work.
    StoreRecord,
    /// Store the record of the pass at work in a ConfigMap, because the object store does not take it.
    KeepRecord,
    /// Bring these records from their ConfigMaps to the object store, in this order.
    ForwardRecords(Vec<RecordRef>),
    /// Delete the records of these cycles of the current attempt of the run.
    PruneRecords(Vec<u32>),
    /// Store the record of the whole run.
    StoreSummary,
    /// Tell people.
    Notify(Note),
    /// Delete the run: its time to live is over.
    DeleteRun,
}
