//! `delete`: an object that is deleted, and created again when that is asked for.

use kube::api::DynamicObject;
use serde_json::Value;

use super::{FaultContext, FaultKind, Refusal, injected, not_injected, object_ref, of};
use crate::{
    api::{
        failureinjection::{JournalEntry, Undo},
        fault::DeleteFault,
        names::reason,
    },
    cluster::{
        access::{Right, missing_rights},
        kinds::uid,
        object::Target,
    },
    engine::injection::EntrySeen,
};

/// What the server sets; an object that is created again can't have it.
const SERVERS_OWN: [&str; 8] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// The entries of a deletion: whether the account may delete is asked for, since a deletion can't be tried without the uid.
pub(super) async fn entries(
    ctx: &FaultContext<'_>,
    targets: &[DynamicObject],
    restore: bool,
) -> Result<Vec<JournalEntry>, Refusal> {
    let mut entries = Vec::new();
    for object in targets {
        let target = of(ctx, object).await?;
        let verbs: &[&str] = if restore { &["delete", "create"] } else { &["delete"] };
        let rights: Vec<Right> = verbs.iter().map(|verb| right(&target, verb)).collect();
        if let Some(missing) = missing_rights(&target.client, &rights).await?.first() {
            return Err(Refusal::NotYet {
                reason: reason::PERMISSION_DENIED.into(),
                message: format!("service account {} may not {missing}", ctx.injection.account()),
            });
        }
        let undo = if restore { Undo::Restore { manifest: as_created(object) } } else { Undo::Nothing };
        entries.push(JournalEntry { target: object_ref(&target, object), undo, ..JournalEntry::default() });
    }
    Ok(entries)
}

fn right(target: &Target, verb: &str) -> Right {
    let resource = &target.kind.resource;
    let right = Right::new(verb, &resource.group, &resource.plural, target.kind.place(&target.namespace));
    if verb == "create" { right } else { right.named(&target.name) }
}

/// The object without what the server sets, and without its status.
fn as_created(object: &DynamicObject) -> Value {
    let mut manifest = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = manifest["metadata"].as_object_mut() {
        for own in SERVERS_OWN {
            metadata.remove(own);
        }
    }
    manifest
}

/// Deletes the recorded object. Gone is as good as deleted.
pub(super) async fn strike(ctx: &FaultContext<'_>, entry: &JournalEntry, grace_seconds: Option<u32>) -> EntrySeen {
    let target = match ctx.target(&entry.target).await {
        Ok(target) => target,
        Err(failure) => return not_injected(&failure),
    };
    let wanted = &entry.target.uid;
    match target.get().await {
        Ok(Some(object)) if uid(&object) == wanted => {}
        Ok(_) => return injected("it is gone"),
        Err(failure) => return not_injected(&failure),
    }
    if ctx.is_stale() {
        return EntrySeen::Failing { message: "the decision is too old to act on".into() };
    }
    match target.delete_exactly(wanted, grace_seconds).await {
        Ok(()) => injected(String::new()),
        Err(failure) => not_injected(&failure),
    }
}

impl FaultKind for DeleteFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        entries(ctx, targets, self.restore).await
    }

    async fn strike(&self, ctx: &FaultContext<'_>, entry: &JournalEntry) -> EntrySeen {
        strike(ctx, entry, None).await
    }
}
