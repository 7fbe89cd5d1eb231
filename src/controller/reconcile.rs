//! What the reconciles of all kinds share: how they fail, how that is counted, and the frame that outlives a panic.

use std::{any::Any, fmt::Display, panic::AssertUnwindSafe, time::Instant};

use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::controller::Action;
use tracing::warn;

use super::Shell;
use crate::{
    results::StoreError,
    telemetry::{ErrorClass, StatusWrite},
};

/// Why a reconcile did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Somebody wrote before; the new state is looked at next.
    #[error("the object was changed meanwhile; it is looked at again")]
    Conflict,
    /// The API server refused or did not answer.
    #[error("writing the run: {0}")]
    Api(#[source] kube::Error),
    /// What the run resolves to could not be kept.
    #[error(transparent)]
    Store(StoreError),
    /// A bug. Other runs go on.
    #[error("the reconcile panicked: {0}")]
    Panic(String),
}

impl ReconcileError {
    /// What a caught panic said.
    fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Self::Panic(text.unwrap_or_else(|| "without a message".into()))
    }

    /// How it is counted.
    pub(super) const fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict => ErrorClass::Conflict,
            Self::Api(_) | Self::Store(_) => ErrorClass::Transient,
            Self::Panic(_) => ErrorClass::Panic,
        }
    }
}

/// Looks at an object. The time it takes is measured; a panic becomes an error, so that other objects go on.
///
/// Errors: those of `visit`, and its panic.
pub(super) async fn guarded(
    shell: &Shell,
    visit: impl Future<Output = Result<Action, ReconcileError>>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    shell.health.tick();
    let result = AssertUnwindSafe(visit).catch_unwind().await;
    shell.metrics.observe_reconcile(began.elapsed());
    result.unwrap_or_else(|panic| Err(ReconcileError::from_panic(panic.as_ref())))
}

/// An object that can't be read is counted and left alone until it changes: nothing of it can be trusted, its status included. The
/// schema refuses such objects, so this one is older than the schema.
pub(super) fn unreadable(shell: &Shell, kind: &str, metadata: &ObjectMeta, error: &dyn Display) -> Action {
    let (namespace, name) = (&metadata.namespace, &metadata.name);
    warn!(namespace, kind, name, %error, "an object can't be read and is left alone until it changes");
    shell.metrics.reconcile_failed(ErrorClass::Terminal);
    Action::await_change()
}

/// How a write of a status is counted.
pub(super) fn outcome<T>(written: &kube::Result<T>) -> StatusWrite {
    match written {
        Ok(_) => StatusWrite::Ok,
        Err(error) if is_conflict(error) => StatusWrite::Conflict,
        Err(_) => StatusWrite::Error,
    }
}

pub(super) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

pub(super) fn api_error(error: kube::Error) -> ReconcileError {
    if is_conflict(&error) { ReconcileError::Conflict } else { ReconcileError::Api(error) }
}
