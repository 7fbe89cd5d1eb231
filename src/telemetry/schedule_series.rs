//! The series that belong to one schedule each, kept as `run_series` keeps those of runs, and for the same reason.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    core::{Collector, Desc},
    proto::{MetricFamily, MetricType},
};

use super::{
    metrics::Limits,
    run_series::{Dropped, family, sample},
};

const LABELS: [&str; 2] = ["namespace", "schedule"];

/// What is told of a schedule; times in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScheduleState {
    /// The tick of the newest run.
    pub last_schedule: Option<f64>,
    /// When the newest run that succeeded had ended.
    pub last_success: Option<f64>,
    /// The next tick.
    pub next_schedule: Option<f64>,
    /// Runs that have not ended.
    pub active: u32,
    /// Runs in a row that ended otherwise than succeeded.
    pub consecutive_failures: u32,
}

impl ScheduleState {
    /// The values in the order of [`FAMILIES`].
    fn values(&self) -> [Option<f64>; FAMILIES.len()] {
        let Self { last_schedule, last_success, next_schedule, active, consecutive_failures } = *self;
        [last_schedule, last_success, next_schedule, Some(active.into()), Some(consecutive_failures.into())]
    }
}

/// Names and help texts; the names are those that kube-state-metrics has for cron jobs where there are such.
const FAMILIES: [(&str, &str); 5] = [
    ("soak_schedule_last_schedule_timestamp_seconds", "The tick of a schedule's newest run, in seconds since 1970."),
    (
        "soak_schedule_last_success_timestamp_seconds",
        "When a schedule's newest run that succeeded had ended, in seconds since 1970.",
    ),
    ("soak_schedule_next_schedule_timestamp_seconds", "A schedule's next tick, in seconds since 1970."),
    ("soak_schedule_active_runs", "Runs of a schedule that have not ended."),
    ("soak_schedule_consecutive_failures", "Runs of a schedule in a row that ended otherwise than succeeded."),
];

/// The series of all schedules; clones share them.
#[derive(Clone)]
pub(super) struct ScheduleSeries {
    state: Arc<Mutex<BTreeMap<(String, String), ScheduleState>>>,
    limits: Limits,
    descs: Arc<[Desc; FAMILIES.len()]>,
}

impl ScheduleSeries {
    pub(super) fn new(limits: Limits) -> Self {
        let desc = |(name, help): (&str, &str)| {
            Desc::new(name.to_owned(), help.to_owned(), LABELS.map(str::to_owned).to_vec(), HashMap::new())
                .expect("names and labels are valid constants")
        };
        Self { state: Arc::default(), limits, descs: Arc::new(FAMILIES.map(desc)) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), ScheduleState>> {
        // Each update leaves the map whole, so what a panicking thread held is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, namespace: &str, schedule: &str, now: ScheduleState) -> Result<(), Dropped> {
        let mut state = self.lock();
        let key = (namespace.to_owned(), schedule.to_owned());
        if state.len() >= self.limits.schedules && !state.contains_key(&key) {
            return Err(Dropped);
        }
        state.insert(key, now);
        Ok(())
    }

    pub(super) fn keep(&self, known: impl Fn(&str, &str) -> bool) {
        self.lock().retain(|(namespace, schedule), _| known(namespace, schedule));
    }
}

impl Collector for ScheduleSeries {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let state = self.lock();
        let of = |index: usize| {
            let samples = state.iter().filter_map(|((namespace, schedule), it)| {
                let labels = [(LABELS[0], namespace.as_str()), (LABELS[1], schedule.as_str())];
                Some(sample(MetricType::GAUGE, it.values()[index]?, &labels))
            });
            let (name, help) = FAMILIES[index];
            family(name, help, MetricType::GAUGE, samples.collect())
        };
        (0..FAMILIES.len()).filter_map(of).collect()
    }
}
