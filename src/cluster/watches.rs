//! Shared watches of whatever steps wait for, each as the tenant that asked.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use kube::{
    api::{ApiResource, DynamicObject, TypeMeta},
    runtime::watcher::Event,
};
use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{
    OnWatchFailure, RunRef, Wake,
    client::{Account, Tenants},
    error::{ApiFailure, Class, DENIED_PATIENCE},
    follow::{Selection, follow},
    kinds::Kind,
    pods::AbortOnDrop,
};

/// A watch goes on for so long after its last lease: the next cycle often waits for the same.
const LINGER: Duration = Duration::from_mins(1);
/// Watches at the same time, each a connection of its own.
const MAX_WATCHES: usize = 1_024;
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is known of an object.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Not listed yet.
    Syncing,
    /// There is none of that name.
    Absent,
    /// As it was last seen, without managed fields.
    Present(Arc<DynamicObject>),
    /// It can't be watched.
    Failed {
        /// A stable word.
        reason: String,
        /// Who may not do what, or what the server said.
        message: String,
        /// Whether that may pass by itself.
        transient: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    account: Account,
    resource: ApiResource,
    namespace: Option<String>,
}

#[derive(Default)]
struct State {
    synced: bool,
    failure: Option<ApiFailure>,
    /// Since when failures of this class come.
    failing_since: Option<Instant>,
    denial_told: bool,
    objects: HashMap<String, Arc<DynamicObject>>,
    /// A list that is being read; none between lists.
    listing: Option<HashMap<String, Arc<DynamicObject>>>,
    /// Who waits for which name, and by which lease.
    interests: HashMap<String, HashMap<u64, RunRef>>,
    /// Leases of whole lists.
    listeners: HashSet<u64>,
    /// Counts what changed, for those who hold a whole list.
    changes: watch::Sender<u64>,
    next_lease: u64,
    idle_since: Option<Instant>,
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

impl State {
    /// Without a run the lease is one of the whole list.
    fn admit(&mut self, run: Option<RunRef>, name: &str) -> u64 {
        self.idle_since = None;
        self.next_lease += 1;
        if let Some(run) = run {
            self.interests.entry(name.to_owned()).or_default().insert(self.next_lease, run);
        } else {
            self.listeners.insert(self.next_lease);
        }
        self.next_lease
    }

    /// Answers whether nobody is interested any more.
    fn dismiss(&mut self, number: u64, name: &str, now: Instant) -> bool {
        if let Some(leases) = self.interests.get_mut(name) {
            leases.remove(&number);
            if leases.is_empty() {
                self.interests.remove(name);
            }
        }
        self.listeners.remove(&number);
        let idle = self.interests.is_empty() && self.listeners.is_empty();
        self.idle_since = idle.then_some(now);
        idle
    }

    fn objects(&self) -> Result<Option<Vec<Arc<DynamicObject>>>, String> {
        // Nothing has the empty name.
        match self.lookup("") {
            Lookup::Failed { message, .. } => Err(message),
            Lookup::Syncing => match &self.failure {
                Some(failure) if !self.may_pass(failure) => Err(failure.message.clone()),
                _ => Ok(None),
            },
            _ => Ok(Some(self.objects.values().cloned().collect())),
        }
    }

    fn lookup(&self, name: &str) -> Lookup {
        match &self.failure {
            // What was known stays good enough while the server stumbles; a right that was taken away does not.
            Some(failure) if self.may_pass(failure) => self.known(name),
            Some(failure) if !self.synced || failure.class != Class::Transient && failure.class != Class::Conflict => {
                Lookup::Failed {
                    reason: failure.class.reason().into(),
                    message: failure.message.clone(),
                    transient: failure.class.is_transient(),
                }
            }
            _ => self.known(name),
        }
    }

    fn known(&self, name: &str) -> Lookup {
        if !self.synced {
            return Lookup::Syncing;
        }
        self.objects.get(name).map_or(Lookup::Absent, |object| Lookup::Present(object.clone()))
    }

    /// Whether a refusal is too young to be believed.
    fn may_pass(&self, failure: &ApiFailure) -> bool {
        failure.class == Class::Forbidden && self.failing_since.is_some_and(|since| since.elapsed() < DENIED_PATIENCE)
    }

    /// Takes in an event and answers with the runs to be woken.
    fn take_in(&mut self, event: Result<Event<DynamicObject>, ApiFailure>, types: &TypeMeta) -> Vec<RunRef> {
        let silent = matches!(event, Ok(Event::Init | Event::InitApply(_)));
        let woken = self.note(event, types);
        if !silent {
            self.changes.send_modify(|changes| *changes += 1);
        }
        woken
    }

