//! `report.html`: one page that needs no network and no script.

use std::collections::BTreeMap;

use minijinja::{Environment, Value, context, value::Serde};
use serde::Serialize;

use crate::{
    api::status::{Outcome, RunPhase},
    results::CycleRecord,
};

use super::{
    ReportError,
    document::{ChangeVerdict, ComparisonReport, Estimate, FailureGroup, MetricReport, Report},
    monitors, plots,
    records::RunRecords,
    series::{Series, series},
    svg::escaped,
    timeline::{self, Mark},
    words,
};

/// Metrics that are drawn over time; the table has them all.
const MAX_DRAWN: usize = 60;
/// Outputs of cycles that are listed.
const MAX_GROUPS: usize = 40;

/// A number with what it means, at the top of the page.
#[derive(Serialize)]
struct Tile {
    value: String,
    label: &'static str,
    note: String,
}

/// Renders the page. Whatever comes from records is escaped: by the template in texts, by `svg` in drawings.
pub(super) fn page(report: &Report, run: &RunRecords, baseline: Option<&RunRecords>) -> Result<String, ReportError> {
    // By its name, the template escapes as HTML.
    let mut environment = Environment::new();
    environment.add_template("report.html", include_str!("report.html.j2"))?;
    environment.add_filter("breakable", breakable);
    let all = series(&run.cycles);
    let before = baseline.map(|records| series(&records.cycles)).unwrap_or_default();
    let marks = timeline::marks(run);
    let names = phase_names(&run.cycles);
    let rows = timeline::chosen(run);
    let over_time = over_time(report, &all, &before);
    let durations: Vec<&Series> = all.iter().filter(|series| series.unit() == "s").collect();
    let page = environment.get_template("report.html")?.render(context! {
        style => Value::from_safe_string(include_str!("report.css").to_owned()),
        report => Value::from(Serde(report)),
        badge => badge(report.verdict.phase),
        verdict => words::verdict(report.verdict.phase),
        when => when(report),
        findings => words::findings(report),
        tiles => Value::from(Serde(tiles(report))),
        strip => Value::from_safe_string(timeline::strip(run, &marks)),
        phases => Value::from_safe_string(timeline::phases(&rows, &names, &marks)),
        strip_legend => strip_legend(run, &marks),
        legend => legend(&names, &rows),
        rows_shown => rows.len(),
        boxes => Value::from_safe_string(plots::boxes(&durations, &before)),
        drawn => over_time.drawn,
        steady => over_time.steady,
        alerts => monitors::alerts(&report.alerts),
        monitors => monitors::series(run.summary.as_ref().map_or(&[], |summary| &summary.monitors)),
        metrics => report.metrics.iter().map(metric_row).collect::<Vec<_>>(),
        comparison => report.baseline.as_ref().map(|it| it.metrics.iter().map(comparison_row).collect::<Vec<_>>()),
        success_p => report.baseline.as_ref().and_then(|it| it.success_p_value).map(words::p_value),
        failures => report.failures.iter().take(MAX_GROUPS).map(failure).collect::<Vec<_>>(),
        steps => report.steps.iter().map(|step| context! {
            phase => &step.phase, step => &step.step, ended => step.ended, failed => step.failed, retried => step.retried,
            share => step.share.map(|share| share_words(&share)),
        }).collect::<Vec<_>>(),
        missing => usize::try_from(report.cycles.completed).unwrap_or(usize::MAX).saturating_sub(report.stored),
        version => env!("CARGO_PKG_VERSION"),
    })?;
    Ok(page)
}

fn badge(phase: RunPhase) -> &'static str {
    match phase {
        RunPhase::Succeeded => "good",
        RunPhase::Failed => "bad",
        RunPhase::Inconclusive | RunPhase::Aborted => "unknown",
        _ => "running",
    }
}

fn when(report: &Report) -> String {
    let time = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d %H:%M UTC").to_string();
    match (report.started_at, report.finished_at) {
        (Some(from), Some(to)) => format!("{} to {}", time(from), time(to)),
        (Some(from), None) => format!("since {}", time(from)),
        _ => String::new(),
    }
}

