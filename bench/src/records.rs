//! Records of runs that never were, for the benches of what is made from records. The same each time.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use soak_operator::{
    api::{
        monitor::{AlertPolicy, Severity},
        status::{CycleCounts, Failure, Outcome, OutputValue, RunPhase, Section, StepState},
    },
    report::RunRecords,
    results::{
        AlertRecord, CycleRecord, CycleSchema, Environment, LogRecord, MonitorRecord, PhaseRecord, RunRef, StepRecord,
        SummaryRecord, Verdict,
    },
};

use crate::figures::number;

/// Metrics of a cycle: its duration, those of three phases, and outputs.
pub const METRICS: usize = 50;
const PHASES: [&str; 3] = ["preflight", "switch", "verify"];
/// The phase in which outputs come, faults are injected and cycles fail.
const SWITCH: usize = 1;
/// Seconds from the beginning of a cycle to that of the next.
const PACE: i64 = 60;
/// Alerts and monitors of an eventful run, as many as a summary keeps; stretches of a monitor.
const ALERTS: u32 = 32;
const MONITORS: u16 = 4;
const STRETCHES: u16 = 120;

/// A run of so many cycles of which one in a hundred fails, without a summary.
pub fn plain(cycles: u64, seed: u64) -> RunRecords {
    let mut noise = Noise(seed);
    let run = RunRef { name: format!("bench-{seed}"), namespace: "bench".into(), uid: seed.to_string(), attempt: 1 };
    let cycles = (1..=cycles).filter_map(|number| u32::try_from(number).ok());
    RunRecords { cycles: cycles.map(|number| cycle(&run, number, &mut noise)).collect(), run, ..RunRecords::default() }
}

/// The same with all that a report can show: logs of failures, an injection in each fifth cycle, alerts, monitors and an output that
/// leaks. `slower` is what the phase `switch` takes more, in seconds.
pub fn eventful(cycles: u64, seed: u64, slower: f64) -> RunRecords {
    let mut records = plain(cycles, seed);
    for cycle in &mut records.cycles {
        add_events(cycle, slower);
    }
    records.summary = Some(summary(&records));
    records
}

fn at(seconds: i64) -> DateTime<Utc> {
    // The beginning of 2026.
    DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_767_225_600 + seconds)
}

fn cycle(run: &RunRef, number: u32, noise: &mut Noise) -> CycleRecord {
    let begin = at(i64::from(number) * PACE);
    let failed = noise.next() < 0.01;
    let outcome = if failed { Outcome::Failed } else { Outcome::Succeeded };
    let phase = |(index, name): (usize, &&str), noise: &mut Noise| {
        let seconds = 5.0 + 10.0 * noise.next();
        let outputs = if index == SWITCH { METRICS - 1 - PHASES.len() } else { 0 };
        PhaseRecord {
            name: (*name).into(),
            attempts: 1,
            started_at: begin,
            finished_at: Some(begin),
            seconds: Some(seconds),
            outcome: Outcome::Succeeded,
            failure: None,
            steps: vec![step("load", "pod", noise, outputs)],
        }
    };
    CycleRecord {
        schema: CycleSchema::V1,
        run: run.clone(),
        section: Section::Cycle,
        cycle: number,
        started_at: begin,
        finished_at: Some(begin),
        seconds: Some(30.0 + 5.0 * noise.next()),
        outcome,
        failure: None,
        truncated: false,
        full_digest: None,
        snapshot: None,
        alerts: Vec::new(),
        monitors: Vec::new(),
        environment: Environment::default(),
        phases: PHASES.iter().enumerate().map(|place| phase(place, noise)).collect(),
    }
}