    fn note(&mut self, event: Result<Event<DynamicObject>, ApiFailure>, types: &TypeMeta) -> Vec<RunRef> {
        let event = match event {
            Ok(event) => event,
            Err(failure) => {
                let same = self.failure.as_ref().is_some_and(|old| old.class == failure.class);
                let before = self.failing_since.filter(|_| same);
                self.failing_since = Some(before.unwrap_or_else(Instant::now));
                // A refusal is told twice: when it comes, and when it has to be believed.
                let news = !same || failure.class == Class::Forbidden && !self.may_pass(&failure) && !self.denial_told;
                self.denial_told = failure.class == Class::Forbidden && !self.may_pass(&failure);
                self.failure = Some(failure);
                return if news { self.all_interested(|_| true) } else { Vec::new() };
            }
        };
        match event {
            Event::Init => {
                self.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let (name, object) = trim(object, types);
                self.listing.get_or_insert_default().insert(name, object);
                Vec::new()
            }
            Event::InitDone => {
                let first = !std::mem::replace(&mut self.synced, true) || self.failure.take().is_some();
                let new = self.listing.take().unwrap_or_default();
                let old = std::mem::replace(&mut self.objects, new);
                let version = |object: Option<&Arc<DynamicObject>>| {
                    object.and_then(|object| object.metadata.resource_version.clone())
                };
                self.all_interested(|name| first || version(old.get(name)) != version(self.objects.get(name)))
            }
            Event::Apply(object) => {
                self.failure = None;
                let (name, object) = trim(object, types);
                self.objects.insert(name.clone(), object);
                self.interested(&name)
            }
            Event::Delete(object) => {
                self.failure = None;
                let name = object.metadata.name.unwrap_or_default();
                self.objects.remove(&name);
                self.interested(&name)
            }
        }
    }

    fn interested(&self, name: &str) -> Vec<RunRef> {
        unique(self.interests.get(name).into_iter().flat_map(HashMap::values))
    }

    fn all_interested(&self, concerns: impl Fn(&str) -> bool) -> Vec<RunRef> {
        unique(self.interests.iter().filter(|(name, _)| concerns(name)).flat_map(|(_, leases)| leases.values()))
    }
}

fn unique<'a>(runs: impl Iterator<Item = &'a RunRef>) -> Vec<RunRef> {
    let mut runs: Vec<RunRef> = runs.cloned().collect();
    runs.sort();
    runs.dedup();
    runs
}

fn trim(mut object: DynamicObject, types: &TypeMeta) -> (String, Arc<DynamicObject>) {
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    // Items of a list come without their own kind.
    object.types.get_or_insert_with(|| types.clone());
    (object.metadata.name.clone().unwrap_or_default(), Arc::new(object))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{super::Woken, *};

    fn run(name: &str) -> RunRef {
        RunRef { what: Woken::Run, namespace: "n".into(), name: name.into(), uid: format!("uid-{name}") }
    }

    fn object(name: &str, version: &str) -> DynamicObject {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name, "resourceVersion": version, "managedFields": [{"manager": "m"}]}})).unwrap()
    }

    fn types() -> TypeMeta {
        TypeMeta { api_version: "v1".into(), kind: "ConfigMap".into() }
    }

    #[test]
    fn only_runs_that_wait_for_the_object_are_woken() {
        let mut state = State::default();
        state.admit(Some(run("one")), "a");
        state.admit(Some(run("two")), "b");
        assert!(matches!(state.lookup("a"), Lookup::Syncing));
        state.take_in(Ok(Event::Init), &types());
        state.take_in(Ok(Event::InitApply(object("a", "1"))), &types());
        assert_eq!(state.take_in(Ok(Event::InitDone), &types()).len(), 2, "both learn that the list is there");
        assert_eq!(state.take_in(Ok(Event::Apply(object("b", "2"))), &types()), [run("two")]);
        let Lookup::Present(seen) = state.lookup("b") else { unreachable!() };
        assert!(seen.metadata.managed_fields.is_none());
        assert_eq!(state.take_in(Ok(Event::Delete(object("a", "3"))), &types()), [run("one")]);
        assert!(matches!(state.lookup("a"), Lookup::Absent));
    }

    #[test]
    fn a_list_that_lost_an_object_wakes_whoever_waits_for_it() {
        let mut state = State::default();
        state.admit(Some(run("one")), "a");
        for event in [Event::Init, Event::InitApply(object("a", "1")), Event::InitDone, Event::Init] {
            state.take_in(Ok(event), &types());
        }
        assert!(matches!(state.lookup("a"), Lookup::Present(_)), "the old list is good until the new one is read");
        assert_eq!(state.take_in(Ok(Event::InitDone), &types()), [run("one")]);
    }

    #[test]
    fn a_lost_right_is_told_and_a_stumble_is_not() {
        let mut state = State::default();
        state.admit(Some(run("one")), "a");
        state.take_in(Ok(Event::Init), &types());
        state.take_in(Ok(Event::InitDone), &types());
        state.take_in(Err(ApiFailure { class: Class::Transient, message: "reset".into(), ambiguous: true }), &types());
        assert!(matches!(state.lookup("a"), Lookup::Absent));
        let woken = state.take_in(Err(ApiFailure::definite(Class::Forbidden, "may not list")), &types());
        assert_eq!(woken, [run("one")]);
        assert!(matches!(state.lookup("a"), Lookup::Absent), "a server that has just started refuses everybody");
        state.failing_since = Instant::now().checked_sub(DENIED_PATIENCE);
        let woken = state.take_in(Err(ApiFailure::definite(Class::Forbidden, "may not list")), &types());
        assert_eq!(woken, [run("one")]);
        assert!(matches!(state.lookup("a"), Lookup::Failed { transient: false, .. }));
        let woken = state.take_in(Err(ApiFailure::definite(Class::Forbidden, "may not list")), &types());
        assert!(woken.is_empty(), "it is told once");
    }
}
