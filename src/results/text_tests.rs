//! Records fit their bounds, their schemas and their digests, whatever they are made of.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{
    api::status::{Failure, Outcome, OutputValue, Pass, PastAttempt, PhaseStatus, StepState, StepStatus},
    results::{
        CycleRecord, Environment, MAX_RECORD_BYTES, RecordText, SummaryRecord, digest,
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
    let errors: Vec<String> = validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
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
    record.phases[0].steps = (0..40).map(|number| step(format!("good-{number}"), Outcome::Succeeded, lines.clone())).collect();
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

/// Texts of a maximal length, made of characters that JSON escapes to one, two, three or six bytes a byte.
fn texts(bytes: usize) -> impl Strategy<Value = String> {
    (prop::sample::select(vec!["a", "\"", "ä\n", "\u{1}", "𝄞"]), 0..=bytes).prop_map(|(unit, bytes)| unit.repeat(bytes / unit.len()))
}

fn outputs() -> impl Strategy<Value = BTreeMap<String, OutputValue>> {
    let value = prop_oneof![
        any::<bool>().prop_map(OutputValue::Bool),
        any::<i64>().prop_map(OutputValue::Integer),
        any::<f64>().prop_map(OutputValue::Number),
        texts(4_096).prop_map(OutputValue::Text),
    ];
    prop::collection::btree_map("[a-z_]{1,63}", value, 0..4)
}

fn steps() -> impl Strategy<Value = (StepStatus, LogTail)> {
    let state = prop::sample::select(vec![StepState::Succeeded, StepState::Failed, StepState::Skipped, StepState::Stopping]);
    (state, texts(253), texts(4_096), texts(4_096), texts(65_536), outputs(), 0..6_u32, any::<bool>()).prop_map(
        |(state, word, message, past_message, log, outputs, past, ran)| {
            let past = (1..=past).map(|attempt| PastAttempt {
                attempt,
                reason: word.clone(),
                message: past_message.clone(),
                transient: ran,
                started_at: at(0),
                finished_at: at(1),
                pod: Some(word.clone()),
                exit_code: Some(i32::MIN),
            });
            let step = StepStatus {
                name: word.clone(),
                state,
                attempt: u32::MAX,
                started_at: Some(at(0)),
                running_at: ran.then(|| at(-1)),
                finished_at: Some(at(9)),
                past: past.collect(),
                reason: word.clone(),
                message,
                transient: Some(ran),
                node: Some(word),
                exit_code: Some(i32::MAX),
                outputs,
                ..StepStatus::default()
            };
            (step, LogTail { truncated: true, bytes: u64::MAX, text: log })
        },
    )
}

/// A pass of 256 steps that are copies of a few, in some phases, with the logs of all.
fn passes() -> impl Strategy<Value = (Pass, BTreeMap<String, LogTail>, Environment)> {
    let parameters = prop::collection::btree_map("[a-z]{1,63}", texts(16_384), 0..64);
    (prop::collection::vec(steps(), 1..4), 1..32_usize, texts(4_096), parameters).prop_map(|(kinds, phases, message, parameters)| {
        let mut logs = BTreeMap::new();
        let mut steps = Vec::new();
        for (index, (step, log)) in kinds.iter().cycle().take(256).enumerate() {
            let pod = format!("pod-{index}");
            logs.insert(pod.clone(), log.clone());
            steps.push(StepStatus { pod: Some(pod), ..step.clone() });
        }
        let failure = Failure { reason: message.clone(), message, transient: true, exit_code: Some(1) };
        let template = &pass().phases[0];
        let phases = steps.chunks(256_usize.div_ceil(phases)).map(|steps| PhaseStatus {
            failure: Some(failure.clone()),
            steps: steps.to_vec(),
            ..template.clone()
        });
        let pass = Pass { phases: phases.collect(), failure: Some(failure.clone()), ..pass() };
        (pass, logs, Environment { parameters, ..environment() })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_pass_has_a_record_within_the_bound((pass, logs, environment) in passes()) {
        let record = CycleRecord::from_pass(&run(), &pass, &logs, &environment);
        let text = RecordText::from(&record);
        prop_assert!(text.text().len() <= MAX_RECORD_BYTES, "{} bytes", text.text().len());
        prop_assert_eq!(text.digest(), digest(text.text()));
        let read: CycleRecord = serde_json::from_str(text.text()).unwrap();
        prop_assert_eq!(read.truncated, text.is_truncated());
        prop_assert_eq!(read.full_digest.is_some(), text.is_truncated());
        prop_assert_eq!((read.outcome, read.cycle), (record.outcome, record.cycle));
        let steps: usize = read.phases.iter().map(|phase| phase.steps.len()).sum();
        prop_assert!(steps == 256, "no spec is so large that its steps are left out");
    }
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
