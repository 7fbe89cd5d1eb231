//! What a schedule does next: makes the run of a tick, aborts those that it replaces, lets old ones go.
//!
//! Pure as [`super::decide`]: spec, status, the runs that were seen and the time in, status and effects out. All ticks up to
//! `status.handledUntil` are dealt with; of those after it only the last counts. The run of a tick has a name of its own, and the
//! intent to make it is stored before it is made.

mod calendar;
mod runs;

#[cfg(test)]
mod tests;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::api::{
    Condition, ConditionStatus, SoakSchedule, SoakScheduleStatus, condition,
    names::{condition_type, reason},
    soakschedule::{ConcurrencyPolicy, MAX_ACTIVE, StartingRun},
    status::RunPhase,
};

use super::{Note, NoteType, text};

pub use calendar::{Calendar, CalendarError};

/// A clock that was ahead by more than this and went back: times that are still to come are not dealt with.
const SKEW: TimeDelta = TimeDelta::minutes(10);
/// Longest message of a condition, in bytes.
const MESSAGE: usize = 1_024;

/// A run that belongs to a schedule, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSeen {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it is.
    pub phase: RunPhase,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The tick that it was made for.
    pub tick: Option<DateTime<Utc>>,
    /// It is to be aborted.
    pub aborting: bool,
    /// It is being deleted.
    pub deleting: bool,
}

/// What stands against something that a schedule wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A stable word.
    pub reason: String,
    /// What it is, and what to do.
    pub message: String,
}

/// What is known beside the status.
#[derive(Clone, Debug, Default)]
pub struct ScheduleSeen {
    /// The runs of the schedule that exist. A run that the status names and that is missing here is gone.
    pub runs: Vec<RunSeen>,
    /// How the server took the run template of this generation, once it was tried.
    pub trial: Option<Result<(), Problem>>,
    /// Why a run could not be made when it was tried last.
    pub refused: Option<Problem>,
    /// Why a run could not be aborted or deleted.
    pub upkeep: Option<Problem>,
}

/// Something to be done, after the status that asks for it is stored.
///
/// All but [`Notify`](ScheduleEffect::Notify) are asked for again until what is seen shows them done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleEffect {
    /// Try the run template on the server.
    Try,
    /// Make the run of a tick. If a run of that name is there and is the schedule's, it is made.
    Create {
        /// The run's name.
        name: String,
        /// The tick.
        tick: DateTime<Utc>,
    },
    /// Abort an active run that is replaced.
    Abort {
        /// The run's name.
        name: String,
        /// The run's uid, as a precondition.
        uid: String,
    },
    /// Delete an ended run that is beyond the history limits.
    Delete {
        /// The run's name.
        name: String,
        /// The run's uid, as a precondition.
        uid: String,
    },
    /// Tell people.
    Notify(Note),
}

/// What a schedule does next.
#[derive(Clone, Debug)]
pub struct ScheduleDecision {
    /// The status to store, with the resourceVersion that the decision was made on.
    pub status: SoakScheduleStatus,
    /// What to do once it is stored.
    pub effects: Vec<ScheduleEffect>,
    /// When time alone may change something.
    pub wake_at: Option<DateTime<Utc>>,
}

/// Decides what a schedule does next. Calling it again with the answer's status and the same observations changes nothing more.
pub fn decide(schedule: &SoakSchedule, seen: &ScheduleSeen, now: DateTime<Utc>) -> ScheduleDecision {
    let status = schedule.status.clone().unwrap_or_default();
    let mut machine = Machine { schedule, seen, now, status, effects: Vec::new(), wake_at: None, waits: None };
    if schedule.metadata.deletion_timestamp.is_none() {
        machine.advance();
    }
    ScheduleDecision { status: machine.status, effects: machine.effects, wake_at: machine.wake_at }
}

