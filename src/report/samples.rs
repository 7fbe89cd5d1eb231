//! Runs that tests make reports of.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    analysis::wilson_interval,
    api::{
        monitor::{AlertPolicy, Severity},
        status::{CycleCounts, Failure, Outcome, OutputValue, RunPhase, Section, StepState},
    },
    results::{
        AlertRecord, ArtifactRecord, ArtifactsRecord, CrdVersion, CycleRecord, CycleSchema, Environment, LogRecord,
        Manifest, MonitorRecord, PhaseRecord, RunRef, StepRecord, SuccessRate, SummaryRecord, Verdict,
    },
};

use super::records::RunRecords;

/// What a made-up run is like.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Cycles.
    pub(super) cycles: u32,
    /// Numeric outputs of the load step.
    pub(super) outputs: usize,
    /// Factor on the duration of the phase `switch`.
    pub(super) slower: f64,
    /// Whether an output leaks.
    pub(super) leak: bool,
    /// Every so many cycles fail; 0: none.
    pub(super) fail_every: u32,
    /// The seed of the noise.
    pub(super) seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { cycles: 40, outputs: 4, slower: 1.0, leak: false, fail_every: 0, seed: 1 }
    }
}

#[allow(clippy::cast_possible_truncation)]
fn at(seconds: f64) -> DateTime<Utc> {
    let start = DateTime::from_timestamp(1_795_572_000, 0).unwrap();
    start + TimeDelta::microseconds((seconds * 1e6) as i64)
}

/// A run of that shape, with its summary.
pub(super) fn run(name: &str, shape: Shape) -> RunRecords {
    let mut rng = fastrand::Rng::with_seed(shape.seed);
    let run = RunRef { name: name.into(), namespace: "soak".into(), uid: format!("uid-of-{name}"), attempt: 1 };
    let mut now = 30.0;
    let setup = pass(&run, Section::Setup, 0, 0.0, &[("setup", 20.0)], &mut rng);
    let mut cycles = Vec::new();
    for number in 1..=shape.cycles {
        let tail = if rng.f64() < 0.04 { 2.5 } else { 1.0 };
        let mut noise = |around: f64| around * (0.85 + 0.3 * rng.f64());
        let phases = [("preflight", noise(3.0)), ("switch", noise(24.0) * shape.slower * tail), ("verify", noise(9.0))];
        let mut cycle = pass(&run, Section::Cycle, number, now, &phases, &mut rng);
        outputs(&mut cycle, shape, now / 3_600.0, &mut rng);
        if shape.fail_every > 0 && number % shape.fail_every == 0 {
            fail(&mut cycle, number);
        }
        now += cycle.seconds.unwrap_or(0.0) + 5.0;
        cycles.push(cycle);
    }
    let cleanup = pass(&run, Section::Cleanup, 0, now, &[("cleanup", 8.0)], &mut rng);
    let summary = summary(&run, &cycles, now + 10.0);
    RunRecords { run, setup: Some(setup), cycles, cleanup: Some(cleanup), summary: Some(summary), damaged: Vec::new() }
}

fn pass(
    run: &RunRef,
    section: Section,
    cycle: u32,
    begin: f64,
    phases: &[(&str, f64)],
    rng: &mut fastrand::Rng,
) -> CycleRecord {
    let mut now = begin;
    let mut records = Vec::new();
    for (name, seconds) in phases {
        let step = |step: &str, kind: &str, from: f64, to: f64| StepRecord {
            name: step.into(),
            kind: Some(kind.into()),
            state: StepState::Succeeded,
            attempts: 1,
            outcome: Some(Outcome::Succeeded),
            started_at: Some(at(from)),
            running_at: Some(at(from + 0.5)),
            finished_at: Some(at(to)),
            seconds: Some(to - from),
            pending_seconds: Some(0.5),
            reason: String::new(),
            message: String::new(),
            transient: None,
            class: None,
            target: None,
            outputs: BTreeMap::new(),
            pod: Some(format!("{}-{step}-c{cycle}", run.name)),
            node: Some(format!("node-{}", 1 + cycle % 3)),
            exit_code: Some(0),
            log: None,
            artifacts: None,
            rerun: None,
            past: Vec::new(),
        };
        let mut steps = vec![step(if *name == "switch" { "load" } else { "check" }, "pod", now, now + seconds)];
        if *name == "switch" && cycle.is_multiple_of(3) {
            let from = now + seconds * 0.3;
            let mut inject = step("pause-primary", "inject", from, now + seconds);
            inject.outputs = BTreeMap::from([
                ("fault".into(), OutputValue::Text("pod-kill".into())),
                ("injectedAt".into(), OutputValue::Text(at(from).to_rfc3339())),
                ("activeSeconds".into(), OutputValue::Number(seconds * (0.3 + 0.1 * rng.f64()))),
            ]);
            steps.push(inject);
        }
        records.push(PhaseRecord {
            name: (*name).into(),
            attempts: 1,
            started_at: at(now),
            finished_at: Some(at(now + seconds)),
            seconds: Some(*seconds),
            outcome: Outcome::Succeeded,
            failure: None,
            steps,
        });
        now += seconds;
    }
    CycleRecord {
        schema: CycleSchema::V1,
        run: run.clone(),
        section,
        cycle,
        started_at: at(begin),
        finished_at: Some(at(now)),
        seconds: Some(now - begin),
        outcome: Outcome::Succeeded,
        failure: None,
        truncated: false,
        full_digest: None,
        environment: environment(),
        phases: records,
        snapshot: None,
        alerts: Vec::new(),
        monitors: Vec::new(),
    }
}

