//! What a failure injection does next: journal first, then the effect, then its undoing, read back (S5 to S9, L2, L3).
//!
//! [`decide`] is to a `FailureInjection` what [`crate::engine::decide`] is to a run: pure, and called again until nothing
//! moves. The journal in the status holds all that undoing needs, so an injection can be undone without its spec.

mod agreements;
mod claims;
mod conditions;
mod ending;
pub mod fields;
mod plan;
mod seen;

#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};

use crate::api::{
    FailureInjection, FailureInjectionStatus,
    failureinjection::{EntryState, InjectionPhase, JournalEntry, NoTarget, Undo},
    names::{FINALIZER, reason},
};

use super::{Note, NoteType, PlanError, text};

pub use claims::{Claim, Holder, claims, conflict};
pub use plan::{InjectionPlan, ProbePlan, RecoveryPlan, Share, TargetPlan, choose, draw};
pub use seen::{EntrySeen, Found, Health, InjectionEffect, InjectionSeen};

/// How long making a fault may take. What is not there by then is undone.
const INJECT_LIMIT: TimeDelta = TimeDelta::seconds(60);

/// What an injection does next.
#[derive(Clone, Debug)]
pub struct InjectionDecision {
    /// The status to store, with the resourceVersion that the decision was made on.
    pub status: FailureInjectionStatus,
    /// What to do once it is stored.
    pub effects: Vec<InjectionEffect>,
    /// When time alone may change something.
    pub wake_at: Option<DateTime<Utc>>,
}

/// Decides what an injection does next.
///
/// Calling it again with the answer's status and the same observations changes nothing more.
pub fn decide(
    plan: Result<&InjectionPlan, &PlanError>,
    injection: &FailureInjection,
    seen: &InjectionSeen,
    now: DateTime<Utc>,
) -> InjectionDecision {
    let mut machine = Machine {
        plan,
        injection,
        seen,
        now,
        status: injection.status.clone().unwrap_or_default(),
        effects: Vec::new(),
        wake_at: None,
    };
    machine.advance();
    InjectionDecision { status: machine.status, effects: machine.effects, wake_at: machine.wake_at }
}

/// What a decision is made with and of.
struct Machine<'a> {
    plan: Result<&'a InjectionPlan, &'a PlanError>,
    injection: &'a FailureInjection,
    seen: &'a InjectionSeen,
    now: DateTime<Utc>,
    status: FailureInjectionStatus,
    effects: Vec<InjectionEffect>,
    wake_at: Option<DateTime<Utc>>,
}

