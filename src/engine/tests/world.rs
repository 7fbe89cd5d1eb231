//! A simulated world: a run as it is stored, pods with fates, a clock that only the test moves.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    api::{
        SoakRun, SoakRunStatus,
        names::FINALIZER,
        status::{Failure, Outcome, OutputValue, RecordRef, RunPhase, Section, StepState, StepStatus},
        target::Rotate,
    },
    engine::{
        Effect, Forwarding, LockSeen, Plan, PlanError, PodSeen, RecordSeen, Seen, StepEnd, StepKey, StepSeen,
        TargetSeen, Validation, decide, monitor::MonitorSeen, names::attempt_name,
    },
};

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// Runs until somebody ends it.
    Runs,
    /// Ends well after so long.
    Succeeds(TimeDelta),
    /// Ends with this exit code after so long.
    Fails(TimeDelta, i32),
    /// Runs until somebody ends it, and then hands something on and exits with this code.
    Yields(i32),
    /// Runs on, whoever wants to end it.
    Stays,
    /// Never gets a node.
    Pends,
}

/// A pod that exists.
#[derive(Clone, Debug)]
pub struct Pod {
    pub key: StepKey,
    pub created: DateTime<Utc>,
    pub fate: Fate,
    pub stopped: Option<DateTime<Utc>>,
    pub target: Option<String>,
}

/// Everything outside of the engine.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the world")]
pub struct World {
    pub run: SoakRun,
    pub now: DateTime<Utc>,
    pub pods: BTreeMap<String, Pod>,
    pub ever: Vec<StepKey>,
    /// Fates by step path; a pod step without one succeeds after two seconds.
    pub fates: BTreeMap<String, Vec<Fate>>,
    pub records: BTreeSet<(Section, u32, u32)>,
    /// In ConfigMaps, for the store.
    pub kept: BTreeSet<(Section, u32, u32)>,
    pub summaries: BTreeSet<u32>,
    pub notes: Vec<String>,
    pub released: Vec<String>,
    pub asked_to_release: Vec<String>,
    /// How the cycles of each attempt ended whose record is stored.
    pub outcomes: BTreeMap<(u32, u32), Outcome>,
    /// What was begun on which target.
    pub begun: Vec<(StepKey, Option<String>)>,
    pub targets: BTreeMap<String, TargetSeen>,
    /// Who holds the key, as the server has it.
    pub lock: LockSeen,
    asked_for_lock: bool,
    pub validation: Option<Validation>,
    asked_to_validate: bool,
    pub store_works: bool,
    pub writes: usize,
    pub phases: Vec<RunPhase>,
    /// Knowledge that dies with the process.
    pub done: BTreeMap<StepKey, StepSeen>,
    pub gone: bool,
    pub monitors: BTreeMap<String, MonitorSeen>,
    plan: Result<Plan, PlanError>,
}

impl World {
    /// A run with this spec, just created.
    pub fn new(spec: Value) -> Self {
        let mut run: SoakRun = serde_json::from_value(json!({
            "apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun",
            "metadata": {"name": "run", "namespace": "ns", "uid": "uid", "generation": 1},
            "spec": merge(json!({"serviceAccountName": "soak", "cycles": 1, "phases": []}), spec),
        }))
        .unwrap();
        run.metadata.resource_version = Some("1".into());
        let plan = Plan::parse(&run.spec);
        Self {
            run,
            now: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            pods: BTreeMap::new(),
            ever: Vec::new(),
            fates: BTreeMap::new(),
            records: BTreeSet::new(),
            kept: BTreeSet::new(),
            summaries: BTreeSet::new(),
            notes: Vec::new(),
            released: Vec::new(),
            asked_to_release: Vec::new(),
            outcomes: BTreeMap::new(),
            begun: Vec::new(),
            targets: BTreeMap::new(),
            lock: LockSeen::Free,
            asked_for_lock: false,
            validation: Some(Validation::Accepted),
            asked_to_validate: false,
            store_works: true,
            writes: 0,
            phases: Vec::new(),
            done: BTreeMap::new(),
            gone: false,
            monitors: BTreeMap::new(),
            plan,
        }
    }

    /// Gives the pods of a step their fates, the last one for all further attempts.
    pub fn fate(mut self, step: &str, fates: &[Fate]) -> Self {
        self.fates.insert(step.into(), fates.to_vec());
        self
    }

    /// Whether the answer to a validation is on its way.
    pub fn asked_to_validate(&self) -> bool {
        self.asked_to_validate
    }

    pub fn status(&self) -> SoakRunStatus {
        self.run.status.clone().unwrap_or_default()
    }

    /// Changes the spec, as a user would.
    pub fn edit(&mut self, spec: Value) {
        let old = serde_json::to_value(&self.run.spec).unwrap();
        self.run.spec = serde_json::from_value(merge(old, spec)).unwrap();
        *self.run.metadata.generation.as_mut().unwrap() += 1;
        self.plan = Plan::parse(&self.run.spec);
    }

