//! Making an object for an attempt exactly once.

use std::time::{Duration, Instant};

use kube::{Resource, api::DynamicObject};
use serde_json::Value;

use super::{
    context::{Begun, Follow, StepContext, refused},
    object::{Target, WriteMode},
};
use crate::{
    api::names::label,
    cluster::error::Class,
    engine::seen::{StepEnd, StepSeen},
};

/// A create whose answer was lost may take effect until then: the API server gives up a write after 34 s.
const WRITE_LIMIT: Duration = Duration::from_secs(35);

/// Whose an object is that has the name which an attempt wants to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Made by this very attempt.
    ThisAttempt,
    /// Made by an earlier attempt or cycle of the run.
    ThisRun,
    /// Anybody else's.
    Foreign,
}

/// Reads the marks that [`StepContext::labels`] and [`StepContext::annotations`] leave.
pub(super) fn whose(ctx: &StepContext<'_>, object: &impl Resource) -> Whose {
    let meta = object.meta();
    let created_by = meta.annotations.as_ref().and_then(|annotations| annotations.get(label::CREATED_BY));
    if created_by != Some(&ctx.run.uid) {
        return Whose::Foreign;
    }
    let labels = meta.labels.clone().unwrap_or_default();
    let same = ctx.labels().iter().all(|(key, value)| labels.get(*key) == Some(value));
    if same { Whose::ThisAttempt } else { Whose::ThisRun }
}

/// Whether the run is the controller of an object. On another cluster there are no owners, and the marks of the attempt tell.
pub(super) fn is_owned(ctx: &StepContext<'_>, object: &impl Resource) -> bool {
    if ctx.cluster.remote {
        return whose(ctx, object) == Whose::ThisAttempt;
    }
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    crate::switches::without("uid-check")
        || owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == ctx.run.uid)
}

/// Creates an object for an attempt, or adopts the one that is there if `ours` says so. Nothing is ever made a second
/// time under another name.
///
/// Errors: the attempt is at its end, or its fate is open.
pub(super) async fn create_once(
    target: &Target,
    manifest: &Value,
    follow: Follow,
    ours: impl Fn(&DynamicObject) -> bool,
) -> Result<(DynamicObject, Follow), Begun> {
    let began = Instant::now();
    let failure = match target.create(manifest, WriteMode::Plain).await {
        Ok(object) => {
            follow.mark_existing();
            return Ok((object, follow));
        }
        Err(failure) => failure,
    };
    match failure.class {
        Class::AlreadyExists => match target.get().await {
            Ok(Some(object)) if ours(&object) => {
                follow.mark_existing();
                Ok((object, follow))
            }
            Ok(Some(_)) => Err(Begun::ended(name_taken(target))),
            Ok(None) => {
                let message = format!("{} was there and is gone", target.title());
                Err(Begun::ended(StepEnd::transient("NameTaken", message)))
            }
            // It exists; whether it is ours is told by the watch or by a later look.
            Err(_) => Err(Begun::following(StepSeen::Unknown, follow)),
        },
        _ if failure.ambiguous => {
            tracing::warn!(object = target.title(), error = %failure, "the answer to a create was lost; it is looked for, not repeated");
            let follow = Follow { open_until: Some(began + WRITE_LIMIT), ..follow };
            Err(Begun::following(StepSeen::Unknown, follow))
        }
        // The server could not even be asked: the attempt left nothing and is lost, which is nobody's failure.
        Class::Transient => Err(Begun::following(StepSeen::Unknown, follow)),
        _ => Err(Begun::ended(refused(&failure))),
    }
}

fn name_taken(target: &Target) -> StepEnd {
    let message = format!("{} is there already and is not this run's: it is left as it is", target.title());
    StepEnd::failed("NameTaken", message)
}

/// Asks the server whether what an attempt made is there.
pub(super) async fn confirm(
    ctx: &StepContext<'_>,
    target: &Target,
    follow: Option<&Follow>,
    ours: impl Fn(&DynamicObject) -> bool,
) -> StepSeen {
    if follow.is_some_and(Follow::is_open) {
        return StepSeen::Unknown;
    }
    match target.get().await {
        Ok(Some(object)) if ours(&object) => {
            if let Some(follow) = follow {
                follow.mark_existing();
            }
            StepSeen::Unknown
        }
        Ok(found) => {
            if follow.is_some_and(Follow::existed) && ctx.stopping_since.is_none() {
                return StepSeen::Ended(StepEnd::transient("Deleted", format!("somebody deleted {}", target.title())));
            }
            match found {
                Some(_) => StepSeen::Ended(name_taken(target)),
                None => StepSeen::Absent,
            }
        }
        Err(failure) if failure.class == Class::Forbidden => StepSeen::Ended(refused(&failure)),
        Err(_) => StepSeen::Unknown,
    }
}
