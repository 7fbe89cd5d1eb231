//! The runs of a schedule: which are active, how they ended, which of the ended ones go.

use chrono::{DateTime, SecondsFormat, Utc};

use super::{Machine, RunSeen, SKEW, ScheduleEffect};
use crate::{
    api::{
        names::reason,
        soakschedule::{ActiveRun, EndedRun, MAX_ACTIVE},
        status::RunPhase,
    },
    engine::NoteType,
};

/// Order of the runs of a schedule: by tick, or by their creation where somebody triggered them.
fn age(run: &RunSeen) -> (DateTime<Utc>, &str) {
    (run.tick.unwrap_or(run.created_at), &run.name)
}

impl Machine<'_> {
    /// Takes in what became of the runs. Each end is counted once: the write that takes a run from the active ones counts it.
    pub(super) fn follow(&mut self) {
        let mut runs: Vec<&RunSeen> = self.seen.runs.iter().collect();
        runs.sort_by_key(|run| age(run));
        let handled = self.status.handled_until;
        for run in &runs {
            // Nobody's annotation may move the schedule into the future.
            let tick =
                run.tick.filter(|tick| *tick <= self.now + SKEW && handled.is_none_or(|handled| *tick > handled));
            if let Some(tick) = tick {
                self.status.handled_until = Some(tick);
                self.status.last_schedule_time = self.status.last_schedule_time.max(Some(tick));
                let at = tick.to_rfc3339_opts(SecondsFormat::Secs, true);
                self.note(NoteType::Normal, reason::RUN_CREATED, format!("run {} is made for {at}", run.name));
            }
            let known = self.status.active.iter().any(|it| it.uid == run.uid);
            if !known && (tick.is_some() || !run.phase.is_final()) && self.status.active.len() < MAX_ACTIVE {
                let active = ActiveRun { name: run.name.clone(), uid: run.uid.clone(), scheduled_at: run.tick };
                self.status.active.push(active);
            }
        }
        self.status.active_runs =
            u32::try_from(runs.iter().filter(|run| !run.phase.is_final()).count()).unwrap_or(u32::MAX);
        runs.retain(|run| run.phase.is_final() && self.status.active.iter().any(|it| it.uid == run.uid));
        runs.sort_by_key(|run| (run.finished_at, age(run)));
        for run in runs {
            self.ended(run);
        }
        let seen = self.seen;
        self.status.active.retain(|it| seen.runs.iter().any(|run| run.uid == it.uid && !run.phase.is_final()));
    }

    fn ended(&mut self, run: &RunSeen) {
        let good = run.phase == RunPhase::Succeeded;
        if good {
            self.status.consecutive_failures = 0;
            self.status.last_successful_time = self.status.last_successful_time.max(run.finished_at);
        } else {
            self.status.consecutive_failures = self.status.consecutive_failures.saturating_add(1);
        }
        self.status.last_run =
            Some(EndedRun { name: run.name.clone(), verdict: run.phase, finished_at: run.finished_at });
        let type_ = if good { NoteType::Normal } else { NoteType::Warning };
        self.note(type_, reason::RUN_ENDED, format!("run {} has ended: {}", run.name, run.phase.as_str()));
    }

    /// Lets the oldest of the ended runs go, those that succeeded and the others apart.
    pub(super) fn expire_history(&mut self) {
        let spec = &self.schedule.spec;
        for (succeeded, limit) in [(true, spec.successful_runs_history_limit), (false, spec.failed_runs_history_limit)]
        {
            let ended = self.seen.runs.iter().filter(|run| run.phase.is_final() && !run.deleting);
            let mut side: Vec<&RunSeen> = ended.filter(|run| (run.phase == RunPhase::Succeeded) == succeeded).collect();
            side.sort_by_key(|run| std::cmp::Reverse(age(run)));
            for run in side.into_iter().skip(usize::try_from(limit).unwrap_or(usize::MAX)) {
                self.effects.push(ScheduleEffect::Delete { name: run.name.clone(), uid: run.uid.clone() });
            }
        }
    }
}
