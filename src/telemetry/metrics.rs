//! The operator's Prometheus metrics.
//!
//! Every series is bounded: what users name (runs, phases, outputs, reasons) has a cap, and what is left out is counted in
//! `soak_dropped_series_total`, so that a dashboard can tell "nothing happened" from "not exported".

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::{MetricFamily, MetricType},
};

use super::{
    run_series::{RunSeries, Update, family, sample},
    schedule_series::{ScheduleSeries, ScheduleState},
};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a label value is replaced with once its label has as many values as it may.
pub const OTHER: &str = "other";

/// A reconcile is a handful of requests to the API server; what takes longer than 30 s is stuck.
const RECONCILE_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The phases in which injections end.
const INJECTION_ENDS: [&str; 3] = ["Recovered", "Failed", "Skipped"];

/// How many series of each sort are exported at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Runs with series of their own.
    pub runs: usize,
    /// Schedules with series of their own.
    pub schedules: usize,
    /// Phases of one run.
    pub phases_per_run: usize,
    /// Outputs of one run.
    pub outputs_per_run: usize,
    /// Phase histograms of all runs together: at 19 lines each they are nearly all of a scrape.
    pub histograms: usize,
    /// Different values of a label whose values are not a closed set.
    pub label_values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            runs: 1_000,
            schedules: 1_000,
            phases_per_run: 64,
            outputs_per_run: 32,
            histograms: 8_000,
            label_values: 64,
        }
    }
}

/// Why a reconcile failed; the label `class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Tried again with a growing pause.
    Transient,
    /// The object had changed; observed again.
    Conflict,
    /// Waits for somebody to change something.
    Terminal,
    /// A defect of the operator, caught.
    Panic,
}

/// How a write of a status ended; the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusWrite {
    /// Stored.
    Ok,
    /// Refused, as the object had changed.
    Conflict,
    /// Failed in any other way.
    Error,
}

impl ErrorClass {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Transient, Self::Conflict, Self::Terminal, Self::Panic];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Conflict => "conflict",
            Self::Terminal => "terminal",
            Self::Panic => "panic",
        }
    }
}

impl StatusWrite {
    /// All results.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Conflict, Self::Error];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Error => "error",
        }
    }
}

