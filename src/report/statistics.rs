//! The figures of a report.

use std::collections::BTreeMap;

use crate::{
    analysis::{
        self, Change, Comparison, Direction, Failures, QuantileInterval, Thresholds, percentile, quantile_interval,
        wilson_interval,
    },
    api::status::CycleCounts,
    results::Environment,
};

use super::{
    document::{BaselineReport, ChangeVerdict, ComparisonReport, DriftDirection, DriftReport, Estimate, MetricReport},
    records::RunRecords,
    series::Series,
};

/// Confidence of every interval in a report but the success rate's, which the run may set.
pub(super) const CONFIDENCE: f64 = 0.95;
/// Outliers of a metric that are named.
const MAX_OUTLIERS: usize = 50;

/// Describes a metric. None: it has no values.
fn metric(series: &Series) -> Option<MetricReport> {
    let sorted = series.sorted();
    let spread = analysis::spread(&sorted)?;
    let at = |q: f64| {
        let QuantileInterval { low, high } = quantile_interval(&sorted, q, CONFIDENCE);
        Estimate { value: percentile(&sorted, q).unwrap_or_default(), low, high }
    };
    let outliers = series.cycles.iter().zip(&series.values).filter(|(_, value)| spread.is_outlier(**value));
    Some(MetricReport {
        name: series.name.clone(),
        unit: series.unit().to_owned(),
        count: spread.count,
        mean: spread.mean,
        min: spread.min,
        max: spread.max,
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        outliers: outliers.map(|(cycle, _)| *cycle).take(MAX_OUTLIERS).collect(),
        drift: drift(series),
    })
}

fn drift(series: &Series) -> DriftReport {
    let found = analysis::drift(&series.hours, &series.values, CONFIDENCE);
    DriftReport {
        direction: match found.direction {
            Direction::Rising => DriftDirection::Rising,
            Direction::Falling => DriftDirection::Falling,
            Direction::Steady => DriftDirection::Steady,
            Direction::InsufficientData => DriftDirection::InsufficientData,
        },
        per_hour: found.slope.map(|slope| Estimate {
            value: slope.estimate,
            low: Some(slope.low),
            high: Some(slope.high),
        }),
        growth: found.growth,
        p_value: found.p_value,
        adjusted: None,
    }
}

/// Describes every metric that has values. A drift is told if it is significant among all of them.
pub(super) fn metrics(series: &[Series]) -> Vec<MetricReport> {
    let mut metrics: Vec<MetricReport> = series.iter().filter_map(metric).collect();
    let p_values: Vec<f64> = metrics.iter().filter_map(|metric| metric.drift.p_value).collect();
    let tested = metrics.iter_mut().filter(|metric| metric.drift.p_value.is_some());
    for (metric, adjusted) in tested.zip(analysis::false_discovery::adjusted(&p_values)) {
        metric.drift.adjusted = Some(adjusted);
        if adjusted > 1.0 - CONFIDENCE {
            metric.drift.direction = DriftDirection::Steady;
        }
    }
    metrics
}

/// Compares a run with its baseline, metric by metric; those that changed come first, the largest share first.
pub(super) fn baseline(
    run: &RunRecords,
    counts: &CycleCounts,
    series: &[Series],
    baseline: &RunRecords,
    before: &[Series],
) -> BaselineReport {
    let cycles = baseline.counts();
    BaselineReport {
        run: baseline.run.clone(),
        success_p_value: analysis::fisher_exact(failures(counts), failures(&cycles)),
        cycles,
        differences: differences(&environment(baseline), &environment(run)),
        metrics: compare(before, series),
    }
}

fn failures(counts: &CycleCounts) -> Failures {
    let failed = u64::from(counts.failed);
    Failures { failed, trials: failed + u64::from(counts.passed) }
}

/// The conditions that a run ran under.
pub(super) fn environment(run: &RunRecords) -> Environment {
    let of_pass = || run.passes().last().map(|pass| pass.environment.clone());
    run.summary.as_ref().map(|summary| summary.environment.clone()).or_else(of_pass).unwrap_or_default()
}

/// Compares metrics by name. A metric that only one of both has is compared with nothing.
pub fn compare(before: &[Series], after: &[Series]) -> Vec<ComparisonReport> {
    let by_name: BTreeMap<&str, &Series> = before.iter().map(|series| (series.name.as_str(), series)).collect();
    let known = |series: &Series| after.iter().any(|other| other.name == series.name);
    let nothing: &[f64] = &[];
    let mut names: Vec<&Series> = after.iter().collect();
    let mut pairs: Vec<(&[f64], &[f64])> = after
        .iter()
        .map(|series| (by_name.get(series.name.as_str()).map_or(nothing, |old| &old.values), series.values.as_slice()))
        .collect();
    for gone in before.iter().filter(|series| !known(series)) {
        names.push(gone);
        pairs.push((gone.values.as_slice(), nothing));
    }
    let found = analysis::compare(&pairs, &Thresholds::default());
    let mut rows: Vec<ComparisonReport> = names.into_iter().zip(found).map(|(series, it)| row(series, &it)).collect();
    let size = |row: &ComparisonReport| row.relative.map_or(0.0, f64::abs);
    let changed = |row: &ComparisonReport| matches!(row.verdict, ChangeVerdict::Higher | ChangeVerdict::Lower);
    let group = |row: &ComparisonReport| (!changed(row)).then_some(row.verdict);
    rows.sort_by(|a, b| group(a).cmp(&group(b)).then(size(b).total_cmp(&size(a))));
    rows
}

fn row(series: &Series, found: &Comparison) -> ComparisonReport {
    let shift = found.shift.map(|shift| Estimate {
        value: shift.estimate,
        low: shift.interval.map(|it| it.0),
        high: shift.interval.map(|it| it.1),
    });
    ComparisonReport {
        name: series.name.clone(),
        unit: series.unit().to_owned(),
        count_before: found.count_before,
        count_after: found.count_after,
        before: found.median_before,
        after: found.median_after,
        shift,
        relative: shift
            .zip(found.median_before.filter(|median| *median != 0.0))
            .map(|(shift, median)| shift.value / median.abs()),
        superiority: found.superiority,
        p_value: found.p_value,
        adjusted: found.adjusted,
        verdict: match found.change {
            Change::Higher => ChangeVerdict::Higher,
            Change::Lower => ChangeVerdict::Lower,
            Change::Same => ChangeVerdict::Same,
            Change::Unclear => ChangeVerdict::Unclear,
            Change::InsufficientData => ChangeVerdict::InsufficientData,
        },
    }
}

/// The Wilson interval of a share.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn share(part: usize, all: usize) -> Option<Estimate> {
    let interval = wilson_interval(part as u64, all as u64, CONFIDENCE)?;
    Some(Estimate { value: part as f64 / all as f64, low: Some(interval.low), high: Some(interval.high) })
}

fn differences(before: &Environment, after: &Environment) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut note = |what: &str, before: &str, after: &str| {
        if before != after {
            found.push((what.to_owned(), before.to_owned(), after.to_owned()));
        }
    };
    note("Kubernetes", &before.kubernetes_version, &after.kubernetes_version);
    note("operator", &before.operator_version, &after.operator_version);
    note("spec", &before.spec_digest, &after.spec_digest);
    let names: std::collections::BTreeSet<&String> = before.parameters.keys().chain(after.parameters.keys()).collect();
    for name in names {
        let value = |environment: &Environment| environment.parameters.get(name).cloned().unwrap_or_default();
        note(&format!("parameter {name}"), &value(before), &value(after));
    }
    found
}
