//! Passes and records that tests use.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::api::status::{
    CycleSummary, Failure, Outcome, OutputValue, Pass, PastAttempt, PhaseStatus, RunPhase, Section, StepState,
    StepStatus,
};

use super::{
    CycleRecord, Environment, MetricSummary, RunRef, SectionSummary, SuccessRate, SummaryRecord, Verdict, digest,
    from_pass::LogTail,
};

pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

pub(super) fn run() -> RunRef {
    RunRef {
        name: "switchover".into(),
        namespace: "soak".into(),
        uid: "7a1b8c9d-0000-4000-8000-000000000001".into(),
        attempt: 1,
    }
}

pub(super) fn environment() -> Environment {
    Environment {
        kubernetes_version: "v1.37.2".into(),
        operator_version: "0.1.0".into(),
        parameters: BTreeMap::from([("image".into(), "registry.example/soak:1".into())]),
        spec_digest: "sha256:0123456789abcdef0123456789abcdef".into(),
        spec_generation: 1,
        seed: Some(42),
        ..Environment::default()
    }
}

fn failure() -> Failure {
    Failure {
        reason: "Timeout".into(),
        message: "step checks/rpo: not within 1m".into(),
        transient: true,
        exit_code: Some(124),
        class: None,
    }
}

pub(super) fn pass() -> Pass {
    let load = StepStatus {
        name: "load".into(),
        state: StepState::Succeeded,
        attempt: 2,
        started_at: Some(at(0)),
        running_at: Some(at(2) + chrono::TimeDelta::milliseconds(500)),
        finished_at: Some(at(32) + chrono::TimeDelta::milliseconds(500)),
        pod: Some("switchover-load-c12-a".into()),
        node: Some("node-1".into()),
        exit_code: Some(0),
        outputs: BTreeMap::from([
            ("rps".into(), OutputValue::Number(812.5)),
            ("errors".into(), OutputValue::Integer(0)),
        ]),
        past: vec![PastAttempt {
            attempt: 1,
            reason: "Evicted".into(),
            message: "the node was low on memory".into(),
            transient: true,
            started_at: at(-20),
            finished_at: at(-5),
            pod: Some("switchover-load-c12-0".into()),
            exit_code: None,
        }],
        ..StepStatus::default()
    };
    let rpo = StepStatus {
        name: "checks/rpo".into(),
        state: StepState::Stopping,
        attempt: 1,
        started_at: Some(at(33)),
        finished_at: Some(at(93)),
        reason: "Timeout".into(),
        message: "not within 1m".into(),
        transient: Some(true),
        ..StepStatus::default()
    };
    let skipped = StepStatus { name: "report".into(), state: StepState::Skipped, ..StepStatus::default() };
    let phase = |name: &str, from: i64, to: i64, outcome: Option<Outcome>, steps: Vec<StepStatus>| PhaseStatus {
        name: name.into(),
        attempt: 1,
        first_started_at: at(from),
        started_at: at(from),
        deadline: None,
        finished_at: Some(at(to)),
        outcome,
        failure: (outcome != Some(Outcome::Succeeded)).then(failure),
        steps,
    };
    Pass {
        section: Section::Cycle,
        cycle: 12,
        started_at: at(-20),
        deadline: at(1_780),
        phases: vec![
            phase("activation", -20, 33, Some(Outcome::Succeeded), vec![load]),
            phase("verify", 33, 93, None, vec![rpo, skipped]),
        ],
        outcome: Some(Outcome::Failed),
        failure: Some(failure()),
        finished_at: Some(at(93)),
    }
}

pub(super) fn record() -> CycleRecord {
    let logs = BTreeMap::from([(
        "switchover-load-c12-a".to_owned(),
        LogTail { text: "warming up\n812.5 requests/s\n".into(), truncated: false, bytes: 29, file: None },
    )]);
    CycleRecord::from_pass(&run(), &pass(), &logs, &environment())
}

pub(super) fn summary() -> SummaryRecord {
    SummaryRecord {
        run: run(),
        verdict: Verdict {
            phase: RunPhase::Failed,
            reason: "ThresholdFailed".into(),
            message: "18 of 20 cycles passed".into(),
        },
        started_at: Some(at(-100)),
        finished_at: Some(at(4_000)),
        seconds: Some(4_100.0),
        success_rate: Some(SuccessRate { rate: 0.9, lower: 0.699, upper: 0.972, confidence: 0.95 }),
        metrics: vec![
            MetricSummary {
                name: "cycle".into(),
                count: 18,
                mean: 61.0,
                min: 55.0,
                max: 80.5,
                p50: 60.0,
                p90: 70.0,
                p95: 75.0,
                p99: 80.0,
                relative_error: 0.01,
            },
            MetricSummary { name: "phases.unseen".into(), mean: f64::NAN, ..MetricSummary::default() },
        ],
        recent: vec![CycleSummary {
            number: 12,
            outcome: Outcome::Failed,
            reason: "Timeout: step checks/rpo: not within 1m".into(),
            started_at: at(-20),
            millis: 113_000,
            digest: digest("a record"),
        }],
        setup: Some(SectionSummary { outcome: Outcome::Succeeded, failure: None }),
        cleanup: Some(SectionSummary { outcome: Outcome::Failed, failure: Some(failure()) }),
        environment: environment(),
        ..SummaryRecord::default()
    }
}
