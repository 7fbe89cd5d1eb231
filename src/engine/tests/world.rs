//! A simulated world: a run as it is stored, pods with fates, a clock that only the test moves.

mod visit;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    api::{
        SoakRun, SoakRunStatus,
        status::{Failure, Outcome, OutputValue, RecordRef, RunPhase, Section, StepState, StepStatus},
    },
    engine::{
        Decision, Forwarding, LockSeen, Plan, PlanError, PodSeen, RecordSeen, Seen, StepEnd, StepKey, StepSeen,
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
    /// Reasons of events, and of those that warn.
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
    pub released: Vec<String>,
    /// Cycles whose records were to be deleted.
    pub pruned: Vec<u32>,
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
            warnings: Vec::new(),
            released: Vec::new(),
            pruned: Vec::new(),
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

    /// The spec, parsed.
    pub fn plan(&self) -> &Plan {
        self.plan.as_ref().unwrap()
    }

    /// One decision on what is stored.
    pub fn decide(&self, seen: &Seen) -> Decision {
        decide(self.plan.as_ref(), &self.run, seen, self.now)
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
        let wake = self.decide(&self.seen()).wake_at;
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

    /// Lets so many seconds pass, one by one, and tells the status then.
    pub fn after(&mut self, seconds: i64) -> SoakRunStatus {
        for _ in 0..seconds {
            self.settle();
            self.now += TimeDelta::seconds(1);
        }
        self.settle();
        self.status()
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

/// The spec of a cycle of one pod.
pub fn one_pod() -> Value {
    json!({"phases": phases(&[("work", &["say"])])})
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
