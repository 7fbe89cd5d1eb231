//! Monitors see real faults, raise each alert once, and do to cycles and runs what their policies say.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event, rbac::v1::RoleBinding};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use soak_operator::api::{
    ConditionStatus, SoakRun,
    status::{Alert, AlertState, RunPhase},
};
use support::{Namespace, Operator, is_condition, script, wait_for};

/// A namespace whose account may watch what these tests watch.
async fn namespace() -> Namespace {
    let namespace = Namespace::create("monitors").await;
    let watched = json!([{"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list", "watch"]}]);
    namespace.allow("soak-watches", watched).await;
    namespace
}

/// A cycle that only lasts.
fn lasting(seconds: u32) -> Value {
    json!([{"name": "work", "steps": [{"name": "rest", "sleep": {"duration": format!("{seconds}s")}}]}])
}

fn queue(depth: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "queue"}, "data": {"depth": depth.to_string()}})
}

async fn set_depth(namespace: &Namespace, depth: u32) {
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let patch = Patch::Merge(json!({"data": {"depth": depth.to_string()}}));
    maps.patch("queue", &PatchParams::default(), &patch).await.unwrap();
}

/// A monitor of the queue's depth.
#[expect(clippy::needless_pass_by_value, reason = "it is always a literal")]
fn depth(rule: Value) -> Value {
    let mut alert = json!({"name": "Deep", "when": "value > 10.0"});
    alert.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
    json!({
        "name": "queue", "interval": "1s", "value": "double(object.data.depth)",
        "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "queue"}, "alerts": [alert],
    })
}

fn alerts(run: &SoakRun) -> Vec<Alert> {
    run.status.iter().filter_map(|status| status.alerts.as_ref()).flat_map(|it| it.list.clone()).collect()
}

/// Whether there is an alert of that name in that state.
fn is(name: &'static str, state: AlertState) -> impl Fn(&SoakRun) -> bool {
    move |run| alerts(run).iter().any(|it| it.alert == name && it.state == state)
}

async fn told(namespace: &Namespace, reason: &str) -> usize {
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let events = events.list(&ListParams::default()).await.unwrap();
    events.items.iter().filter(|event| event.reason.as_deref() == Some(reason)).count()
}

#[tokio::test]
async fn a_resource_that_goes_bad_fails_its_cycle_and_no_other() {
    let namespace = namespace().await;
    namespace.apply(queue(1)).await;
    let _operator = Operator::start(&namespace);
    let spec = json!({
        "cycles": 2, "phases": lasting(12), "monitors": [depth(json!({"policy": "failCycle", "severity": "Critical"}))],
        "criteria": {"minSuccessRate": "0.5"},
    });
    namespace.run("depth", spec).await;
    let cycle = |number: u32| {
        move |run: &SoakRun| run.status.as_ref().and_then(|it| it.current.as_ref()).is_some_and(|it| it.cycle == number)
    };
    namespace.until("depth", "began", cycle(1)).await;
    set_depth(&namespace, 11).await;
    let run = namespace.until("depth", "alerted", is("Deep", AlertState::Firing)).await;
    assert!(is_condition(&run, "Alerting", ConditionStatus::True));
    assert_eq!(run.status.as_ref().unwrap().alerts.as_ref().unwrap().shown, "1 firing, 1 in all");
    set_depth(&namespace, 0).await;
    let run = namespace.until("depth", "calmed", is("Deep", AlertState::Resolved)).await;
    assert!(is_condition(&run, "Alerting", ConditionStatus::False));
    let run = namespace.ended("depth").await;
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.cycles.failed, status.cycles.passed), (RunPhase::Succeeded, 1, 1), "{status:#?}");
    let records = namespace.records(&run, "cycle").await;
    assert_eq!((&records[0]["outcome"], &records[0]["failure"]["reason"]), (&json!("Failed"), &json!("AlertFiring")));
    let alert = &records[0]["alerts"][0];
    assert_eq!(
        (&alert["alert"], &alert["severity"], &alert["cause"]),
        (&json!("Deep"), &json!("Critical"), &json!("value 11: value > 10.0"))
    );
    assert!(alert["resolvedAt"].is_string(), "{alert}");
    assert_eq!((&records[1]["outcome"], &records[1]["alerts"]), (&json!("Succeeded"), &Value::Null));
    let samples = &records[0]["monitors"][0];
    assert!(samples["samples"].as_u64().unwrap() >= 5, "{samples}");
    let largest = samples["buckets"].as_array().unwrap().iter().filter_map(|it| it[4].as_f64()).reduce(f64::max);
    assert_eq!(largest, Some(11.0));
    let summary = &namespace.records(&run, "summary").await[0];
    assert_eq!(summary["alerts"].as_array().unwrap().len(), 1);
    assert!(summary["monitors"][0]["samples"].as_u64().unwrap() > samples["samples"].as_u64().unwrap(), "{summary:#}");
    assert_eq!((told(&namespace, "AlertFiring").await, told(&namespace, "AlertResolved").await), (1, 1));
    namespace.delete().await;
}

