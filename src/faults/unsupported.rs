//! Kinds that need a helper.

use kube::api::DynamicObject;

use super::{FaultContext, FaultKind, Refusal};
use crate::api::{
    failureinjection::JournalEntry,
    fault::{DnsFault, NetworkFault, ProcessFault, StressFault, ToxiproxyFault},
};

macro_rules! unsupported {
    ($($kind:ident),+) => {$(
        impl FaultKind for $kind {
            async fn entries(&self, _: &FaultContext<'_>, _: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
                Err(Refusal::never("Unsupported", "this operator can't make it"))
            }
        }
    )+};
}

unsupported!(DnsFault, NetworkFault, ProcessFault, StressFault, ToxiproxyFault);
