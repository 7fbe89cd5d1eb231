//! One object with one field, an injection that breaks it, and everything that may happen to both.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::super::{
    EntrySeen, Found, Health, InjectionDecision, InjectionEffect, InjectionPlan, InjectionSeen, decide,
};
use crate::api::{
    FailureInjection, FailureInjectionSpec, FailureInjectionStatus,
    failureinjection::{EntryState, FieldChange, InjectionPhase, JournalEntry, ObjectRef, Undo},
    names::FINALIZER,
};

/// Something that happens from outside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// The operator visits the injection.
    Visit,
    /// It visits and dies before the n-th write that the visit makes, or right after it.
    Crash { write: usize, after: bool },
    /// Time passes, in seconds.
    Pass(i64),
    /// Somebody changes the field that the fault changes.
    Foreign,
    /// The target is deleted.
    Remove,
    /// The target is deleted and made anew, with the fault's own value.
    Replace,
    /// The server refuses all writes to the target, or takes them again.
    Deny(bool),
    /// The kill switch.
    Halt(bool),
    /// `spec.abort`.
    Abort,
    /// The injection is deleted.
    Delete,
    /// The system is healthy.
    Heal,
}

/// The cluster and the injection as they are stored.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that may be so")]
pub(super) struct World {
    pub(super) injection: FailureInjection,
    pub(super) now: DateTime<Utc>,
    pub(super) value: String,
    pub(super) uid: Option<u32>,
    pub(super) has_finalizer: bool,
    /// The injection object is gone.
    pub(super) deleted: bool,
    pub(super) writes: usize,
    /// The uid and the value that the fault was made over, if it was.
    pub(super) made: Option<u32>,
    last_uid: u32,
    pub(super) foreign_overwritten: bool,
    pub(super) began_late: bool,
    pub(super) touched_without_journal: bool,
    /// The reasons of all events.
    pub(super) notes: Vec<String>,
    /// When the last decision wants to be made again.
    pub(super) wake_at: Option<DateTime<Utc>>,
    denied: bool,
    halted: bool,
    healthy: bool,
    foreign: bool,
}

