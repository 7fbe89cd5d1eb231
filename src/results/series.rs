//! The numbers of a run over its cycles, as JSON Lines: a line a cycle, for whoever plots or compares without reading records.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use serde::Serialize;

use crate::api::status::{Outcome, OutputValue, StepState};

use super::{
    configmap::RecordPart,
    kube_error::StoreError,
    objects::Objects,
    record::{CycleRecord, RunRef},
};

/// The file's name below an attempt's folder.
const SERIES: &str = "series.jsonl";
/// Records that are read at the same time.
const READERS: usize = 8;

/// One cycle.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    cycle: u32,
    started_at: DateTime<Utc>,
    outcome: Outcome,
    /// By the names that the status uses: `cycle`, `phases.NAME`, `steps.NAME.outputs.OUTPUT`.
    metrics: BTreeMap<String, f64>,
}

impl Line {
    /// By the rules of the status: durations of what succeeded, numeric outputs of every step that ended.
    fn of(record: &CycleRecord) -> Self {
        let succeeded = |outcome: Outcome| outcome == Outcome::Succeeded;
        let mut metrics = BTreeMap::new();
        if let Some(seconds) = record.seconds.filter(|_| succeeded(record.outcome)) {
            metrics.insert("cycle".to_owned(), seconds);
        }
        for phase in &record.phases {
            if let Some(seconds) = phase.seconds.filter(|_| succeeded(phase.outcome)) {
                metrics.insert(format!("phases.{}", phase.name), seconds);
            }
            let ended = phase.steps.iter().filter(|it| matches!(it.state, StepState::Succeeded | StepState::Failed));
            for step in ended {
                let numbers =
                    step.outputs.iter().filter_map(|(name, value)| Some((name, OutputValue::as_number(value)?)));
                metrics.extend(numbers.map(|(name, value)| (format!("steps.{}.outputs.{name}", step.name), value)));
            }
        }
        Self { cycle: record.cycle, started_at: record.started_at, outcome: record.outcome, metrics }
    }
}

impl Objects {
    /// Writes the series of an attempt, whose cycles have all ended.
    pub async fn write_series(&self, run: &RunRef) -> Result<(), StoreError> {
        let files = self.list(&self.folder(run)).await?;
        let cycles = files.into_iter().filter_map(|file| match self.part_of(run, &file.location)? {
            (_, RecordPart::Cycle(number)) => Some((number, file.location)),
            _ => None,
        });
        let mut cycles: Vec<_> = cycles.collect();
        cycles.sort();
        let reads: Vec<BoxFuture<'_, Result<String, StoreError>>> = cycles
            .into_iter()
            .map(|(_, path)| {
                async move {
                    let bytes = self.bytes(&path).await?.unwrap_or_default();
                    let record = serde_json::from_slice::<CycleRecord>(&bytes).ok();
                    let line = record.and_then(|record| serde_json::to_string(&Line::of(&record)).ok());
                    Ok(line.map(|line| line + "\n").unwrap_or_default())
                }
                .boxed()
            })
            .collect();
        let lines: Vec<String> = stream::iter(reads).buffered(READERS).try_collect().await?;
        self.write(run, SERIES, lines.concat().into_bytes()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::samples::record;

    #[test]
    fn a_line_has_the_numbers_of_what_ended() {
        let line = serde_json::to_value(Line::of(&record())).unwrap();
        let names: Vec<&String> = line["metrics"].as_object().unwrap().keys().collect();
        assert_eq!(line["cycle"], 12);
        assert!(names.iter().any(|name| name.starts_with("steps.load.outputs.")), "{names:?}");
        assert!(!names.iter().any(|name| *name == "cycle"), "the cycle failed: {names:?}");
    }
}