#[tokio::test]
async fn an_alert_fails_the_run_after_the_cycle_or_stops_it_at_once() {
    let namespace = namespace().await;
    namespace.apply(queue(11)).await;
    let _operator = Operator::start(&namespace);
    for (policy, seconds) in [("failRun", 10), ("abort", 600)] {
        let monitors = json!([depth(json!({"policy": policy, "for": "1s"}))]);
        let cleanup = json!([{"name": "tidy", "sleep": {"duration": "100ms"}}]);
        let spec = json!({"cycles": 9, "phases": lasting(seconds), "monitors": monitors, "cleanup": cleanup});
        namespace.run(&policy.to_lowercase(), spec).await;
    }
    let run = namespace.ended("failrun").await;
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.reason.as_str(), status.cycles.completed), (RunPhase::Failed, "AlertFiring", 1));
    assert!(status.message.contains("alert queue/Deep (queue) fired: value 11"), "{}", status.message);
    let run = namespace.ended("abort").await;
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.cycles.inconclusive), (RunPhase::Aborted, 1), "{status:#?}");
    assert_eq!(namespace.records(&run, "cleanup").await.len(), 1, "it is cleaned up");
    namespace.delete().await;
}

#[tokio::test]
async fn a_crash_of_the_operator_neither_loses_nor_doubles_an_alert() {
    let namespace = namespace().await;
    namespace.apply(queue(11)).await;
    let operator = Operator::start(&namespace);
    let quick = depth(json!({}));
    let mut slow = depth(json!({"name": "Long", "for": "15s"}));
    slow["name"] = json!("slow");
    namespace.run("crash", json!({"cycles": 1, "phases": lasting(40), "monitors": [quick, slow]})).await;
    let before = namespace
        .until("crash", "is pending and fires", |run| {
            is("Long", AlertState::Pending)(run) && is("Deep", AlertState::Firing)(run)
        })
        .await;
    // An event is sent after the status is stored, and a crash in between may lose it.
    wait_for("the event", || async { (told(&namespace, "AlertFiring").await == 1).then_some(()) }).await;
    operator.kill();
    let _operator = Operator::start(&namespace);
    let after = namespace.until("crash", "fires", is("Long", AlertState::Firing)).await;
    let of = |run: &SoakRun, name: &str| alerts(run).into_iter().filter(|it| it.alert == name).collect::<Vec<_>>();
    let (pending, long) = (&of(&before, "Long")[0], of(&after, "Long"));
    assert_eq!((long.len(), long[0].since), (1, pending.since), "its time did not begin anew");
    assert!((long[0].fired_at.unwrap() - pending.since).num_seconds() < 25, "{long:?}");
    assert_eq!(of(&after, "Deep"), of(&before, "Deep"), "it is the same alert");
    let run = namespace.ended("crash").await;
    let record = &namespace.records(&run, "cycle").await[0];
    assert_eq!(record["alerts"].as_array().unwrap().len(), 2, "{record:#}");
    assert_eq!(told(&namespace, "AlertFiring").await, 2);
    namespace.delete().await;
}

