//! Reports on a run, from its stored records: data, Markdown, test results, a page to look at.
//!
//! Everything is made from the records alone, so that a report can be made at any time and anywhere. Nothing from a record
//! is trusted: each format escapes what it shows.

mod ctrf;
mod document;
mod failures;
mod html;
mod junit;
mod markdown;
mod monitors;
mod plots;
mod records;
mod series;
mod statistics;
mod svg;
mod timeline;
mod trend;
pub mod words;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use crate::{
    analysis::wilson_interval,
    api::status::{CycleCounts, RunPhase, SoakRunStatus},
    results::{SuccessRate, SummaryRecord, Verdict},
};

pub use document::{
    BaselineReport, ChangeVerdict, ComparisonReport, DriftDirection, DriftReport, Estimate, FailureGroup, MetricReport,
    Report, StepReport, schema,
};
pub use records::RunRecords;
pub use series::{Series, series};
pub use statistics::compare;
pub use trend::{TrendChange, TrendReport, trend};

/// A report could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The page.
    #[error("report.html can't be rendered: {0}")]
    Html(#[from] minijinja::Error),
    /// The test results.
    #[error("junit.xml can't be written: {0}")]
    Junit(#[from] quick_junit::SerializeError),
    /// The data.
    #[error("a report can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Works out all that can be said about a run, and what changed against a baseline.
pub fn report(run: &RunRecords, baseline: Option<&RunRecords>) -> Report {
    let all = series(&run.cycles);
    let cycles = run.counts();
    let before = baseline.map(|records| series(&records.cycles)).unwrap_or_default();
    let mut report = Report {
        run: run.run.clone(),
        verdict: verdict(run),
        started_at: run
            .summary
            .as_ref()
            .map_or_else(|| run.passes().next().map(|it| it.started_at), |it| it.started_at),
        finished_at: run.summary.as_ref().and_then(|summary| summary.finished_at),
        seconds: run.summary.as_ref().and_then(|summary| summary.seconds),
        stored: run.cycles.len(),
        damaged: run.damaged.clone(),
        success_rate: success_rate(run, &cycles),
        metrics: statistics::metrics(&all),
        failures: failures::groups(run),
        steps: failures::steps(run),
        dependences: failures::dependences(run),
        baseline: baseline.map(|records| statistics::baseline(run, &cycles, &all, records, &before)),
        alerts: run.summary.iter().flat_map(|summary| summary.alerts.clone()).collect(),
        manifest: run.summary.as_ref().and_then(|summary| summary.manifest.clone()),
        environment: statistics::environment(run),
        cycles,
        ..Report::default()
    };
    report.words = words::success(&report);
    report
}

/// The files of a report: their names and contents.
///
/// Errors: none is expected; they are bugs of the report, not of the run.
pub fn files(
    report: &Report,
    run: &RunRecords,
    baseline: Option<&RunRecords>,
) -> Result<Vec<(&'static str, String)>, ReportError> {
    let mut summary = serde_json::to_string_pretty(report)?;
    summary.push('\n');
    Ok(vec![
        ("report.html", html::page(report, run, baseline)?),
        ("report.md", markdown::text(report)),
        ("summary.json", summary),
        ("junit.xml", junit::xml(report, run)?),
        ("ctrf.json", ctrf::json(report, run)?),
    ])
}

/// Whether a run has ended with a good verdict.
pub fn has_passed(report: &Report) -> bool {
    report.verdict.phase == RunPhase::Succeeded
}

/// What takes the place of the summary while a run runs: the counts and the phase of its status.
pub fn standing(run: &RunRecords, status: &SoakRunStatus) -> SummaryRecord {
    let cycles = status.cycles.clone();
    SummaryRecord {
        run: run.run.clone(),
        verdict: Verdict { phase: status.phase, reason: status.reason.clone(), message: status.message.clone() },
        started_at: status.started_at,
        finished_at: status.finished_at,
        success_rate: wilson(&cycles),
        cycles,
        environment: statistics::environment(run),
        ..SummaryRecord::default()
    }
}

fn verdict(run: &RunRecords) -> Verdict {
    run.summary.as_ref().map_or_else(
        || Verdict {
            phase: RunPhase::Running,
            reason: "Running".into(),
            message: "there is no summary yet: the run has not ended".into(),
        },
        |summary| summary.verdict.clone(),
    )
}

fn success_rate(run: &RunRecords, counts: &CycleCounts) -> Option<SuccessRate> {
    if let Some(summary) = &run.summary {
        return summary.success_rate;
    }
    wilson(counts)
}

fn wilson(counts: &CycleCounts) -> Option<SuccessRate> {
    let (passed, trials) = (u64::from(counts.passed), u64::from(counts.passed) + u64::from(counts.failed));
    let confidence = statistics::CONFIDENCE;
    let interval = wilson_interval(passed, trials, confidence)?;
    let rate = f64::from(counts.passed) / f64::from(counts.passed + counts.failed);
    Some(SuccessRate { rate, lower: interval.low, upper: interval.high, confidence })
}
