//! `wait`: until a condition on an object holds.

use chrono::{DateTime, Utc};

use super::{
    StepKind,
    context::{Begun, Follow, StepContext, refused, running},
    object::{Target, Told, Unresolved, judge, rendered_reference, told},
    rights::Use,
};
use crate::{
    api::step::{ResourceRef, WaitStep},
    cluster::{access::Right, error::Class},
    engine::seen::StepSeen,
};

impl StepKind for WaitStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        let target = match Target::of_reference(ctx, &self.resource).await {
            Ok(target) => target,
            Err(Unresolved::Wrong(end)) => return Begun::ended(end),
            // The kind may come, the server may answer: the step's own timeout ends the wait.
            Err(Unresolved::Failed(failure)) => return Begun::seen(running(failure.message)),
        };
        match target.lease(ctx) {
            Ok(lease) => {
                let follow = Follow { lease: Some(lease), ..Follow::default() };
                let seen = self.observe(ctx, &follow, Utc::now());
                Begun::following(seen, follow)
            }
            Err(failure) if failure.class == Class::Transient => Begun::seen(running(failure.message)),
            Err(failure) => Begun::ended(refused(&failure)),
        }
    }

    async fn resume(&self, ctx: &StepContext<'_>) -> Begun {
        self.begin(ctx).await
    }

    fn observe(&self, ctx: &StepContext<'_>, follow: &Follow, _now: DateTime<Utc>) -> StepSeen {
        match follow.lease.as_ref().map(told) {
            None => StepSeen::Unknown,
            Some(Told::Object(object)) => judge(ctx, &object, None),
            // Unknown while the objects are being listed: after a restart what the status says stays, and costs no write.
            Some(Told::Seen(seen)) => seen,
        }
    }

    fn reference(&self, ctx: &StepContext<'_>) -> Option<ResourceRef> {
        rendered_reference(ctx, &self.resource).ok()
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        it.rights(&["list", "watch"])
    }
}
