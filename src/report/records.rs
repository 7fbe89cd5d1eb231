//! The records that a report is made of.

use crate::{
    api::status::{CycleCounts, Outcome, Section},
    results::{CycleRecord, RecordPart, RunRef, StepRecord, StoredRecord, SummaryRecord},
};

/// What is stored of one attempt of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecords {
    /// The run.
    pub run: RunRef,
    /// The setup, if it left a record.
    pub setup: Option<CycleRecord>,
    /// The cycles whose record is stored, in order. Retention may have removed others.
    pub cycles: Vec<CycleRecord>,
    /// The cleanup, if it left a record.
    pub cleanup: Option<CycleRecord>,
    /// The summary; absent while the run runs.
    pub summary: Option<SummaryRecord>,
    /// Names of records that were left out because they can't be read or no longer match their digest.
    pub damaged: Vec<String>,
}

impl RunRecords {
    /// Takes the records of one attempt, the newest if none is named, from those of a run. None: there are none of it.
    ///
    /// A record that was changed since it was stored is left out and named: no figure shall rest on it.
    pub fn of(stored: &[StoredRecord], attempt: Option<u32>) -> Option<Self> {
        let attempt = attempt.or_else(|| stored.iter().map(|record| record.attempt).max())?;
        let mut this = Self::default();
        for record in stored.iter().filter(|record| record.attempt == attempt) {
            if !record.intact || !this.take(record) {
                this.damaged.push(record.name.clone());
            }
        }
        this.cycles.sort_by_key(|record| record.cycle);
        let passes = this.setup.iter().chain(&this.cycles).chain(&this.cleanup);
        let run = this.summary.as_ref().map(|summary| &summary.run).or_else(|| passes.map(|record| &record.run).next());
        this.run = run?.clone();
        Some(this)
    }

    /// Several runs as one, to be compared with: all their cycles, and how many ended how. None: there are no runs.
    ///
    /// Conditions are those of the newest, which comes last.
    pub fn pooled(runs: Vec<Self>) -> Option<Self> {
        let mut runs = runs;
        let mut pool = runs.pop()?;
        if runs.is_empty() {
            return Some(pool);
        }
        let mut names = vec![pool.run.name.clone()];
        let mut counts = pool.counts();
        for run in runs.into_iter().rev() {
            let more = run.counts();
            counts.completed += more.completed;
            counts.passed += more.passed;
            counts.failed += more.failed;
            counts.inconclusive += more.inconclusive;
            counts.transient_failures += more.transient_failures;
            names.push(run.run.name);
            pool.cycles.extend(run.cycles);
            pool.damaged.extend(run.damaged);
        }
        pool.run.name = format!("{} runs ({})", names.len(), names.join(", "));
        pool.cycles.sort_by_key(|cycle| cycle.started_at);
        let environment = super::statistics::environment(&pool);
        let summary = pool.summary.get_or_insert_default();
        summary.environment = environment;
        summary.run.clone_from(&pool.run);
        summary.cycles = counts;
        Some(pool)
    }

    /// How many cycles ended how: as the summary says, or as far as they are stored.
    pub(super) fn counts(&self) -> CycleCounts {
        if let Some(summary) = &self.summary {
            return summary.cycles.clone();
        }
        let mut counts = CycleCounts::default();
        for cycle in &self.cycles {
            counts.completed += 1;
            match cycle.outcome {
                Outcome::Succeeded => counts.passed += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Inconclusive => counts.inconclusive += 1,
            }
        }
        counts
    }

    fn take(&mut self, stored: &StoredRecord) -> bool {
        if stored.part == RecordPart::Summary {
            self.summary = stored.summary().ok();
            return self.summary.is_some();
        }
        let Ok(record) = stored.cycle() else { return false };
        match record.section {
            Section::Setup => self.setup = Some(record),
            Section::Cycle => self.cycles.push(record),
            Section::Cleanup => self.cleanup = Some(record),
        }
        true
    }

    /// Every record of a pass: setup, cycles, cleanup.
    pub fn passes(&self) -> impl Iterator<Item = &CycleRecord> {
        self.setup.iter().chain(&self.cycles).chain(&self.cleanup)
    }

    /// How many cycles ended, stored or not.
    pub fn completed(&self) -> u32 {
        let stored = u32::try_from(self.cycles.len()).unwrap_or(u32::MAX);
        self.summary.as_ref().map_or(stored, |summary| summary.cycles.completed.max(stored))
    }

    /// Whether the record of every cycle that ended is there.
    pub fn is_complete(&self) -> bool {
        usize::try_from(self.completed()).is_ok_and(|completed| completed == self.cycles.len())
    }
}

/// Where a pass failed: its phase, and the step if one is to blame.
pub(super) fn culprit(record: &CycleRecord) -> Option<(&str, Option<&StepRecord>)> {
    let phase = record.phases.iter().find(|phase| phase.outcome != Outcome::Succeeded)?;
    let failed = phase.steps.iter().find(|step| step.outcome == Some(Outcome::Failed));
    let stopped = || phase.steps.iter().find(|step| step.outcome == Some(Outcome::Inconclusive));
    Some((&phase.name, failed.or_else(stopped)))
}

/// Whether a fault was injected in a pass.
pub(super) fn injected(record: &CycleRecord) -> bool {
    record.phases.iter().flat_map(|phase| &phase.steps).any(|step| is_injection(step) && step.started_at.is_some())
}

/// Whether a step injects a fault.
pub(super) fn is_injection(step: &StepRecord) -> bool {
    step.kind.as_deref() == Some("inject")
}