fn tiles(report: &Report) -> Vec<Tile> {
    let counts = &report.cycles;
    let mut tiles = Vec::new();
    if let Some(rate) = report.success_rate {
        tiles.push(Tile {
            value: words::percent(rate.rate),
            label: "of cycles passed",
            note: format!(
                "{} to {} at {} confidence",
                words::percent(rate.lower),
                words::percent(rate.upper),
                words::percent(rate.confidence)
            ),
        });
    }
    let mut note = format!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.inconclusive > 0 {
        note = format!("{note}, {} inconclusive", counts.inconclusive);
    }
    tiles.push(Tile { value: words::number(f64::from(counts.completed)), label: "cycles", note });
    if let Some(cycle) = report.metrics.iter().find(|metric| metric.name == "cycle") {
        tiles.push(Tile {
            value: words::span(cycle.p50.value),
            label: "median cycle",
            note: format!("P95 {}, longest {}", words::span(cycle.p95.value), words::span(cycle.max)),
        });
    }
    if let Some(seconds) = report.seconds {
        let note = report.started_at.map(|at| at.format("from %Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default();
        tiles.push(Tile { value: words::span(seconds), label: "in all", note });
    }
    if let Some(baseline) = &report.baseline {
        let count = |verdict| baseline.metrics.iter().filter(|row| row.verdict == verdict).count();
        let (higher, lower) = (count(ChangeVerdict::Higher), count(ChangeVerdict::Lower));
        tiles.push(Tile {
            value: (higher + lower).to_string(),
            label: "metrics changed",
            note: format!("{higher} higher, {lower} lower than in {}", baseline.run.name),
        });
    }
    tiles
}

/// Names of phases in the order in which they first came.
fn phase_names(cycles: &[CycleRecord]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for phase in cycles.iter().flat_map(|cycle| &cycle.phases) {
        if !names.contains(&phase.name.as_str()) {
            names.push(&phase.name);
        }
    }
    names
}

/// The name of a metric, which may go on in the next line after each of its parts.
fn breakable(name: &str) -> Value {
    Value::from_safe_string(escaped(name).replace('.', ".<wbr>"))
}

/// What the strip's colours mean, of those that are there.
fn strip_legend(run: &RunRecords, marks: &[Mark]) -> Vec<Value> {
    let ended = |outcome: Outcome| run.passes().any(|pass| pass.outcome == outcome);
    let marked = |kind: &str| marks.iter().any(|mark| mark.kind == kind);
    let around = run.setup.iter().chain(&run.cleanup).any(|pass| pass.outcome == Outcome::Succeeded);
    [
        ("good", "passed", run.cycles.iter().any(|cycle| cycle.outcome == Outcome::Succeeded)),
        ("bad", "failed", ended(Outcome::Failed)),
        ("unknown", "inconclusive", ended(Outcome::Inconclusive)),
        ("other", "setup and cleanup", around),
        ("injection", "injected fault", marked(timeline::INJECTION)),
        ("alert", "alert", marked(timeline::ALERT)),
    ]
    .into_iter()
    .filter(|(_, _, there)| *there)
    .map(|(class, name, _)| context! { class, name })
    .collect()
}

/// What the colours of phases mean.
fn legend(names: &[&str], rows: &[&CycleRecord]) -> Vec<Value> {
    let entry =
        |(index, name): (usize, &&str)| context! { name => *name, class => format!("c{}", index % timeline::COLOURS) };
    let bad = rows.iter().flat_map(|cycle| &cycle.phases).any(|phase| phase.outcome != Outcome::Succeeded);
    let outlined = bad.then(|| context! { name => "did not succeed", class => "outlined" });
    names.iter().enumerate().map(entry).chain(outlined).collect()
}

/// What is to be seen of metrics over the cycles.
#[derive(Default)]
struct OverTime {
    /// Drawings.
    drawn: Vec<Value>,
    /// What was the same in all cycles, of the baseline as well: a drawing would show nothing.
    steady: Vec<Value>,
}

fn over_time(report: &Report, all: &[Series], before: &[Series]) -> OverTime {
    let before: BTreeMap<&str, &Series> = before.iter().map(|series| (series.name.as_str(), series)).collect();
    let metrics: BTreeMap<&str, &MetricReport> = report.metrics.iter().map(|it| (it.name.as_str(), it)).collect();
    let with_figures = all.iter().filter_map(|series| Some((series, *metrics.get(series.name.as_str())?)));
    let mut over_time = OverTime::default();
    for (series, metric) in with_figures {
        let old = before.get(series.name.as_str()).copied();
        let mut values = series.values.iter().chain(old.iter().flat_map(|old| &old.values));
        if values.all(|value| (value - metric.max).abs() < f64::EPSILON) {
            let value = words::value(metric.max, &metric.unit);
            over_time.steady.push(context! { name => &series.name, value });
        } else if over_time.drawn.len() < MAX_DRAWN {
            over_time.drawn.push(context! {
                name => &series.name,
                plot => Value::from_safe_string(plots::over_time(series, metric, old)),
                drift => words::drift_words(metric),
            });
        }
    }
    over_time
}

fn metric_row(metric: &MetricReport) -> Value {
    let with_interval = |estimate: &Estimate| {
        context! { value => words::value(estimate.value, &metric.unit), interval => words::interval(estimate, &metric.unit) }
    };
    context! {
        name => &metric.name,
        count => metric.count,
        p50 => with_interval(&metric.p50),
        p90 => with_interval(&metric.p90),
        p95 => with_interval(&metric.p95),
        p99 => with_interval(&metric.p99),
        max => words::value(metric.max, &metric.unit),
        outliers => metric.outliers.len(),
        drift => words::drift(metric),
    }
}

fn comparison_row(row: &ComparisonReport) -> Value {
    let value = |value: Option<f64>| value.map(|value| words::value(value, &row.unit));
    let class = match row.verdict {
        ChangeVerdict::Higher if row.unit == "s" => "bad",
        ChangeVerdict::Lower if row.unit == "s" => "good",
        ChangeVerdict::Higher | ChangeVerdict::Lower => "moved",
        _ => "",
    };
    context! {
        name => &row.name,
        before => value(row.before),
        after => value(row.after),
        shift => row.shift.map(|shift| words::signed(shift.value, &row.unit)),
        relative => row.relative.map(words::signed_percent),
        interval => row.shift.map(|shift| words::interval(&shift, &row.unit)),
        superiority => row.superiority.map(|it| format!("{it:.2}")),
        adjusted => row.adjusted.map(words::p_value),
        counts => format!("{} / {}", row.count_before, row.count_after),
        verdict => words::change(row),
        class => class,
    }
}

fn failure(group: &FailureGroup) -> Value {
    let place: Vec<&str> =
        [group.phase.as_str(), group.step.as_str()].into_iter().filter(|it| !it.is_empty()).collect();
    let newest: Vec<String> = group.cycles.iter().rev().take(12).map(u32::to_string).collect();
    let more = group.cycles.len().saturating_sub(newest.len());
    let mut facts: Vec<(&str, String)> = Vec::new();
    if let Some(at) = group.started_at {
        facts.push(("last begun", at.format("%Y-%m-%d %H:%M:%S UTC").to_string()));
    }
    if group.attempts > 0 {
        facts.push(("attempts", group.attempts.to_string()));
    }
    facts.extend(
        [("pod", &group.pod), ("node", &group.node)].into_iter().filter_map(|(what, it)| Some((what, it.clone()?))),
    );
    if let Some(code) = group.exit_code {
        facts.push(("exit code", code.to_string()));
    }
    facts.extend(group.artifacts.iter().map(|path| ("artifact", path.clone())));
    context! {
        section => format!("{:?}", group.section).to_lowercase(),
        place => place.join(" / "),
        reason => &group.reason,
        message => &group.message,
        count => group.count,
        share => group.share.map(|share| share_words(&share)),
        cycles => newest.join(", "),
        more => more,
        facts => facts,
        log => &group.log,
    }
}

fn share_words(share: &Estimate) -> String {
    let ends = share.low.zip(share.high);
    let ends = ends.map(|(low, high)| format!(" ({} to {})", words::percent(low), words::percent(high)));
    format!("{}{}", words::percent(share.value), ends.unwrap_or_default())
}
