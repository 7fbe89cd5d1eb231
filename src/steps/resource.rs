//! `resource`: an object of any kind that is created, followed to its success or failure, and deleted.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{
    StepKind,
    apply::{mark, prepare},
    context::{Begun, Follow, StepContext, refused, refused_or_again},
    made::{self, Whose, whose},
    object::{Target, Told, Unresolved, judge, told},
    rights::{self, Use},
    trial::{self, Untried},
};
use crate::{
    api::{
        names::label,
        step::{ResourceRef, ResourceStep},
    },
    cluster::{
        access::Right,
        error::{ApiFailure, Class},
        kinds::uid,
    },
    engine::seen::{StepEnd, StepSeen},
};

/// How long an object of an earlier attempt is given to go, and how often it is looked for.
const LEAVING: (u32, Duration) = (40, Duration::from_millis(500));

/// The manifest of an attempt's object, and the object.
pub(super) async fn manifest(ctx: &StepContext<'_>, step: &ResourceStep) -> Result<(Target, Value), Unresolved> {
    let (target, mut manifest) = prepare(ctx, &step.manifest, Some(ctx.attempt_name())).await?;
    mark(&mut manifest, ctx.labels(), ctx.annotations());
    if let Some(owner) = ctx.owner_reference()
        && target.kind.namespaced
        && target.namespace == ctx.run.namespace
    {
        // Not the controller: kinds such as workflows may want one of their own.
        let mut owner = owner;
        owner["controller"] = json!(false);
        if let Some(owners) = manifest["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut) {
            owners.push(owner);
        } else {
            manifest["metadata"]["ownerReferences"] = json!([owner]);
        }
    }
    Ok((target, manifest))
}

/// Removes the object of an earlier attempt that has the same given name.
async fn make_room(ctx: &StepContext<'_>, target: &Target) -> Result<(), StepEnd> {
    for _ in 0..LEAVING.0 {
        match target.get().await {
            Ok(Some(object)) if whose(ctx, &object) == Whose::ThisRun => {
                target.delete_exactly(uid(&object), None).await.map_err(|failure| refused(&failure))?;
            }
            Ok(_) => return Ok(()),
            Err(failure) => return Err(refused(&failure)),
        }
        tokio::time::sleep(LEAVING.1).await;
    }
    Err(StepEnd::transient(
        "NameTaken",
        format!(
            "{} of an earlier attempt does not go: leave metadata.name out, so that each attempt has its own",
            target.title()
        ),
    ))
}

/// The attempt's object as a watch tells it, or what keeps it from being seen.
pub(super) fn seen(ctx: &StepContext<'_>, follow: &Follow) -> Result<Value, StepSeen> {
    let Some(lease) = &follow.lease else { return Err(StepSeen::Unknown) };
    match told(lease) {
        Told::Object(Value::Null) => Err(StepSeen::Unknown),
        Told::Object(object) => {
            let metadata = &object["metadata"];
            let ours = metadata["annotations"][label::CREATED_BY] == *ctx.run.uid
                && ctx.labels().iter().all(|(key, value)| metadata["labels"][*key] == **value);
            if !ours {
                return Err(StepSeen::Unknown);
            }
            follow.mark_existing();
            Ok(object)
        }
        Told::Seen(seen) => Err(seen),
    }
}

impl StepKind for ResourceStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        let (target, manifest) = match manifest(ctx, self).await {
            Ok(prepared) => prepared,
            Err(unresolved) => return unresolved.into_begun().await,
        };
        let lease = match target.lease(ctx) {
            Ok(lease) => lease,
            Err(failure) => return refused_or_again(&failure).await,
        };
        if target.name != ctx.attempt_name()
            && let Err(end) = make_room(ctx, &target).await
        {
            return Begun::ended(end);
        }
        let ours = |object: &DynamicObject| whose(ctx, object) == Whose::ThisAttempt;
        match made::create_once(&target, &manifest, Follow { lease: Some(lease), ..Follow::default() }, ours).await {
            Ok((object, follow)) => {
                Begun::following(judge(ctx, &serde_json::to_value(&object).unwrap_or_default(), None), follow)
            }
            Err(begun) => begun,
        }
    }

    async fn resume(&self, ctx: &StepContext<'_>) -> Begun {
        match manifest(ctx, self).await {
            Ok((target, _)) => match target.lease(ctx) {
                Ok(lease) => Begun::following(StepSeen::Unknown, Follow { lease: Some(lease), ..Follow::default() }),
                Err(failure) if failure.class == Class::Transient => Begun::seen(StepSeen::Unknown),
                Err(failure) => Begun::ended(refused(&failure)),
            },
            Err(Unresolved::Wrong(end)) => Begun::ended(end),
            Err(Unresolved::Failed(_)) => Begun::seen(StepSeen::Unknown),
        }
    }

    fn observe(&self, ctx: &StepContext<'_>, follow: &Follow, _now: DateTime<Utc>) -> StepSeen {
        match seen(ctx, follow) {
            Ok(object) => judge(ctx, &object, None),
            Err(seen) => seen,
        }
    }

    async fn confirm_absent(&self, ctx: &StepContext<'_>, follow: Option<&Follow>) -> StepSeen {
        match manifest(ctx, self).await {
            // An earlier attempt's object under the same name is no trace of this one.
            Ok((target, _)) => {
                match made::confirm(ctx, &target, follow, |object| whose(ctx, object) == Whose::ThisAttempt).await {
                    StepSeen::Ended(end)
                        if end.failure.as_ref().is_some_and(|failure| failure.reason == "NameTaken") =>
                    {
                        StepSeen::Absent
                    }
                    seen => seen,
                }
            }
            Err(Unresolved::Wrong(end)) => StepSeen::Ended(end),
            Err(Unresolved::Failed(_)) => StepSeen::Unknown,
        }
    }

    /// Nothing but its deletion ends an object of any kind, also one that is otherwise never deleted.
    async fn stop(&self, ctx: &StepContext<'_>) -> Result<(), ApiFailure> {
        let target = match manifest(ctx, self).await {
            Ok((target, _)) => target,
            Err(Unresolved::Failed(failure)) => return Err(failure),
            Err(Unresolved::Wrong(_)) => return Ok(()),
        };
        match target.get().await? {
            Some(object)
                if whose(ctx, &object) == Whose::ThisAttempt && object.metadata.deletion_timestamp.is_none() =>
            {
                target.delete_exactly(uid(&object), None).await
            }
            _ => Ok(()),
        }
    }

    fn reference(&self, ctx: &StepContext<'_>) -> Option<ResourceRef> {
        rights::made(ctx, self)
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        it.rights(&["create", "get", "delete", "list", "watch"])
    }

    async fn dry_run(&self, ctx: &StepContext<'_>) -> Result<(), Untried> {
        let (target, manifest) = manifest(ctx, self).await?;
        trial::create(&target, &manifest).await
    }
}
