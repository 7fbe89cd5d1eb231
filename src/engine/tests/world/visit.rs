//! A visit of the shell in a simulated world: what is decided is written and done, on the terms that always hold.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::{Fate, Pod, World, live, name};
use crate::{
    api::{
        SoakRunStatus,
        names::FINALIZER,
        status::{Outcome, Section, StepStatus},
        target::Rotate,
    },
    engine::{Effect, LockSeen, NoteType, Seen, StepEnd, StepKey, StepSeen, decide, held_name},
};

impl World {
    /// One visit of the shell. False when nothing was written and nothing done.
    pub fn visit(&mut self) -> bool {
        self.visit_until(usize::MAX)
    }

    /// One visit that crashes after so many actions, the write being the first.
    pub fn visit_until(&mut self, crash_after: usize) -> bool {
        let decision = self.decide(&self.seen());
        let now_live: Vec<StepKey> = live(&decision.status).into_iter().map(|(key, _)| key).collect();
        for effect in &decision.effects {
            if let Effect::Begin(key) | Effect::Observe(key) | Effect::Stop(key) = effect {
                assert!(now_live.contains(key), "{effect:?} is about a step that has ended");
            }
        }
        let left = self.pods.values().any(|pod| pod.target.is_some());
        let patience = decision.status.finished_at.is_some_and(|at| self.now < at + TimeDelta::minutes(10));
        assert!(
            !(left && patience && decision.effects.contains(&Effect::RemoveFinalizer)),
            "pods on targets go before the finalizer does"
        );
        let mut actions = 0;
        let changed = decision.status != self.status() && decision.status != SoakRunStatus::default();
        if changed {
            if crash_after == 0 {
                self.crash();
                return true;
            }
            if self.phases.last() != Some(&decision.status.phase) {
                self.phases.push(decision.status.phase);
            }
            let generation = self.run.metadata.generation.unwrap();
            assert_eq!(decision.status.observed_generation, generation, "S3: a write tells the generation acted on");
            if decision.status.attempt != self.status().attempt {
                // As the shell does: a new attempt knows nothing of the last one's spec.
                self.asked_to_validate = false;
            }
            self.run.status = Some(decision.status);
            self.writes += 1;
            actions += 1;
        }
        let mut did = changed;
        for effect in decision.effects {
            if actions >= crash_after {
                self.crash();
                return true;
            }
            if self.perform(effect) {
                actions += 1;
                did = true;
            }
        }
        assert!(did || decision.wake_at.is_none_or(|at| at > self.now), "it is woken for nothing");
        did
    }

    /// The pods that the first visit after a restart deletes to which the cache tells this status, and whose write does not
    /// find that out.
    pub fn deletes_believing(&self, status: &SoakRunStatus) -> Vec<String> {
        let mut run = self.run.clone();
        run.status = Some(status.clone());
        let seen = Seen { validation: None, steps: BTreeMap::new(), ..self.seen() };
        let decision = decide(self.plan.as_ref(), &run, &seen, self.now);
        let deleted = decision.effects.into_iter().filter_map(|effect| match effect {
            Effect::DeletePod { name, .. } => Some(name),
            _ => None,
        });
        if decision.status == *status { deleted.collect() } else { Vec::new() }
    }

    /// Forgets everything that is not in the cluster.
    pub fn crash(&mut self) {
        self.done.clear();
        self.asked_for_lock = false;
    }