    /// Deletes the run, as a user would.
    pub fn delete(&mut self) {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::from_second(self.now.timestamp()).unwrap(),
        );
        self.run.metadata.deletion_timestamp.get_or_insert(now);
        // The API server waits for finalizers only.
        self.gone = self.run.metadata.finalizers.iter().flatten().next().is_none();
    }

    /// What the shell would observe.
    pub fn seen(&self) -> Seen {
        let status = self.status();
        let mut steps = BTreeMap::new();
        for (key, _) in live(&status) {
            let seen = self.done.get(&key).cloned().unwrap_or_else(|| self.look(&key));
            steps.insert(key, seen);
        }
        let pass = status.current.as_ref().map_or((Section::Cycle, 0), |pass| (pass.section, pass.cycle));
        let stored = |found: bool| {
            if found {
                RecordSeen::Stored { digest: "sha256:1".into() }
            } else if self.store_works {
                RecordSeen::Missing
            } else {
                RecordSeen::Failing { message: "no answer".into() }
            }
        };
        let kept = self.kept.contains(&(pass.0, pass.1, status.attempt));
        let record = match stored(self.records.contains(&(pass.0, pass.1, status.attempt))) {
            RecordSeen::Missing | RecordSeen::Failing { .. } if kept => RecordSeen::Kept { digest: "sha256:1".into() },
            record => record,
        };
        let arrived = |record: &RecordRef| self.records.contains(&(record.section, record.cycle, status.attempt));
        Seen {
            steps,
            forwarding: Forwarding {
                done: status.records.waiting.iter().copied().filter(arrived).collect(),
                failure: (!self.store_works).then(|| "no answer".into()),
            },
            validation: self.validation.clone().filter(|_| self.asked_to_validate),
            record_of: pass,
            record,
            summary: stored(self.summaries.contains(&status.attempt)),
            released: self.released.clone(),
            targets: self.targets.clone(),
            lock: if self.asked_for_lock { self.lock.clone() } else { LockSeen::Unknown },
            monitors: self.monitors.clone(),
            pods: self
                .pods
                .iter()
                .map(|(name, pod)| PodSeen {
                    name: name.clone(),
                    uid: name.clone(),
                    key: Some(pod.key.clone()),
                    ended: matches!(self.judge(pod), StepSeen::Ended(_)),
                    deleting: false,
                    target: pod.target.clone().unwrap_or_default(),
                })
                .collect(),
        }
    }

    fn look(&self, key: &StepKey) -> StepSeen {
        self.pods.get(&name(key)).map_or(StepSeen::Absent, |pod| self.judge(pod))
    }

    fn judge(&self, pod: &Pod) -> StepSeen {
        let age = self.now - pod.created;
        let started = pod.created + TimeDelta::seconds(1);
        if let Some(stopped) = pod.stopped
            && pod.fate != Fate::Stays
            && self.now >= stopped + TimeDelta::seconds(1)
        {
            // A pod is stopped by its deadline, so that is what it tells.
            let (exit_code, outputs) = match pod.fate {
                Fate::Yields(code) => (code, [("answer".to_owned(), OutputValue::Integer(42))].into()),
                _ => (143, BTreeMap::new()),
            };
            let failure = Failure {
                reason: "Timeout".into(),
                message: "terminated".into(),
                transient: false,
                exit_code: Some(exit_code),
                class: None,
            };
            return StepSeen::Ended(StepEnd {
                failure: Some(failure),
                outputs,
                exit_code: Some(exit_code),
                pod: Some(name(&pod.key)),
                ..StepEnd::default()
            });
        }
        match &pod.fate {
            Fate::Pends => StepSeen::Pending { reason: "Unschedulable".into(), message: "no node".into() },
            _ if age < TimeDelta::seconds(1) => {
                StepSeen::Pending { reason: "ContainerCreating".into(), message: String::new() }
            }
            Fate::Succeeds(after) if age >= *after => {
                let outputs = [("answer".to_owned(), OutputValue::Integer(42))].into();
                StepSeen::Ended(StepEnd {
                    outputs,
                    exit_code: Some(0),
                    pod: Some(name(&pod.key)),
                    ..StepEnd::default()
                })
            }
            Fate::Fails(after, code) if age >= *after => {
                let failure = Failure {
                    reason: "NonZeroExit".into(),
                    message: format!("exit {code}"),
                    transient: *code == 99,
                    exit_code: Some(*code),
                    class: None,
                };
                StepSeen::Ended(StepEnd {
                    failure: Some(failure),
                    exit_code: Some(*code),
                    pod: Some(name(&pod.key)),
                    ..StepEnd::default()
                })
            }
            _ => StepSeen::Running { since: Some(started), message: String::new() },
        }
    }

    /// One visit of the shell. False when nothing was written and nothing done.
    pub fn visit(&mut self) -> bool {
        self.visit_until(usize::MAX)
    }

    /// One visit that crashes after so many actions, the write being the first.
    pub fn visit_until(&mut self, crash_after: usize) -> bool {
        let decision = decide(self.plan.as_ref(), &self.run, &self.seen(), self.now);
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
                let held = crate::engine::held_name(&object);
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
            Effect::ForwardRecords(records) if self.store_works => {
                let attempt = self.status().attempt;
                let places = records.iter().map(|record| (record.section, record.cycle, attempt));
                return places.filter(|place| self.records.insert(*place)).count() > 0;
            }
            Effect::StoreSummary if self.store_works => return self.summaries.insert(self.status().attempt),
            Effect::Notify(note) => {
                self.notes.push(note.reason);
                return false;
            }
            Effect::DeleteRun => self.delete(),
            Effect::Validate if !self.asked_to_validate && self.validation.is_some() => self.asked_to_validate = true,
            Effect::StoreRecord
            | Effect::ForwardRecords(_)
            | Effect::StoreSummary
            | Effect::Observe(_)
            | Effect::Validate
            | Effect::PruneRecords(_) => return false,
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

    /// Visits until nothing moves, then lets time pass to the next wake-up, again and again, for at most `limit`.
    pub fn go(&mut self, limit: TimeDelta) {
        let end = self.now + limit;
        while self.now < end && !self.gone {
            self.settle();
            if self.gone || self.status().phase.is_final() {
                return;
            }
            self.pass_time();
        }
    }

    /// Visits until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            if self.gone || !self.visit() {
                return;
            }
        }
        panic!("it never settles: {:#?}", self.status());
    }

    /// The next moment at which something can happen by itself.
    pub fn next_moment(&self) -> Option<DateTime<Utc>> {
        let wake = decide(self.plan.as_ref(), &self.run, &self.seen(), self.now).wake_at;
        let pods = self.pods.values().filter_map(|pod| {
            let (started, stopped) =
                (pod.created + TimeDelta::seconds(1), pod.stopped.map(|at| at + TimeDelta::seconds(1)));
            let ended = match pod.fate {
                Fate::Succeeds(after) | Fate::Fails(after, _) => Some(pod.created + after),
                Fate::Runs | Fate::Stays | Fate::Yields(_) | Fate::Pends => None,
            };
            [Some(started), stopped, ended].into_iter().flatten().filter(|at| *at > self.now).min()
        });
        pods.chain(wake).filter(|at| *at > self.now).min()
    }

    /// Moves the clock to the next moment at which something can happen.
    pub fn pass_time(&mut self) {
        self.now = self.next_moment().unwrap_or_else(|| {
            assert!(self.run.spec.suspend || !self.store_works, "nothing will ever wake it: {:#?}", self.status());
            self.now + TimeDelta::minutes(1)
        });
    }

    /// The status of a step in the pass at work.
    pub fn step(&self, name: &str) -> StepStatus {
        let status = self.status();
        let pass = status.current.unwrap_or_else(|| panic!("no pass is at work"));
        pass.phases
            .into_iter()
            .flat_map(|phase| phase.steps)
            .find(|step| step.name == name)
            .unwrap_or_else(|| panic!("no step {name}"))
    }
}

