//! Since when something is different, over a series of runs.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    analysis::{Changes, Search, change_points},
    results::SummaryRecord,
};

use super::series::unit;

/// The chance that a series of runs without any change is said to have one, over all its metrics.
const SIGNIFICANCE: f64 = 0.05;
/// The metric of success rates; no metric of a run can have the name.
const SUCCESS_RATE: &str = "successRate";

/// One metric over a series of runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrendReport {
    /// `successRate`, or the metric whose median of each run is looked at.
    pub name: String,
    /// `s` for durations.
    pub unit: String,
    /// How many runs have it.
    pub runs: usize,
    /// Too few runs have it to tell anything: `changes` is empty.
    pub insufficient_data: bool,
    /// The changes, oldest first.
    pub changes: Vec<TrendChange>,
}

/// From one run on, a metric is different.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrendChange {
    /// The first run that is different.
    pub run: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// The mean of the runs since the change before, or since the first.
    pub before: f64,
    /// The mean of the runs until the next change, or until the last.
    pub after: f64,
    /// How rarely the same runs in another order show a change as large.
    pub p_value: f64,
}

/// Looks for changes in the success rate and in the median of each metric, over runs in the order in which they began.
///
/// The chance that any of the metrics is wrongly said to have changed is at most [`SIGNIFICANCE`]: each is tested at its share (Bonferroni).
pub fn trend(runs: &[SummaryRecord]) -> Vec<TrendReport> {
    let mut runs: Vec<&SummaryRecord> = runs.iter().collect();
    runs.sort_by_key(|run| run.started_at);
    let mut all: Vec<(String, Vec<(&SummaryRecord, f64)>)> = Vec::new();
    let mut add = |name: &str, run, value| match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, values)) => values.push((run, value)),
        None => all.push((name.to_owned(), vec![(run, value)])),
    };
    for run in runs {
        if let Some(rate) = run.success_rate {
            add(SUCCESS_RATE, run, rate.rate);
        }
        for metric in run.metrics.iter().filter(|metric| metric.p50.is_finite()) {
            add(&metric.name, run, metric.p50);
        }
    }
    let search = search(all.len());
    all.into_iter().map(|(name, values)| one(name, &values, &search)).collect()
}

/// With enough permutations that a p-value can be as small as each metric's share of the significance.
fn search(metrics: usize) -> Search {
    let metrics = u32::try_from(metrics.max(1)).unwrap_or(u32::MAX);
    let usual = Search::default();
    let permutations = usual.permutations.max(metrics.saturating_mul(40));
    Search { significance: SIGNIFICANCE / f64::from(metrics), permutations, ..usual }
}

fn one(name: String, runs: &[(&SummaryRecord, f64)], search: &Search) -> TrendReport {
    let values: Vec<f64> = runs.iter().map(|(_, value)| *value).collect();
    let found = change_points(&values, search);
    let insufficient_data = found == Changes::InsufficientData;
    let points = match found {
        Changes::InsufficientData => Vec::new(),
        Changes::Found(points) => points,
    };
    let mut changes = Vec::new();
    for (place, point) in points.iter().enumerate() {
        let begin = place.checked_sub(1).and_then(|place| points.get(place)).map_or(0, |point| point.index);
        let end = points.get(place + 1).map_or(values.len(), |point| point.index);
        let Some((run, _)) = runs.get(point.index) else { continue };
        changes.push(TrendChange {
            run: run.run.name.clone(),
            started_at: run.started_at,
            before: mean(&values[begin..point.index]),
            after: mean(&values[point.index..end]),
            p_value: point.p_value,
        });
    }
    TrendReport { unit: unit(&name).to_owned(), runs: values.len(), insufficient_data, changes, name }
}

#[expect(clippy::cast_precision_loss, reason = "runs number far below 2^53")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::results::{MetricSummary, RunRef, SuccessRate};

    /// Nightly runs with the given medians of a cycle, newest first, and noise of a few percent.
    fn nights(medians: &[f64]) -> Vec<SummaryRecord> {
        let begin: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let night = |(index, median): (usize, &f64)| SummaryRecord {
            run: RunRef { name: format!("night-{index}"), ..RunRef::default() },
            started_at: Some(begin + TimeDelta::days(i64::try_from(index).unwrap())),
            success_rate: Some(SuccessRate { rate: 1.0, lower: 0.9, upper: 1.0, confidence: 0.95 }),
            metrics: vec![MetricSummary {
                name: "phases.activation".into(),
                p50: median * [1.0, 1.02, 0.97, 1.01, 0.99][index % 5],
                ..MetricSummary::default()
            }],
            ..SummaryRecord::default()
        };
        let mut runs: Vec<SummaryRecord> = medians.iter().enumerate().map(night).collect();
        runs.reverse();
        runs
    }

    #[test]
    fn a_change_is_told_with_the_run_that_it_began_with() {
        let medians: Vec<f64> = [vec![40.0; 12], vec![52.0; 9]].concat();
        let told = trend(&nights(&medians));
        assert_eq!(told.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["successRate", "phases.activation"]);
        assert!(told[0].changes.is_empty() && !told[0].insufficient_data, "{told:?}");
        let [change] = &told[1].changes[..] else { panic!("{told:?}") };
        assert_eq!(change.run, "night-12");
        assert!((39.0..41.0).contains(&change.before) && (51.0..53.0).contains(&change.after), "{change:?}");
        assert_eq!((told[1].runs, told[1].unit.as_str()), (21, "s"));
    }

    #[test]
    fn noise_is_no_change_and_a_few_runs_tell_nothing() {
        assert!(trend(&nights(&[40.0; 21])).iter().all(|it| it.changes.is_empty() && !it.insufficient_data));
        assert!(trend(&nights(&[40.0, 90.0, 90.0])).iter().all(|it| it.changes.is_empty() && it.insufficient_data));
        assert!(trend(&[]).is_empty());
    }

    #[test]
    fn many_metrics_can_still_be_significant() {
        for metrics in [1, 50, 500] {
            let search = search(metrics);
            assert!(1.0 / f64::from(search.permutations + 1) < search.significance, "{metrics}");
        }
    }
}
