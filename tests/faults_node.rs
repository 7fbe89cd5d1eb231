//! Faults whose effect is not a field of an object: processes that stand still, networks that are cut, resources used up. Each is
//! seen by what the target does, and seen undone the same way.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use soak_operator::api::{
    FailureInjection,
    failureinjection::{EntryState, InjectionPhase},
};
use support::{Namespace, Operator, operator_image, wait_for};

/// A namespace that agrees to injections, one for helpers, and an operator that may use them.
struct Stage {
    team: Namespace,
    helpers: Namespace,
    operator: Option<Operator>,
}

impl Stage {
    async fn set() -> Self {
        let team = Namespace::create("faults").await;
        let helpers = Namespace::create("helpers").await;
        team.apply(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": team.name, "labels": {"soak.dev/injection": "allowed"}},
        }))
        .await;
        team.allow(
            "faults",
            json!([
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "create", "delete"]},
                {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]},
                {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["get", "create", "delete"]},
            ]),
        )
        .await;
        let mut stage = Self { team, helpers, operator: None };
        stage.start();
        stage
    }

    fn start(&mut self) {
        let (image, helpers) = (operator_image(), &self.helpers.name);
        let arguments =
            ["--helper-image", &image, "--node-helper-namespace", helpers, "--node-helper-service-account", "soak"];
        self.operator = Some(Operator::start_beside(&self.team, helpers, &arguments));
    }

    fn kill(&mut self) {
        self.operator.take().unwrap().kill();
    }

    /// A pod that runs a script, with a label `app` of its name.
    async fn pod(&self, name: &str, script: &str) -> Pod {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", script],
            }]},
        });
        self.create(pod).await
    }

    async fn create(&self, pod: Value) -> Pod {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.team.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        wait_for(&format!("pod {name}"), || async {
            let pod = self.team.pods().get(&name).await.ok()?;
            let status = pod.status.clone()?;
            let running = status.container_statuses.iter().flatten().all(|it| it.started == Some(true));
            (status.phase.as_deref() == Some("Running") && running && status.pod_ip.is_some()).then_some(pod)
        })
        .await
    }

    /// The last lines that a pod has written.
    async fn lines(&self, name: &str, count: i64) -> Vec<String> {
        let parameters = LogParams { tail_lines: Some(count), ..LogParams::default() };
        let text = self.team.pods().logs(name, &parameters).await.unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The number that a counting pod has reached.
    async fn count(&self, name: &str) -> u64 {
        self.lines(name, 1).await.first().and_then(|line| line.parse().ok()).unwrap_or_default()
    }

    async fn counts_beyond(&self, name: &str, count: u64) {
        wait_for(&format!("progress of {name}"), || async { (self.count(name).await > count).then_some(()) }).await;
    }

    /// Waits until the last lines of a pod are all the same word.
    async fn says(&self, name: &str, word: &str) {
        wait_for(&format!("`{word}` of {name}"), || async {
            let lines = self.lines(name, 3).await;
            (lines.len() == 3 && lines.iter().all(|line| line == word)).then_some(())
        })
        .await;
    }

    fn injections(&self) -> Api<FailureInjection> {
        Api::namespaced(self.team.client.clone(), &self.team.name)
    }

    async fn inject(&self, name: &str, mut spec: Value) {
        spec["serviceAccountName"] = json!("soak");
        let object = json!({
            "apiVersion": "soak.dev/v1alpha1", "kind": "FailureInjection", "metadata": {"name": name}, "spec": spec,
        });
        self.injections().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    async fn until(&self, name: &str, phase: InjectionPhase) -> FailureInjection {
        let last = std::sync::Mutex::new(None);
        let found = tokio::time::timeout(support::PATIENCE, async {
            loop {
                let injection = self.injections().get(name).await.unwrap();
                let now = injection.status.clone().unwrap_or_default();
                if now.phase == phase {
                    return injection;
                }
                assert!(!now.phase.is_final() || phase.is_final(), "{name} ended as {:#}", json!(now));
                *last.lock().unwrap() = Some(now);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("{name} never became {phase:?}: {:#}", json!(*last.lock().unwrap())))
    }

    async fn injected(&self, name: &str) -> FailureInjection {
        self.until(name, InjectionPhase::Injected).await
    }

    /// Waits for the end, and that no pod of a helper is left.
    async fn recovered(&self, name: &str) -> Vec<EntryState> {
        let injection = self.until(name, InjectionPhase::Recovered).await;
        assert_eq!(self.helper_pods(&injection).await, Vec::<String>::new());
        injection.status.unwrap().journal.iter().map(|entry| entry.state).collect()
    }

    async fn helper_pods(&self, injection: &FailureInjection) -> Vec<String> {
        let selector = format!("soak.dev/injection-uid={}", injection.uid().unwrap());
        let pods = self.helpers.pods().list(&ListParams::default().labels(&selector)).await.unwrap().items;
        pods.iter().map(ResourceExt::name_any).collect()
    }

    async fn abort(&self, name: &str) {
        let patch = Patch::Merge(json!({"spec": {"abort": true}}));
        self.injections().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn strike(mut self) {
        self.operator.take();
        let pods = self.team.pods();
        let _ = pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await;
        self.helpers.delete().await;
        self.team.delete().await;
    }
}

const COUNT: &str = "n=0; while true; do n=$((n+1)); echo $n; sleep 0.1; done";

fn target(name: &str) -> Value {
    json!({"name": name})
}

/// The processes of a pod on this machine, by the uid in their control group.
fn processes(uid: &str) -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let within = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(uid));
    names.filter(within).collect()
}

fn command_line(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

/// The time that a pod's processes have computed, in ticks of the clock.
fn computed(uid: &str) -> u64 {
    let of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    processes(uid).into_iter().filter_map(of).sum()
}

#[tokio::test]
async fn a_paused_container_stands_still_and_goes_on() {
    let stage = Stage::set().await;
    stage.pod("paused", COUNT).await;
    stage.pod("twin", COUNT).await;
    stage.counts_beyond("paused", 3).await;
    stage.inject("pause", json!({"target": target("paused"), "process": {"signal": "Pause"}, "duration": "10m"})).await;
    stage.injected("pause").await;
    let (stands_at, twin) = (stage.count("paused").await, stage.count("twin").await);
    stage.counts_beyond("twin", twin + 15).await;
    assert_eq!(stage.count("paused").await, stands_at);
    stage.abort("pause").await;
    assert_eq!(stage.recovered("pause").await, [EntryState::Reverted]);
    stage.counts_beyond("paused", stands_at).await;
    stage.strike().await;
}

#[tokio::test]
async fn a_killed_process_is_started_again_by_its_kubelet() {
    let stage = Stage::set().await;
    stage.pod("victim", COUNT).await;
    stage.inject("kill", json!({"target": target("victim"), "process": {"signal": "Kill"}})).await;
    wait_for("a restart", || async {
        let pod = stage.team.pods().get("victim").await.ok()?;
        let container = pod.status?.container_statuses?.into_iter().next()?;
        let end = container.last_state?.terminated?;
        (container.restart_count == 1 && end.exit_code == 137).then_some(())
    })
    .await;
    assert_eq!(stage.recovered("kill").await, [EntryState::Reverted]);
    stage.strike().await;
}

const SERVE: &str = "mkdir -p /tmp/www; echo good > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";

/// Asks without `wget -T`, which ends with a segmentation fault in Debian's static busybox.
fn ask(address: &str) -> String {
    format!(
        "while true; do if echo GET / | timeout 2 nc -w 1 {address} 8080 2>/dev/null | grep -q HTTP; then echo yes; else echo no; fi; sleep 0.2; done"
    )
}

fn address(pod: &Pod) -> String {
    pod.status.as_ref().unwrap().pod_ip.clone().unwrap()
}

#[tokio::test]
async fn a_cut_pod_does_not_reach_its_peers_and_reaches_others() {
    let stage = Stage::set().await;
    let (peer, other) = (stage.pod("peer", SERVE).await, stage.pod("other", SERVE).await);
    let script = format!("({}) & {}", ask(&address(&peer)).replace("echo ", "echo peer-"), ask(&address(&other)));
    stage.pod("client", &script).await;
    let said = async |wanted: &'static [&'static str]| {
        wait_for(&format!("{wanted:?}"), || async {
            let lines = stage.lines("client", 12).await;
            let recent: std::collections::BTreeSet<&str> = lines.iter().map(String::as_str).collect();
            (lines.len() == 12 && recent.into_iter().eq(wanted.iter().copied())).then_some(())
        })
        .await;
    };
    said(&["peer-yes", "yes"]).await;
    stage.inject("cut", json!({"target": target("client"), "network": {"peers": "app=peer"}, "duration": "10m"})).await;
    stage.injected("cut").await;
    said(&["peer-no", "yes"]).await;
    stage.abort("cut").await;
    assert_eq!(stage.recovered("cut").await, [EntryState::Reverted]);
    said(&["peer-yes", "yes"]).await;
    stage.strike().await;
}

#[tokio::test]
async fn an_isolated_pod_reaches_nobody() {
    let stage = Stage::set().await;
    let peer = stage.pod("peer", SERVE).await;
    stage.pod("client", &ask(&address(&peer))).await;
    stage.says("client", "yes").await;
    stage.inject("isolate", json!({"target": target("client"), "network": {}, "duration": "10m"})).await;
    stage.injected("isolate").await;
    stage.says("client", "no").await;
    stage.abort("isolate").await;
    assert_eq!(stage.recovered("isolate").await, [EntryState::Reverted]);
    stage.says("client", "yes").await;
    stage.strike().await;
}

#[tokio::test]
async fn lookups_of_names_time_out_and_work_again() {
    let stage = Stage::set().await;
    let script = "while true; do if timeout 2 nslookup kubernetes.default.svc.cluster.local >/dev/null 2>&1; then echo yes; else echo no; fi; sleep 0.2; done";
    stage.pod("client", script).await;
    stage.says("client", "yes").await;
    stage.inject("dns", json!({"target": target("client"), "dns": {}, "duration": "10m"})).await;
    stage.injected("dns").await;
    stage.says("client", "no").await;
    stage.abort("dns").await;
    assert_eq!(stage.recovered("dns").await, [EntryState::Reverted]);
    stage.says("client", "yes").await;
    stage.strike().await;
}

#[tokio::test]
async fn a_stress_pod_uses_cpu_until_the_fault_ends() {
    let stage = Stage::set().await;
    stage.pod("neighbour", COUNT).await;
    stage
        .inject("stress", json!({"target": target("neighbour"), "stress": {"cpuWorkers": 1}, "duration": "10m"}))
        .await;
    let injection = stage.injected("stress").await;
    let selector = format!("soak.dev/injection-uid={}", injection.uid().unwrap());
    let selector = ListParams::default().labels(&selector);
    let pods = stage.team.pods().list(&selector).await.unwrap().items;
    let uid = pods[0].uid().unwrap();
    let before = computed(&uid);
    // Half a second of computing, in ticks of 10 ms.
    wait_for("CPU time", || async { (computed(&uid) > before + 50).then_some(()) }).await;
    stage.abort("stress").await;
    assert_eq!(stage.recovered("stress").await, [EntryState::Reverted]);
    assert!(stage.team.pods().list(&selector).await.unwrap().items.is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_policy_is_made_and_deleted_and_its_note_says_that_nobody_enforces_it() {
    let stage = Stage::set().await;
    stage.pod("client", COUNT).await;
    let network = json!({"means": "NetworkPolicy"});
    stage.inject("policy", json!({"target": target("client"), "network": network, "duration": "10m"})).await;
    let injection = stage.injected("policy").await;
    let message = &injection.status.as_ref().unwrap().journal[0].message;
    assert!(message.contains("no network plugin is known here"), "{message}");
    let policies: Api<k8s_openapi::api::networking::v1::NetworkPolicy> =
        Api::namespaced(stage.team.client.clone(), &stage.team.name);
    let policy = policies.list(&ListParams::default()).await.unwrap().items.remove(0).spec.unwrap();
    assert_eq!(policy.pod_selector.unwrap().match_labels.unwrap()["app"], "client");
    assert_eq!(policy.policy_types.unwrap(), ["Ingress", "Egress"]);
    stage.abort("policy").await;
    assert_eq!(stage.recovered("policy").await, [EntryState::Reverted]);
    assert!(policies.list(&ListParams::default()).await.unwrap().items.is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_helper_undoes_its_work_while_the_operator_is_down_past_the_deadline() {
    let mut stage = Stage::set().await;
    stage.pod("paused", COUNT).await;
    stage.counts_beyond("paused", 3).await;
    stage.inject("pause", json!({"target": target("paused"), "process": {}, "duration": "12s"})).await;
    let injection = stage.injected("pause").await;
    stage.kill();
    let stands_at = stage.count("paused").await;
    stage.counts_beyond("paused", stands_at).await;
    let now = stage.injections().get("pause").await.unwrap();
    assert_eq!(now.status, injection.status, "somebody else has written it");
    stage.start();
    assert_eq!(stage.recovered("pause").await, [EntryState::Reverted]);
    stage.strike().await;
}

#[tokio::test]
async fn what_a_killed_helper_left_is_undone_by_another() {
    let stage = Stage::set().await;
    let peer = stage.pod("peer", SERVE).await;
    stage.pod("client", &ask(&address(&peer))).await;
    stage.says("client", "yes").await;
    stage.inject("isolate", json!({"target": target("client"), "network": {}, "duration": "10m"})).await;
    let injection = stage.injected("isolate").await;
    let helper = stage.helpers.pods().get(&stage.helper_pods(&injection).await[0]).await.unwrap();
    let (name, uid) = (helper.name_any(), helper.uid().unwrap());
    // Without a word, as when memory runs out.
    for pid in processes(&uid).into_iter().filter(|pid| command_line(*pid).contains("node-helper")) {
        Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    }
    wait_for("the helper's end", || async {
        (stage.helpers.pods().get(&name).await.ok()?.status?.phase? == "Failed").then_some(())
    })
    .await;
    stage.helpers.pods().delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
    stage.says("client", "no").await;
    stage.abort("isolate").await;
    assert_eq!(stage.recovered("isolate").await, [EntryState::Reverted]);
    stage.says("client", "yes").await;
    stage.strike().await;
}

#[tokio::test]
async fn a_target_that_is_deleted_leaves_nothing_to_undo() {
    let stage = Stage::set().await;
    stage.pod("paused", COUNT).await;
    stage.inject("pause", json!({"target": target("paused"), "process": {}, "duration": "10m"})).await;
    stage.injected("pause").await;
    stage.team.pods().delete("paused", &DeleteParams::default().grace_period(0)).await.unwrap();
    stage.abort("pause").await;
    let states = stage.recovered("pause").await;
    // The helper may have let the processes go on before they were killed.
    assert!(matches!(states[..], [EntryState::Gone | EntryState::Reverted]), "{states:?}");
    stage.strike().await;
}

#[tokio::test]
async fn nobody_gets_a_helper_who_may_not_execute_programs_in_the_target() {
    let stage = Stage::set().await;
    stage.pod("target", COUNT).await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "create", "delete"]}]);
    stage.team.allow("faults", rules).await;
    stage
        .inject("pause", json!({"target": target("target"), "process": {}, "duration": "5s", "startingDeadline": "4s"}))
        .await;
    let injection = stage.until("pause", InjectionPhase::Failed).await;
    let message = injection.status.as_ref().unwrap().message.clone();
    assert!(message.contains("may not create pods/exec named target"), "{message}");
    assert!(stage.helper_pods(&injection).await.is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn without_the_administrators_leave_there_are_no_helpers() {
    let mut stage = Stage::set().await;
    stage.kill();
    stage.operator = Some(Operator::start_beside(&stage.team, &stage.helpers.name, &[]));
    stage.pod("target", COUNT).await;
    stage.inject("pause", json!({"target": target("target"), "process": {}, "duration": "5s"})).await;
    let status = stage.until("pause", InjectionPhase::Failed).await.status.unwrap();
    assert_eq!(status.reason, "NotAllowed");
    assert!(status.message.contains("nodeHelper.enabled"), "{}", status.message);
    stage.strike().await;
}

/// A server of the real Toxiproxy, with a web server behind it in the same pod.
async fn toxiproxy(stage: &Stage) -> (String, String) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "toxiproxy"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "toxiproxy", "image": "localhost/toxiproxy:1", "imagePullPolicy": "Never"},
            {"name": "web", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", SERVE]},
        ]},
    });
    let address = address(&stage.create(pod).await);
    let api = format!("http://{address}:8474");
    let proxy = json!({"name": "web", "listen": "0.0.0.0:8666", "upstream": "127.0.0.1:8080", "enabled": true});
    wait_for("Toxiproxy", || async {
        let answer = http("POST", &format!("{api}/proxies"), Some(&proxy)).await?;
        (answer.0 == 201).then_some(())
    })
    .await;
    (api, format!("http://{address}:8666/"))
}

