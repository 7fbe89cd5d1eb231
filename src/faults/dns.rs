//! `dns`: name lookups that time out.

use kube::api::DynamicObject;

use super::{FaultContext, FaultKind, Refusal, helper, network::ranges};
use crate::api::{failureinjection::JournalEntry, fault::DnsFault};

impl FaultKind for DnsFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        let mut arguments = vec!["dns".to_owned()];
        for server in ranges("spec.dns.servers", &self.servers)? {
            arguments.extend(["--server".into(), server]);
        }
        helper::on_networks(ctx, targets, &arguments).await
    }
}
