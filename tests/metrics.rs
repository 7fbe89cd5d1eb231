//! What the operator tells about itself: health, metrics, log lines.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kube::api::DeleteParams;
use serde_json::{Value, json};
use soak_operator::api::status::RunPhase;
use support::{Namespace, kubeconfig, script, wait_for};

/// An operator whose port is known.
struct Served {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Served {
    fn start(namespace: &Namespace) -> Self {
        // The port is free again when the listener is dropped, and nobody is given it soon.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", namespace.name));
        let child = Command::new(env!("CARGO_BIN_EXE_soak-operator"))
            .args(["--metrics-address", &address.to_string(), "--watch-namespace", &namespace.name])
            .env("KUBECONFIG", kubeconfig())
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, address, log }
    }

    /// Status code, head and body of a GET; none while nothing listens.
    fn get(&self, path: &str) -> Option<(u16, String, String)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, head.to_lowercase(), body.to_owned()))
    }

    /// The samples by name with labels, such as `soak_runs{phase="Failed"}`.
    fn samples(&self) -> BTreeMap<String, f64> {
        let (code, head, body) = self.get("/metrics").unwrap();
        assert_eq!(code, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        let mut samples = BTreeMap::new();
        for line in body.lines().filter(|line| !line.starts_with("# HELP ") && !line.starts_with("# TYPE ")) {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
        samples
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run of three cycles: the second fails, and each tells its number.
fn spec() -> Value {
    let step = r#"echo "{\"answer\": $SOAK_CYCLE}" > /dev/termination-log; test $SOAK_CYCLE != 2"#;
    json!({"cycles": 3, "phases": [{"name": "work", "steps": [{"name": "one", "pod": script(step)}]}]})
}

#[tokio::test]
async fn health_metrics_and_log_lines_tell_of_a_run() {
    let namespace = Namespace::create("metrics").await;
    let operator = Served::start(&namespace);
    wait_for("readiness", || async { (operator.get("/readyz")?.0 == 200).then_some(()) }).await;
    assert_eq!(operator.get("/healthz").unwrap().0, 200);
    assert_eq!(operator.get("/nothing").unwrap().0, 404);
    assert!(operator.samples().keys().any(|series| series.starts_with("soak_build_info{")));

    namespace.run("told", spec()).await;
    let run = namespace.ended("told").await;
    assert_eq!(run.status.as_ref().unwrap().phase, RunPhase::Failed);

    let samples = operator.samples();
    let of_run = |name: &str, more: &str| {
        // Labels come in the order of their names or as they were declared; either is right.
        let found = samples.iter().find(|(series, _)| {
            let labels = [format!("namespace=\"{}\"", namespace.name), "run=\"told\"".into(), more.into()];
            series.starts_with(&format!("{name}{{")) && labels.iter().all(|label| series.contains(label))
        });
        *found.unwrap_or_else(|| panic!("no {name} {more} in {samples:#?}")).1
    };
    let exactly = |name: &str, more: &str, expected: f64| {
        assert!((of_run(name, more) - expected).abs() < 1e-9, "{name} {more}: {}", of_run(name, more));
    };
    exactly("soak_cycles_total", "outcome=\"Succeeded\"", 2.0);
    exactly("soak_cycles_total", "outcome=\"Failed\"", 1.0);
    exactly("soak_run_current_cycle", "", 3.0);
    exactly("soak_phase_duration_seconds_count", "phase=\"work\"", 2.0);
    exactly("soak_output", "output=\"one.answer\"", 3.0);
    let last = &run.status.as_ref().unwrap().recent[2];
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century are exact")]
    let ended = (last.started_at.timestamp_millis() + last.millis) as f64 / 1e3;
    assert!((of_run("soak_run_last_success_timestamp_seconds", "") - ended).abs() < 0.01);
    let failures: Vec<_> =
        samples.iter().filter(|(series, _)| series.starts_with("soak_step_failures_total{")).collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].0.contains("kind=\"pod\"") && (failures[0].1 - 1.0).abs() < 1e-9, "{failures:?}");
    assert!(samples["soak_status_writes_total{result=\"ok\"}"] > 5.0);
    assert!(samples["soak_reconcile_duration_seconds_count"] > 5.0);
    wait_for("the census", || async {
        (operator.samples().get("soak_runs{phase=\"Failed\"}") == Some(&1.0)).then_some(())
    })
    .await;

    let lines = operator.lines();
    for line in &lines {
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
    let changes: Vec<&Value> = lines.iter().filter(|line| line["message"] == "phase changed").collect();
    assert!(changes.iter().any(|line| line["to"] == "Running") && changes.iter().any(|line| line["to"] == "Failed"));
    assert!(changes.iter().all(|line| line["namespace"] == namespace.name.as_str() && line["run"] == "told"));
    let failed: Vec<&Value> = lines.iter().filter(|line| line["step"] == "one").collect();
    assert_eq!(failed.len(), 1, "{lines:#?}");
    let place = ["namespace", "run", "cycle", "phase", "step", "attempt"].map(|key| failed[0][key].clone());
    assert_eq!(json!(place), json!([namespace.name, "told", 2, "work", "one", 1]));

    namespace.runs().delete("told", &DeleteParams::background()).await.unwrap();
    wait_for("the end of the run's series", || async {
        operator.samples().keys().all(|series| !series.contains("run=\"told\"")).then_some(())
    })
    .await;
    namespace.delete().await;
}
