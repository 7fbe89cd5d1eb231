//! Leader election: of several replicas one works. A Lease is no fence; the precondition of each status write is.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tracing::info;

use crate::api::names;

/// How long a lease holds without being renewed. A replica that stops without a word is replaced after this.
const LEASE_SECONDS: u64 = 15;
/// How long before its end a lease is renewed.
const GRACE_SECONDS: u64 = 5;
/// How long giving the lease back may take on the way out.
const RESIGN_LIMIT: Duration = Duration::from_secs(2);

/// The name of the Lease.
pub const LEASE: &str = names::OPERATOR_FIELD_MANAGER;

/// A lease that is held.
pub struct Leadership {
    leading: watch::Receiver<bool>,
    task: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Leadership {
    /// Waits until this replica leads.
    pub async fn win(client: Client, namespace: &str, identity: &str) -> Result<Self, LeaseManagerError> {
        info!(namespace, identity, "waiting for the lease");
        let manager = LeaseManagerBuilder::new(client, LEASE)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(LEASE_SECONDS)
            .with_grace(GRACE_SECONDS)
            .build()
            .await?;
        let (mut leading, task) = manager.watch().await;
        // A closed channel means that the lease's task has ended; `lost` answers at once then.
        let _ = leading.wait_for(|leading| *leading).await;
        info!(namespace, identity, "this replica leads");
        Ok(Self { leading, task })
    }

    /// Ends when this replica no longer leads.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut leading = self.leading.clone();
        async move {
            let _ = leading.wait_for(|leading| !*leading).await;
        }
    }

    /// Gives the lease back, so that another replica need not wait for its end.
    pub async fn resign(self) {
        drop(self.leading);
        let _ = timeout(RESIGN_LIMIT, self.task).await;
    }
}