fn environment() -> Environment {
    Environment {
        kubernetes_version: "v1.37.2".into(),
        operator_version: "0.1.0".into(),
        parameters: BTreeMap::from([("image".into(), "registry.example/soak:1".into())]),
        spec_digest: "sha256:6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918".into(),
        spec_generation: 1,
        ..Environment::default()
    }
}

fn outputs(cycle: &mut CycleRecord, shape: Shape, hours: f64, rng: &mut fastrand::Rng) {
    for index in 0..shape.outputs {
        let (name, value) = match index {
            0 => ("memoryMiB".to_owned(), 480.0 + 20.0 * rng.f64() + if shape.leak { 60.0 * hours } else { 0.0 }),
            1 => ("requestsPerSecond".to_owned(), 780.0 + 60.0 * rng.f64()),
            2 => ("errors".to_owned(), if rng.f64() < 0.1 { 1.0 } else { 0.0 }),
            _ => (format!("output{index}"), 10.0 * rng.f64()),
        };
        cycle.phases[1].steps[0].outputs.insert(name, OutputValue::Number(value));
    }
}

fn fail(cycle: &mut CycleRecord, number: u32) {
    let (reason, message) = if number.is_multiple_of(2) {
        ("Timeout", format!("not within 1m; {number} of 400 keys missing on replica-{}", number % 3))
    } else {
        ("ExitCode", format!("exit code 3: <b>lost & found</b> {number} writes"))
    };
    let failure = Failure { reason: reason.into(), message, transient: false, exit_code: Some(3), class: None };
    let phase = &mut cycle.phases[2];
    phase.outcome = Outcome::Failed;
    phase.failure = Some(failure.clone());
    let step = &mut phase.steps[0];
    step.state = StepState::Failed;
    step.outcome = Some(Outcome::Failed);
    step.attempts = 2;
    step.reason.clone_from(&failure.reason);
    step.message.clone_from(&failure.message);
    step.exit_code = Some(3);
    step.log = Some(LogRecord {
        file: None,
        text: format!(
            "connecting to replica-{}:5432\nverifying 400 keys written in cycle {number}\nkey k-{number}-017: expected 41, found nothing\n</pre><script>alert(1)</script>\nverify: 1 of 400 keys is missing\n",
            number % 3
        ),
        truncated: false,
        bytes: 190,
    });
    step.artifacts = Some(ArtifactsRecord {
        folder: format!("artifacts/c{number:06}/verify/check-2"),
        count: 1,
        bytes: 77,
        files: vec![ArtifactRecord { path: "missing<b>.json".into(), bytes: 77 }],
        ..ArtifactsRecord::default()
    });
    cycle.outcome = Outcome::Failed;
    cycle.failure = Some(failure);
}

fn summary(run: &RunRef, cycles: &[CycleRecord], end: f64) -> SummaryRecord {
    let completed = u32::try_from(cycles.len()).unwrap();
    let failed = u32::try_from(cycles.iter().filter(|cycle| cycle.outcome == Outcome::Failed).count()).unwrap();
    let passed = completed - failed;
    let interval = wilson_interval(passed.into(), completed.into(), 0.95).unwrap();
    let (phase, reason) =
        if failed == 0 { (RunPhase::Succeeded, "Passed") } else { (RunPhase::Failed, "ThresholdFailed") };
    SummaryRecord {
        run: run.clone(),
        verdict: Verdict {
            phase,
            reason: reason.into(),
            message: format!("{passed} of {completed} cycles passed; a rate of at least 0.99 was wanted"),
        },
        started_at: Some(at(0.0)),
        finished_at: Some(at(end)),
        seconds: Some(end),
        cycles: CycleCounts { completed, passed, failed, ..CycleCounts::default() },
        success_rate: Some(SuccessRate {
            rate: f64::from(passed) / f64::from(completed),
            lower: interval.low,
            upper: interval.high,
            confidence: 0.95,
        }),
        environment: environment(),
        alerts: vec![alert("PodsRestarted", Some(410.0)), alert("BackupPaused", None)],
        monitors: vec![monitor(end)],
        manifest: Some(Manifest {
            requested_by: "argocd".into(),
            commit: Some("0f3c9a1".into()),
            crds: vec![CrdVersion {
                name: "restores.example.com".into(),
                served: vec!["v1".into()],
                generation: 3,
                ..CrdVersion::default()
            }],
            ..Manifest::default()
        }),
        ..SummaryRecord::default()
    }
}

fn alert(name: &str, resolved: Option<f64>) -> AlertRecord {
    AlertRecord {
        monitor: "hub-pods".into(),
        alert: name.into(),
        subject: "open-cluster-management/observability-0".into(),
        severity: Severity::Warning,
        policy: AlertPolicy::Record,
        since: at(300.0),
        fired_at: at(330.0),
        resolved_at: resolved.map(at),
        cause: "restarts 3 > 2".into(),
    }
}

/// A value that leaks.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn monitor(end: f64) -> MonitorRecord {
    let bucket = |place: u32| {
        let middle = 100.0 + place as f32;
        (
            at(end * f64::from(place) / 60.0).timestamp_millis(),
            5,
            middle - 4.0,
            middle + (place % 3) as f32,
            middle + 6.0,
        )
    };
    MonitorRecord {
        name: "resident-mb".into(),
        kind: "promql".into(),
        samples: 300,
        fired: 0,
        width_millis: (end * 1_000.0 / 60.0) as u64,
        buckets: (0..60).map(bucket).collect(),
    }
}
