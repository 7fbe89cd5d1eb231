//! The values of each metric over the cycles.

use chrono::{DateTime, Utc};

use crate::{
    api::status::{Outcome, StepState},
    results::CycleRecord,
};

/// The values of one metric, in the order of the cycles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// `cycle`, `phases.NAME` or `steps.NAME.outputs.OUTPUT`.
    pub name: String,
    /// The cycles' numbers.
    pub cycles: Vec<u32>,
    /// When each cycle began, in hours since the first.
    pub hours: Vec<f64>,
    /// The values.
    pub values: Vec<f64>,
}

impl Series {
    /// The values in ascending order.
    pub fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    /// Its unit.
    pub fn unit(&self) -> &'static str {
        unit(&self.name)
    }
}

/// The unit of a metric, `s` for durations; outputs have none that is known.
pub(super) fn unit(metric: &str) -> &'static str {
    if metric == "cycle" || metric.starts_with("phases.") { "s" } else { "" }
}

/// All metrics of a run, with the rules by which the run's status counts them: durations of cycles and phases that
/// succeeded, numeric outputs of every step that ended. Durations come first, then outputs, each in the order of the spec.
pub fn series(cycles: &[CycleRecord]) -> Vec<Series> {
    let mut all = Collection { first: cycles.first().map(|cycle| cycle.started_at), ..Collection::default() };
    for cycle in cycles.iter().filter(|cycle| cycle.outcome == Outcome::Succeeded) {
        all.add(cycle, || "cycle".to_owned(), cycle.seconds, 0);
    }
    for cycle in cycles {
        for (place, phase) in cycle.phases.iter().enumerate() {
            if phase.outcome == Outcome::Succeeded {
                all.add(cycle, || format!("phases.{}", phase.name), phase.seconds, 1 + place);
            }
        }
    }
    let outputs = 1 + all.slots.len();
    for cycle in cycles {
        let steps = cycle.phases.iter().flat_map(|phase| &phase.steps);
        let ended = steps.filter(|step| matches!(step.state, StepState::Succeeded | StepState::Failed));
        let mut place = outputs;
        for step in ended {
            for (output, value) in &step.outputs {
                if let Some(value) = value.as_number() {
                    all.add(cycle, || format!("steps.{}.outputs.{output}", step.name), Some(value), place);
                    place += 1;
                }
            }
        }
    }
    all.slots
}

#[derive(Default)]
struct Collection {
    first: Option<DateTime<Utc>>,
    slots: Vec<Series>,
}

impl Collection {
    /// Adds a value. `guess` is where the metric is if this cycle went as the first one did, which saves most searches.
    fn add(&mut self, cycle: &CycleRecord, name: impl FnOnce() -> String, value: Option<f64>, guess: usize) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        let name = name();
        let guessed = self.slots.get(guess).is_some_and(|series| series.name == name);
        let found = if guessed { Some(guess) } else { self.slots.iter().position(|series| series.name == name) };
        let index = found.unwrap_or_else(|| {
            self.slots.push(Series { name, ..Series::default() });
            self.slots.len() - 1
        });
        let hours = self.first.map_or(0.0, |first| (cycle.started_at - first).as_seconds_f64() / 3_600.0);
        let series = &mut self.slots[index];
        series.cycles.push(cycle.cycle);
        series.hours.push(hours);
        series.values.push(value);
    }
}
