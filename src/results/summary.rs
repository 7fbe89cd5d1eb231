//! The record of a whole attempt of a run.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::status::{CycleCounts, CycleSummary, Failure, Outcome, RunPhase};

use super::{
    manifest::{Manifest, Snapshot},
    monitor::{AlertRecord, MonitorRecord},
    record::{Environment, RunRef},
};

/// The version of [`SummaryRecord`]'s layout. Fields may be added within a version; none changes its meaning or goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SummarySchema {
    /// The first version.
    #[default]
    #[serde(rename = "soak.dev/summary-record/v1")]
    V1,
}

/// How the run was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The phase in which the run ended.
    pub phase: RunPhase,
    /// One stable word.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
}

/// The share of cycles that passed, of those that passed or failed, with its Wilson interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SuccessRate {
    /// The share, from 0 to 1.
    pub rate: f64,
    /// Lower end of the interval.
    pub lower: f64,
    /// Upper end of the interval.
    pub upper: f64,
    /// The interval's confidence, such as 0.95.
    pub confidence: f64,
}

/// The distribution of a duration (in seconds) or of a numeric output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricSummary {
    /// `cycle`, `phases.NAME` or `steps.NAME.outputs.OUTPUT`.
    pub name: String,
    /// How many values there were.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// How far a percentile may be off, relative to its value: percentiles come from a sketch of bounded size.
    pub relative_error: f64,
}

impl MetricSummary {
    fn is_finite(&self) -> bool {
        [self.mean, self.min, self.max, self.p50, self.p90, self.p95, self.p99, self.relative_error]
            .iter()
            .all(|value| value.is_finite())
    }
}

/// What came of the setup or the cleanup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SectionSummary {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The record of a whole attempt of a run. It is written last, when the verdict is final.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SummaryRecord {
    /// The layout's version.
    pub schema: SummarySchema,
    /// The run.
    pub run: RunRef,
    /// How it was judged.
    pub verdict: Verdict,
    /// When the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// How long it took, time spent suspended included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How many cycles ended how.
    pub cycles: CycleCounts,
    /// The share of cycles that passed; absent when none passed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// The same without cycles that failed transiently; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate_without_transient: Option<SuccessRate>,
    /// How often the roles of the targets swapped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub role_swaps: u32,
    /// Distributions over all cycles. A metric without values is left out.
    pub metrics: Vec<MetricSummary>,
    /// The newest cycles, oldest first.
    pub recent: Vec<CycleSummary>,
    /// The setup, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<SectionSummary>,
    /// The cleanup, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<SectionSummary>,
    /// Something was left out to keep the record small; `fullDigest` is then the digest of the whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The digest of the record before anything was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_digest: Option<String>,
    /// What the run was asked to do, by whom and with what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// Chosen objects at the start and at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// Alerts that fired last, oldest first; their monitors count all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertRecord>,
    /// What monitors measured over the whole run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitors: Vec<MonitorRecord>,
    /// The conditions that the run ran under.
    pub environment: Environment,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl SummaryRecord {
    /// Leaves out numbers that JSON can't tell. They come from metrics without values, and no value is better than a wrong one.
    pub(super) fn keep_finite(&mut self) {
        self.metrics.retain(MetricSummary::is_finite);
        self.seconds = self.seconds.filter(|seconds| seconds.is_finite());
        for rate in [&mut self.success_rate, &mut self.success_rate_without_transient] {
            *rate = rate.filter(|rate| {
                [rate.rate, rate.lower, rate.upper, rate.confidence].iter().all(|value| value.is_finite())
            });
        }
    }
}
