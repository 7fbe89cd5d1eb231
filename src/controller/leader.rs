//! Leader election: of several replicas one works. A Lease is no fence; the precondition of each status write is.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tracing::info;

use crate::api::names;

/// How long a lease holds without being renewed. A replica that stops without a word is replaced after this.
const LEASE_SECONDS: u64 = 15;
/// How long before its end a lease is renewed.
const GRACE_SECONDS: u64 = 5;
/// How often a replica that waits looks whether the lease was given back.
const LOOK: Duration = Duration::from_secs(1);
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
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        loop {
            let manager = LeaseManagerBuilder::new(client.clone(), LEASE)
                .with_namespace(namespace)
                .with_identity(identity)
                .with_duration(LEASE_SECONDS)
                .with_grace(GRACE_SECONDS)
                .build()
                .await?;
            let (mut leading, task) = manager.watch().await;
            let won = async {
                // A closed channel means that the lease's task has ended; `lost` answers at once then.
                let _ = leading.wait_for(|leading| *leading).await;
            };
            let won = tokio::select! {
                () = won => true,
                () = given_back(&leases) => false,
            };
            if won {
                info!(namespace, identity, "this replica leads");
                return Ok(Self { leading, task });
            }
            // The manager sleeps until the end of the lease that it has read; a new one reads it again.
            task.abort();
        }
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

/// Ends when the lease has no holder.
async fn given_back(leases: &Api<Lease>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Ok(Some(lease)) = leases.get_opt(LEASE).await
            && lease.spec.and_then(|spec| spec.holder_identity).is_none_or(|holder| holder.is_empty())
        {
            return;
        }
    }
}
