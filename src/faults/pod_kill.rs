//! `podKill`: pods that are deleted.

use kube::api::DynamicObject;

use super::{FaultContext, FaultKind, Refusal, delete};
use crate::{
    api::{failureinjection::JournalEntry, fault::PodKillFault},
    engine::injection::EntrySeen,
};

impl FaultKind for PodKillFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        delete::entries(ctx, targets, false).await
    }

    async fn strike(&self, ctx: &FaultContext<'_>, entry: &JournalEntry) -> EntrySeen {
        let seconds = self.grace_period.map(|grace| u32::try_from(grace.as_std().as_secs()).unwrap_or(u32::MAX));
        delete::strike(ctx, entry, if self.force { Some(0) } else { seconds }).await
    }
}
