//! `SoakSchedule`: runs that are made again and again, at times that a cron expression tells.
// Printer columns repeat their attributes' names; the lint takes each for a duplicate.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use kube::{CustomResource, KubeSchema, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Condition, Duration, SoakRun, condition::unobserved, names::label, status::RunPhase};

/// Most runs of a schedule that are active at the same time, and that its status names.
pub const MAX_ACTIVE: usize = 32;

/// What happens at a tick while a run of the schedule is still active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// The runs go on beside each other.
    Allow,
    /// The new run waits for the one before it, until its starting deadline or the next tick.
    #[default]
    Forbid,
    /// The one before it is aborted; the new one begins when that has cleaned up.
    Replace,
}

/// Labels and annotations of the runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunMetadata {
    /// Labels, by which `kubectl soak trend -l` and baselines find the runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The run that is made at each tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct RunTemplate {
    /// Its labels and annotations.
    #[serde(default)]
    pub metadata: RunMetadata,
    /// The spec of a SoakRun, tried on the server when the schedule is made or changed. Without a `serviceAccountName` it has the schedule's.
    #[schemars(schema_with = "super::step::schema::object")]
    pub spec: Value,
}

/// When runs are made, and which of them stay.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "soak.dev",
    version = "v1alpha1",
    kind = "SoakSchedule",
    namespaced,
    shortname = "ss",
    category = "soak",
    status = "SoakScheduleStatus",
    derive = "PartialEq",
    doc = "A schedule of soak runs: a cron expression with time zone, concurrency policy, starting deadline and history limits.",
    validation = ("self.metadata.name.size() <= 50", "a schedule's name has 50 characters at most: its runs are called NAME-YYYYMMDDhhmm"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "TimeZone", type_ = "string", json_path = ".spec.timeZone"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeRuns"),
    printcolumn(name = "Last Schedule", type_ = "date", json_path = ".status.lastScheduleTime"),
    printcolumn(name = "Last Verdict", type_ = "string", json_path = ".status.lastRun.verdict"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SoakScheduleSpec {
    /// When: five fields (minute, hour, day of month, month, day of week) as Kubernetes' own cron jobs have them, or `@hourly`, `@daily`, `@midnight`, `@weekly`,
    /// `@monthly`, `@yearly`.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = (
        r"self.matches('^\\s*(@[a-z]+|\\S+(\\s+\\S+){4})\\s*$')",
        "write five fields (minute, hour, day of month, month, day of week), or @hourly, @daily, @weekly, @monthly or @yearly"
    ))]
    pub schedule: String,
    /// The IANA time zone of the schedule, such as `Europe/Berlin` (default `Etc/UTC`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// The service account in the schedule's namespace as which runs are created, aborted and deleted: it needs `create` and `delete` on soakruns, and
    /// `patch` with the policy `Replace`.
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: String,
    /// What happens at a tick while a run is still active: `Allow`, `Forbid` (default) or `Replace`.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// How much later than its tick a run may be created (default: until the next tick). Of several ticks that were missed only the last counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('10s')", "a starting deadline is 10s at least"))]
    pub starting_deadline: Option<Duration>,
    /// Makes no further run while it is true; runs that are active go on.
    #[serde(default)]
    pub suspend: bool,
    /// So many of the newest runs that succeeded stay (default 3).
    #[serde(default = "default_successful")]
    #[schemars(range(max = 200))]
    pub successful_runs_history_limit: u32,
    /// So many of the newest runs that ended otherwise stay: failed, inconclusive, aborted (default 5).
    #[serde(default = "default_failed")]
    #[schemars(range(max = 200))]
    pub failed_runs_history_limit: u32,
    /// The run that is made at each tick.
    pub run_template: RunTemplate,
}

const fn default_successful() -> u32 {
    3
}

const fn default_failed() -> u32 {
    5
}

/// A run of the schedule that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveRun {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The tick that it was made for; none for one that somebody triggered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<DateTime<Utc>>,
}

/// A run that has been decided on and is not known to be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartingRun {
    /// Its name.
    pub name: String,
    /// The tick that it is made for.
    pub scheduled_at: DateTime<Utc>,
}

/// A run of the schedule that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedRun {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub verdict: RunPhase,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
}