/// The metrics of one operator process, in a registry of their own. Clones share the same series.
///
/// Parameters of type `&'static str` are for words from a closed set in the code (phases of the state machine, outcomes,
/// kinds); what users choose is `&str` and capped. No method blocks on anything but a short lock, and none fails.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    run_series: RunSeries,
    schedule_series: ScheduleSeries,
    step_failures: StepFailures,
    runs: IntGaugeVec,
    reconcile_duration: Histogram,
    reconcile_errors: IntCounterVec,
    queue_depth: IntGauge,
    status_writes: IntCounterVec,
    watch_restarts: IntCounterVec,
    injections_active: IntGauge,
    injections: IntCounterVec,
    dropped: IntCounter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics with the default [`Limits`]; `version` is what `soak_build_info` says.
    pub fn new(version: &str) -> Self {
        Self::with_limits(version, Limits::default())
    }

    /// Metrics with limits of the caller's choice.
    pub fn with_limits(version: &str, limits: Limits) -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, label: &str| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let gauges = |name: &str, help: &str, label: &str| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
        };
        let reconcile = HistogramOpts::new("soak_reconcile_duration_seconds", "How long one visit of an object took.");
        gauges("soak_build_info", "Always 1; the label is the operator's version.", "version")
            .with_label_values(&[version])
            .set(1);
        let metrics = Self {
            run_series: registered(&registry, Ok(RunSeries::new(limits))),
            schedule_series: registered(&registry, Ok(ScheduleSeries::new(limits))),
            step_failures: registered(&registry, Ok(StepFailures::new(limits.label_values))),
            runs: gauges("soak_runs", "Runs that exist, by phase.", "phase"),
            reconcile_duration: registered(
                &registry,
                Histogram::with_opts(reconcile.buckets(RECONCILE_BUCKETS.to_vec())),
            ),
            reconcile_errors: counters(
                "soak_reconcile_errors_total",
                "Visits that failed, by class of error.",
                "class",
            ),
            queue_depth: registered(
                &registry,
                IntGauge::new("soak_reconcile_queue_depth", "Objects that wait for a visit."),
            ),
            status_writes: counters("soak_status_writes_total", "Writes of a status, by result.", "result"),
            watch_restarts: counters("soak_watch_restarts_total", "Watches that had to begin again.", "kind"),
            injections_active: registered(
                &registry,
                IntGauge::new("soak_injections_active", "Injections of which something may be there."),
            ),
            injections: counters(
                "soak_injections_total",
                "Injections that ended, by the phase in which they did.",
                "phase",
            ),
            dropped: registered(
                &registry,
                IntCounter::new(
                    "soak_dropped_series_total",
                    "Updates that were not exported, as their series would have exceeded a cap.",
                ),
            ),
            registry,
        };
        // A counter that appears with its first error can't be alerted on by its increase: start these at 0.
        for class in ErrorClass::ALL {
            metrics.reconcile_errors.with_label_values(&[class.as_str()]);
        }
        for result in StatusWrite::ALL {
            metrics.status_writes.with_label_values(&[result.as_str()]);
        }
        for phase in INJECTION_ENDS {
            metrics.injections.with_label_values(&[phase]);
        }
        metrics
    }

    /// Replaces the number of runs by phase; a phase that is not named has none.
    pub fn set_runs(&self, counts: &BTreeMap<&'static str, u64>) {
        self.runs.reset();
        for (phase, count) in counts {
            self.runs.with_label_values(&[*phase]).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// A cycle ended with this outcome.
    pub fn cycle_ended(&self, namespace: &str, run: &str, outcome: &'static str) {
        self.update(namespace, run, &Update::CycleEnded(outcome));
    }

    /// A cycle was seen to succeed, at this time.
    pub fn cycle_succeeded_at(&self, namespace: &str, run: &str, at: SystemTime) {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.update(namespace, run, &Update::LastSuccess(seconds));
    }

    /// The run is in this cycle.
    pub fn set_current_cycle(&self, namespace: &str, run: &str, cycle: u32) {
        self.update(namespace, run, &Update::CurrentCycle(f64::from(cycle)));
    }

    /// A phase of a cycle took this long.
    pub fn observe_phase(&self, namespace: &str, run: &str, phase: &str, took: Duration) {
        self.update(namespace, run, &Update::Phase(phase, took.as_secs_f64()));
    }

    /// Replaces the outputs of a run by those of the cycle that just ended. Values that are not finite are left out.
    pub fn set_outputs<'a>(&self, namespace: &str, run: &str, outputs: impl IntoIterator<Item = (&'a str, f64)>) {
        self.run_series.clear_outputs(namespace, run);
        for (output, value) in outputs {
            if value.is_finite() {
                self.update(namespace, run, &Update::Output(output, value));
            }
        }
    }

    /// So many alerts of that severity fire in a run.
    pub fn set_alerts_firing(&self, namespace: &str, run: &str, severity: &'static str, count: u32) {
        self.update(namespace, run, &Update::AlertsFiring(severity, f64::from(count)));
    }

    /// An alert of that severity began to fire.
    pub fn alert_fired(&self, namespace: &str, run: &str, severity: &'static str) {
        self.update(namespace, run, &Update::AlertFired(severity));
    }

    /// A step of this kind failed for this reason; reasons past the cap are counted as [`OTHER`].
    pub fn step_failed(&self, kind: &'static str, reason: &str) {
        self.step_failures.count(kind, reason);
    }

    /// One visit of an object took this long.
    pub fn observe_reconcile(&self, took: Duration) {
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// One visit of an object failed.
    pub fn reconcile_failed(&self, class: ErrorClass) {
        self.reconcile_errors.with_label_values(&[class.as_str()]).inc();
    }

    /// This many objects wait for a visit.
    pub fn set_queue_depth(&self, depth: usize) {
        self.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// A status was written, or was not.
    pub fn status_written(&self, result: StatusWrite) {
        self.status_writes.with_label_values(&[result.as_str()]).inc();
    }

    /// So many injections are active.
    pub fn set_active_injections(&self, count: usize) {
        self.injections_active.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An injection has ended in this phase.
    pub fn injection_ended(&self, phase: &'static str) {
        self.injections.with_label_values(&[phase]).inc();
    }

    /// The watch of this kind of object began again.
    pub fn watch_restarted(&self, kind: &'static str) {
        self.watch_restarts.with_label_values(&[kind]).inc();
    }

    /// Removes every series of a run and makes room for another. To be called when the run is gone.
    pub fn forget_run(&self, namespace: &str, run: &str) {
        self.run_series.forget(namespace, run);
    }

    /// A schedule is like this.
    pub fn set_schedule(&self, namespace: &str, schedule: &str, state: ScheduleState) {
        if self.schedule_series.set(namespace, schedule, state).is_err() {
            self.dropped.inc();
        }
    }

    /// Removes the series of all other schedules than these, by namespace and name.
    pub fn keep_schedules(&self, known: impl Fn(&str, &str) -> bool) {
        self.schedule_series.keep(known);
    }

    /// All metrics in Prometheus' text format, of type [`CONTENT_TYPE`].
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn update(&self, namespace: &str, run: &str, update: &Update<'_>) {
        if self.run_series.update(namespace, run, update).is_err() {
            self.dropped.inc();
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names and labels are valid constants");
    registry.register(Box::new(metric.clone())).expect("each name is registered once, in a registry of our own");
    metric
}

/// Failures by (kind, reason): a map for the reason that `run_series` gives, and so that reasons have a cap over all kinds.
#[derive(Clone)]
struct StepFailures {
    state: Arc<Mutex<FailureCounts>>,
    desc: Arc<Desc>,
    max_reasons: usize,
}

#[derive(Default)]
struct FailureCounts {
    reasons: BTreeSet<String>,
    counts: BTreeMap<(&'static str, String), f64>,
}

impl StepFailures {
    fn new(max_reasons: usize) -> Self {
        let labels = ["kind", "reason"].map(str::to_owned).to_vec();
        let help = "Attempts of steps that failed, by kind of step and reason.".to_owned();
        let desc = Desc::new("soak_step_failures_total".to_owned(), help, labels, HashMap::new());
        Self { state: Arc::default(), desc: Arc::new(desc.expect("names and labels are valid constants")), max_reasons }
    }

    fn count(&self, kind: &'static str, reason: &str) {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let FailureCounts { reasons, counts } = &mut *guard;
        let known = reasons.contains(reason) || (reasons.len() < self.max_reasons && reasons.insert(reason.to_owned()));
        let reason = if known { reason } else { OTHER };
        *counts.entry((kind, reason.to_owned())).or_default() += 1.0;
    }
}

impl Collector for StepFailures {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = state
            .counts
            .iter()
            .map(|((kind, reason), count)| sample(MetricType::COUNTER, *count, &[("kind", kind), ("reason", reason)]))
            .collect();
        family(&self.desc.fq_name, &self.desc.help, MetricType::COUNTER, metrics).into_iter().collect()
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
