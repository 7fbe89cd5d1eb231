//! `junit.xml`: a suite a cycle, a case a step, and one a phase that failed without a step to blame.

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use crate::{
    api::status::{Outcome, Section, StepState},
    results::{CycleRecord, PhaseRecord, StepRecord},
};

use super::{ReportError, document::Report, records::RunRecords};

/// The test results as XML. Names are unique: `RUN.cycle-000012` as suite and class, `PHASE/STEP` as case.
pub(super) fn xml(report: &Report, run: &RunRecords) -> Result<String, ReportError> {
    let mut junit = Junit::new(report.run.name.as_str());
    for pass in run.passes() {
        junit.add_test_suite(suite(report, pass));
    }
    Ok(junit.to_string()?)
}

/// The name of a pass among those of a run: `setup`, `cycle-000012`, `cleanup`.
pub(super) fn pass_name(pass: &CycleRecord) -> String {
    match pass.section {
        Section::Setup => "setup".to_owned(),
        Section::Cycle => format!("cycle-{:06}", pass.cycle),
        Section::Cleanup => "cleanup".to_owned(),
    }
}

fn suite(report: &Report, pass: &CycleRecord) -> TestSuite {
    let name = format!("{}.{}", report.run.name, pass_name(pass));
    let mut suite = TestSuite::new(name.as_str());
    suite.set_timestamp(pass.started_at.fixed_offset());
    if let Some(time) = pass.seconds.and_then(duration) {
        suite.set_time(time);
    }
    suite.add_property(("outcome", pass.outcome.as_str()));
    for phase in &pass.phases {
        let mut blamed = phase.outcome == Outcome::Succeeded;
        for step in &phase.steps {
            blamed |= step.outcome.is_some_and(|outcome| outcome != Outcome::Succeeded);
            suite.add_test_case(case(&name, phase, step));
        }
        if !blamed {
            suite.add_test_case(phase_case(&name, phase));
        }
    }
    if pass.outcome != Outcome::Succeeded && pass.phases.iter().all(|phase| phase.outcome == Outcome::Succeeded) {
        let failure = pass.failure.clone().unwrap_or_default();
        let mut status = TestCaseStatus::non_success(kind(pass.outcome));
        status.set_type(failure.reason).set_message(failure.message);
        suite.add_test_case(named(&name, "(all)", status));
    }
    suite
}

fn named(class: &str, name: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case
}

fn case(class: &str, phase: &PhaseRecord, step: &StepRecord) -> TestCase {
    let status = match (step.state, step.outcome) {
        (StepState::Skipped, _) | (_, None) => TestCaseStatus::skipped(),
        (_, Some(Outcome::Succeeded)) => TestCaseStatus::success(),
        (_, Some(outcome)) => {
            let mut status = TestCaseStatus::non_success(kind(outcome));
            status.set_type(step.reason.as_str()).set_message(step.message.as_str());
            status
        }
    };
    let mut case = named(class, &format!("{}/{}", phase.name, step.name), status);
    if let Some(time) = step.seconds.and_then(duration) {
        case.set_time(time);
    }
    if let Some(at) = step.started_at {
        case.set_timestamp(at.fixed_offset());
    }
    if step.outcome.is_some_and(|outcome| outcome != Outcome::Succeeded) {
        if let Some(log) = &step.log {
            case.set_system_out(log.text.as_str());
        }
        let coordinates =
            [("pod", &step.pod), ("node", &step.node)].map(|(what, value)| Some((what, value.as_deref()?)));
        for (what, value) in coordinates.into_iter().flatten() {
            case.add_property((what, value));
        }
    }
    case
}

/// A phase that did not succeed although no step of it is to blame, such as one whose time was up.
fn phase_case(class: &str, phase: &PhaseRecord) -> TestCase {
    let failure = phase.failure.clone().unwrap_or_default();
    let mut status = TestCaseStatus::non_success(kind(phase.outcome));
    status.set_type(failure.reason).set_message(failure.message);
    named(class, &format!("{}/(phase)", phase.name), status)
}

/// What could not tell is an error of the test, not a failure of what is tested.
const fn kind(outcome: Outcome) -> NonSuccessKind {
    if matches!(outcome, Outcome::Failed) { NonSuccessKind::Failure } else { NonSuccessKind::Error }
}

fn duration(seconds: f64) -> Option<std::time::Duration> {
    std::time::Duration::try_from_secs_f64(seconds).ok()
}
