//! The key of `spec.exclusive`: a Lease in the run's namespace whose holder is the run's uid.
//!
//! The Lease never expires, so that no operator that is away loses it; it ends with the run that holds it. Each write is on
//! condition of what was read, so two operators can't give one key to two runs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
    runtime::reflector::ObjectRef,
};
use parking_lot::Mutex;
use tracing::warn;

use crate::{
    api::{
        SoakRun,
        names::{FINALIZER, label},
    },
    engine::LockSeen,
};

use super::{
    Shell,
    memory::{Fact, Outcome, Task},
};

/// Runs that wait, by namespace and key: they are woken when the key is given back. A lost entry costs a minute.
#[derive(Default)]
pub struct Waiting(Mutex<BTreeMap<Place, BTreeSet<Waiter>>>);

/// A namespace and a key in it.
type Place = (String, String);
/// A run's name and uid.
type Waiter = (String, String);

impl Waiting {
    fn join(&self, run: &SoakRun, key: &str) {
        let place = (run.namespace().unwrap_or_default(), key.to_owned());
        self.0.lock().entry(place).or_default().insert((run.name_any(), run.uid().unwrap_or_default()));
    }

    fn take(&self, namespace: &str, key: &str) -> BTreeSet<Waiter> {
        self.0.lock().remove(&(namespace.to_owned(), key.to_owned())).unwrap_or_default()
    }
}

/// Takes the key, unless a run that works holds it.
pub async fn acquire(shell: &Shell, run: &SoakRun, key: &str) -> Outcome {
    match try_acquire(shell, run, key).await {
        Ok(LockSeen::Held) => Outcome::Told(Fact::Lock(LockSeen::Held)),
        Ok(seen) => {
            shell.waiting.join(run, key);
            Outcome::Failed(Fact::Lock(seen))
        }
        Err(error) => {
            warn!(key, %error, "a key could not be asked for yet");
            Outcome::TryAgain
        }
    }
}

async fn try_acquire(shell: &Shell, run: &SoakRun, key: &str) -> kube::Result<LockSeen> {
    let leases = leases(shell, run);
    let wanted = lease(run, key);
    match leases.create(&PostParams::default(), &wanted).await {
        Ok(_) => return Ok(LockSeen::Held),
        Err(kube::Error::Api(status)) if status.is_already_exists() || status.code == 409 => {}
        Err(error) => return Err(error),
    }
    let Some(found) = leases.get_opt(&name(key)).await? else { return Ok(LockSeen::Unknown) };
    let holder = holder(&found);
    if holder == run.uid() {
        return Ok(LockSeen::Held);
    }
    let holder_name = found.annotations().get(label::RUN).cloned().unwrap_or_default();
    if is_at_work(shell, run, &holder_name, holder.as_deref()).await? {
        return Ok(LockSeen::HeldBy(holder_name));
    }
    // Whoever held it has gone without giving it back. The version that was read is the condition.
    let mut wanted = wanted;
    wanted.metadata.resource_version = found.metadata.resource_version;
    wanted.metadata.uid = found.metadata.uid;
    match leases.replace(&name(key), &PostParams::default(), &wanted).await {
        Ok(_) => Ok(LockSeen::Held),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(LockSeen::Unknown),
        Err(error) => Err(error),
    }
}

/// Whether the run that holds a key still may work: it is there, and has not both ended and cleaned up.
async fn is_at_work(shell: &Shell, run: &SoakRun, name: &str, uid: Option<&str>) -> kube::Result<bool> {
    if name.is_empty() {
        return Ok(false);
    }
    let runs: Api<SoakRun> = Api::namespaced(shell.client.clone(), &run.namespace().unwrap_or_default());
    let Some(holder) = runs.get_opt(name).await? else { return Ok(false) };
    let ended = holder.status.as_ref().is_some_and(|status| status.phase.is_final());
    let cleaned_up = !holder.finalizers().iter().any(|it| it == FINALIZER);
    Ok(holder.uid().as_deref() == uid && !(ended && cleaned_up))
}

/// Gives the key back, if the run holds it, and wakes who waits for it.
pub async fn release(shell: &Shell, run: &SoakRun, key: &str) -> Outcome {
    match try_release(shell, run, key).await {
        Ok(()) => {
            let namespace = run.namespace().unwrap_or_default();
            for (name, uid) in shell.waiting.take(&namespace, key) {
                shell.memories.of(&uid).hurry(&Task::AcquireLock);
                // The receiver goes only with the process.
                let _ = shell.wake.send(ObjectRef::new(&name).within(&namespace));
            }
            Outcome::Told(Fact::Lock(LockSeen::Free))
        }
        Err(error) => {
            warn!(key, %error, "a key could not be given back yet");
            Outcome::TryAgain
        }
    }
}

async fn try_release(shell: &Shell, run: &SoakRun, key: &str) -> kube::Result<()> {
    let leases = leases(shell, run);
    let Some(found) = leases.get_opt(&name(key)).await? else { return Ok(()) };
    if holder(&found) != run.uid() {
        return Ok(());
    }
    let parameters = DeleteParams {
        preconditions: Some(Preconditions { uid: found.uid(), resource_version: found.metadata.resource_version }),
        ..DeleteParams::default()
    };
    match leases.delete(&name(key), &parameters).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

fn leases(shell: &Shell, run: &SoakRun) -> Api<Lease> {
    Api::namespaced(shell.client.clone(), &run.namespace().unwrap_or_default())
}

fn name(key: &str) -> String {
    format!("soak-key-{key}")
}

fn holder(lease: &Lease) -> Option<String> {
    lease.spec.as_ref()?.holder_identity.clone()
}

fn lease(run: &SoakRun, key: &str) -> Lease {
    let mut lease = Lease::default();
    let metadata = &mut lease.metadata;
    metadata.name = Some(name(key));
    metadata.namespace = run.namespace();
    metadata.labels = Some(BTreeMap::from([(label::RUN_UID.to_owned(), run.uid().unwrap_or_default())]));
    metadata.annotations = Some(BTreeMap::from([(label::RUN.to_owned(), run.name_any())]));
    // It goes with the run even if nobody gives it back.
    metadata.owner_references = run.owner_ref(&()).map(|owner| vec![owner]);
    lease.spec = Some(LeaseSpec { holder_identity: run.uid(), ..LeaseSpec::default() });
    lease
}
