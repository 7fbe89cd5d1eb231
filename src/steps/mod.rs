//! What steps do in a cluster: one file a kind, each performed and observed as the run's service account.
//!
//! A step is begun once for each written intent ([`begin`]); from then on it is judged by what watches tell
//! ([`observe`]), which calls nothing. After a restart [`resume`] takes up what tells about a step without doing
//! anything. Only [`confirm_absent`] says that a step left no trace, after asking the server.

#![expect(
    clippy::result_large_err,
    reason = "the end of an attempt is an answer that comes once, and not an error that is passed up a long way"
)]

mod apply;
mod context;
mod delete;
mod http;
mod inject;
mod job;
mod logs;
mod made;
mod manifest;
mod object;
mod outputs;
mod patch;
mod pod;
mod pod_artifacts;
mod pod_manifest;
mod pod_state;
mod release;
mod resource;
mod rights;
mod scale;
mod sleep;
mod trial;
mod validate;
mod wait;

use chrono::{DateTime, Utc};

use crate::{
    api::step::{ResourceRef, each_kind},
    cluster::{access::Right, error::ApiFailure},
    engine::seen::StepSeen,
};
use rights::Use;
use trial::Untried;

pub use context::{Begun, Follow, RunIdentity, Settings, StepContext};
pub use logs::{
    LogTail, MAX_BYTES as MAX_LOG_BYTES, MAX_LINES as MAX_LOG_LINES, WholeLog, artifacts, artifacts_stream, stream,
    tail, whole,
};
pub use pod::{coordinates_key, delete_pod, gives_up_at, pods_seen};
pub use release::{Released, release};
pub use validate::validate;

/// What each kind of step can do. The defaults are those of a kind whose whole effect is one call.
trait StepKind {
    /// Performs the effect.
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun;

    /// Takes up what tells about an effect that was begun by an earlier process.
    async fn resume(&self, _ctx: &StepContext<'_>) -> Begun {
        // The call's answer is lost with the process that made it.
        Begun::seen(StepSeen::Absent)
    }

    /// Judges by what is known without a call.
    fn observe(&self, _ctx: &StepContext<'_>, _follow: &Follow, _now: DateTime<Utc>) -> StepSeen {
        StepSeen::Unknown
    }

    /// Asks the server whether there is a trace of it.
    async fn confirm_absent(&self, _ctx: &StepContext<'_>, _follow: Option<&Follow>) -> StepSeen {
        StepSeen::Unknown
    }

    /// Ends what runs in the cluster.
    async fn stop(&self, _ctx: &StepContext<'_>) -> Result<(), ApiFailure> {
        Ok(())
    }

    /// The object that it is about, as far as that can be told before the run.
    fn reference(&self, _ctx: &StepContext<'_>) -> Option<ResourceRef> {
        None
    }

    /// The rights that it needs on that object.
    fn rights(&self, _it: &Use) -> Vec<Right> {
        Vec::new()
    }

    /// Tries it on the server without changing anything.
    async fn dry_run(&self, _ctx: &StepContext<'_>) -> Result<(), Untried> {
        Ok(())
    }
}

/// Performs the effect of an attempt whose intent is stored. Call it once for each time that the engine asks.
///
/// The answer is an end (done, or refused for certain), or what is known so far with a [`Follow`] to be kept for as
/// long as the step is live. After a create whose fate is open the answer is [`StepSeen::Unknown`]: nothing is ever
/// posted twice, the observation decides. [`StepSeen::Absent`] tells, after a pause, that the server could not be asked.
pub async fn begin(ctx: &StepContext<'_>) -> Begun {
    each_kind!(&ctx.leaf.action, step => step.begin(ctx).await)
}

/// Takes up an attempt for which this process has no [`Follow`]: after a restart, or when [`begin`] or an earlier
/// `resume` could not get one yet. Performs nothing. Must not be called while a [`begin`] of the attempt is under way.
///
/// Without a follow and without an end, call it again after some seconds.
pub async fn resume(ctx: &StepContext<'_>) -> Begun {
    each_kind!(&ctx.leaf.action, step => step.resume(ctx).await)
}

/// What is known of an attempt, from caches only. It never answers [`StepSeen::Absent`]: when it goes on answering
/// [`StepSeen::Unknown`], ask [`confirm_absent`].
pub fn observe(ctx: &StepContext<'_>, follow: &Follow, now: DateTime<Utc>) -> StepSeen {
    each_kind!(&ctx.leaf.action, step => step.observe(ctx, follow, now))
}

/// Asks the server whether there is any trace of an attempt.
///
/// [`StepSeen::Absent`] is certain. Must not be called while a [`begin`] of the attempt is under way.
pub async fn confirm_absent(ctx: &StepContext<'_>, follow: Option<&Follow>) -> StepSeen {
    each_kind!(&ctx.leaf.action, step => step.confirm_absent(ctx, follow).await)
}

/// Asks what runs in the cluster to end, keeping its log and what it reports. Repeating it is harmless; repeat it while
/// the attempt has not ended, because it becomes firmer with time.
pub async fn stop(ctx: &StepContext<'_>) -> Result<(), ApiFailure> {
    each_kind!(&ctx.leaf.action, step => step.stop(ctx).await)
}
