//! A dry run of one step's effect.

use serde_json::Value;

use super::object::{PatchKind, Target, Unresolved, WriteMode};
use crate::{cluster::error::ApiFailure, engine::seen::StepEnd};

/// What keeps an object from being tried.
pub(super) enum Untried {
    /// It depends on values or objects that only the run gives.
    Later,
    /// The server said no.
    Refused(ApiFailure),
    /// The spec can't be right.
    Wrong(StepEnd),
}

impl From<Unresolved> for Untried {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::Wrong(end) => Self::Wrong(end),
            Unresolved::Failed(failure) => Self::Refused(failure),
        }
    }
}

impl From<StepEnd> for Untried {
    fn from(end: StepEnd) -> Self {
        Self::Wrong(end)
    }
}

/// Tries a creation.
pub(super) async fn create(target: &Target, manifest: &Value) -> Result<(), Untried> {
    tried(target.create(manifest, WriteMode::DryRun).await)
}

/// Tries a patch.
pub(super) async fn patch(
    target: &Target,
    how: PatchKind,
    subresource: Option<&str>,
    patch: &Value,
) -> Result<(), Untried> {
    tried(target.patch(how, subresource, patch, WriteMode::DryRun).await)
}

fn tried<T>(answer: Result<T, ApiFailure>) -> Result<(), Untried> {
    answer.map(|_| ()).map_err(Untried::Refused)
}
