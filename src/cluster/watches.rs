//! Shared watches of whatever steps wait for, each as the tenant that asked.

mod kept;
mod state;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use kube::api::{ApiResource, DynamicObject, TypeMeta};
use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{
    OnWatchFailure, RunRef, Wake,
    client::{Account, Tenants},
    error::{ApiFailure, Class},
    follow::{Selection, follow},
    kinds::Kind,
    pods::AbortOnDrop,
};

use state::State;

pub use state::Lookup;

/// A watch goes on for so long after its last lease: the next cycle often waits for the same.
const LINGER: Duration = Duration::from_mins(1);
/// Watches at the same time, each a connection of its own.
const MAX_WATCHES: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    account: Account,
    resource: ApiResource,
    namespace: Option<String>,
}

struct Shared {
    state: Arc<Mutex<State>>,
    _task: AbortOnDrop,
}

struct Inner {
    tenants: Tenants,
    wake: Wake,
    failed: OnWatchFailure,
    runtime: Handle,
    shared: Mutex<HashMap<Arc<Key>, Shared>>,
}

/// The shared watches.
#[derive(Clone)]
pub struct Watches {
    inner: Arc<Inner>,
}

/// Keeps a watch going and a run woken by changes of one object. Both end when it is dropped.
pub struct Lease {
    watches: Weak<Inner>,
    key: Arc<Key>,
    number: u64,
    name: String,
    state: Arc<Mutex<State>>,
}

impl Watches {
    /// No watch yet. Must be called inside a tokio runtime.
    ///
    /// `wake` is called for each change of an object to the runs that hold a lease for it; `failed` for each failure.
    pub fn new(tenants: Tenants, wake: Wake, failed: OnWatchFailure) -> Self {
        Self { inner: Arc::new(Inner { tenants, wake, failed, runtime: Handle::current(), shared: Mutex::default() }) }
    }

    /// Watches the object `name` for `run` as `account`, over a watch that is shared with all that want the same kind
    /// in the same namespace as the same account.
    ///
    /// Errors: the account's name is none, the kind can't be watched, or there are too many watches.
    pub fn lease(
        &self,
        account: &Account,
        kind: &Kind,
        namespace: &str,
        name: &str,
        run: RunRef,
    ) -> Result<Lease, ApiFailure> {
        self.take(account, kind, namespace, name, Some(run))
    }

    fn take(
        &self,
        account: &Account,
        kind: &Kind,
        namespace: &str,
        name: &str,
        run: Option<RunRef>,
    ) -> Result<Lease, ApiFailure> {
        if !kind.watchable {
            return Err(ApiFailure::definite(Class::Invalid, format!("{} can't be watched", kind.plural_and_group())));
        }
        let client = self
            .inner
            .tenants
            .client(account)
            .map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
        let key = Key {
            account: account.clone(),
            resource: kind.resource.clone(),
            namespace: kind.place(namespace).map(Into::into),
        };
        let mut shared = lock(&self.inner.shared);
        let key = shared.get_key_value(&key).map_or_else(|| Arc::new(key.clone()), |(known, _)| known.clone());
        if !shared.contains_key(&key) && shared.len() >= MAX_WATCHES {
            return Err(ApiFailure::definite(Class::Transient, format!("{MAX_WATCHES} watches are open already")));
        }
        let watch = shared.entry(key.clone()).or_insert_with(|| {
            let state = Arc::new(Mutex::new(State::default()));
            let (sink, wake, failed) = (state.clone(), self.inner.wake.clone(), self.inner.failed.clone());
            let api = kind.api(client, namespace);
            let types = TypeMeta { api_version: kind.resource.api_version.clone(), kind: kind.resource.kind.clone() };
            let task = self.inner.runtime.spawn(async move {
                follow(api, Selection::default(), |event| {
                    if let Err(failure) = &event {
                        tracing::debug!(reason = failure.class.reason(), error = %failure, kind = types.kind, "a watch failed; it is made anew");
                        failed("shared", failure);
                    }
                    let woken = lock(&sink).take_in(event, &types);
                    for run in &woken {
                        wake(run);
                    }
                })
                .await;
            });
            Shared { state, _task: AbortOnDrop(task.abort_handle()) }
        });
        let state = watch.state.clone();
        // Still under the lock of all watches: a watch that has just been idle for too long must not end in between.
        let number = lock(&state).admit(run, name);
        drop(shared);
        Ok(Lease { watches: Arc::downgrade(&self.inner), key, number, name: name.to_owned(), state })
    }

    /// Whether both are those of one cluster.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Watches all objects of a kind in a namespace as `account`, over the same shared watch as [`lease`](Self::lease).
    ///
    /// Errors: as there.
    pub fn list(&self, account: &Account, kind: &Kind, namespace: &str) -> Result<Listing, ApiFailure> {
        let lease = self.take(account, kind, namespace, "", None)?;
        let changes = lock(&lease.state).changes.subscribe();
        Ok(Listing { lease, changes })
    }

    /// Watches that are open.
    pub fn len(&self) -> usize {
        lock(&self.inner.shared).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Lease {
    /// What is known of the leased object.
    pub fn lookup(&self) -> Lookup {
        lock(&self.state).lookup(&self.name)
    }

    /// Whether the cluster that it is from is still used: it is not once credentials have changed.
    pub fn is_alive(&self) -> bool {
        self.watches.strong_count() > 0
    }

    /// The leased object's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(inner) = self.watches.upgrade() else { return };
        let mut shared = lock(&inner.shared);
        let mut state = lock(&self.state);
        if !state.dismiss(self.number, &self.name, Instant::now()) {
            return;
        }
        if state.failure.is_some() && !state.synced {
            // It has never told anything, and would go on asking in vain.
            drop(state);
            shared.remove(&*self.key);
            return;
        }
        drop(state);
        drop(shared);
        let (watches, key) = (self.watches.clone(), self.key.clone());
        inner.runtime.spawn(async move {
            tokio::time::sleep(LINGER).await;
            let Some(inner) = watches.upgrade() else { return };
            let mut shared = lock(&inner.shared);
            // Whoever took a lease in between has cleared the mark, and whoever let it go again waits a full time.
            if shared
                .get(&key)
                .is_some_and(|watch| lock(&watch.state).idle_since.is_some_and(|since| since.elapsed() >= LINGER))
            {
                shared.remove(&key);
            }
        });
    }
}

/// All objects of a kind in a namespace. The watch may end when it is dropped.
pub struct Listing {
    lease: Lease,
    changes: watch::Receiver<u64>,
}

impl Listing {
    /// The objects, without managed fields; none while they are being listed.
    ///
    /// Errors: they can't be watched, with who may not do what, or what the server said.
    pub fn objects(&self) -> Result<Option<Vec<Arc<DynamicObject>>>, String> {
        lock(&self.lease.state).objects()
    }

    /// Whether it is over the watches of that cluster: it is not once credentials have changed.
    pub fn is_of(&self, watches: &Watches) -> bool {
        self.lease.watches.ptr_eq(&Arc::downgrade(&watches.inner))
    }

    /// Waits until something has changed since this was last called.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The watch has gone with the process' other ends.
            std::future::pending::<()>().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
