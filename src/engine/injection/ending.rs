//! How an injection ends, and what ends it early.

use chrono::{DateTime, Utc};

use crate::api::{failureinjection::InjectionPhase, names::reason};

use super::{super::text, Machine, NoteType};

impl Machine<'_> {
    /// Whether somebody ends it before its time; the fault is undone then.
    pub(super) fn called_off(&mut self) -> bool {
        let ending = if self.deleting() {
            reason::DELETED
        } else if self.injection.spec.abort {
            reason::ABORTED
        } else if self.seen.halted.is_some() {
            reason::HALTED
        } else {
            return false;
        };
        self.revert(ending, None);
        true
    }

    /// Begins undoing. A `failure` makes the injection end as failed.
    pub(super) fn revert(&mut self, ending: &str, failure: Option<&str>) {
        self.status.ending = text::cut(ending, text::REASON);
        if let Some(failure) = failure {
            self.status.failure = text::cut(failure, 1_024);
            self.note(NoteType::Warning, "InjectionFailed", format!("{ending}: {failure}"));
        }
        self.status.reverting_at = Some(self.now);
        self.status.phase = InjectionPhase::Reverting;
    }

    /// Undone and healthy at `at`; or undone, and failed or called off before.
    pub(super) fn healthy(&mut self, at: DateTime<Utc>) {
        if !self.status.failure.is_empty() {
            let (ending, failure) = (self.status.ending.clone(), self.status.failure.clone());
            return self.end(InjectionPhase::Failed, &ending, &failure);
        }
        if let Some(injected) = self.status.injected_at {
            let seconds = (at - injected).as_seconds_f64().max(0.0);
            self.status.time_to_recover_seconds = Some((seconds * 1_000.0).round() / 1_000.0);
            self.status.time_to_recover = format!("{seconds:.1}s");
        }
        self.status.recovered_at = Some(at);
        let (reason, message) = match self.status.ending.as_str() {
            "" => (reason::RECOVERED, "undone and healthy".to_owned()),
            ending => (ending, "ended before its time; undone".to_owned()),
        };
        let reason = reason.to_owned();
        self.end(InjectionPhase::Recovered, &reason, &message);
    }

    /// Nothing of the fault is left, and nothing more will happen.
    pub(super) fn end(&mut self, phase: InjectionPhase, reason: &str, message: &str) {
        self.status.phase = phase;
        self.wait(reason, message);
        if phase == InjectionPhase::Failed && self.status.failure.is_empty() {
            self.status.failure = text::cut(message, 1_024);
            self.note(NoteType::Warning, "InjectionFailed", format!("{reason}: {message}"));
        }
    }
}
