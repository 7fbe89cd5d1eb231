//! What a shared watch has told, and who is interested in what.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kube::{
    api::{DynamicObject, TypeMeta},
    runtime::watcher::Event,
};
use tokio::{sync::watch, time::Instant};

use super::{
    super::{
        RunRef,
        error::{ApiFailure, Class, DENIED_PATIENCE},
    },
    kept::Kept,
};

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

#[derive(Default)]
pub(super) struct State {
    pub(super) synced: bool,
    pub(super) failure: Option<ApiFailure>,
    /// Since when failures of this class come.
    failing_since: Option<Instant>,
    denial_told: bool,
    objects: HashMap<String, Kept>,
    /// A list that is being read; none between lists.
    listing: Option<HashMap<String, Kept>>,
    /// Who waits for which name, and by which lease.
    interests: HashMap<String, HashMap<u64, RunRef>>,
    /// Leases of whole lists.
    listeners: HashSet<u64>,
    /// Counts what changed, for those who hold a whole list.
    pub(super) changes: watch::Sender<u64>,
    next_lease: u64,
    pub(super) idle_since: Option<Instant>,
}

impl State {
    /// Without a run the lease is one of the whole list.
    pub(super) fn admit(&mut self, run: Option<RunRef>, name: &str) -> u64 {
        self.idle_since = None;
        self.next_lease += 1;
        if let Some(run) = run {
            self.interests.entry(name.to_owned()).or_default().insert(self.next_lease, run);
        } else {
            self.listeners.insert(self.next_lease);
            self.objects
                .values_mut()
                .chain(self.listing.iter_mut().flat_map(HashMap::values_mut))
                .for_each(Kept::unfold);
        }
        self.next_lease
    }

    /// Answers whether nobody is interested any more.
    pub(super) fn dismiss(&mut self, number: u64, name: &str, now: Instant) -> bool {
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

    pub(super) fn objects(&self) -> Result<Option<Vec<Arc<DynamicObject>>>, String> {
        // Nothing has the empty name.
        match self.lookup("") {
            Lookup::Failed { message, .. } => Err(message),
            Lookup::Syncing => match &self.failure {
                Some(failure) if !self.may_pass(failure) => Err(failure.message.clone()),
                _ => Ok(None),
            },
            _ => Ok(Some(self.objects.values().map(Kept::get).collect())),
        }
    }

    pub(super) fn lookup(&self, name: &str) -> Lookup {
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
        self.objects.get(name).map_or(Lookup::Absent, |object| Lookup::Present(object.get()))
    }

    /// Whether a refusal is too young to be believed.
    fn may_pass(&self, failure: &ApiFailure) -> bool {
        failure.class == Class::Forbidden && self.failing_since.is_some_and(|since| since.elapsed() < DENIED_PATIENCE)
    }

    /// Takes in an event and answers with the runs to be woken.
    pub(super) fn take_in(&mut self, event: Result<Event<DynamicObject>, ApiFailure>, types: &TypeMeta) -> Vec<RunRef> {
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
                let (name, kept) = self.keep(object, types);
                self.listing.get_or_insert_default().insert(name, kept);
                Vec::new()
            }
            Event::InitDone => {
                let first = !std::mem::replace(&mut self.synced, true) || self.failure.take().is_some();
                let new = self.listing.take().unwrap_or_default();
                let old = std::mem::replace(&mut self.objects, new);
                self.all_interested(|name| first || version(&old, name) != version(&self.objects, name))
            }
            Event::Apply(object) => {
                self.failure = None;
                let (name, kept) = self.keep(object, types);
                self.objects.insert(name.clone(), kept);
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

    fn keep(&self, object: DynamicObject, types: &TypeMeta) -> (String, Kept) {
        let name = object.metadata.name.clone().unwrap_or_default();
        (name, Kept::new(object, types, !self.listeners.is_empty()))
    }

    fn interested(&self, name: &str) -> Vec<RunRef> {
        unique(self.interests.get(name).into_iter().flat_map(HashMap::values))
    }

    fn all_interested(&self, concerns: impl Fn(&str) -> bool) -> Vec<RunRef> {
        unique(self.interests.iter().filter(|(name, _)| concerns(name)).flat_map(|(_, leases)| leases.values()))
    }
}

fn version<'a>(objects: &'a HashMap<String, Kept>, name: &str) -> Option<&'a str> {
    objects.get(name)?.version()
}

fn unique<'a>(runs: impl Iterator<Item = &'a RunRef>) -> Vec<RunRef> {
    let mut runs: Vec<RunRef> = runs.cloned().collect();
    runs.sort();
    runs.dedup();
    runs
}

#[cfg(test)]
mod tests {
    use super::{super::super::Woken, *};

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