impl Machine<'_> {
    fn advance(&mut self) {
        let has_finalizer = self.injection.metadata.finalizers.iter().flatten().any(|it| it == FINALIZER);
        let untouched = self.status.journal.is_empty();
        if self.status.phase.is_final() || (self.deleting() && untouched) {
            return self.after_the_end(has_finalizer);
        }
        // A journal without the finalizer is undone all the same: somebody has taken it off by hand.
        if !has_finalizer && untouched && !crate::switches::without("finalizer-first") {
            return self.effects.push(InjectionEffect::AddFinalizer);
        }
        self.status.accepted_at.get_or_insert(self.now);
        loop {
            let before = self.status.phase;
            match before {
                InjectionPhase::Pending => self.pending(),
                InjectionPhase::Injecting => self.injecting(),
                InjectionPhase::Injected => self.injected(),
                InjectionPhase::Reverting => self.reverting(),
                InjectionPhase::Recovering => self.recovering(),
                InjectionPhase::Recovered | InjectionPhase::Failed | InjectionPhase::Skipped => {}
            }
            if self.status.phase == before {
                break;
            }
            // What was asked for by a phase that was only passed through is asked for again where it still matters.
            self.effects.retain(|effect| matches!(effect, InjectionEffect::Notify(_)));
        }
        if self.status.phase.is_final() {
            self.status.finished_at.get_or_insert(self.now);
            self.after_the_end(has_finalizer);
        }
        conditions::describe(self);
    }

    /// An ended injection costs nothing but its finalizer's removal and, at its time, its own.
    fn after_the_end(&mut self, has_finalizer: bool) {
        if has_finalizer {
            self.effects.push(InjectionEffect::RemoveFinalizer);
        }
        if let (Some(ttl), Some(finished)) = (self.injection.spec.ttl_after_finished, self.status.finished_at)
            && !self.deleting()
            && self.reached(finished + ttl.as_chrono())
        {
            self.effects.push(InjectionEffect::Delete);
        }
    }

    /// Nothing was touched yet.
    fn pending(&mut self) {
        let plan = match self.plan {
            Ok(plan) => plan,
            Err(error) => return self.end(InjectionPhase::Failed, reason::INVALID_SPEC, &error.to_string()),
        };
        self.status.fault = plan.title();
        if self.injection.spec.abort {
            return self.end(InjectionPhase::Skipped, reason::ABORTED, "it was called off before it began");
        }
        let accepted = self.status.accepted_at.unwrap_or(self.now);
        let created = self.injection.metadata.creation_timestamp.as_ref();
        let created = created.and_then(|at| DateTime::from_timestamp(at.0.as_second(), 0)).unwrap_or(accepted);
        // A time that passed while no operator was there has passed.
        let start = self.injection.spec.start_at.map_or(accepted, |at| at.max(created));
        if !self.reached(start) {
            return self.wait(reason::SCHEDULED, &format!("it begins at {}", start.to_rfc3339()));
        }
        let latest = start + plan.starting_deadline.as_chrono();
        if self.reached(latest) {
            let why = if self.status.message.is_empty() { String::new() } else { format!(": {}", self.status.message) };
            let message = format!("it did not begin within {} of its time{why}", plan.starting_deadline);
            return self.end(InjectionPhase::Failed, reason::STARTING_DEADLINE_EXCEEDED, &message);
        }
        if let Some(why) = &self.seen.halted {
            return self.wait(reason::HALTED, why);
        }
        if let Some(why) = &self.seen.yields {
            self.wait(reason::CONFLICT, why);
            return self.effects.push(InjectionEffect::Find);
        }
        match &self.seen.found {
            None => self.effects.push(InjectionEffect::Find),
            Some(Found::Targets { journal, candidates }) => {
                self.status.candidates = *candidates;
                self.status.preview = journal.iter().map(|entry| entry.target.clone()).collect();
                self.status.target = title(&self.status.preview);
                if let Some(entry) = journal.iter().find(|entry| would_change_nothing(entry)) {
                    let what = entry.target.title();
                    let message = format!("it would change nothing in {what}: there is nothing to inject");
                    return self.end(InjectionPhase::Failed, reason::NO_CHANGE, &message);
                }
                if self.injection.spec.dry_run {
                    let message = "the server would accept it; nothing was touched";
                    return self.end(InjectionPhase::Skipped, reason::DRY_RUN_PASSED, message);
                }
                self.status.journal.clone_from(journal);
                self.status.journaled_at = Some(self.now);
                self.status.deadline = Some(self.now + INJECT_LIMIT + plan.duration.as_chrono());
                self.status.phase = InjectionPhase::Injecting;
            }
            Some(Found::Nothing { message }) => match plan.on_no_target {
                NoTarget::Fail => self.end(InjectionPhase::Failed, reason::NO_TARGET, message),
                NoTarget::Skip => self.end(InjectionPhase::Skipped, reason::NO_TARGET, message),
                NoTarget::Wait => {
                    self.wait(reason::NO_TARGET, message);
                    self.effects.push(InjectionEffect::Find);
                }
            },
            Some(Found::NotYet { reason, message }) => {
                self.wait(reason, message);
                self.effects.push(InjectionEffect::Find);
            }
            Some(Found::Refused { reason, message }) => self.end(InjectionPhase::Failed, reason, message),
        }
    }

    /// The journal is written: each target is hit, or is certain not to be.
    fn injecting(&mut self) {
        let untried = self.status.journal.iter().all(|entry| entry.state == EntryState::Planned);
        if self.seen.yields.is_some() && untried {
            self.status.journal.clear();
            (self.status.journaled_at, self.status.deadline) = (None, None);
            self.status.phase = InjectionPhase::Pending;
            return;
        }
        let mut failure = None;
        let mut waiting = Vec::new();
        for (index, entry) in self.status.journal.iter_mut().enumerate() {
            if entry.state != EntryState::Planned {
                continue;
            }
            match self.seen.entries.get(&index) {
                Some(EntrySeen::Injected { at, message }) => {
                    entry.state = EntryState::Injected;
                    entry.injected_at = Some(*at);
                    entry.message = text::cut(message, text::MESSAGE);
                }
                Some(EntrySeen::NeverBegan { reason, message }) => {
                    entry.state = EntryState::NeverBegan;
                    entry.message = text::cut(message, text::MESSAGE);
                    failure = failure.or(Some((reason.clone(), message.clone())));
                }
                Some(EntrySeen::Broken { reason, message }) => {
                    entry.message = text::cut(message, text::MESSAGE);
                    failure = failure.or(Some((reason.clone(), message.clone())));
                }
                seen => {
                    if let Some(EntrySeen::Failing { message }) = seen {
                        entry.message = text::cut(message, text::MESSAGE);
                    }
                    waiting.push(index);
                }
            }
        }
        if let Some((reason, message)) = failure {
            return self.revert(&reason, Some(&message));
        }
        if self.called_off() {
            return;
        }
        let late = self.status.journaled_at.unwrap_or(self.now) + INJECT_LIMIT;
        if !waiting.is_empty() && self.reached(late) {
            let message =
                waiting.first().and_then(|index| self.status.journal.get(*index)).map_or_else(String::new, |entry| {
                    format!("{} was not hit within a minute: {}", entry.target.title(), entry.message)
                });
            return self.revert(reason::INJECTION_TIMEOUT, Some(&message));
        }
        if !waiting.is_empty() {
            self.effects.extend(waiting.into_iter().map(InjectionEffect::Inject));
            return;
        }
        let injected = self.status.journal.iter().filter_map(|entry| entry.injected_at).max().unwrap_or(self.now);
        self.status.injected_at = Some(injected);
        // Without a plan the deadline of the journal stands.
        if let Ok(plan) = self.plan {
            self.status.deadline = Some(injected + plan.duration.as_chrono());
        }
        self.status.phase = InjectionPhase::Injected;
        let what = format!("{} hit {}", self.status.fault, self.status.target);
        self.note(NoteType::Normal, "Injected", what);
    }

    /// The fault is there, until its time is over or somebody ends it.
    fn injected(&mut self) {
        if self.called_off() {
            return;
        }
        if self.reached(self.status.deadline.unwrap_or(self.now)) {
            self.status.phase = InjectionPhase::Reverting;
            self.status.reverting_at = Some(self.now);
        }
    }

    /// Each target is as it was, is gone, belongs to somebody else by now, or was never hit; only what is read back counts.
    fn reverting(&mut self) {
        let now = self.now;
        let mut left = Vec::new();
        for (index, entry) in self.status.journal.iter_mut().enumerate().filter(|(_, entry)| !entry.state.is_final()) {
            let (state, message) = match (&entry.undo, self.seen.entries.get(&index)) {
                (Undo::Nothing, _) => (EntryState::Reverted, ""),
                (_, Some(EntrySeen::Reverted { message })) => (EntryState::Reverted, message.as_str()),
                (_, Some(EntrySeen::Superseded { message })) => (EntryState::Superseded, message.as_str()),
                (_, Some(EntrySeen::Gone { message })) => (EntryState::Gone, message.as_str()),
                (_, Some(EntrySeen::NeverBegan { message, .. })) => (EntryState::NeverBegan, message.as_str()),
                (_, seen) => {
                    if let Some(EntrySeen::Failing { message }) = seen {
                        entry.message = text::cut(message, text::MESSAGE);
                    }
                    left.push(index);
                    continue;
                }
            };
            entry.state = state;
            entry.reverted_at = Some(now);
            entry.message = text::cut(message, text::MESSAGE);
        }
        if !left.is_empty() {
            self.effects.extend(left.into_iter().map(InjectionEffect::Revert));
            return;
        }
        self.status.reverted_at = Some(now);
        self.note(NoteType::Normal, "Reverted", format!("{} is undone on {}", self.status.fault, self.status.target));
        let ended_early = !self.status.ending.is_empty();
        match self.plan {
            Ok(plan) if !ended_early && plan.recovery.is_some() => self.status.phase = InjectionPhase::Recovering,
            _ => self.healthy(now),
        }
    }

    /// The fault is undone; the system comes back to health, or it does not within its time.
    fn recovering(&mut self) {
        if self.deleting() || self.injection.spec.abort {
            return self.end(InjectionPhase::Recovered, reason::ABORTED, "undone; its recovery was not awaited");
        }
        let timeout = self.plan.ok().and_then(|plan| plan.recovery.as_ref()).map(|recovery| recovery.timeout);
        match (&self.seen.health, timeout) {
            (Health::Healthy { at }, _) => self.healthy(*at),
            (_, None) => self.healthy(self.now),
            (health, Some(timeout)) => {
                let detail = match health {
                    Health::NotYet { message } => message.clone(),
                    // What was seen last stands until there is something new.
                    _ if self.status.reason == reason::RECOVERING => self.status.message.clone(),
                    _ => String::new(),
                };
                let since = self.status.reverted_at.unwrap_or(self.now);
                if self.reached(since + timeout.as_chrono()) {
                    let why = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                    let message = format!("undone, but the system was not healthy within {timeout}{why}");
                    return self.end(InjectionPhase::Failed, reason::NOT_RECOVERED, &message);
                }
                self.wait(reason::RECOVERING, &detail);
                self.effects.push(InjectionEffect::Look);
            }
        }
    }

    fn deleting(&self) -> bool {
        self.injection.metadata.deletion_timestamp.is_some()
    }

    /// Whether that time has come; if not, asks to be woken then.
    fn reached(&mut self, at: DateTime<Utc>) -> bool {
        let reached = at <= self.now;
        if !reached {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
        reached
    }

    fn wait(&mut self, reason: &str, message: &str) {
        self.status.reason = text::cut(reason, text::REASON);
        self.status.message = text::cut(message, 1_024);
    }

    fn note(&mut self, type_: NoteType, reason: &str, message: String) {
        self.effects.push(InjectionEffect::Notify(Note { type_, reason: reason.into(), message }));
    }
}

fn would_change_nothing(entry: &JournalEntry) -> bool {
    matches!(&entry.undo, Undo::Fields { fields, .. } if fields::changes_nothing(fields))
}

/// What is hit, in one line.
fn title(targets: &[crate::api::failureinjection::ObjectRef]) -> String {
    match targets {
        [] => String::new(),
        [one] => text::cut(&one.title(), text::MESSAGE),
        [first, rest @ ..] => text::cut(&format!("{} and {} more", first.title(), rest.len()), text::MESSAGE),
    }
}
