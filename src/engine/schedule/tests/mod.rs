//! A schedule in a world of its own: time is moved by hand, runs are made and end as told.

mod cases;
mod late;
mod properties;

use serde_json::{Value, json};

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-11-{text}Z").parse().unwrap()
}

/// A schedule of a run each hour.
fn hourly(policy: &str, deadline: &str) -> World {
    World::new(&json!({"schedule": "0 * * * *", "concurrencyPolicy": policy, "startingDeadline": deadline}))
}

/// A schedule, its runs, and everything that happened to them.
struct World {
    schedule: SoakSchedule,
    seen: ScheduleSeen,
    now: DateTime<Utc>,
    wake_at: Option<DateTime<Utc>>,
    /// Names of runs that were asked for, each time that they were.
    asked: Vec<String>,
    deleted: Vec<String>,
    notes: Vec<(NoteType, String, String)>,
    /// What the server does with a new run.
    refusal: Option<Problem>,
}

impl World {
    /// A schedule that was made on 25 November at noon, at which it is now.
    fn new(spec: &Value) -> Self {
        let mut all = json!({"schedule": "0 2 * * *", "serviceAccountName": "soak", "runTemplate": {"spec": {}}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let schedule = json!({
            "apiVersion": "soak.dev/v1alpha1", "kind": "SoakSchedule",
            "metadata": {"name": "nightly", "namespace": "n", "uid": "u", "generation": 1, "creationTimestamp": "2026-11-25T12:00:00Z"},
            "spec": all,
        });
        let mut world = Self {
            schedule: serde_json::from_value(schedule).unwrap(),
            seen: ScheduleSeen { trial: Some(Ok(())), ..ScheduleSeen::default() },
            now: at("25T12:00:00"),
            wake_at: None,
            asked: Vec::new(),
            deleted: Vec::new(),
            notes: Vec::new(),
            refusal: None,
        };
        world.visit();
        world
    }

    fn status(&self) -> &SoakScheduleStatus {
        self.schedule.status.as_ref().unwrap()
    }

    fn ready(&self) -> (ConditionStatus, &str, &str) {
        let ready = condition::find(&self.status().conditions, "Ready").unwrap();
        (ready.status, &ready.reason, &ready.message)
    }

    /// One decision whose status is stored.
    fn decide(&mut self) -> Vec<ScheduleEffect> {
        let ScheduleDecision { status, effects, wake_at } = decide(&self.schedule, &self.seen, self.now);
        assert!(serde_json::to_string(&status).unwrap().len() < 16_384, "the status is bounded");
        self.schedule.status = Some(status);
        self.wake_at = wake_at;
        for effect in &effects {
            match effect {
                ScheduleEffect::Notify(note) => {
                    self.notes.push((note.type_, note.reason.clone(), note.message.clone()));
                }
                ScheduleEffect::Create { name, .. } => self.asked.push(name.clone()),
                _ => {}
            }
        }
        effects
    }

    fn perform(&mut self, effects: Vec<ScheduleEffect>) {
        for effect in effects {
            match effect {
                ScheduleEffect::Create { name, tick } => {
                    self.seen.refused.clone_from(&self.refusal);
                    if self.refusal.is_none() {
                        self.make(&name, Some(tick));
                    }
                }
                ScheduleEffect::Abort { name, .. } => self.run(&name).aborting = true,
                ScheduleEffect::Delete { name, .. } => {
                    assert!(self.run_is_final(&name), "{name} is deleted and has not ended");
                    self.seen.runs.retain(|run| run.name != name);
                    self.deleted.push(name);
                }
                ScheduleEffect::Try | ScheduleEffect::Notify(_) => {}
            }
        }
    }

    fn make(&mut self, name: &str, tick: Option<DateTime<Utc>>) {
        if self.seen.runs.iter().any(|run| run.name == name) {
            return;
        }
        self.seen.runs.push(RunSeen {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            phase: RunPhase::Pending,
            created_at: self.now,
            finished_at: None,
            tick,
            aborting: false,
            deleting: false,
        });
    }

    /// Decides and performs until nothing more happens.
    fn visit(&mut self) {
        for _ in 0..8 {
            let before = (self.schedule.status.clone(), self.seen.runs.clone(), self.seen.refused.clone());
            let effects = self.decide();
            self.perform(effects);
            if before == (self.schedule.status.clone(), self.seen.runs.clone(), self.seen.refused.clone()) {
                return;
            }
        }
        panic!("it does not come to rest: {:#?}", self.status());
    }

    fn until(&mut self, now: &str) {
        self.now = at(now);
        self.visit();
    }

    fn run(&mut self, name: &str) -> &mut RunSeen {
        self.seen.runs.iter_mut().find(|run| run.name == name).unwrap()
    }

    fn ends(&mut self, name: &str, phase: RunPhase) {
        let now = self.now;
        let run = self.run(name);
        (run.phase, run.finished_at) = (phase, Some(now));
        self.visit();
    }

    fn run_is_final(&self, name: &str) -> bool {
        self.seen.runs.iter().any(|run| run.name == name && run.phase.is_final())
    }

    fn names(&self) -> Vec<&str> {
        self.seen.runs.iter().map(|run| run.name.as_str()).collect()
    }

    fn change(&mut self, change: impl FnOnce(&mut crate::api::soakschedule::SoakScheduleSpec)) {
        change(&mut self.schedule.spec);
        *self.schedule.metadata.generation.as_mut().unwrap() += 1;
        self.visit();
    }
}