/// The state of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SoakScheduleStatus {
    /// The generation of the spec that the status speaks of; -1 before any.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,
    /// `Ready`.
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Runs that have not ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ACTIVE))]
    pub active: Vec<ActiveRun>,
    /// How many runs have not ended.
    pub active_runs: u32,
    /// The run that is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starting: Option<StartingRun>,
    /// The tick of the newest run that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<DateTime<Utc>>,
    /// When the newest run that succeeded had ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<DateTime<Utc>>,
    /// The next tick; none while the schedule is suspended or can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<DateTime<Utc>>,
    /// The run that ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<EndedRun>,
    /// Runs in a row that ended otherwise than succeeded.
    pub consecutive_failures: u32,
    /// Ticks up to here are dealt with: their run was made, or they were missed. What comes after it is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled_until: Option<DateTime<Utc>>,
    /// Schedule and time zone that `handledUntil` is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub calendar: String,
    /// The generation whose run template the server has accepted; -1 before any.
    #[serde(default = "unobserved")]
    pub tried_generation: i64,
}

impl Default for SoakScheduleStatus {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            conditions: Vec::new(),
            active: Vec::new(),
            active_runs: 0,
            starting: None,
            last_schedule_time: None,
            last_successful_time: None,
            next_schedule_time: None,
            last_run: None,
            consecutive_failures: 0,
            handled_until: None,
            calendar: String::new(),
            tried_generation: unobserved(),
        }
    }
}

impl SoakSchedule {
    /// What the run of a tick is called: the same tick always has the same run, so that nothing can make a second one.
    pub fn run_name(&self, tick: DateTime<Utc>) -> String {
        format!("{}-{}", self.name_any(), tick.format("%Y%m%d%H%M"))
    }

    /// The manifest of a run: the one of a tick, or without a tick one that somebody triggers.
    ///
    /// The owner reference is without `blockOwnerDeletion`: who creates the run need not be allowed to set finalizers on the schedule.
    pub fn run(&self, name: &str, tick: Option<DateTime<Utc>>) -> Value {
        let RunTemplate { metadata: RunMetadata { labels, annotations }, spec } = &self.spec.run_template;
        let (mut labels, mut annotations) = (labels.clone(), annotations.clone());
        labels.insert(label::SCHEDULE.into(), self.name_any());
        if let Some(tick) = tick {
            annotations.insert(label::SCHEDULED_AT.into(), tick.to_rfc3339_opts(SecondsFormat::Secs, true));
            let who = format!("{}/{}", Self::plural(&()), self.name_any());
            annotations.entry(label::REQUESTED_BY.into()).or_insert(who);
        }
        let mut spec = spec.as_object().cloned().unwrap_or_else(Map::new);
        spec.entry("serviceAccountName").or_insert_with(|| self.spec.service_account_name.clone().into());
        json!({
            "apiVersion": SoakRun::api_version(&()),
            "kind": SoakRun::kind(&()),
            "metadata": {
                "name": name,
                "namespace": self.namespace(),
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [{
                    "apiVersion": Self::api_version(&()),
                    "kind": Self::kind(&()),
                    "name": self.name_any(),
                    "uid": self.uid(),
                    "controller": true,
                }],
            },
            "spec": spec,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_what_the_template_says_and_where_it_comes_from() {
        let schedule: SoakSchedule = serde_json::from_value(json!({
            "apiVersion": "soak.dev/v1alpha1", "kind": "SoakSchedule",
            "metadata": {"name": "nightly", "namespace": "n", "uid": "u"},
            "spec": {
                "schedule": "@daily", "serviceAccountName": "scheduler",
                "runTemplate": {"metadata": {"labels": {"suite": "restart"}}, "spec": {"cycles": 3, "setup": []}},
            },
        }))
        .unwrap();
        let tick = DateTime::from_timestamp(1_795_658_400, 0).unwrap();
        let name = schedule.run_name(tick);
        assert_eq!(name, "nightly-202611260200");
        let run = schedule.run(&name, Some(tick));
        assert_eq!(run["metadata"]["labels"], json!({"suite": "restart", "soak.dev/schedule": "nightly"}));
        assert_eq!(run["metadata"]["annotations"]["soak.dev/scheduled-at"], "2026-11-26T02:00:00Z");
        assert_eq!(run["metadata"]["annotations"]["soak.dev/requested-by"], "soakschedules/nightly");
        assert_eq!(run["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(run["metadata"]["ownerReferences"][0].get("blockOwnerDeletion"), None);
        assert_eq!(run["spec"], json!({"cycles": 3, "setup": [], "serviceAccountName": "scheduler"}));
        assert_eq!(schedule.spec.failed_runs_history_limit, 5);
        let longest = SoakSchedule {
            metadata: kube::api::ObjectMeta { name: Some("n".repeat(50)), ..Default::default() },
            ..schedule
        };
        assert!(longest.run_name(tick).len() <= 63, "the name is a label's value");
    }
}