#[tokio::test]
async fn pods_that_crash_and_stay_unready_are_alerts() {
    let namespace = namespace().await;
    let pod = |name: &str, container: Value| {
        let mut container = container;
        container["name"] = json!("c");
        container["image"] = json!("localhost/busybox:1");
        container["imagePullPolicy"] = json!("Never");
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "victim"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}})
    };
    let _operator = Operator::start(&namespace);
    let rules = json!([
        {"name": "CrashLoop", "when": "pod.crashLoop"},
        {"name": "Restarted", "when": "pod.restarted"},
        {"name": "OOMKilled", "when": "pod.oomKilled"},
        {"name": "NotReady", "when": "!pod.ready && !pod.ended", "for": "2s"},
    ]);
    let monitors = json!([
        {"name": "pods", "interval": "1s", "podHealth": {"labels": {"app": "victim"}}, "alerts": rules},
        {"name": "others", "interval": "1s", "podHealth": {"labels": {"app": "nobody"}}},
    ]);
    namespace.run("pods", json!({"duration": "10m", "phases": lasting(600), "monitors": monitors})).await;
    namespace.until("pods", "began", |run| run.status.as_ref().is_some_and(|it| it.current.is_some())).await;
    namespace.apply(pod("crashes", json!({"command": ["sh", "-c", "sleep 1; exit 3"]}))).await;
    let probe = json!({"exec": {"command": ["false"]}, "periodSeconds": 1});
    namespace.apply(pod("unready", json!({"command": ["sleep", "600"], "readinessProbe": probe}))).await;
    let hungry = json!({"command": ["sh", "-c", "sleep 1; x=0123456789abcdef; while true; do x=$x$x; done"],
        "resources": {"limits": {"memory": "24Mi"}}});
    namespace.apply(pod("hungry", hungry)).await;
    let about = |alert: &'static str, subject: &'static str| {
        move |run: &SoakRun| {
            alerts(run).iter().any(|it| it.alert == alert && it.subject == subject && it.state != AlertState::Pending)
        }
    };
    for (alert, pod) in
        [("Restarted", "crashes"), ("CrashLoop", "crashes"), ("NotReady", "unready"), ("OOMKilled", "hungry")]
    {
        namespace.until("pods", alert, about(alert, pod)).await;
    }
    namespace.patch_run("pods", json!({"abort": true})).await;
    let run = namespace.ended("pods").await;
    assert!(alerts(&run).iter().all(|it| it.monitor == "pods"), "{:#?}", alerts(&run));
    let record = &namespace.records(&run, "cycle").await[0];
    assert_eq!(record["monitors"][0]["kind"], "podHealth");
    namespace.delete().await;
}

/// A service that answers 200 or 503, or is gone when dropped.
struct Service {
    port: u16,
    healthy: Arc<AtomicBool>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, healthy) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(true)));
        let flag = healthy.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let status = if flag.load(Ordering::Relaxed) { "200 OK" } else { "503 Service Unavailable" };
                answer(stream, status);
            }
        });
        Self { port, healthy }
    }
}

fn answer(mut stream: TcpStream, status: &str) {
    let _ = stream.read(&mut [0; 2_048]);
    let body = "queue_depth 3\n";
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

#[tokio::test]
async fn a_service_that_fails_is_an_alert_until_it_answers_again() {
    let namespace = namespace().await;
    let service = Service::start();
    let _operator = Operator::start(&namespace);
    let monitor =
        json!({"name": "api", "interval": "1s", "http": {"url": format!("http://127.0.0.1:{}/", service.port)}});
    // Nothing listens on the port of discard.
    let dead = json!({"name": "dead", "interval": "1s", "http": {"url": "http://127.0.0.1:9/"},
        "alerts": [{"name": "Gone", "when": "response.status == 0"}]});
    namespace.run("http", json!({"duration": "10m", "phases": lasting(600), "monitors": [monitor, dead]})).await;
    namespace.until("http", "found it gone", is("Gone", AlertState::Firing)).await;
    service.healthy.store(false, Ordering::Relaxed);
    namespace.until("http", "alerted", is("Unavailable", AlertState::Firing)).await;
    service.healthy.store(true, Ordering::Relaxed);
    namespace.until("http", "calmed", is("Unavailable", AlertState::Resolved)).await;
    namespace.patch_run("http", json!({"abort": true})).await;
    namespace.ended("http").await;
    namespace.delete().await;
}

/// A Prometheus that scrapes one address every second.
struct Prometheus(Child, PathBuf);

impl Prometheus {
    fn start(port: u16, target: u16) -> Self {
        let program =
            env::var_os("SOAK_TEST_PROMETHEUS").map_or_else(|| PathBuf::from("/usr/bin/prometheus"), PathBuf::from);
        assert!(program.exists(), "SOAK_TEST_PROMETHEUS is not set to a prometheus: `cargo xtask test` does that");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{port}"));
        fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: svc\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
        );
        fs::write(folder.join("p.yml"), config).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", folder.join("p.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child, folder)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_dir_all(&self.1);
    }
}

