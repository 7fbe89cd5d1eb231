//! `ctrf.json`: the Common Test Report Format (<https://ctrf.io>), a test a step.

use serde_json::{Value, json};

use crate::{
    api::status::Outcome,
    results::{CycleRecord, PhaseRecord, StepRecord},
};

use super::{ReportError, document::Report, junit::pass_name, records::RunRecords};

/// The test results as JSON.
pub(super) fn json(report: &Report, run: &RunRecords) -> Result<String, ReportError> {
    let tests: Vec<Value> = run
        .passes()
        .flat_map(|pass| pass.phases.iter().map(move |phase| (pass, phase)))
        .flat_map(|(pass, phase)| phase.steps.iter().map(move |step| test(report, pass, phase, step)))
        .collect();
    let count = |status: &str| tests.iter().filter(|test| test["status"] == status).count();
    let millis = |at: Option<chrono::DateTime<chrono::Utc>>| at.map_or(0, |at| at.timestamp_millis());
    let last = report.finished_at.or_else(|| run.passes().last().and_then(|pass| pass.finished_at));
    let document = json!({
        "reportFormat": "CTRF",
        "specVersion": "0.0.0",
        "generatedBy": concat!("soak-operator ", env!("CARGO_PKG_VERSION")),
        "results": {
            "tool": {"name": "soak-operator", "version": report.environment.operator_version},
            "summary": {
                "tests": tests.len(),
                "passed": count("passed"),
                "failed": count("failed"),
                "skipped": count("skipped"),
                "pending": 0,
                "other": count("other"),
                "start": millis(report.started_at),
                "stop": millis(last),
            },
            "tests": tests,
            "environment": {"testEnvironment": report.environment.kubernetes_version, "extra": {"specDigest": report.environment.spec_digest}},
        }
    });
    let mut text = serde_json::to_string(&document)?;
    text.push('\n');
    Ok(text)
}

fn test(report: &Report, pass: &CycleRecord, phase: &PhaseRecord, step: &StepRecord) -> Value {
    let status = match step.outcome {
        None => "skipped",
        Some(Outcome::Succeeded) => "passed",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Inconclusive) => "other",
    };
    #[expect(clippy::cast_possible_truncation, reason = "a duration in milliseconds")]
    let duration = step.seconds.map_or(0, |seconds| (seconds * 1_000.0).round() as i64);
    let mut test = json!({
        "name": format!("{}/{}/{}", pass_name(pass), phase.name, step.name),
        "status": status,
        "duration": duration,
        "suite": [report.run.name, pass_name(pass), phase.name],
        "retries": step.attempts.saturating_sub(1),
        // A pass after another attempt is what the format calls flaky.
        "flaky": status == "passed" && step.attempts > 1,
    });
    if status == "failed" || status == "other" {
        test["message"] = json!(format!("{}: {}", step.reason, step.message));
        if let Some(log) = &step.log {
            test["stdout"] = json!(log.text.lines().collect::<Vec<_>>());
        }
    }
    if let Some(started) = step.started_at {
        test["start"] = json!(started.timestamp_millis());
    }
    if let Some(finished) = step.finished_at {
        test["stop"] = json!(finished.timestamp_millis());
    }
    test
}
