//! `summary.json`: all that a report says, as data.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    api::status::{CycleCounts, Section},
    results::{AlertRecord, Environment, Manifest, RunRef, SuccessRate, Verdict},
};

/// The version of [`Report`]'s layout. Fields may be added within a version; none changes its meaning or goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReportSchema {
    /// The first version.
    #[default]
    #[serde(rename = "soak.dev/report/v1")]
    V1,
}

/// A value with the ends of its confidence interval; an end is absent where the data can't tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// Which way a metric goes over the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftDirection {
    /// It grows.
    Rising,
    /// It shrinks.
    Falling,
    /// No drift was shown.
    Steady,
    /// There are too few values to tell.
    #[default]
    InsufficientData,
}

/// How a metric drifts over the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftReport {
    /// Which way.
    pub direction: DriftDirection,
    /// The change in an hour, in the metric's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<Estimate>,
    /// The change over the whole run, as a share of the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<f64>,
    /// The p-value of the trend, corrected for autocorrelation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// The p-value, adjusted for the number of metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjusted: Option<f64>,
}

/// One metric of the run, over the stored cycles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricReport {
    /// `cycle`, `phases.NAME` or `steps.NAME.outputs.OUTPUT`.
    pub name: String,
    /// `s` for durations; empty where it is not known.
    pub unit: String,
    /// How many values there are.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The median.
    pub p50: Estimate,
    /// The 90th percentile.
    pub p90: Estimate,
    /// The 95th percentile.
    pub p95: Estimate,
    /// The 99th percentile.
    pub p99: Estimate,
    /// Cycles whose value lies beyond Tukey's fences; the first fifty.
    pub outliers: Vec<u32>,
    /// How it drifts.
    pub drift: DriftReport,
}

/// What a comparison with the baseline says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ChangeVerdict {
    /// Values are larger, by as much as matters.
    Higher,
    /// Values are smaller, by as much as matters.
    Lower,
    /// It may have moved or not.
    Unclear,
    /// If it moved, then by less than matters.
    Same,
    /// There are too few values to tell.
    #[default]
    InsufficientData,
}

/// One metric against the baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComparisonReport {
    /// The metric.
    pub name: String,
    /// Its unit, as in the metrics.
    pub unit: String,
    /// Values of the baseline.
    pub count_before: usize,
    /// Values of the run.
    pub count_after: usize,
    /// Median of the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<f64>,
    /// Median of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<f64>,
    /// The Hodges-Lehmann shift, in the metric's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Estimate>,
    /// The shift as a share of the baseline's median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// The chance that a value of the run is larger than one of the baseline (A12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superiority: Option<f64>,
    /// The p-value of the rank-sum test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// The p-value, adjusted for the number of metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjusted: Option<f64>,
    /// What follows.
    pub verdict: ChangeVerdict,
}

/// The run that a run is compared with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BaselineReport {
    /// The run.
    pub run: RunRef,
    /// How many cycles ended how.
    pub cycles: CycleCounts,
    /// p-value of Fisher's exact test that both runs fail equally often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_p_value: Option<f64>,
    /// Conditions that were not the same: what, before, after.
    pub differences: Vec<(String, String, String)>,
    /// Each metric, those that changed first.
    pub metrics: Vec<ComparisonReport>,
}

/// Failures of one kind: the same step, the same reason, the same message but for numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureGroup {
    /// Setup, cycle or cleanup.
    pub section: Section,
    /// The phase.
    pub phase: String,
    /// The step, if one is to blame.
    pub step: String,
    /// One stable word.
    pub reason: String,
    /// What was seen the last time.
    pub message: String,
    /// How often, in the stored records.
    pub count: usize,
    /// The share of cycles that failed so; absent where records are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Estimate>,
    /// The cycles; the newest fifty.
    pub cycles: Vec<u32>,
    /// The last time: when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// The last time: how often the step was tried.
    pub attempts: u32,
    /// The last time: the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The last time: the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The last time: the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last time: the end of the pod's log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// The last time: files that the step has left behind, by their paths below the attempt's folder in the object store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
}

/// A step that does not always go well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// The phase.
    pub phase: String,
    /// The step.
    pub step: String,
    /// Cycles in which it ended.
    pub ended: usize,
    /// Of them, those in which it failed.
    pub failed: usize,
    /// Of those in which it succeeded, those that took more than one attempt.
    pub retried: usize,
    /// The share in which it failed; absent where records are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Estimate>,
}

/// Something that failures depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DependenceReport {
    /// `hour`, `roles`, `injection` or `node`.
    pub on: String,
    /// Which one, such as `02:00 UTC` or `primary hub-a, secondary hub-b`.
    pub group: String,
    /// Failures with it.
    pub failed: u64,
    /// Trials with it.
    pub trials: u64,
    /// Failures without it.
    pub failed_else: u64,
    /// Trials without it.
    pub trials_else: u64,
    /// The p-value of Fisher's exact test.
    pub p_value: f64,
    /// The p-value, adjusted for the number of groups.
    pub adjusted: f64,
}

/// All that a report says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The layout's version.
    pub schema: ReportSchema,
    /// The run.
    pub run: RunRef,
    /// How it was judged; `Running` while it runs.
    pub verdict: Verdict,
    /// The verdict in words, with its interval.
    pub words: String,
    /// When the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How many cycles ended how.
    pub cycles: CycleCounts,
    /// How many of them have a record that could be read. Metrics and failures are taken from these.
    pub stored: usize,
    /// Records that were left out because they were changed or can't be read.
    pub damaged: Vec<String>,
    /// The share of cycles that passed; absent when none passed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// Durations and numeric outputs.
    pub metrics: Vec<MetricReport>,
    /// Failures by kind, the most frequent first.
    pub failures: Vec<FailureGroup>,
    /// Steps that do not always go well.
    pub steps: Vec<StepReport>,
    /// What failures depend on, as far as it is significant (0.05, adjusted).
    pub dependences: Vec<DependenceReport>,
    /// The comparison, if a baseline was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineReport>,
    /// The newest alerts of the run's monitors, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertRecord>,
    /// What the run was asked to do, by whom and with what; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// The conditions that the run ran under.
    pub environment: Environment,
}

/// The JSON Schema of [`Report`]: the name and text of its file in `docs/schemas`.
pub fn schema() -> (&'static str, String) {
    let schema = schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Report>();
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    ("report.v1.json", text)
}