/// The live attempts of a status.
pub fn live(status: &SoakRunStatus) -> Vec<(StepKey, StepState)> {
    let mut live = Vec::new();
    let Some(pass) = &status.current else { return live };
    for phase in &pass.phases {
        for step in phase.steps.iter().filter(|step| step.state.is_live()) {
            let key = StepKey {
                run_attempt: status.attempt,
                section: pass.section,
                cycle: pass.cycle,
                phase: phase.name.clone(),
                step: step.name.clone(),
                attempt: step.attempt,
            };
            live.push((key, step.state));
        }
    }
    live
}

/// A pod step of that name.
pub fn pod(name: &str) -> Value {
    json!({"name": name, "pod": {"image": "x"}})
}

/// Phases of pod steps: `[("a", ["x", "y"])]`.
pub fn phases(phases: &[(&str, &[&str])]) -> Value {
    let phase = |(name, steps): &(&str, &[&str])| json!({"name": name, "steps": steps.iter().map(|step| pod(step)).collect::<Vec<_>>()});
    phases.iter().map(phase).collect()
}

pub fn name(key: &StepKey) -> String {
    attempt_name("run", "uid", key)
}

/// A shallow merge.
fn merge(mut base: Value, over: Value) -> Value {
    if let (Some(fields), Value::Object(over)) = (base.as_object_mut(), over) {
        fields.extend(over);
    }
    base
}
