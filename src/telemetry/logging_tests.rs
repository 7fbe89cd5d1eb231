use std::sync::{Arc, Mutex};

use chrono::DateTime;
use tracing::{error_span, info_span, subscriber::with_default};

use super::*;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("buffer").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn text_of(format: LogFormat, filter: &str, act: impl FnOnce()) -> String {
    let captured = Captured::default();
    with_default(subscriber(format, filter, captured.clone()).expect("a good filter"), act);
    let bytes = captured.0.lock().expect("buffer").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

fn lines_of(filter: &str, act: impl FnOnce()) -> Vec<Map<String, Value>> {
    let text = text_of(LogFormat::Json, filter, act);
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

#[test]
fn fields_of_all_spans_are_at_the_top() {
    let lines = lines_of("info", || {
        let run = info_span!("run", namespace = "team-a", run = "switchover").entered();
        let cycle = info_span!("cycle", cycle = 7, phase = tracing::field::Empty).entered();
        cycle.record("phase", "activation");
        info_span!("step", step = "restore").in_scope(|| {
            tracing::info!(attempt = 2, ratio = 0.5, ok = true, "a step ended");
        });
        drop(cycle);
        tracing::info!("outside of the cycle");
        drop(run);
        tracing::info!("outside of all");
    });
    let line = &lines[0];
    let expected = serde_json::json!({
        "namespace": "team-a", "run": "switchover", "cycle": 7, "phase": "activation", "step": "restore",
        "attempt": 2, "ratio": 0.5, "ok": true, "message": "a step ended", "level": "INFO",
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(line.get(key), Some(value), "{key} in {line:?}");
    }
    assert!(line["target"].as_str().is_some_and(|target| target.contains("logging")));
    assert_eq!(line.len(), 12, "nothing else: {line:?}");
    assert!(lines[1].contains_key("run") && !lines[1].contains_key("cycle"), "{:?}", lines[1]);
    assert!(!lines[2].contains_key("run"));
}

#[test]
fn fields_survive_a_move_to_another_thread() {
    let captured = Captured::default();
    let dispatch =
        tracing::Dispatch::new(subscriber(LogFormat::Json, "info", captured.clone()).expect("a good filter"));
    let span = tracing::dispatcher::with_default(&dispatch, || info_span!("run", run = "moved"));
    std::thread::spawn(move || {
        tracing::dispatcher::with_default(&dispatch, || span.in_scope(|| tracing::info!("elsewhere")));
    })
    .join()
    .expect("joins");
    let text = String::from_utf8(captured.0.lock().expect("buffer").clone()).expect("UTF-8");
    assert!(text.contains("\"run\":\"moved\""), "{text}");
}

#[test]
fn times_are_rfc_3339_in_utc() {
    let lines = lines_of("info", || tracing::info!("now"));
    let text = lines[0]["timestamp"].as_str().expect("a string");
    assert!(text.ends_with('Z'), "{text}");
    let age = Utc::now() - DateTime::parse_from_rfc3339(text).expect("RFC 3339").to_utc();
    assert!(age.num_seconds() < 60, "{age}");
}

#[test]
fn a_warning_says_whose_it_is_when_only_warnings_are_asked_for() {
    for filter in ["warn", "error,soak_operator=warn", "off,soak_operator::telemetry=warn"] {
        let lines = lines_of(filter, || {
            let _run = info_span!("run", run = "nightly").entered();
            tracing::info!("not asked for");
            tracing::warn!("asked for");
        });
        assert_eq!(lines.len(), 1, "{filter}");
        assert_eq!(lines[0].get("run"), Some(&Value::from("nightly")), "{filter}: {:?}", lines[0]);
    }
}

#[test]
fn spans_of_other_crates_obey_the_filter() {
    let lines = lines_of("warn", || {
        let _noise = info_span!(target: "hyper", "request", url = "x").entered();
        tracing::warn!("asked for");
    });
    assert!(!lines[0].contains_key("url"), "{:?}", lines[0]);
}

#[test]
fn the_inner_field_wins_and_reserved_names_are_kept_for_the_line() {
    let lines = lines_of("info", || {
        let _outer = error_span!("outer", step = "a", level = "user").entered();
        let _inner = error_span!("inner", step = "b").entered();
        tracing::info!("one");
        tracing::info!(step = "c", timestamp = 1, "two");
    });
    assert_eq!(lines[0]["step"], "b");
    assert_eq!((&lines[0]["level"], &lines[0]["field.level"]), (&Value::from("INFO"), &Value::from("user")));
    assert_eq!((&lines[1]["step"], &lines[1]["field.timestamp"]), (&Value::from("c"), &Value::from(1)));
}

#[test]
fn odd_text_stays_one_line_of_json_and_is_bounded() {
    let lines = lines_of("info", || {
        tracing::info!(output = "a\n\"b\"\u{1b}[31m", not_a_number = f64::NAN, "two\nlines");
        tracing::info!(output = "ä".repeat(100_000), "long");
    });
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["output"], "a\n\"b\"\u{1b}[31m");
    assert_eq!(lines[0]["not_a_number"], "NaN");
    let long = lines[1]["output"].as_str().expect("a string");
    assert!(long.len() < MAX_VALUE_BYTES + 50 && long.ends_with("bytes more)"));
}

#[test]
fn an_error_is_told_with_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("the record was not stored")]
    struct Outer(#[source] io::Error);
    let lines = lines_of("info", || {
        let error = Outer(io::Error::other("disk full"));
        tracing::error!(error = &error as &dyn std::error::Error, "failed");
    });
    assert_eq!(lines[0]["error"], "the record was not stored: disk full");
}

#[test]
fn text_names_the_spans_fields_too() {
    let text = text_of(LogFormat::Text, "info", || {
        let _run = info_span!("run", run = "nightly").entered();
        tracing::info!("hello");
    });
    assert!(text.contains("hello") && text.contains("run=\"nightly\"") && text.contains("INFO"), "{text}");
    let time = text.split(' ').next().expect("a time");
    assert!(time.ends_with('Z') && DateTime::parse_from_rfc3339(time).is_ok(), "{text}");
}

#[test]
fn a_bad_filter_or_format_is_an_error_and_not_silence() {
    let error = subscriber(LogFormat::Json, "soak=loud", io::sink).err().expect("refused");
    assert!(error.to_string().contains("soak=loud"), "{error}");
    assert_eq!("json".parse::<LogFormat>().expect("known"), LogFormat::Json);
    assert!("yaml".parse::<LogFormat>().is_err());
    assert_eq!(LogFormat::Text.to_string(), "text");
}
