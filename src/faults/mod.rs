//! What failure injections do in a cluster: one file a kind of fault, one file a way of undoing.
//!
//! A kind ([`FaultKind`]) says what would be hit and how that is undone, as journal entries; it touches nothing. The entries
//! alone say how the fault is made and undone ([`inject`], [`revert`]), so that undoing needs no spec. Both are idempotent,
//! look before they act, and act on the recorded uid only.

mod choose;
mod context;
mod delete;
mod dns;
mod fields;
mod health;
mod helper;
mod helper_pod;
mod network;
mod network_policy;
mod node;
mod patch;
mod pod_kill;
mod probe;
mod process;
mod resource;
mod restore;
mod scale;
mod stress;
mod toxic;
mod toxiproxy;

use chrono::Utc;
use kube::{Resource, api::DynamicObject};

use crate::{
    api::{
        failureinjection::{JournalEntry, ObjectRef, Undo},
        fault::each_fault,
        names::reason,
    },
    cluster::{
        error::{ApiFailure, Class},
        kinds::uid,
        object::Target,
    },
    engine::injection::{EntrySeen, Found},
};

pub use context::{FaultContext, GuardRails, InjectionIdentity, Settings};
pub use health::{HealthWatch, health};
pub use helper::HelperSettings;

/// Why no entry can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It can't work as it is.
    Never {
        /// A reason word.
        reason: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// It may work later.
    NotYet {
        /// A reason word.
        reason: String,
        /// What is waited for.
        message: String,
    },
}

impl Refusal {
    /// It can't work as it is.
    pub(crate) fn never(reason: &str, message: impl Into<String>) -> Self {
        Self::Never { reason: reason.into(), message: message.into() }
    }
}

impl From<ApiFailure> for Refusal {
    fn from(failure: ApiFailure) -> Self {
        let reason = failure.class.reason().to_owned();
        // Rights and accounts may come: GitOps tools apply them in any order.
        let may_come = matches!(failure.class, Class::Forbidden | Class::ImpersonationDenied | Class::AccountMissing);
        if failure.class.is_transient() || may_come {
            Self::NotYet { reason, message: failure.message }
        } else {
            Self::Never { reason, message: failure.message }
        }
    }
}

impl From<Refusal> for Found {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Never { reason, message } => Self::Refused { reason, message },
            Refusal::NotYet { reason, message } => Self::NotYet { reason, message },
        }
    }
}

/// What a kind of fault makes of its targets.
pub(crate) trait FaultKind {
    /// A journal entry for each target (and for what else is hit with it), without touching anything. The server is asked in dry
    /// runs whether it would accept what will be done. `targets` is empty for a fault that selects none.
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal>;

    /// Makes a fault whose entry has nothing to undo ([`Undo::Nothing`]).
    async fn strike(&self, _ctx: &FaultContext<'_>, entry: &JournalEntry) -> EntrySeen {
        EntrySeen::NeverBegan {
            reason: reason::INFRA_ERROR.into(),
            message: format!("nothing is done to {} that could not be undone", entry.target.title()),
        }
    }
}

/// Finds out what would be hit and how it is undone. Touches nothing.
pub async fn find(ctx: &FaultContext<'_>) -> Found {
    let Some(plan) = ctx.plan else {
        return Refusal::never(reason::INVALID_SPEC, "the spec can't be parsed").into();
    };
    let (targets, candidates) = match &plan.target {
        None => (Vec::new(), None),
        Some(target) => match choose::choose(ctx, target).await {
            Ok(choose::Chosen { objects, candidates, looked_for }) if objects.is_empty() => {
                let message = if candidates == 0 { looked_for } else { format!("{looked_for}, of {candidates}") };
                return Found::Nothing { message };
            }
            Ok(choose::Chosen { objects, candidates, .. }) => (objects, u32::try_from(candidates).ok()),
            Err(refusal) => return refusal.into(),
        },
    };
    let entries = each_fault!(&plan.fault, fault => fault.entries(ctx, &targets).await);
    match entries {
        Ok(journal) => match GuardRails::check_size(&journal) {
            Ok(()) => Found::Targets { journal, candidates },
            Err(refusal) => refusal.into(),
        },
        Err(refusal) => refusal.into(),
    }
}

