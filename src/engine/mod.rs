//! The pure core: what a run does next.
//!
//! [`decide`] takes the spec (as a [`Plan`]), the status, what was [`Seen`] and the time, and answers with the new
//! status, the [`Effect`]s to perform once that status is stored, and when to look again. There is no IO here, no
//! clock and no randomness, so every rule can be tested by moving time by hand.
//!
//! The state is a nest of small machines, one module each: the run ([`run`]) goes through sections, a section is a
//! [`pass`] through phases, a [`phase`] begins its stages of steps, and a [`step`] goes through attempts.

pub mod effect;
pub mod expr;
pub mod injection;
pub mod monitor;
pub mod names;
pub mod plan;
pub mod schedule;
pub mod seen;

mod classify;
mod conditions;
mod count;
mod lock;
mod objects;
mod pass;
mod phase;
mod records;
mod run;
mod scope;
mod step;
mod targets;
pub mod template;
mod text;
mod verdict;

#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};

use crate::api::{SoakRun, SoakRunStatus};

pub use classify::Rules;
pub use effect::{Effect, Note, NoteType};
pub use objects::{held_name, is_from_further_on};
pub use plan::{Plan, PlanError};
pub use scope::scope;
pub use seen::{Forwarding, LockSeen, PodSeen, RecordSeen, Seen, StepEnd, StepKey, StepSeen, TargetSeen, Validation};
pub use verdict::{End, Summary, ending, summarize};

/// What to do next.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The status to store, with the resourceVersion that the decision was made on.
    pub status: SoakRunStatus,
    /// What to do once it is stored.
    pub effects: Vec<Effect>,
    /// When time alone may change something.
    pub wake_at: Option<DateTime<Utc>>,
}

/// Decides what a run does next.
///
/// Calling it again with the answer's status and the same observations changes nothing more, so a status that equals
/// the stored one needs no write.
pub fn decide(plan: Result<&Plan, &PlanError>, run: &SoakRun, seen: &Seen, now: DateTime<Utc>) -> Decision {
    let mut status = run.status.clone().unwrap_or_default();
    let mut context = Context { run, seen, now, effects: Vec::new(), wake_at: None };
    match plan {
        Ok(plan) => run::advance(plan, &mut status, &mut context),
        Err(error) => run::refuse(error, &mut status, &mut context),
    }
    Decision { status, effects: context.effects, wake_at: context.wake_at }
}

/// The attempt of the run that a decision is about: the next one, if one begins.
pub fn attempt(run: &SoakRun) -> u32 {
    let Some(status) = &run.status else { return 1 };
    let again = status.phase.is_final() && status.rerun != run.spec.rerun;
    status.attempt + u32::from(status.accepted_at.is_none() || again)
}

/// What the machines share while a decision is made.
struct Context<'a> {
    run: &'a SoakRun,
    seen: &'a Seen,
    now: DateTime<Utc>,
    effects: Vec<Effect>,
    wake_at: Option<DateTime<Utc>>,
}

impl Context<'_> {
    /// Asks for an effect, once.
    fn ask(&mut self, effect: Effect) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    /// Asks to be woken at that time, or earlier.
    fn wake(&mut self, at: DateTime<Utc>) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether that time has come; if not, asks to be woken then.
    fn reached(&mut self, at: DateTime<Utc>) -> bool {
        let reached = at <= self.now;
        if !reached {
            self.wake(at);
        }
        reached
    }

    fn note(&mut self, type_: NoteType, reason: &str, message: impl Into<String>) {
        self.effects.push(Effect::Notify(Note { type_, reason: reason.into(), message: message.into() }));
    }

    fn deleting(&self) -> bool {
        self.run.metadata.deletion_timestamp.is_some()
    }
}

/// What chance depends on in a run: the spec's seed, or a number made from the run's uid. It fits into a JSON number exactly.
pub fn seed(run: &SoakRun) -> u64 {
    run.spec.seed.unwrap_or_else(|| {
        let uid = run.metadata.uid.as_deref().unwrap_or_default();
        let hash = Sha256::digest(uid.as_bytes());
        hash.iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
    })
}

/// The pause before a further attempt: doubled with each, from `first` up to five minutes.
fn backoff(first: TimeDelta, failures: u32) -> TimeDelta {
    const LONGEST: TimeDelta = TimeDelta::minutes(5);
    let factor = 1i32 << failures.saturating_sub(1).min(16);
    first.checked_mul(factor).map_or(LONGEST, |pause| pause.min(LONGEST))
}
