//! What the status keeps of monitors and alerts.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::monitor::{AlertPolicy, Severity};

/// Most alerts that the status holds at a time.
pub const MAX_ALERTS: usize = 32;
/// Resolved alerts that are shown after their cycle has been recorded.
pub const RECENT_ALERTS: usize = 8;

/// Where an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AlertState {
    /// Its condition holds, not yet for long enough.
    Pending,
    /// It fires.
    Firing,
    /// It has ended.
    Resolved,
}

/// One alert of one subject, from when its condition began to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
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
    /// Where it is.
    pub state: AlertState,
    /// Since when its condition holds.
    pub since: DateTime<Utc>,
    /// When it began to fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired_at: Option<DateTime<Utc>>,
    /// Since when its condition holds no longer, while it goes on firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_since: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<DateTime<Utc>>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
}

/// What is kept of one monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitorStatus {
    /// The monitor.
    pub name: String,
    /// Alerts that fired.
    #[serde(default)]
    pub fired: u32,
    /// Its samples up to the last recorded cycle, downsampled, in their text form.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub series: String,
    /// Until when they are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// What is kept of all monitors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alerts {
    /// Alerts that fire now, and all that fired, such as `1 firing, 4 in all`.
    #[serde(default)]
    pub shown: String,
    /// Alerts that are pending, fire, or have ended lately, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<Alert>,
    /// Some alerts did not fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The first alert that fails the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The monitors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitors: Vec<MonitorStatus>,
}