/// Makes the fault of a journal entry, unless it is there already or must not be made any more. Call it for entries whose journal
/// is stored.
pub async fn inject(ctx: &FaultContext<'_>, entry: &JournalEntry) -> EntrySeen {
    match &entry.undo {
        Undo::Nothing => match ctx.plan {
            Some(plan) => each_fault!(&plan.fault, fault => fault.strike(ctx, entry).await),
            None => never("the spec can't be parsed"),
        },
        Undo::Fields { subresource, fields } => fields::inject(ctx, entry, subresource, fields).await,
        Undo::Restore { .. } => restore::inject(ctx, entry).await,
        Undo::Made(made) => resource::inject(ctx, made).await,
        Undo::Toxic(work) => toxic::inject(ctx, work).await,
        Undo::Helper(work) => helper::inject(ctx, entry, work).await,
    }
}

/// Undoes the fault of a journal entry and reads back. Right also when it was never made.
pub async fn revert(ctx: &FaultContext<'_>, entry: &JournalEntry) -> EntrySeen {
    match &entry.undo {
        Undo::Nothing => EntrySeen::Reverted { message: String::new() },
        Undo::Fields { subresource, fields } => fields::revert(ctx, entry, subresource, fields).await,
        Undo::Restore { manifest } => restore::revert(ctx, entry, manifest).await,
        Undo::Made(made) => resource::revert(ctx, made).await,
        Undo::Toxic(work) => toxic::revert(ctx, work).await,
        Undo::Helper(work) => helper::revert(ctx, entry, work).await,
    }
}

fn never(message: impl Into<String>) -> EntrySeen {
    EntrySeen::NeverBegan { reason: reason::INFRA_ERROR.into(), message: message.into() }
}

/// The effect was seen just now.
pub(crate) fn injected(message: impl Into<String>) -> EntrySeen {
    EntrySeen::Injected { at: Utc::now(), message: message.into() }
}

/// What a failed call means for an effect: refused for certain, or to be tried again.
pub(crate) fn not_injected(failure: &ApiFailure) -> EntrySeen {
    // An ambiguous failure may have had its effect: the next try looks first.
    if failure.class.is_transient() || failure.ambiguous {
        EntrySeen::Failing { message: failure.message.clone() }
    } else {
        EntrySeen::NeverBegan { reason: failure.class.reason().into(), message: failure.message.clone() }
    }
}

/// What a failed call means for undoing: it is tried until it works, except where the target goes with its namespace anyway.
pub(crate) async fn not_reverted(ctx: &FaultContext<'_>, target: &ObjectRef, failure: &ApiFailure) -> EntrySeen {
    let lost_right = matches!(failure.class, Class::Forbidden | Class::ImpersonationDenied | Class::NotFound);
    if lost_right
        && target.namespace == ctx.injection.namespace
        && ctx.cluster.namespace_is_going(&target.namespace).await
    {
        return EntrySeen::Gone {
            message: format!("namespace {} is being deleted, and it goes with it", target.namespace),
        };
    }
    EntrySeen::Failing { message: failure.message.clone() }
}

/// Access to an object that was found, as the injection's account. Lists leave the kind out, so it comes from the plan.
pub(crate) async fn of(ctx: &FaultContext<'_>, object: &DynamicObject) -> Result<Target, Refusal> {
    let (api_version, kind) = match (&object.types, ctx.plan.and_then(|plan| plan.target.as_ref())) {
        (Some(types), _) => (types.api_version.clone(), types.kind.clone()),
        (None, Some(plan)) => (plan.api_version.clone(), plan.kind.clone()),
        (None, None) => (String::new(), String::new()),
    };
    let meta = object.meta();
    let named = ObjectRef {
        api_version,
        kind,
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: uid(object).to_owned(),
    };
    Ok(ctx.target(&named).await?)
}

/// An object as the journal names it.
pub(crate) fn object_ref(target: &Target, object: &DynamicObject) -> ObjectRef {
    ObjectRef {
        api_version: target.kind.resource.api_version.clone(),
        kind: target.kind.resource.kind.clone(),
        namespace: target.kind.place(&target.namespace).unwrap_or_default().to_owned(),
        name: object.meta().name.clone().unwrap_or_default(),
        uid: uid(object).to_owned(),
    }
}