#[tokio::test]
async fn a_query_of_a_real_prometheus_alerts_and_a_prometheus_that_is_gone_is_a_broken_monitor() {
    let namespace = namespace().await;
    let service = Service::start();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let prometheus = Prometheus::start(port, service.port);
    let _operator = Operator::start(&namespace);
    let monitor = json!({
        "name": "up", "interval": "1s",
        "promql": {"url": format!("http://127.0.0.1:{port}"), "query": "up{job=\"${params.job}\"}"},
        "alerts": [{"name": "Down", "when": "value == 0.0 && labels.job == 'svc'", "for": "2s"}],
    });
    let parameters = json!([{"name": "job", "value": "svc"}]);
    let spec = json!({"duration": "10m", "phases": lasting(600), "monitors": [monitor], "parameters": parameters});
    namespace.run("promql", spec).await;
    service.healthy.store(false, Ordering::Relaxed);
    let run = namespace.until("promql", "alerted", is("Down", AlertState::Firing)).await;
    let down = alerts(&run).into_iter().find(|it| it.alert == "Down").unwrap();
    assert!(down.subject.contains("job=svc"), "{down:?}");
    service.healthy.store(true, Ordering::Relaxed);
    namespace.until("promql", "calmed", is("Down", AlertState::Resolved)).await;
    drop(prometheus);
    let run = namespace.until("promql", "is broken", is("MonitorBroken", AlertState::Firing)).await;
    assert_eq!(run.status.as_ref().unwrap().phase, RunPhase::Running, "the run goes on");
    let _prometheus = Prometheus::start(port, service.port);
    namespace.until("promql", "sees again", is("MonitorBroken", AlertState::Resolved)).await;
    namespace.patch_run("promql", json!({"abort": true})).await;
    let run = namespace.ended("promql").await;
    let record = &namespace.records(&run, "cycle").await[0];
    let samples = record["monitors"][0]["buckets"].as_array().unwrap();
    let smallest = samples.iter().filter_map(|it| it[2].as_f64()).reduce(f64::min);
    let largest = samples.iter().filter_map(|it| it[4].as_f64()).reduce(f64::max);
    assert_eq!((smallest, largest), (Some(0.0), Some(1.0)), "{record:#}");
    namespace.delete().await;
}

#[tokio::test]
async fn a_monitor_that_loses_its_rights_is_an_alert_that_says_so_and_harms_nothing() {
    let namespace = namespace().await;
    let operator = Operator::start(&namespace);
    let spec = json!({
        "phases": [{"name": "work", "steps": [{"name": "say", "pod": script("sleep 30")}]}],
        "monitors": [depth(json!({"policy": "abort"}))],
    });
    namespace.run("blind", spec).await;
    let begun = |run: &SoakRun| run.status.as_ref().is_some_and(|status| status.phase == RunPhase::Running);
    namespace.until("blind", "began", begun).await;
    // A watch that is open stays so; the next operator has to ask anew.
    operator.kill();
    let bindings: Api<RoleBinding> = Api::namespaced(namespace.client.clone(), &namespace.name);
    bindings.delete("soak-watches", &DeleteParams::default()).await.unwrap();
    let _operator = Operator::start(&namespace);
    let run = namespace.until("blind", "is broken", is("MonitorBroken", AlertState::Firing)).await;
    let broken = alerts(&run).into_iter().find(|it| it.alert == "MonitorBroken").unwrap();
    assert!(broken.cause.contains("list") && broken.cause.contains("configmaps"), "{broken:?}");
    let run = namespace.ended("blind").await;
    assert_eq!(run.status.as_ref().unwrap().phase, RunPhase::Succeeded);
    namespace.delete().await;
}
