//! The cluster that an injection hits: the operator's own, or one that it brings a kubeconfig for.

use tracing::warn;

use super::Visit;
use crate::{
    cluster::{Cluster, targets::KubeconfigAt},
    engine::injection::EntrySeen,
    faults::InjectionIdentity,
};

impl Visit<'_> {
    /// The cluster that is hit.
    ///
    /// Errors: why it can't be asked now.
    pub(super) fn cluster(&self, identity: &InjectionIdentity, undo: bool) -> Result<Cluster, String> {
        let clusters = &self.all.shell.clusters;
        let Some(secret) = &self.injection.spec.kubeconfig_secret_ref else { return Ok(clusters.own().clone()) };
        let at = KubeconfigAt { secret: secret.name.clone(), key: secret.key.clone() };
        let connect = || clusters.lease(&identity.account(), &at, &identity.run_ref(), false);
        let named = |why: String| format!("the cluster of Secret {} can't be used: {why}", secret.name);
        self.memory.remote(connect, undo).map_err(named)
    }

    /// What becomes of entries whose cluster can't be asked: they are tried again, unless the credentials went with the namespace and
    /// will never come back.
    pub(super) async fn without_cluster(&self, namespace: &str, message: &str) -> EntrySeen {
        let own = self.all.shell.clusters.own();
        if self.injection.metadata.deletion_timestamp.is_some() && own.namespace_is_going(namespace).await {
            warn!(message, "a fault is left on its cluster");
            let message = format!("left as it is, because the credentials go with the namespace: {message}");
            return EntrySeen::Gone { message };
        }
        EntrySeen::Failing { message: message.to_owned() }
    }
}
