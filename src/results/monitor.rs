//! What records tell of monitors.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    monitor::{AlertPolicy, Severity},
    status::{Alert, AlertState},
};

/// An alert that fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertRecord {
    /// The monitor.
    pub monitor: String,
    /// The rule's name, or `MonitorBroken`.
    pub alert: String,
    /// The object, pod or series that it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it does to the run.
    pub policy: AlertPolicy,
    /// Since when its condition held.
    pub since: DateTime<Utc>,
    /// When it began to fire.
    pub fired_at: DateTime<Utc>,
    /// When it ended; absent: it had not when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<DateTime<Utc>>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
}

impl AlertRecord {
    /// The record of an alert; none for one that has not fired.
    pub fn of(alert: &Alert) -> Option<Self> {
        let Alert {
            monitor,
            alert,
            subject,
            severity,
            policy,
            state,
            since,
            fired_at,
            clear_since: _,
            resolved_at,
            cause,
        } = alert.clone();
        Some(Self {
            monitor,
            alert,
            subject,
            severity,
            policy,
            since,
            fired_at: fired_at.filter(|_| state != AlertState::Pending)?,
            resolved_at,
            cause,
        })
    }
}

/// Samples of one stretch of time: its beginning (milliseconds after 1970), their number, the smallest, the mean, the largest.
pub type BucketRecord = (i64, u32, f32, f32, f32);

/// The samples of a monitor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitorRecord {
    /// The monitor.
    pub name: String,
    /// `resource`, `podHealth`, `promql` or `http`.
    pub kind: String,
    /// How many samples there are.
    pub samples: u64,
    /// Alerts that fired in the whole run so far.
    pub fired: u32,
    /// How long each stretch is, in milliseconds.
    pub width_millis: u64,
    /// The stretches that have samples, oldest first: beginning, number, smallest, mean, largest.
    pub buckets: Vec<BucketRecord>,
}