fn step(name: &str, kind: &str, noise: &mut Noise, outputs: usize) -> StepRecord {
    StepRecord {
        name: name.into(),
        kind: Some(kind.into()),
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
            .map(|index| (format!("output{index:02}"), OutputValue::Number(100.0 * noise.next())))
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

/// Puts phases one after the other, and tells what happened in them.
fn add_events(cycle: &mut CycleRecord, slower: f64) {
    let begin = cycle.started_at;
    let after = |seconds: f64| begin + TimeDelta::try_milliseconds(millis(seconds)).unwrap_or_default();
    let mut now = 0.0;
    for (index, phase) in cycle.phases.iter_mut().enumerate() {
        let seconds = phase.seconds.unwrap_or_default() + if index == SWITCH { slower } else { 0.0 };
        phase.seconds = Some(seconds);
        phase.started_at = after(now);
        now += seconds;
        phase.finished_at = Some(after(now));
        for step in &mut phase.steps {
            (step.started_at, step.finished_at) = (Some(phase.started_at), phase.finished_at);
        }
    }
    cycle.seconds = Some(now);
    cycle.finished_at = Some(after(now));
    let failed = cycle.outcome == Outcome::Failed;
    let phase = &mut cycle.phases[SWITCH];
    if let Some(OutputValue::Number(value)) = phase.steps[0].outputs.get_mut("output00") {
        *value += f64::from(cycle.cycle) * 0.05;
    }
    if cycle.cycle.is_multiple_of(5) {
        let mut fault = step("kill-leader", "inject", &mut Noise(1), 0);
        fault.started_at = Some(phase.started_at);
        fault.outputs = BTreeMap::from([
            ("fault".into(), OutputValue::Text("podKill".into())),
            ("targets".into(), OutputValue::Text("Pod/ledger-0".into())),
            ("injectedAt".into(), OutputValue::Text(phase.started_at.to_rfc3339())),
            ("activeSeconds".into(), OutputValue::Number(4.0)),
        ]);
        phase.steps.push(fault);
    }
    if failed {
        let failure = Failure {
            reason: "NonZeroExit".into(),
            message: format!("exit code 3: {} of 400 keys are missing", cycle.cycle),
            exit_code: Some(3),
            ..Failure::default()
        };
        (phase.outcome, phase.failure) = (Outcome::Failed, Some(failure.clone()));
        let step = &mut phase.steps[0];
        (step.state, step.outcome, step.exit_code) = (StepState::Failed, Some(Outcome::Failed), Some(3));
        (step.reason, step.message) = (failure.reason.clone(), failure.message.clone());
        step.pod = Some(format!("bench-load-c{}", cycle.cycle));
        let lines: Vec<String> =
            (1..=50).map(|line| format!("key k-{line:03}: expected {}, found nothing", cycle.cycle)).collect();
        let text = lines.join("\n");
        step.log = Some(LogRecord { file: None, text, truncated: true, bytes: 20_000 });
        cycle.failure = Some(failure);
    }
}

fn summary(records: &RunRecords) -> SummaryRecord {
    let completed = u32::try_from(records.cycles.len()).unwrap_or(u32::MAX);
    let failures = records.cycles.iter().filter(|cycle| cycle.outcome == Outcome::Failed).count();
    let failed = u32::try_from(failures).unwrap_or(u32::MAX);
    let end = i64::from(completed + 1) * PACE;
    let (phase, reason) =
        if failed == 0 { (RunPhase::Succeeded, "Passed") } else { (RunPhase::Failed, "ThresholdFailed") };
    let alert = |place: u32| {
        let since = i64::from(place + 1) * end / i64::from(ALERTS + 1);
        AlertRecord {
            monitor: "pods".into(),
            alert: if place.is_multiple_of(3) { "PodsRestarted".into() } else { "WritesAreSlow".into() },
            subject: format!("ledger-{}", place % 5),
            severity: if place.is_multiple_of(3) { Severity::Critical } else { Severity::Warning },
            policy: AlertPolicy::Record,
            since: at(since),
            fired_at: at(since + 10),
            resolved_at: Some(at(since + end / 100)),
            cause: "value 3 > 2".into(),
        }
    };
    SummaryRecord {
        run: records.run.clone(),
        verdict: Verdict {
            phase,
            reason: reason.into(),
            message: format!(
                "{} of {completed} cycles passed; a rate of at least 0.995 was wanted",
                completed - failed
            ),
        },
        started_at: Some(at(0)),
        finished_at: Some(at(end)),
        seconds: Some(number(end.unsigned_abs())),
        cycles: CycleCounts { completed, passed: completed - failed, failed, ..CycleCounts::default() },
        alerts: (0..ALERTS.min(completed)).map(alert).collect(),
        monitors: (0..MONITORS).map(|place| monitor(place, end)).collect(),
        ..SummaryRecord::default()
    }
}

/// A monitor's samples; those of the first leak.
fn monitor(place: u16, end: i64) -> MonitorRecord {
    let width = end * 1_000 / i64::from(STRETCHES);
    let stretch = |index: u16| {
        let middle = 100.0 + f32::from(index % 7) + if place == 0 { f32::from(index) } else { 0.0 };
        (at(0).timestamp_millis() + width * i64::from(index), 5, middle - 4.0, middle, middle + 6.0)
    };
    MonitorRecord {
        name: format!("resident-mb-{place}"),
        kind: "promql".into(),
        samples: u64::from(STRETCHES) * 5,
        fired: 0,
        width_millis: width.unsigned_abs(),
        buckets: (0..STRETCHES).map(stretch).collect(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds of a cycle")]
fn millis(seconds: f64) -> i64 {
    (seconds * 1_000.0) as i64
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
