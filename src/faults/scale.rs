//! `scale`: the replicas of an object.

use kube::api::DynamicObject;
use serde_json::json;

use super::{FaultContext, FaultKind, Refusal, fields};
use crate::{
    api::{failureinjection::JournalEntry, fault::ScaleFault},
    cluster::object::PatchKind,
};

impl FaultKind for ScaleFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        fields::entries(ctx, targets, PatchKind::Merge, &json!({"spec": {"replicas": self.replicas}})).await
    }
}
