//! What is done for a run outside of its reconcile, and what that may find out.

use crate::{
    api::status::{RecordRef, Section},
    engine::{LockSeen, RecordSeen, StepKey, StepSeen, Validation},
    steps::Follow,
};

/// Something that is done for a run outside of its reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Trying the spec on the server.
    Validate,
    /// Beginning a step.
    Begin(StepKey),
    /// Taking up a step that an earlier process began.
    Resume(StepKey),
    /// Making sure that nothing is there of a step.
    Confirm(StepKey),
    /// Ending a step.
    Stop(StepKey),
    /// Deleting the pod of that uid.
    DeletePod(String),
    /// Deleting a held object.
    Release(String),
    /// Storing the record of that pass.
    Record(Section, u32),
    /// Keeping the record of that pass in a ConfigMap.
    Keep(Section, u32),
    /// Bringing records to the object store.
    Forward,
    /// Deleting old records.
    Prune(Vec<u32>),
    /// Taking the key of `spec.exclusive`.
    AcquireLock,
    /// Giving it back.
    ReleaseLock,
    /// Storing the summary.
    Summary,
    /// Deleting the run.
    DeleteRun,
}

/// What became of a task.
pub enum Outcome {
    /// It has told something.
    Told(Fact),
    /// It is done and has nothing to tell.
    Done,
    /// It failed and is worth another try, after a pause that doubles.
    TryAgain,
    /// It failed like that, and has told why.
    Failed(Fact),
}

/// What an answer on a spec is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The attempt of the run.
    pub attempt: u32,
    /// The digest of the spec.
    pub digest: String,
}

/// Something that a task found out.
pub enum Fact {
    /// About the spec.
    Validation(Basis, Validation),
    /// About a step, with what is to be kept while it is live.
    Step(Box<(StepKey, StepSeen, Option<Follow>)>),
    /// About the record of a pass.
    Record((Section, u32), RecordSeen),
    /// About the summary.
    Summary(RecordSeen),
    /// About the key of `spec.exclusive`.
    Lock(LockSeen),
    /// These records are in the object store; and why no more are.
    Forwarded(Vec<RecordRef>, Option<String>),
    /// A held object is gone.
    Released(String),
}
