//! Letting an object go that a step made.

use kube::Resource;

use super::{
    context::RunIdentity,
    object::{Target, is_path_segment},
};
use crate::{
    api::{
        names::label,
        status::{HeldObject, SoakRunStatus},
    },
    cluster::{
        Cluster,
        error::{ApiFailure, Class},
        kinds::{group_version_kind, uid},
    },
    engine::is_from_further_on,
};

/// What came of letting an object go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is gone, was never there, or goes with its namespace.
    Gone,
    /// It is there, but this run did not create it, or a later attempt or cycle of it did: it is left as it is.
    NotOurs,
    /// The server no longer serves its kind.
    KindGone,
    /// Its deletion was asked for; something may still hold it. Ask again until it is gone.
    Deleting {
        /// What holds it.
        message: String,
    },
    /// The account may not delete it any more, or does not exist. The deletion may be tried again, but may never work.
    Denied {
        /// Which right is missing.
        message: String,
    },
    /// The server failed; try again.
    Failing {
        /// What it said.
        message: String,
    },
}

impl Released {
    /// Whether nothing remains to be done.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Gone | Self::NotOurs | Self::KindGone)
    }
}

/// Deletes an object as the tenant, if this run created it, and not later than `status` tells: by uid, its dependents in the background.
pub async fn release(cluster: &Cluster, run: &RunIdentity, held: &HeldObject, status: &SoakRunStatus) -> Released {
    let HeldObject { api_version, kind, namespace, name, target: _, until: _, releasing_at: _ } = held;
    let namespace = if namespace.is_empty() { &run.namespace } else { namespace };
    if !is_path_segment(name) || !is_path_segment(namespace) {
        // Nothing was ever created under such a name.
        return Released::Gone;
    }
    let kind = match cluster.kinds.get(&group_version_kind(api_version, kind)).await {
        Ok(kind) => kind,
        Err(failure) if matches!(failure.class, Class::NotFound | Class::Invalid) => return Released::KindGone,
        Err(failure) => return failing(failure),
    };
    let client = match cluster.tenants.client(&run.account()) {
        Ok(client) => client,
        Err(error) => return Released::Denied { message: error.to_string() },
    };
    let target = Target { kind, namespace: namespace.clone(), name: name.clone(), client };
    let object = match target.get().await {
        Ok(Some(object)) => object,
        Ok(None) => return Released::Gone,
        Err(failure) => return refused(cluster, &target, failure).await,
    };
    let meta = object.meta();
    if meta.annotations.as_ref().and_then(|annotations| annotations.get(label::CREATED_BY)) != Some(&run.uid) {
        return Released::NotOurs;
    }
    let label = |key| meta.labels.as_ref().and_then(|labels| labels.get(key)).and_then(|text| text.parse().ok());
    if label(label::RUN_ATTEMPT).is_some_and(|attempt| is_from_further_on(status, attempt, label(label::CYCLE))) {
        return Released::NotOurs;
    }
    if meta.deletion_timestamp.is_some() {
        let finalizers = meta.finalizers.as_deref().unwrap_or_default();
        let held_by = if finalizers.is_empty() {
            String::new()
        } else {
            format!(", held by finalizers: {}", finalizers.join(", "))
        };
        return Released::Deleting { message: format!("{} is being deleted{held_by}", target.title()) };
    }
    match target.delete_exactly(uid(&object), None).await {
        Ok(()) => Released::Deleting { message: format!("{} is being deleted", target.title()) },
        Err(failure) => refused(cluster, &target, failure).await,
    }
}

/// In a namespace that is being deleted the account's rights go first, and the object goes with the namespace.
async fn refused(cluster: &Cluster, target: &Target, failure: ApiFailure) -> Released {
    match failing(failure) {
        Released::Denied { .. } if target.kind.namespaced && cluster.namespace_is_going(&target.namespace).await => {
            Released::Gone
        }
        other => other,
    }
}

fn failing(failure: ApiFailure) -> Released {
    match failure.class {
        Class::NotFound => Released::Gone,
        Class::Forbidden | Class::ImpersonationDenied => Released::Denied { message: failure.message },
        _ => Released::Failing { message: failure.message },
    }
}