impl World {
    pub(super) fn new(more: &Value) -> Self {
        let mut spec = json!({
            "serviceAccountName": "soak", "patch": {"patch": {"data": {"mode": "bad"}}},
            "target": {"apiVersion": "v1", "kind": "ConfigMap", "name": "settings"},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec: FailureInjectionSpec = serde_json::from_value(spec).unwrap();
        let mut injection = FailureInjection::new("x", spec);
        injection.metadata.uid = Some("injection".into());
        injection.metadata.generation = Some(1);
        Self {
            injection,
            now: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            value: "good".into(),
            uid: Some(1),
            has_finalizer: false,
            deleted: false,
            writes: 0,
            made: None,
            last_uid: 1,
            foreign_overwritten: false,
            began_late: false,
            touched_without_journal: false,
            notes: Vec::new(),
            wake_at: None,
            denied: false,
            halted: false,
            healthy: false,
            foreign: false,
        }
    }

    pub(super) fn status(&self) -> FailureInjectionStatus {
        self.injection.status.clone().unwrap_or_default()
    }

    /// The fault is in the cluster.
    pub(super) fn is_broken(&self) -> bool {
        self.made.is_some() && self.made == self.uid && self.value == "bad" && !self.foreign
    }

    pub(super) fn pass(&mut self, time: TimeDelta) {
        self.now += time;
    }

    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::Visit => drop(self.visit(None)),
            Act::Crash { write, after } => drop(self.visit(Some((write, after)))),
            Act::Pass(seconds) => self.pass(TimeDelta::seconds(seconds)),
            Act::Foreign => {
                if self.uid.is_some() {
                    self.value = "theirs".into();
                    self.foreign = true;
                }
            }
            Act::Remove => self.uid = None,
            Act::Replace => {
                // A uid is never given twice.
                self.last_uid += 1;
                self.uid = Some(self.last_uid);
                self.value = "bad".into();
                self.foreign = true;
            }
            Act::Deny(denied) => self.denied = denied,
            Act::Halt(halted) => self.halted = halted,
            Act::Abort => self.injection.spec.abort = true,
            Act::Delete => {
                self.injection
                    .metadata
                    .deletion_timestamp
                    .get_or_insert_with(|| serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
                if !self.has_finalizer {
                    self.deleted = true;
                }
            }
            Act::Heal => self.healthy = true,
        }
    }

    /// Visits until nothing moves any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            if !self.visit(None) {
                return;
            }
        }
        panic!("it never rests: {:#?}", self.status());
    }

    pub(super) fn until(&mut self, phase: InjectionPhase) {
        for _ in 0..20 {
            if self.status().phase == phase {
                return;
            }
            self.step();
        }
        panic!("it never is {phase:?}: {:#?}", self.status());
    }

    /// A visit that ends with its first write.
    pub(super) fn step(&mut self) {
        self.visit(Some((1, false)));
    }

    fn seen(&self) -> InjectionSeen {
        InjectionSeen { halted: self.halted.then(|| "halted".to_owned()), ..InjectionSeen::default() }
    }

    /// A visit as the shell makes it. True if something was stored. A crash ends it at a write.
    fn visit(&mut self, crash: Option<(usize, bool)>) -> bool {
        if self.deleted {
            return false;
        }
        let before = self.writes;
        let mut seen = self.seen();
        // How many writes may still be made. A crash right after the n-th write is one right before the next effect.
        let mut left = crash.map_or(usize::MAX, |(write, after)| write + usize::from(after));
        for _ in 0..16 {
            if !self.round(&mut seen, &mut left) || left == 0 {
                break;
            }
        }
        self.writes != before
    }

    fn write(&mut self, left: &mut usize) -> bool {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        self.writes += 1;
        true
    }

    /// One decision; true if something new is known after it.
    fn round(&mut self, seen: &mut InjectionSeen, left: &mut usize) -> bool {
        let plan = InjectionPlan::parse(&self.injection.spec, "seed");
        self.injection.metadata.finalizers = self.has_finalizer.then(|| vec![FINALIZER.to_owned()]);
        let InjectionDecision { status, effects, wake_at } = decide(plan.as_ref(), &self.injection, seen, self.now);
        self.wake_at = wake_at;
        if self.status() != status {
            assert!(
                self.status().phase == status.phase
                    || self.status().phase.may_become(status.phase)
                    || passes(self.status().phase, status.phase),
                "{:?} became {:?}",
                self.status().phase,
                status.phase
            );
            if !self.write(left) {
                return false;
            }
            self.injection.status = Some(status);
        }
        let mut news = false;
        for effect in effects {
            match effect {
                InjectionEffect::AddFinalizer => {
                    if !self.write(left) {
                        return false;
                    }
                    self.has_finalizer = true;
                    news = true;
                }
                InjectionEffect::RemoveFinalizer => {
                    if !self.write(left) {
                        return false;
                    }
                    assert!(!self.is_broken(), "the finalizer went before the fault (S6)");
                    self.has_finalizer = false;
                    self.deleted |= self.injection.metadata.deletion_timestamp.is_some();
                }
                InjectionEffect::Find => {
                    let found = self.find();
                    news |= seen.found.as_ref() != Some(&found);
                    seen.found = Some(found);
                }
                InjectionEffect::Inject(index) => {
                    let Some(what) = self.inject(index, left) else { return false };
                    news |= seen.entries.insert(index, what.clone()) != Some(what);
                }
                InjectionEffect::Revert(index) => {
                    let Some(what) = self.revert(index, left) else { return false };
                    news |= seen.entries.insert(index, what.clone()) != Some(what);
                }
                InjectionEffect::Look => {
                    let health = if self.healthy {
                        Health::Healthy { at: self.now }
                    } else {
                        Health::NotYet { message: "ill".into() }
                    };
                    news |= seen.health != health;
                    seen.health = health;
                }
                InjectionEffect::Delete => {
                    if self.write(left) {
                        self.deleted = true;
                    }
                }
                InjectionEffect::Notify(note) => self.notes.push(note.reason),
            }
        }
        news
    }

    fn find(&self) -> Found {
        let Some(uid) = self.uid else { return Found::Nothing { message: "there is none".into() } };
        let fields =
            vec![FieldChange { path: "/data/mode".into(), before: Some(json!(self.value)), after: Some(json!("bad")) }];
        let target = ObjectRef {
            kind: "ConfigMap".into(),
            name: "settings".into(),
            uid: uid.to_string(),
            ..ObjectRef::default()
        };
        let undo = Undo::Fields { subresource: String::new(), fields };
        Found::Targets { journal: vec![JournalEntry { target, undo, ..JournalEntry::default() }], candidates: Some(1) }
    }

    /// The recorded uid and old value of an entry that is stored.
    fn recorded(&self, index: usize) -> (Option<u32>, String) {
        let entry = &self.status().journal[index];
        let Undo::Fields { fields, .. } = &entry.undo else { unreachable!() };
        (entry.target.uid.parse().ok(), fields[0].before.as_ref().unwrap().as_str().unwrap().to_owned())
    }

    fn inject(&mut self, index: usize, left: &mut usize) -> Option<EntrySeen> {
        let (uid, before) = self.recorded(index);
        let superseded = EntrySeen::NeverBegan { reason: "Superseded".into(), message: "changed".into() };
        if self.uid != uid || self.uid.is_none() {
            return Some(superseded);
        }
        if self.value == "bad" {
            return Some(EntrySeen::Injected { at: self.now, message: String::new() });
        }
        if self.value != before {
            return Some(superseded);
        }
        if self.denied {
            return Some(EntrySeen::Failing { message: "denied".into() });
        }
        if !self.write(left) {
            return None;
        }
        let status = self.status();
        self.touched_without_journal |= !self.has_finalizer || status.journal.is_empty() || status.deadline.is_none();
        self.began_late |= status.deadline.is_some_and(|deadline| self.now >= deadline);
        self.value = "bad".into();
        self.made = self.uid;
        self.foreign = false;
        Some(EntrySeen::Injected { at: self.now, message: String::new() })
    }

    fn revert(&mut self, index: usize, left: &mut usize) -> Option<EntrySeen> {
        let (uid, before) = self.recorded(index);
        if self.uid != uid || self.uid.is_none() {
            return Some(EntrySeen::Gone { message: "gone".into() });
        }
        if self.value == before {
            return Some(EntrySeen::Reverted { message: String::new() });
        }
        if self.value != "bad" {
            return Some(EntrySeen::Superseded { message: "changed".into() });
        }
        if self.denied {
            return Some(EntrySeen::Failing { message: "denied".into() });
        }
        if !self.write(left) {
            return None;
        }
        self.foreign_overwritten |= self.foreign;
        self.value = before;
        // Only what is read back counts: the next look.
        self.revert(index, left)
    }

    /// Every entry is in a final state.
    pub(super) fn all_undone(&self) -> bool {
        self.status().journal.iter().all(|entry| EntryState::is_final(entry.state))
    }
}

/// Phases that one decision passes through.
fn passes(from: InjectionPhase, to: InjectionPhase) -> bool {
    from != to
        && InjectionPhase::ALL
            .iter()
            .any(|next| from.may_become(*next) && (next.may_become(to) || passes_once(*next, to)))
}

fn passes_once(from: InjectionPhase, to: InjectionPhase) -> bool {
    InjectionPhase::ALL.iter().any(|next| {
        from.may_become(*next)
            && (next.may_become(to)
                || InjectionPhase::ALL.iter().any(|last| next.may_become(*last) && last.may_become(to)))
    })
}