    fn perform(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::AddFinalizer => self.run.metadata.finalizers = Some(vec![FINALIZER.into()]),
            Effect::RemoveFinalizer => {
                assert_ne!(self.lock, LockSeen::Held, "the key is given back before the finalizer goes");
                self.run.metadata.finalizers = None;
                self.gone = self.run.metadata.deletion_timestamp.is_some();
            }
            Effect::Begin(key) => self.begin(&key),
            Effect::Stop(key) => {
                let now = self.now;
                let Some(pod) = self.pods.get_mut(&name(&key)) else { return false };
                if pod.stopped.is_some() {
                    return false;
                }
                pod.stopped = Some(now);
            }
            Effect::DeletePod { name, target, .. } => {
                let Some(pod) = self.pods.remove(&name) else { return false };
                assert_eq!(pod.target.unwrap_or_default(), target, "a pod is deleted where it is");
            }
            Effect::AcquireLock(_) => {
                let known = std::mem::replace(&mut self.asked_for_lock, true);
                if matches!(self.lock, LockSeen::HeldBy(_)) {
                    return !known;
                }
                return std::mem::replace(&mut self.lock, LockSeen::Held) != LockSeen::Held || !known;
            }
            Effect::ReleaseLock(_) => {
                let known = std::mem::replace(&mut self.asked_for_lock, true);
                if self.lock == LockSeen::Held {
                    self.lock = LockSeen::Free;
                    return true;
                }
                return !known;
            }
            Effect::Release(object) => {
                self.asked_to_release.push(object.name.clone());
                let held = held_name(&object);
                if self.released.contains(&held) {
                    return false;
                }
                self.released.push(held);
            }
            Effect::StoreRecord if self.store_works => {
                let status = self.status();
                let pass = status.current.unwrap();
                if pass.section == Section::Cycle {
                    self.outcomes.insert((status.attempt, pass.cycle), pass.outcome.unwrap());
                }
                return self.records.insert((pass.section, pass.cycle, status.attempt));
            }
            Effect::KeepRecord => {
                let status = self.status();
                let pass = status.current.unwrap();
                return self.kept.insert((pass.section, pass.cycle, status.attempt));
            }
            Effect::ForwardRecords(records) => {
                assert!(!records.is_empty() && !self.status().phase.is_final(), "nothing waits for the store");
                if !self.store_works {
                    return false;
                }
                let attempt = self.status().attempt;
                let places = records.iter().map(|record| (record.section, record.cycle, attempt));
                return places.filter(|place| self.records.insert(*place)).count() > 0;
            }
            Effect::StoreSummary if self.store_works => return self.summaries.insert(self.status().attempt),
            Effect::Notify(note) => {
                if note.type_ == NoteType::Warning {
                    self.warnings.push(note.reason.clone());
                }
                self.notes.push(note.reason);
                return false;
            }
            Effect::PruneRecords(cycles) => {
                self.pruned.extend(cycles);
                return false;
            }
            Effect::DeleteRun => self.delete(),
            Effect::Validate if !self.asked_to_validate && self.validation.is_some() => self.asked_to_validate = true,
            Effect::StoreRecord | Effect::StoreSummary | Effect::Observe(_) | Effect::Validate => return false,
        }
        true
    }

    fn begin(&mut self, key: &StepKey) {
        let deleted = self.run.metadata.deletion_timestamp.is_some();
        assert!(!deleted || key.section == Section::Cleanup, "S10: {key:?} began after the deletion");
        let plan = self.plan.as_ref().unwrap();
        let leaf = plan.leaf(key.section, &key.phase, &key.step).unwrap();
        let name_of_target = leaf.action.target().map(str::to_owned);
        let runs_pod = leaf.action.kind() == "pod";
        let target = self.step_of(key).target;
        assert_eq!(target, name_of_target.map(|name| self.expected(&name, key)), "{key:?} on the wrong cluster");
        assert!(
            target.as_ref().is_none_or(|it| self.seen().away(it).is_none()),
            "{key:?} began on a cluster that is away"
        );
        self.begun.push((key.clone(), target.clone()));
        if !runs_pod {
            // Everything else is done by one call.
            self.done.insert(key.clone(), StepSeen::Ended(StepEnd::succeeded()));
            return;
        }
        assert!(!self.ever.contains(key), "S1: a second pod for {key:?}");
        self.ever.push(key.clone());
        let attempts = self.ever.iter().filter(|it| it.step == key.step).count();
        let fate = self
            .fates
            .get(&key.step)
            .map_or(Fate::Succeeds(TimeDelta::seconds(2)), |fates| fates[(attempts - 1).min(fates.len() - 1)].clone());
        self.pods.insert(name(key), Pod { key: key.clone(), created: self.now, fate, stopped: None, target });
    }

    /// Where a role's step belongs: the roles as they were at the beginning, swapped for each earlier cycle that ended so.
    fn expected(&self, name: &str, key: &StepKey) -> String {
        let plan = &self.plan.as_ref().unwrap().targets;
        let earlier = |cycle: u32| match key.section {
            Section::Setup => false,
            Section::Cycle => cycle < key.cycle,
            Section::Cleanup => true,
        };
        let swaps = self.outcomes.iter().filter(|((attempt, cycle), outcome)| {
            *attempt == key.run_attempt
                && earlier(*cycle)
                && match plan.rotate {
                    Rotate::Never => false,
                    Rotate::AfterSuccess => **outcome == Outcome::Succeeded,
                    Rotate::AfterEveryCycle => **outcome != Outcome::Inconclusive,
                }
        });
        let swapped = swaps.count() % 2 == 1;
        let Some(first) = plan.roles.get(name) else { return name.to_owned() };
        let other = plan.roles.values().find(|target| *target != first).filter(|_| swapped);
        other.unwrap_or(first).clone()
    }

    fn step_of(&self, key: &StepKey) -> StepStatus {
        let phases = self.status().current.unwrap().phases;
        let phase = phases.into_iter().find(|phase| phase.name == key.phase).unwrap();
        phase.steps.into_iter().find(|step| step.name == key.step).unwrap()
    }
}
