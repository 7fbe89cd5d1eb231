//! `patch`: fields of any object.

use kube::api::DynamicObject;

use super::{FaultContext, FaultKind, Refusal, fields};
use crate::{
    api::{failureinjection::JournalEntry, fault::PatchFault},
    cluster::object::PatchKind,
};

impl FaultKind for PatchFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        fields::entries(ctx, targets, PatchKind::from(self.type_), &self.patch).await
    }
}
