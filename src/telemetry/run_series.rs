//! The series that belong to one run each.
//!
//! They are kept in a map by (namespace, name) and turned into metric families at a scrape. The vectors of the
//! `prometheus` crate would not do: they key a series by a hash of its label values written one after the other, so run
//! `c` of namespace `ab` and run `bc` of namespace `a` would share one series, and one tenant would read another's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    core::{Collector, Desc},
    proto::{self, MetricFamily, MetricType},
};

use super::metrics::Limits;

/// Upper bounds in seconds: from a short request to the longest restore that anybody waits for in a phase.
pub(super) const PHASE_BUCKETS: [f64; 16] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0];

const RUN_LABELS: [&str; 2] = ["namespace", "run"];

/// An update that a cap kept from being exported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dropped;

/// Which gauge, counter or histogram of a run a value is for.
pub(super) enum Update<'a> {
    CycleEnded(&'static str),
    CurrentCycle(f64),
    LastSuccess(f64),
    Phase(&'a str, f64),
    Output(&'a str, f64),
    AlertsFiring(&'static str, f64),
    AlertFired(&'static str),
}

#[derive(Default)]
struct PhaseHistogram {
    buckets: [u64; PHASE_BUCKETS.len()],
    sum: f64,
    count: u64,
}

#[derive(Default)]
struct Series {
    cycles: BTreeMap<&'static str, f64>,
    phases: BTreeMap<String, PhaseHistogram>,
    current_cycle: Option<f64>,
    last_success: Option<f64>,
    outputs: BTreeMap<String, f64>,
    firing: BTreeMap<&'static str, f64>,
    fired: BTreeMap<&'static str, f64>,
}

#[derive(Default)]
struct State {
    runs: BTreeMap<(String, String), Series>,
    histograms: usize,
}

/// The series of all runs; clones share them.
#[derive(Clone)]
pub(super) struct RunSeries {
    state: Arc<Mutex<State>>,
    limits: Limits,
    families: Arc<[Family; 7]>,
}

struct Family {
    desc: Desc,
    help: &'static str,
    kind: MetricType,
}

impl RunSeries {
    pub(super) fn new(limits: Limits) -> Self {
        let family = |name: &str, help: &'static str, kind, extra: Option<&str>| Family {
            desc: Desc::new(
                name.to_owned(),
                help.to_owned(),
                RUN_LABELS.into_iter().chain(extra).map(str::to_owned).collect(),
                std::collections::HashMap::new(),
            )
            .expect("names and labels are valid constants"),
            help,
            kind,
        };
        Self {
            state: Arc::default(),
            limits,
            families: Arc::new([
                family("soak_cycles_total", "Cycles that ended, by outcome.", MetricType::COUNTER, Some("outcome")),
                family(
                    "soak_phase_duration_seconds",
                    "How long the phases of cycles took.",
                    MetricType::HISTOGRAM,
                    Some("phase"),
                ),
                family(
                    "soak_run_current_cycle",
                    "Number of the cycle that a run is in, 0 during its setup.",
                    MetricType::GAUGE,
                    None,
                ),
                family(
                    "soak_run_last_success_timestamp_seconds",
                    "When the last successful cycle of a run ended, in seconds since 1970.",
                    MetricType::GAUGE,
                    None,
                ),
                family("soak_output", "A numeric output of a run's last cycle.", MetricType::GAUGE, Some("output")),
                family(
                    "soak_alerts_firing",
                    "Alerts of a run's monitors that fire.",
                    MetricType::GAUGE,
                    Some("severity"),
                ),
                family(
                    "soak_alerts_total",
                    "Alerts of a run's monitors that fired.",
                    MetricType::COUNTER,
                    Some("severity"),
                ),
            ]),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each update leaves the map whole, so what a panicking thread held is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, namespace: &str, run: &str) {
        let mut state = self.lock();
        if let Some(series) = state.runs.remove(&(namespace.to_owned(), run.to_owned())) {
            state.histograms -= series.phases.len();
        }
    }

    pub(super) fn update(&self, namespace: &str, run: &str, update: &Update<'_>) -> Result<(), Dropped> {
        let mut guard = self.lock();
        let State { runs, histograms } = &mut *guard;
        let key = (namespace.to_owned(), run.to_owned());
        if runs.len() >= self.limits.runs && !runs.contains_key(&key) {
            return Err(Dropped);
        }
        let series = runs.entry(key).or_default();
        match *update {
            Update::CycleEnded(outcome) => *series.cycles.entry(outcome).or_default() += 1.0,
            Update::CurrentCycle(cycle) => series.current_cycle = Some(cycle),
            Update::LastSuccess(at) => series.last_success = Some(at),
            Update::Phase(phase, seconds) => {
                if !series.phases.contains_key(phase) {
                    if series.phases.len() >= self.limits.phases_per_run || *histograms >= self.limits.histograms {
                        return Err(Dropped);
                    }
                    *histograms += 1;
                }
                series.phases.entry(phase.to_owned()).or_default().observe(seconds);
            }
            Update::AlertsFiring(severity, count) => {
                series.firing.insert(severity, count);
            }
            Update::AlertFired(severity) => *series.fired.entry(severity).or_default() += 1.0,
            Update::Output(output, value) => {
                if series.outputs.len() >= self.limits.outputs_per_run && !series.outputs.contains_key(output) {
                    return Err(Dropped);
                }
                series.outputs.insert(output.to_owned(), value);
            }
        }
        Ok(())
    }

    /// Outputs are the last cycle's: what that cycle did not put out must not look current.
    pub(super) fn clear_outputs(&self, namespace: &str, run: &str) {
        if let Some(series) = self.lock().runs.get_mut(&(namespace.to_owned(), run.to_owned())) {
            series.outputs.clear();
        }
    }
}

impl PhaseHistogram {
    fn observe(&mut self, seconds: f64) {
        if let Some(bucket) = PHASE_BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }

    fn model(&self) -> proto::Histogram {
        let mut cumulative = 0;
        let buckets = PHASE_BUCKETS.iter().zip(self.buckets).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_sum(self.sum);
        histogram.set_sample_count(self.count);
        histogram
    }
}

/// A metric of a family of the given kind, with its labels in the order that the text format sorts them.
pub(super) fn sample(kind: MetricType, value: f64, labels: &[(&str, &str)]) -> proto::Metric {
    let mut pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect();
    pairs.sort();
    let mut metric = proto::Metric::from_label(pairs);
    match kind {
        MetricType::COUNTER => {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        MetricType::GAUGE => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        _ => {}
    }
    metric
}

/// A family from its parts; `None` when there is nothing in it, as the encoder refuses empty families.
pub(super) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<proto::Metric>) -> Option<MetricFamily> {
    if metrics.is_empty() {
        return None;
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    Some(family)
}

impl Collector for RunSeries {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().map(|family| &family.desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let state = self.lock();
        let mut metrics: [Vec<proto::Metric>; 7] = Default::default();
        for ((namespace, run), series) in &state.runs {
            let labels = [(RUN_LABELS[0], namespace.as_str()), (RUN_LABELS[1], run.as_str())];
            let with = |name, value| [labels[0], labels[1], (name, value)];
            for (outcome, count) in &series.cycles {
                metrics[0].push(sample(MetricType::COUNTER, *count, &with("outcome", outcome)));
            }
            for (phase, histogram) in &series.phases {
                let mut metric = sample(MetricType::HISTOGRAM, 0.0, &with("phase", phase));
                metric.set_histogram(histogram.model());
                metrics[1].push(metric);
            }
            for (slot, value) in [(2, series.current_cycle), (3, series.last_success)] {
                metrics[slot].extend(value.map(|value| sample(MetricType::GAUGE, value, &labels)));
            }
            for (output, value) in &series.outputs {
                metrics[4].push(sample(MetricType::GAUGE, *value, &with("output", output)));
            }
            for (severity, count) in &series.firing {
                metrics[5].push(sample(MetricType::GAUGE, *count, &with("severity", severity)));
            }
            for (severity, count) in &series.fired {
                metrics[6].push(sample(MetricType::COUNTER, *count, &with("severity", severity)));
            }
        }
        drop(state);
        self.families
            .iter()
            .zip(metrics)
            .filter_map(|(described, metrics)| family(&described.desc.fq_name, described.help, described.kind, metrics))
            .collect()
    }
}
