//! Records fit their bounds, their schemas and their digests, whatever they are made of.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{
    api::status::{Failure, Outcome, OutputValue, Pass, PastAttempt, PhaseStatus, StepState, StepStatus},
    results::{
        ArtifactRecord, ArtifactsRecord, CycleRecord, Environment, LeftOutRecord, MAX_RECORD_BYTES, RecordText,
        SummaryRecord, digest,
        from_pass::LogTail,
        samples::{at, environment, pass, record, run, summary},
        schemas,
    },
};

fn validator(index: usize) -> jsonschema::Validator {
    let schema: serde_json::Value = serde_json::from_str(&schemas()[index].1).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn assert_valid(validator: &jsonschema::Validator, text: &str) {
    let value = serde_json::from_str(text).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn records_validate_against_their_schemas_and_can_be_read_back() {
    let text = RecordText::from(&record());
    assert_valid(&validator(0), text.text());
    assert_eq!(serde_json::from_str::<CycleRecord>(text.text()).unwrap(), record());
    assert_eq!(text.digest(), digest(text.text()));
    assert!(!text.is_truncated());

    let text = RecordText::from(&summary());
    assert_valid(&validator(1), text.text());
    let read: SummaryRecord = serde_json::from_str(text.text()).unwrap();
    let names: Vec<&str> = read.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["cycle"], "a metric without values has no mean that JSON could tell");
}

#[test]
fn the_schemas_notice_what_is_wrong() {
    let validator = validator(0);
    let mut value = serde_json::to_value(record()).unwrap();
    assert!(validator.is_valid(&value));
    for (field, wrong) in [("schema", "soak.dev/cycle-record/v2"), ("outcome", "Fine"), ("startedAt", "yesterday")] {
        let right = value[field].take();
        value[field] = wrong.into();
        assert!(!validator.is_valid(&value), "{field}");
        value[field] = right;
    }
    value.as_object_mut().unwrap().remove("run");
    assert!(!validator.is_valid(&value));
}

#[test]
fn a_record_of_another_version_is_not_read_as_this_one() {
    let text = RecordText::from(&record()).text().replace("cycle-record/v1", "cycle-record/v9");
    assert!(serde_json::from_str::<CycleRecord>(&text).is_err());
}

#[test]
fn equal_records_have_equal_texts_that_begin_with_their_schema() {
    let text = RecordText::from(&record());
    assert_eq!(text, RecordText::from(&record()));
    assert!(text.text().starts_with(r#"{"schema":"soak.dev/cycle-record/v1","run":{"name":"switchover""#));
}

#[test]
fn logs_go_first_and_the_failed_steps_keep_most() {
    let mut record = record();
    let template = record.phases[0].steps[0].clone();
    let step = |name: String, outcome, text: String| {
        let mut step = template.clone();
        (step.name, step.outcome, step.log.as_mut().unwrap().text) = (name, Some(outcome), text);
        step
    };
    let lines = "a line of a log\n".repeat(2_000);
    record.phases[0].steps =
        (0..40).map(|number| step(format!("good-{number}"), Outcome::Succeeded, lines.clone())).collect();
    record.phases[0].steps.push(step("bad".into(), Outcome::Failed, lines.clone()));
    let text = RecordText::from(&record);
    assert!(text.is_truncated() && text.text().len() <= MAX_RECORD_BYTES);
    let read: CycleRecord = serde_json::from_str(text.text()).unwrap();
    let bad = read.phases[0].steps.last().unwrap();
    assert_eq!(bad.log.as_ref().unwrap().text, lines, "the log of the failed step is whole");
    let good = read.phases[0].steps[0].log.as_ref().unwrap();
    assert!(good.truncated && good.text.starts_with("a line") && good.text.len() > 4_000);
    assert_eq!(good.bytes, 29, "how long the log was stays known");
    assert_eq!(read.full_digest, Some(digest(&serde_json::to_string(&record).unwrap())));
    assert_eq!(read.phases[0].steps[0].outputs.len(), 2, "outputs are left alone as long as logs will do");
}

/// How the texts of a step are made. Small, so that a counterexample can be read; texts are a fraction of the longest that
/// there are, but far beyond the bound in all.
#[derive(Clone, Debug)]
struct StepKind {
    state: StepState,
    /// What texts are made of; JSON escapes it to one, two, three or six bytes a byte.
    unit: &'static str,
    message: usize,
    log: usize,
    outputs: usize,
    number: f64,
    past: u32,
    ran: bool,
}

#[derive(Clone, Debug)]
struct PassKind {
    steps: Vec<StepKind>,
    phases: usize,
    message: usize,
    parameters: usize,
}

fn text(unit: &str, bytes: usize) -> String {
    unit.repeat(bytes / unit.len())
}

fn step_kinds() -> impl Strategy<Value = StepKind> {
    let state =
        prop::sample::select(vec![StepState::Succeeded, StepState::Failed, StepState::Skipped, StepState::Stopping]);
    let unit = prop::sample::select(vec!["a", "\"", "ä\n", "\u{1}", "𝄞"]);
    (state, unit, 0..=1_024_usize, 0..=4_096_usize, 0..=4_usize, any::<f64>(), 0..=5_u32, any::<bool>()).prop_map(
        |(state, unit, message, log, outputs, number, past, ran)| StepKind {
            state,
            unit,
            message,
            log,
            outputs,
            number,
            past,
            ran,
        },
    )
}

fn pass_kinds() -> impl Strategy<Value = PassKind> {
    (prop::collection::vec(step_kinds(), 1..4), 1..=32_usize, 0..=4_096_usize, 0..=64_usize)
        .prop_map(|(steps, phases, message, parameters)| PassKind { steps, phases, message, parameters })
}

fn step(kind: &StepKind, pod: String) -> StepStatus {
    let past = (1..=kind.past).map(|attempt| PastAttempt {
        attempt,
        reason: "r".repeat(128),
        message: text(kind.unit, kind.message),
        transient: kind.ran,
        started_at: at(0),
        finished_at: at(1),
        pod: Some("p".repeat(63)),
        exit_code: Some(i32::MIN),
    });
    let outputs = (0..kind.outputs).map(|number| match number {
        0 => ("number".to_owned(), OutputValue::Number(kind.number)),
        1 => ("flag".to_owned(), OutputValue::Bool(kind.ran)),
        _ => (format!("text_{number}"), OutputValue::Text(text(kind.unit, 1_024))),
    });
    StepStatus {
        name: "n".repeat(81),
        state: kind.state,
        attempt: u32::MAX,
        started_at: Some(at(0)),
        running_at: kind.ran.then(|| at(-1)),
        finished_at: Some(at(9)),
        past: past.collect(),
        reason: "r".repeat(128),
        message: text(kind.unit, kind.message),
        transient: Some(kind.ran),
        pod: Some(pod),
        node: Some("n".repeat(253)),
        exit_code: Some(i32::MAX),
        outputs: outputs.collect(),
        ..StepStatus::default()
    }
}

/// A pass of 256 steps of a few kinds, with the logs of all.
fn built(kind: &PassKind) -> CycleRecord {
    let mut logs = BTreeMap::new();
    let mut steps = Vec::new();
    for (index, step_kind) in kind.steps.iter().cycle().take(256).enumerate() {
        let pod = format!("{}{index:03}", "p".repeat(60));
        logs.insert(
            pod.clone(),
            LogTail { text: text(step_kind.unit, step_kind.log), truncated: true, bytes: u64::MAX, file: None },
        );
        steps.push(step(step_kind, pod));
    }
    let failure = Failure {
        reason: "r".repeat(128),
        message: text("\"", kind.message),
        transient: true,
        exit_code: Some(1),
        class: None,
    };
    let template = &pass().phases[0];
    let phases = steps.chunks(256_usize.div_ceil(kind.phases)).map(|steps| PhaseStatus {
        failure: Some(failure.clone()),
        steps: steps.to_vec(),
        ..template.clone()
    });
    let pass = Pass { phases: phases.collect(), failure: Some(failure.clone()), ..pass() };
    let parameters =
        (0..kind.parameters).map(|number| (format!("{}{number:02}", "p".repeat(61)), text("\n", 2_048))).collect();
    let record = CycleRecord::from_pass(&run(), &pass, &logs, &Environment { parameters, ..environment() });
    // Names of some are longer than the bound already.
    let pods = logs.into_keys().step_by(8).map(|pod| (pod, artifacts(kind.message)));
    record.with_artifacts(pods.collect())
}

/// As many names as a step may have.
fn artifacts(message: usize) -> ArtifactsRecord {
    let path = "p".repeat(message.min(512));
    ArtifactsRecord {
        folder: "f".repeat(180),
        count: u32::MAX,
        bytes: u64::MAX,
        files: vec![ArtifactRecord { path: path.clone(), bytes: u64::MAX }; 32],
        left_out: vec![LeftOutRecord { path, why: text("\"", 256) }; 16],
        more_left_out: u32::MAX,
        lost: Some(text("\n", message)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pass_has_a_record_within_the_bound(kind in pass_kinds()) {
        let record = built(&kind);
        let text = RecordText::from(&record);
        prop_assert!(text.text().len() <= MAX_RECORD_BYTES, "{} bytes", text.text().len());
        prop_assert_eq!(text.digest(), digest(text.text()));
        let read: CycleRecord = serde_json::from_str(text.text()).unwrap();
        prop_assert_eq!(read.truncated, text.is_truncated());
        prop_assert_eq!(read.full_digest.is_some(), text.is_truncated());
        prop_assert_eq!((read.outcome, read.cycle), (record.outcome, record.cycle));
        let steps: usize = read.phases.iter().map(|phase| phase.steps.len()).sum();
        prop_assert_eq!(steps, 256, "no spec is so large that its steps are left out");
    }
}

#[test]
fn a_pass_far_beyond_the_bound_keeps_its_steps() {
    let step = StepKind {
        state: StepState::Failed,
        unit: "\u{1}",
        message: 1_024,
        log: 4_096,
        outputs: 4,
        number: f64::MIN,
        past: 5,
        ran: true,
    };
    let record = built(&PassKind { steps: vec![step], phases: 32, message: 4_096, parameters: 64 });
    let text = RecordText::from(&record);
    assert!(text.is_truncated() && text.text().len() <= MAX_RECORD_BYTES);
    assert_valid(&validator(0), text.text());
    let read: CycleRecord = serde_json::from_str(text.text()).unwrap();
    assert!(
        read.phases
            .iter()
            .flat_map(|phase| &phase.steps)
            .all(|step| step.message.len() > 100 && step.reason.len() == 128)
    );
    assert_eq!(read.phases.iter().map(|phase| phase.steps.len()).sum::<usize>(), 256);
}

#[test]
fn what_no_server_would_accept_fits_all_the_same() {
    let mut record = record();
    record.run.name = "\u{1}".repeat(MAX_RECORD_BYTES);
    record.environment.parameters = (0..100_000).map(|number| (number.to_string(), "x".into())).collect();
    record.phases = std::iter::repeat_n(record.phases[0].clone(), 10_000).collect();
    let text = RecordText::from(&record);
    assert!(text.text().len() <= MAX_RECORD_BYTES);
    assert_valid(&validator(0), text.text());

    let mut summary = summary();
    summary.verdict.message = "\u{1}".repeat(MAX_RECORD_BYTES);
    summary.metrics = std::iter::repeat_n(summary.metrics[0].clone(), 10_000).collect();
    let text = RecordText::from(&summary);
    assert!(text.text().len() <= MAX_RECORD_BYTES);
    assert_valid(&validator(1), text.text());
    assert!(serde_json::from_str::<SummaryRecord>(text.text()).unwrap().truncated);
}