struct Machine<'a> {
    schedule: &'a SoakSchedule,
    seen: &'a ScheduleSeen,
    now: DateTime<Utc>,
    status: SoakScheduleStatus,
    effects: Vec<ScheduleEffect>,
    wake_at: Option<DateTime<Utc>>,
    /// Why the run of a tick that has come is not made yet.
    waits: Option<Problem>,
}

impl Machine<'_> {
    fn advance(&mut self) {
        self.follow();
        let spec = &self.schedule.spec;
        let calendar = Calendar::parse(&spec.schedule, spec.time_zone.as_deref());
        let broken = match &calendar {
            Ok(calendar) => self.ticks(calendar),
            Err(error) => {
                self.status.starting = None;
                self.status.next_schedule_time = None;
                Some(error.to_string())
            }
        };
        self.expire_history();
        let generation = self.schedule.metadata.generation.unwrap_or(0);
        if self.status.tried_generation != generation {
            match &self.seen.trial {
                Some(Ok(())) => self.status.tried_generation = generation,
                _ => self.effects.push(ScheduleEffect::Try),
            }
        }
        self.describe(generation, broken);
    }

    /// Deals with the ticks that have come. The answer is why none will ever come.
    fn ticks(&mut self, calendar: &Calendar) -> Option<String> {
        if self.status.calendar != calendar.text() {
            // Times of the new calendar that are past already were never announced.
            let since = if self.status.calendar.is_empty() { self.created_at() } else { self.now };
            self.status.handled_until = self.status.handled_until.max(Some(since));
            self.status.starting = None;
            calendar.text().clone_into(&mut self.status.calendar);
        }
        let handled = self.status.handled_until.unwrap_or_else(|| self.created_at());
        let handled = if handled > self.now + SKEW { self.now } else { handled };
        self.status.handled_until = Some(handled);
        if self.schedule.spec.suspend {
            self.status.starting = None;
            self.status.next_schedule_time = None;
            return None;
        }
        let due = calendar.last(self.now).filter(|tick| *tick > handled);
        // A run that was made has moved `handledUntil`; a tick that has come since takes the place of the one before.
        self.status.starting = self.status.starting.take().filter(|it| Some(it.scheduled_at) == due);
        if let Some(tick) = due {
            self.due(tick);
        }
        let next = calendar.next(self.now);
        self.status.next_schedule_time = next;
        match next {
            Some(next) => self.wake(next),
            None => return Some("spec.schedule: no such time will ever come: mind the day of the month".into()),
        }
        None
    }

    fn created_at(&self) -> DateTime<Utc> {
        let created = self.schedule.metadata.creation_timestamp.as_ref();
        created.and_then(|at| DateTime::from_timestamp(at.0.as_second(), 0)).unwrap_or(self.now)
    }

    fn due(&mut self, tick: DateTime<Utc>) {
        let policy = self.schedule.spec.concurrency_policy;
        let active: Vec<_> = self.seen.runs.iter().filter(|run| !run.phase.is_final()).collect();
        let names = || {
            let named: Vec<&str> = active.iter().take(3).map(|run| run.name.as_str()).collect();
            format!("{}{}", named.join(", "), if active.len() > 3 { ", …" } else { "" })
        };
        let replaces = policy == ConcurrencyPolicy::Replace && self.status.starting.is_some();
        if let Some(deadline) = self.schedule.spec.starting_deadline {
            // A run that replaces another can't begin before that has ended.
            let ended = self.status.last_run.as_ref().and_then(|run| run.finished_at).filter(|_| replaces);
            let until = ended.map_or(tick, |ended| ended.max(tick)) + deadline.as_chrono();
            if self.now > until && (!replaces || active.is_empty()) {
                self.miss(tick, &deadline.to_string());
                return;
            }
            if self.now <= until {
                self.wake(until + TimeDelta::milliseconds(1));
            }
        }
        let at = tick.to_rfc3339_opts(SecondsFormat::Secs, true);
        let wait = |reason: &str, message| Some(Problem { reason: reason.into(), message });
        self.waits = match policy {
            ConcurrencyPolicy::Allow if active.len() >= MAX_ACTIVE => wait(
                reason::TOO_MANY_ACTIVE,
                format!("the run of {at} waits: {} runs are active, the most that may be", active.len()),
            ),
            ConcurrencyPolicy::Forbid if !active.is_empty() => {
                wait(reason::WAITING_FOR_RUN, format!("the run of {at} waits for the end of {}", names()))
            }
            _ => None,
        };
        if self.waits.is_some() {
            self.status.starting = None;
            return;
        }
        let name = self.schedule.run_name(tick);
        self.status.starting = Some(StartingRun { name: name.clone(), scheduled_at: tick });
        if policy == ConcurrencyPolicy::Replace && !active.is_empty() {
            let message = format!("the next run waits until {} has been aborted and has cleaned up", names());
            self.waits = Some(Problem { reason: reason::RUN_REPLACED.into(), message });
            for run in active.iter().filter(|run| !run.aborting && !run.deleting) {
                self.effects.push(ScheduleEffect::Abort { name: run.name.clone(), uid: run.uid.clone() });
            }
            return;
        }
        self.effects.push(ScheduleEffect::Create { name, tick });
    }

    fn miss(&mut self, tick: DateTime<Utc>, deadline: &str) {
        self.status.handled_until = Some(tick);
        self.status.starting = None;
        let at = tick.to_rfc3339_opts(SecondsFormat::Secs, true);
        let message = format!("the run of {at} was not made: its starting deadline of {deadline} is over");
        self.note(NoteType::Warning, reason::STARTING_DEADLINE_EXCEEDED, message);
    }

    fn describe(&mut self, generation: i64, broken: Option<String>) {
        use ConditionStatus::{False, True, Unknown};
        self.status.observed_generation = generation;
        let refused = self.seen.refused.as_ref().filter(|_| self.status.starting.is_some());
        let tried = self.status.tried_generation == generation;
        let trial = self.seen.trial.as_ref().and_then(|it| it.as_ref().err()).filter(|_| !tried);
        let problem = refused.or(trial).or(self.seen.upkeep.as_ref());
        let (holds, word, message) = if let Some(broken) = broken {
            (False, reason::INVALID_SCHEDULE.to_owned(), broken)
        } else if let Some(Problem { reason, message }) = problem {
            (False, reason.clone(), message.clone())
        } else if !tried {
            (Unknown, reason::VALIDATING.to_owned(), "the run template is tried on the server".to_owned())
        } else if self.schedule.spec.suspend {
            (True, reason::SUSPENDED.to_owned(), "no run is made until spec.suspend is unset".to_owned())
        } else if let Some(Problem { reason, message }) = &self.waits {
            (True, reason.clone(), message.clone())
        } else {
            let next = self.status.next_schedule_time.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
            (True, reason::SCHEDULED.to_owned(), format!("the next run is due at {}", next.unwrap_or_default()))
        };
        let before = condition::find(&self.status.conditions, condition_type::READY);
        let known = before.is_some_and(|it| it.status == holds && it.reason == word);
        let mended = holds == True && before.is_some_and(|it| it.status == False);
        if !known && (holds == False || mended || self.waits.is_some()) {
            let type_ = if holds == False { NoteType::Warning } else { NoteType::Normal };
            self.note(type_, &word, text::cut(&message, MESSAGE));
        }
        let new = Condition {
            type_: condition_type::READY.into(),
            status: holds,
            observed_generation: generation,
            last_transition_time: self.now,
            reason: text::cut(&word, text::REASON),
            message: text::cut(&message, MESSAGE),
        };
        condition::set(&mut self.status.conditions, new);
    }

    fn wake(&mut self, at: DateTime<Utc>) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn note(&mut self, type_: NoteType, reason: &str, message: String) {
        self.effects.push(ScheduleEffect::Notify(Note { type_, reason: reason.into(), message }));
    }
}
