//! How long the figures of a long run take.

use std::{collections::BTreeMap, fs, time::Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use soak_operator::{
    api::status::{Outcome, OutputValue, Section, StepState},
    report::{self, RunRecords},
    results::{CycleRecord, CycleSchema, Environment, PhaseRecord, RunRef, StepRecord},
};

use crate::figures::{Figures, number, rounded};

/// Cycles of either run when none are asked for.
const CYCLES: u64 = 10_000;
/// Metrics of a cycle: its duration, those of three phases, and outputs.
const METRICS: usize = 50;
const PHASES: [&str; 3] = ["preflight", "switch", "verify"];

/// Measures, on one thread: everything that a report says about a run, its comparison with another as long included, from
/// records in memory. Reading records and writing files is not measured. `seconds` is what the thread had of its core, so
/// that it tells the same on a busy machine; `wall_seconds` is how long that took.
pub fn measure(cycles: Option<u64>) -> Result<Figures> {
    let cycles = cycles.unwrap_or(CYCLES);
    let (run, before) = (records(cycles, 1), records(cycles, 2));
    let mut figures = Figures::of("analysis");
    let (began, used) = (Instant::now(), processor_seconds()?);
    let report = report::report(&run, Some(&before));
    figures.at_most("seconds", processor_seconds()? - used, 2.0);
    figures.tell("wall_seconds", rounded(began.elapsed().as_secs_f64()));
    figures.tell("cycles", report.cycles.completed);
    figures.at_least("metrics", number(report.metrics.len()), number(METRICS));
    figures.tell("compared", report.baseline.map_or(0, |baseline| baseline.metrics.len()));
    Ok(figures)
}

/// What this thread has had of a core.
fn processor_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("the thread's time can't be read")?;
    let nanoseconds: u64 = text.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(number(nanoseconds) / 1e9)
}

fn records(cycles: u64, seed: u64) -> RunRecords {
    let mut rng = Noise(seed);
    let run = RunRef { name: "bench".into(), namespace: "bench".into(), uid: seed.to_string(), attempt: 1 };
    let cycles = (1..=cycles).filter_map(|number| u32::try_from(number).ok());
    RunRecords { cycles: cycles.map(|number| cycle(&run, number, &mut rng)).collect(), run, ..RunRecords::default() }
}

fn cycle(run: &RunRef, number: u32, rng: &mut Noise) -> CycleRecord {
    let begin = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(i64::from(number) * 60);
    let failed = rng.next() < 0.01;
    let outcome = if failed { Outcome::Failed } else { Outcome::Succeeded };
    let phase = |(index, name): (usize, &&str), rng: &mut Noise| {
        let seconds = 5.0 + 10.0 * rng.next();
        let outputs = if index == 1 { METRICS - 1 - PHASES.len() } else { 0 };
        PhaseRecord {
            name: (*name).into(),
            attempts: 1,
            started_at: begin,
            finished_at: Some(begin),
            seconds: Some(seconds),
            outcome: Outcome::Succeeded,
            failure: None,
            steps: vec![step(rng, outputs)],
        }
    };
    CycleRecord {
        schema: CycleSchema::V1,
        run: run.clone(),
        section: Section::Cycle,
        cycle: number,
        started_at: begin,
        finished_at: Some(begin),
        seconds: Some(30.0 + 5.0 * rng.next()),
        outcome,
        failure: None,
        truncated: false,
        full_digest: None,
        snapshot: None,
        alerts: Vec::new(),
        monitors: Vec::new(),
        environment: Environment::default(),
        phases: PHASES.iter().enumerate().map(|place| phase(place, rng)).collect(),
    }
}

fn step(rng: &mut Noise, outputs: usize) -> StepRecord {
    StepRecord {
        name: "load".into(),
        kind: Some("pod".into()),
        state: StepState::Succeeded,
        attempts: 1,
        outcome: Some(Outcome::Succeeded),
        started_at: None,
        running_at: None,
        finished_at: None,
        seconds: Some(1.0),
        pending_seconds: None,
        reason: String::new(),
        message: String::new(),
        transient: None,
        class: None,
        target: None,
        outputs: (0..outputs)
            .map(|index| (format!("output{index:02}"), OutputValue::Number(100.0 * rng.next())))
            .collect::<BTreeMap<_, _>>(),
        pod: None,
        node: Some("node-1".into()),
        exit_code: Some(0),
        log: None,
        artifacts: None,
        rerun: None,
        past: Vec::new(),
    }
}

/// Numbers between 0 and 1 that are the same each time: the multiplier of Knuth's MMIX.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let upper = (self.0 >> 32) as u32;
        f64::from(upper) / f64::from(u32::MAX)
    }
}
