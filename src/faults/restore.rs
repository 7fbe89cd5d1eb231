//! An object that was deleted and is created again.

use kube::Resource;
use serde_json::Value;

use super::{FaultContext, delete, not_reverted};
use crate::{
    api::failureinjection::JournalEntry,
    cluster::{error::Class, kinds::uid, object::WriteMode},
    engine::injection::EntrySeen,
};

pub(super) async fn inject(ctx: &FaultContext<'_>, entry: &JournalEntry) -> EntrySeen {
    delete::strike(ctx, entry, None).await
}

pub(super) async fn revert(ctx: &FaultContext<'_>, entry: &JournalEntry, manifest: &Value) -> EntrySeen {
    let title = entry.target.title();
    let target = match ctx.target(&entry.target).await {
        Ok(target) => target,
        Err(failure) if failure.class == Class::NotFound => {
            return EntrySeen::Gone { message: format!("{title}: its kind is not served any more") };
        }
        Err(failure) => return not_reverted(ctx, &entry.target, &failure).await,
    };
    match target.get().await {
        Ok(Some(object)) if uid(&object) != entry.target.uid => {
            // It was created again: by an earlier try, or by somebody else. Either way it is there.
            EntrySeen::Reverted { message: "it is there again".into() }
        }
        Ok(Some(object)) if object.meta().deletion_timestamp.is_some() => {
            let holders = object.meta().finalizers.clone().unwrap_or_default().join(", ");
            EntrySeen::Failing { message: format!("{title} is still being deleted, held by {holders}") }
        }
        Ok(Some(_)) if ctx.is_open() => {
            EntrySeen::Failing { message: "a call that would delete it may still be under way".into() }
        }
        Ok(Some(_)) => EntrySeen::Reverted { message: "it was not deleted".into() },
        Ok(None) if ctx.cluster.namespace_is_going(&target.namespace).await && target.kind.namespaced => {
            EntrySeen::Gone { message: format!("namespace {} is being deleted", target.namespace) }
        }
        Ok(None) => match target.create(manifest, WriteMode::Brief).await {
            Ok(_) => EntrySeen::Reverted { message: "it is there again".into() },
            // The next try looks who made it.
            Err(failure) if failure.class == Class::AlreadyExists => EntrySeen::Failing { message: failure.message },
            Err(failure) => not_reverted(ctx, &entry.target, &failure).await,
        },
        Err(failure) => not_reverted(ctx, &entry.target, &failure).await,
    }
}
