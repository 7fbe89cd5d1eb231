//! The custom resources of the group `soak.dev`, one file a kind.
//!
//! These types are the schema: their doc comments become the field docs that `kubectl explain` shows, their
//! validation rules run in the API server. Nothing here depends on another module of the crate.

pub mod condition;
pub mod duration;
pub mod names;
pub mod phase;
pub mod soakrun;
pub mod status;
pub mod step;

pub use condition::{Condition, ConditionStatus};
pub use duration::Duration;
pub use phase::{ParallelStep, Phase, Retry, Step, StepBody};
pub use soakrun::{SoakRun, SoakRunSpec};
pub use status::SoakRunStatus;
