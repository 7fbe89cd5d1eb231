//! `delete`: an object, and by default until it is gone.

use chrono::{DateTime, TimeDelta, Utc};
use kube::api::DynamicObject;
use serde_json::Value;

use super::{
    StepKind,
    context::{Begun, Follow, StepContext, refused_or_again, running},
    object::{Target, Told, rendered_reference, told},
    rights::Use,
};
use crate::{
    api::step::{DeleteStep, ResourceRef},
    cluster::{access::Right, kinds::uid, pod_summary::time},
    engine::seen::{StepEnd, StepSeen},
};

/// A first try comes at once after its intent; one that comes later is a repetition after a restart.
const REPEATED_AFTER: TimeDelta = TimeDelta::seconds(10);

/// Whether an object of that name was made after the attempt had begun: the one to be deleted is gone then, and a
/// repeated delete must not hit what its controller made in its place.
fn is_successor(ctx: &StepContext<'_>, object: &DynamicObject) -> bool {
    let created = object.metadata.creation_timestamp.as_ref().and_then(time);
    Utc::now() - ctx.started_at > REPEATED_AFTER && created.is_some_and(|created| created > ctx.started_at)
}

impl StepKind for DeleteStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        let target = match Target::of_reference(ctx, &self.resource).await {
            Ok(target) => target,
            Err(unresolved) => return unresolved.into_begun().await,
        };
        let object = match target.get().await {
            Ok(Some(object)) if !is_successor(ctx, &object) => object,
            Ok(None) if !self.ignore_not_found => {
                return Begun::ended(StepEnd::failed("NotFound", format!("there is no {}", target.title())));
            }
            Ok(_) => return Begun::ended(StepEnd::succeeded()),
            Err(failure) => return refused_or_again(&failure).await,
        };
        let lease = match self.wait.then(|| target.lease(ctx)).transpose() {
            Ok(lease) => lease,
            Err(failure) => return refused_or_again(&failure).await,
        };
        match target.delete_exactly(uid(&object), None).await {
            Ok(()) if self.wait => {
                let follow = Follow { lease, uid: Some(uid(&object).to_owned()), ..Follow::default() };
                Begun::following(running("it is being deleted"), follow)
            }
            Ok(()) => Begun::ended(StepEnd::succeeded()),
            Err(failure) => refused_or_again(&failure).await,
        }
    }

    fn observe(&self, _ctx: &StepContext<'_>, follow: &Follow, _now: DateTime<Utc>) -> StepSeen {
        let (Some(lease), Some(uid)) = (&follow.lease, &follow.uid) else { return StepSeen::Unknown };
        match told(lease) {
            Told::Object(object) if object["metadata"]["uid"] == **uid => {
                let finalizers: Vec<&str> = object["metadata"]["finalizers"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                running(if finalizers.is_empty() {
                    "it is being deleted".to_owned()
                } else {
                    format!("held by finalizers: {}", finalizers.join(", "))
                })
            }
            Told::Object(_) => StepSeen::Ended(StepEnd::succeeded()),
            Told::Seen(seen) => seen,
        }
    }

    fn reference(&self, ctx: &StepContext<'_>) -> Option<ResourceRef> {
        rendered_reference(ctx, &self.resource).ok()
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        let mut rights = vec![it.on_it("get"), it.on_it("delete")];
        if self.wait {
            rights.extend(it.rights(&["list", "watch"]));
        }
        rights
    }
}