async fn http(method: &str, url: &str, body: Option<&Value>) -> Option<(u16, Value)> {
    let body = body.map(Value::to_string);
    let request = soak_operator::request::Request::new(url, Some(method), [], body, None).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), soak_operator::request::send(&request, true)).await;
    let answer = answer.ok()?.ok()?;
    Some((u16::try_from(answer["status"].as_u64()?).ok()?, answer["json"].clone()))
}

/// The shortest of two requests: the second must still be within a fault of some seconds that slows each down by one.
async fn fastest(url: &str) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..2 {
        let began = Instant::now();
        assert_eq!(http("GET", url, None).await.map(|it| it.0), Some(200));
        best = best.min(began.elapsed());
    }
    best
}

#[tokio::test]
async fn a_toxic_slows_connections_down_until_the_fault_ends() {
    let mut stage = Stage::set().await;
    let (api, url) = toxiproxy(&stage).await;
    let theirs = json!({"name": "theirs", "type": "slicer", "attributes": {"average_size": 10_000}});
    http("POST", &format!("{api}/proxies/web/toxics"), Some(&theirs)).await.unwrap();
    let before = fastest(&url).await;
    let toxic = json!({"url": api, "proxies": ["w*"], "type": "latency", "attributes": {"latency": 1_000}});
    stage.inject("slow", json!({"toxiproxy": toxic, "duration": "15s"})).await;
    stage.injected("slow").await;
    let slow = fastest(&url).await;
    assert!(slow > before * 3, "{slow:?} with the toxic, {before:?} before");
    // It is undone by another process, past its deadline.
    stage.kill();
    stage.start();
    assert_eq!(stage.recovered("slow").await, [EntryState::Reverted]);
    let after = fastest(&url).await;
    assert!(after * 3 < slow, "{after:?} afterwards, {slow:?} with the toxic");
    let (_, proxy) = http("GET", &format!("{api}/proxies/web"), None).await.unwrap();
    let left: Vec<&str> = proxy["toxics"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(left, ["theirs"]);
    stage.strike().await;
}

#[tokio::test]
async fn a_proxy_that_is_switched_off_is_switched_on_again() {
    let stage = Stage::set().await;
    let (api, url) = toxiproxy(&stage).await;
    let off = json!({"url": api, "proxies": ["web"], "disabled": true});
    stage.inject("off", json!({"toxiproxy": off, "duration": "10m"})).await;
    stage.injected("off").await;
    assert_eq!(http("GET", &url, None).await, None);
    stage.abort("off").await;
    assert_eq!(stage.recovered("off").await, [EntryState::Reverted]);
    assert_eq!(http("GET", &url, None).await.map(|it| it.0), Some(200));
    stage.strike().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_keeps_a_toxic_from_beginning() {
    let stage = Stage::set().await;
    let toxic = json!({"url": "http://127.0.0.1:9", "proxies": ["web"], "type": "latency"});
    stage.inject("nowhere", json!({"toxiproxy": toxic, "duration": "5s", "startingDeadline": "2s"})).await;
    let status = stage.until("nowhere", InjectionPhase::Failed).await.status.unwrap();
    assert_eq!(status.reason, "StartingDeadlineExceeded");
    assert!(status.message.contains("127.0.0.1:9"), "{}", status.message);
    stage.strike().await;
}
