//! Runs on several clusters: connecting, losing and finding one again, and where things are done.
//!
//! The other cluster is the test's own API server, reached by a kubeconfig of an account that the run's own is not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{net::SocketAddr, process::Command};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use soak_operator::api::{
    FailureInjection, SoakRun,
    failureinjection::InjectionPhase,
    names::reason,
    status::{Alert, AlertState, RunPhase},
};
use support::{
    Namespace, Operator,
    bucket::{Bucket, SECRET},
    kubeconfig, script, wait_for,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// An account on the other side, and what a kubeconfig for it is made of.
struct Other {
    server: String,
    authority: String,
    token: String,
}

impl Other {
    /// Gives the run's account the right to read the Secret `hub-b` only, and the account `other` rights on ConfigMaps.
    async fn create(namespace: &Namespace) -> Self {
        let secret = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["hub-b"], "verbs": ["get", "list", "watch"]}]);
        namespace.allow("read-hub-b", secret).await;
        namespace.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other"}})).await;
        let group = "rbac.authorization.k8s.io";
        let rules = json!([
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
        ]);
        namespace
            .apply(json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "other"}, "rules": rules}))
            .await;
        namespace
            .apply(json!({
                "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "other"},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "other"},
                "subjects": [{"kind": "ServiceAccount", "name": "other", "namespace": namespace.name}],
            }))
            .await;
        let admin = Kubeconfig::read_from(kubeconfig()).unwrap();
        let cluster = admin.clusters[0].cluster.clone().unwrap();
        let authority = cluster.certificate_authority_data.unwrap_or_else(|| {
            let output =
                Command::new("base64").args(["-w0", &cluster.certificate_authority.unwrap()]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        Self { server: cluster.server.unwrap(), authority, token: token(namespace).await }
    }

    fn kubeconfig(&self) -> String {
        self.with(&self.server, &self.token, &self.authority)
    }

    fn with(&self, server: &str, token: &str, authority: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": server, "certificate-authority-data": authority, "tls-server-name": self.host()}}],
            "users": [{"name": "u", "user": {"token": token}}],
        })
        .to_string()
    }

    fn host(&self) -> String {
        self.server.trim_start_matches("https://").split(':').next().unwrap().to_owned()
    }

    fn address(&self) -> SocketAddr {
        self.server.trim_start_matches("https://").parse().unwrap()
    }
}

async fn token(namespace: &Namespace) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    let answer = accounts.create_token_request("other", &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token.unwrap()
}

fn secrets(namespace: &Namespace) -> Api<Secret> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

async fn put_secret(namespace: &Namespace, kubeconfig: &str) {
    namespace
        .apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub-b"}, "stringData": {"kubeconfig": kubeconfig}}))
        .await;
}

fn targets() -> Value {
    json!([{"name": "hub-a"}, {"name": "hub-b", "kubeconfigSecretRef": {"name": "hub-b"}}])
}

/// A step that leaves a ConfigMap on a target.
fn leave(name: &str, target: &str, delete_after: &str) -> Value {
    json!({"name": name, "apply": {"target": target, "deleteAfter": delete_after, "manifest": {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"cycle": "${cycle.number}", "primary": "${roles.?primary.orValue('')}"}}}})
}

fn one_step(step: &Value) -> Value {
    json!({"targets": targets(), "phases": [{"name": "work", "steps": [step]}]})
}

fn phase(run: &SoakRun) -> RunPhase {
    run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase)
}

fn message(run: &SoakRun) -> &str {
    run.status.as_ref().map_or("", |status| status.message.as_str())
}

fn reachable(run: &SoakRun, name: &str) -> Option<bool> {
    Some(run.status.as_ref()?.targets.iter().find(|target| target.name == name)?.reachable)
}

/// A way to an address that can be closed.
struct Way {
    address: SocketAddr,
    to: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Way {
    async fn open(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, to, task: Some(tokio::spawn(forward(listener, to))) }
    }

    async fn close(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    async fn reopen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task = Some(tokio::spawn(forward(listener, self.to)));
    }
}

/// Forwards connections; they end with this.
async fn forward(listener: TcpListener, to: SocketAddr) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut inward, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut outward) = tokio::net::TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut inward, &mut outward).await;
            }
        });
    }
}

#[tokio::test]
async fn what_is_done_on_a_target_is_done_as_its_kubeconfigs_user_and_no_secret_is_told() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let operator = Operator::start(&namespace);
    // The run's own account has no right on ConfigMaps at all.
    let mut spec = one_step(&leave("left", "hub-b", "Never"));
    spec["phases"][0]["steps"].as_array_mut().unwrap().extend([
        leave("held", "hub-b", "Cycle"),
        json!({"name": "pod", "pod": with_target(script("echo from there"))}),
    ]);
    namespace.run("there", spec).await;
    let run = namespace.ended("there").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    let target = run.status.as_ref().unwrap().targets.iter().find(|target| target.name == "hub-b").unwrap().clone();
    assert!(target.reachable && target.version.is_some() && target.latency_millis.is_some(), "{target:?}");
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let left = maps.get("left").await.unwrap();
    assert!(left.owner_references().is_empty());
    assert!(maps.get_opt("held").await.unwrap().is_none(), "it is let go on the cluster that it is on");
    let records = namespace.records(&run, "cycle").await;
    let step = &records[0]["phases"][0]["steps"][2];
    assert_eq!(step["target"], "hub-b");
    assert_eq!(step["log"]["text"], "from there\n");
    assert!(records[0]["environment"]["targets"]["hub-b"].is_string());
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    wait_for("the pod's end", || async {
        pods.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
    namespace.until("there", "let go", |run| run.finalizers().is_empty()).await;
    let told = [
        operator.logged(),
        json!(namespace.runs().get("there").await.unwrap()).to_string(),
        json!(records).to_string(),
    ];
    for text in told {
        assert!(!text.contains(&other.token), "a token was told");
    }
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_on_a_target_prints_and_leaves_behind_arrives_in_the_store() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let bucket = Bucket::start("there").await;
    bucket.secret(&namespace, SECRET).await;
    let image = support::operator_image();
    let _operator = Operator::start_with(&namespace, &["--helper-image", &image]);
    let mut pod = with_target(script("echo from there; seq 10000 > $SOAK_ARTIFACTS/there.txt; exit 3"));
    pod["artifacts"] = json!({});
    let mut spec = one_step(&json!({"name": "pod", "pod": pod}));
    spec["results"] = json!({"objectStore": bucket.spec()});
    namespace.run("stored", spec).await;
    let run = namespace.ended("stored").await;
    assert_eq!(phase(&run), RunPhase::Failed, "{}", message(&run));
    let step = &bucket.cycles(&run)[0]["phases"][0]["steps"][0];
    assert_eq!((&step["target"], &step["log"]["text"]), (&json!("hub-b"), &json!("from there\n")), "{step:#}");
    assert_eq!((&step["artifacts"]["bytes"], &step["artifacts"]["lost"]), (&json!(48_894), &Value::Null), "{step:#}");
    let folder = bucket.attempt(&run, 1);
    let there = std::fs::read_to_string(folder.join("artifacts/c000001/work/pod-1/there.txt")).unwrap();
    assert!(there.ends_with("\n10000\n"), "{}", there.len());
    assert!(folder.join(step["log"]["file"].as_str().unwrap()).is_file());
    namespace.delete().await;
}

fn with_target(mut step: Value) -> Value {
    step["target"] = json!("hub-b");
    step
}

#[tokio::test]
async fn a_run_waits_for_credentials_says_what_is_wrong_with_them_and_takes_new_ones_up() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    let operator = Operator::start(&namespace);
    namespace.run("waits", one_step(&leave("left", "hub-b", "Never"))).await;
    let until = |told: &'static str| {
        let namespace = &namespace;
        async move {
            let run = namespace.until("waits", "told what it waits for", |run| message(run).contains(told)).await;
            assert_eq!(run.status.unwrap().reason, reason::TARGET_UNREACHABLE);
        }
    };
    until("hub-b is not there").await;
    put_secret(&namespace, "users: canary-token").await;
    until("it is no kubeconfig in YAML").await;
    let wrong = other.with(&other.server, "canary-token", &other.authority);
    put_secret(&namespace, &wrong).await;
    until("does not accept the credentials").await;
    // A self-signed authority that has signed nothing.
    let stranger = stranger_authority();
    put_secret(&namespace, &other.with(&other.server, &other.token, &stranger)).await;
    until("certificate").await;
    secrets(&namespace).delete("hub-b", &DeleteParams::default()).await.unwrap();
    until("hub-b is not there").await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let run = namespace.ended("waits").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    for text in [operator.logged(), json!(run).to_string()] {
        assert!(!text.contains("canary-token") && !text.contains(&other.token), "a token was told");
    }
    namespace.delete().await;
}

/// The certificate of an authority of the test's own, in base64.
fn stranger_authority() -> String {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /CN=stranger -days 2 2>/dev/null | base64 -w0";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "openssl made no certificate");
    text
}

#[tokio::test]
async fn a_cluster_that_goes_away_holds_up_only_what_needs_it_and_nobody_else() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    namespace
        .allow("soak-maps", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]}]))
        .await;
    let mut way = Way::open(other.address()).await;
    put_secret(&namespace, &other.with(&format!("https://{}", way.address), &other.token, &other.authority)).await;
    let _operator = Operator::start(&namespace);
    let wait = json!({"name": "go", "wait": {"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "go"}, "until": "object != null"}});
    let spec = json!({"targets": targets(), "phases": [{"name": "work", "steps": [wait, leave("here", "hub-a", "Never"), leave("there", "hub-b", "Never")]}]});
    namespace.run("held-up", spec).await;
    namespace.until("held-up", "began", |run| phase(run) == RunPhase::Running).await;
    way.close().await;
    namespace.until("held-up", "saw that hub-b is away", |run| reachable(run, "hub-b") == Some(false)).await;
    namespace.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "go"}})).await;
    let run = namespace.until("held-up", "waits", |run| message(run).contains("waits for target hub-b")).await;
    assert_eq!(phase(&run), RunPhase::Running);
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    assert!(maps.get_opt("here").await.unwrap().is_some(), "what needs the other cluster was done");
    namespace
        .run(
            "undisturbed",
            json!({"phases": [{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": "1s"}}]}]}),
        )
        .await;
    assert_eq!(phase(&namespace.ended("undisturbed").await), RunPhase::Succeeded);
    way.reopen().await;
    let run = namespace.ended("held-up").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    assert_eq!(reachable(&run, "hub-b"), Some(true));
    namespace.delete().await;
}

#[tokio::test]
async fn roles_swap_after_each_cycle_though_the_operator_is_killed_in_between() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    namespace
        .allow(
            "soak-maps",
            json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "patch", "delete"]}]),
        )
        .await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let nap = |name: &str| json!({"name": name, "sleep": {"duration": "500ms"}});
    let mut spec = json!({
        "cycles": 4,
        "targets": targets(),
        "roles": {"primary": "hub-a", "secondary": "hub-b", "rotate": "AfterSuccess"},
        "phases": [
            {"name": "one", "steps": [nap("n"), leave("old", "primary", "Cycle")]},
            {"name": "two", "steps": [nap("m"), leave("new", "secondary", "Cycle")]},
        ],
    });
    spec["phases"][0]["steps"].as_array_mut().unwrap().push(json!({"name": "pod", "pod": {"target": "secondary", "image": "localhost/busybox:1", "command": ["true"], "template": {"spec": {"containers": [{"name": "step", "imagePullPolicy": "Never"}]}}}}));
    let mut operator = Operator::start(&namespace);
    namespace.run("swaps", spec).await;
    for (cycle, place) in [(1, "one"), (2, "two"), (3, "one"), (4, "two")] {
        let there = format!("{cycle} {place}");
        namespace
            .until("swaps", "came so far", |run| {
                let status = run.status.clone().unwrap_or_default();
                status.position.starts_with(&there) || status.cycles.completed >= cycle
            })
            .await;
        operator.kill();
        operator = Operator::start(&namespace);
    }
    let run = namespace.ended("swaps").await;
    let status = run.status.clone().unwrap();
    assert_eq!((phase(&run), status.role_swaps), (RunPhase::Succeeded, 4), "{}", message(&run));
    assert_eq!(status.roles["primary"], "hub-a");
    for record in namespace.records(&run, "cycle").await {
        let cycle = record["cycle"].as_u64().unwrap();
        let (primary, secondary) = if cycle % 2 == 1 { ("hub-a", "hub-b") } else { ("hub-b", "hub-a") };
        assert_eq!(record["environment"]["roles"], json!({"primary": primary, "secondary": secondary}));
        for step in record["phases"].as_array().unwrap().iter().flat_map(|phase| phase["steps"].as_array().unwrap()) {
            let expected = match step["name"].as_str().unwrap() {
                "old" => json!(primary),
                "new" | "pod" => json!(secondary),
                _ => Value::Null,
            };
            assert_eq!(step["target"], expected, "cycle {cycle}: {step}");
        }
    }
    drop(operator);
    namespace.delete().await;
}

/// A ConfigMap on the other side that may be hit. The run's account has no right on ConfigMaps.
async fn victim(namespace: &Namespace) {
    namespace
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": {"soak.dev/injection": "allowed"}}}))
        .await;
    namespace
        .apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hit"}, "data": {"mode": "good"}}))
        .await;
}

/// The victim and an injection that changes it, once that is there.
async fn struck(namespace: &Namespace) {
    victim(namespace).await;
    namespace
        .apply(json!({"apiVersion": "soak.dev/v1alpha1", "kind": "FailureInjection", "metadata": {"name": "there"}, "spec": {
            "serviceAccountName": "soak", "kubeconfigSecretRef": {"name": "hub-b"}, "duration": "1h",
            "target": {"apiVersion": "v1", "kind": "ConfigMap", "name": "hit"}, "patch": {"patch": {"data": {"mode": "bad"}}}}}))
        .await;
    let injections = injections(namespace);
    wait_for("the fault", || async {
        let phase = injections.get("there").await.ok()?.status?.phase;
        (phase == InjectionPhase::Injected).then_some(())
    })
    .await;
    assert_eq!(mode(namespace).await, "bad");
}

/// An operator whose own namespace is another one: that would be protected.
fn beside(namespace: &Namespace) -> Operator {
    Operator::start_beside(namespace, &format!("{}-own", namespace.name), &[])
}

fn injections(namespace: &Namespace) -> Api<FailureInjection> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

async fn mode(namespace: &Namespace) -> String {
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    maps.get("hit").await.unwrap().data.unwrap()["mode"].clone()
}

#[tokio::test]
async fn a_fault_on_a_cluster_that_goes_away_is_undone_when_it_is_back() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    let mut way = Way::open(other.address()).await;
    put_secret(&namespace, &other.with(&format!("https://{}", way.address), &other.token, &other.authority)).await;
    let operator = beside(&namespace);
    struck(&namespace).await;
    way.close().await;
    let abort = Patch::Merge(json!({"spec": {"abort": true}}));
    injections(&namespace).patch("there", &PatchParams::default(), &abort).await.unwrap();
    wait_for("a condition that tells why it is not undone", || async {
        let status = injections(&namespace).get("there").await.ok()?.status?;
        let told = status.conditions.iter().any(|it| it.type_ == "Recovered" && it.message.contains("hub-b"));
        (status.phase == InjectionPhase::Reverting && told).then_some(())
    })
    .await;
    assert_eq!(mode(&namespace).await, "bad");
    // What is left to be undone outlives the process.
    operator.kill();
    let _operator = beside(&namespace);
    way.reopen().await;
    wait_for("the end of the fault", || async {
        let phase = injections(&namespace).get("there").await.ok()?.status?.phase;
        (phase == InjectionPhase::Recovered).then_some(())
    })
    .await;
    assert_eq!(mode(&namespace).await, "good");
    namespace.delete().await;
}

#[tokio::test]
async fn a_fault_is_undone_though_the_secret_goes_first() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let _operator = beside(&namespace);
    struck(&namespace).await;
    secrets(&namespace).delete("hub-b", &DeleteParams::default()).await.unwrap();
    injections(&namespace).delete("there", &DeleteParams::default()).await.unwrap();
    wait_for("the end of the injection", || async {
        injections(&namespace).get_opt("there").await.ok()?.is_none().then_some(())
    })
    .await;
    assert_eq!(mode(&namespace).await, "good");
    namespace.delete().await;
}

#[tokio::test]
async fn a_runs_injection_is_made_on_its_target_and_undone_though_the_operator_is_killed_in_between() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let verbs = ["get", "list", "watch", "create", "delete", "patch"];
    let rules = json!([{"apiGroups": ["soak.dev"], "resources": ["failureinjections"], "verbs": verbs}]);
    namespace.allow("soak-injects", rules).await;
    victim(&namespace).await;
    let operator = beside(&namespace);
    let fault = json!({"target": {"apiVersion": "v1", "kind": "ConfigMap", "name": "hit"}, "patch": {"patch": {"data": {"mode": "bad"}}}, "duration": "15s"});
    let spec = json!({
        "targets": targets(), "roles": {"primary": "hub-a", "secondary": "hub-b"},
        "phases": [{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": "30s"}}]}],
        "injections": [{"name": "fault", "atPhase": "work", "target": "secondary", "template": fault}],
    });
    namespace.run("struck", spec).await;
    wait_for("the fault", || async { (mode(&namespace).await == "bad").then_some(()) }).await;
    operator.kill();
    let made = injections(&namespace).list(&ListParams::default()).await.unwrap().items;
    assert_eq!(made.len(), 1, "it is journaled beside the run");
    assert_eq!(made[0].spec.kubeconfig_secret_ref.as_ref().map(|it| it.name.as_str()), Some("hub-b"));
    assert_eq!(mode(&namespace).await, "bad", "nobody is there to undo it");
    let _operator = beside(&namespace);
    let run = namespace.ended("struck").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    assert_eq!(mode(&namespace).await, "good");
    let records = namespace.records(&run, "cycle").await;
    let steps = records[0]["phases"][0]["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["name"] == "fault").unwrap();
    assert_eq!((&step["target"], &step["outcome"]), (&json!("hub-b"), &json!("Succeeded")), "{step:#}");
    assert!(step["outputs"]["injectedAt"].is_string(), "{step:#}");
    namespace.until("struck", "let go", |run| run.finalizers().is_empty()).await;
    assert!(injections(&namespace).list(&ListParams::default()).await.unwrap().items.is_empty());
    namespace.delete().await;
}

/// A monitor of a ConfigMap's `depth`.
fn depth(target: &str) -> Value {
    json!({
        "name": "queue", "target": target, "interval": "1s", "value": "double(object.data.depth)",
        "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "queue"},
        "alerts": [{"name": "Deep", "when": "value > 10.0"}],
    })
}

async fn set_depth(namespace: &Namespace, depth: &str) {
    namespace
        .apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "queue"}, "data": {"depth": depth}}),
        )
        .await;
}

fn alert(run: &SoakRun, name: &str) -> Option<Alert> {
    let alerts = run.status.as_ref()?.alerts.as_ref()?;
    alerts.list.iter().find(|alert| alert.alert == name && alert.state != AlertState::Pending).cloned()
}

#[tokio::test]
async fn a_monitor_sees_a_target_as_its_kubeconfigs_user_and_keeps_its_alerts_while_that_is_away() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    let mut way = Way::open(other.address()).await;
    put_secret(&namespace, &other.with(&format!("https://{}", way.address), &other.token, &other.authority)).await;
    set_depth(&namespace, "11").await;
    let _operator = Operator::start(&namespace);
    let nap = json!([{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": "1h"}}]}]);
    namespace.run("watches", json!({"targets": targets(), "phases": nap, "monitors": [depth("hub-b")]})).await;
    let run = namespace.until("watches", "saw it", |run| alert(run, "Deep").is_some()).await;
    let deep = alert(&run, "Deep").unwrap();
    assert_eq!((deep.state, deep.subject.as_str()), (AlertState::Firing, "hub-b/queue"));
    way.close().await;
    let blind = |run: &SoakRun| alert(run, "MonitorBroken").map(|it| it.state);
    let run = namespace.until("watches", "saw nothing", |run| blind(run) == Some(AlertState::Firing)).await;
    assert_eq!(alert(&run, "Deep").as_ref(), Some(&deep), "what can't be seen has not ended");
    way.reopen().await;
    let run = namespace.until("watches", "saw again", |run| blind(run) == Some(AlertState::Resolved)).await;
    assert_eq!(alert(&run, "Deep").as_ref(), Some(&deep));
    set_depth(&namespace, "1").await;
    let calm = |run: &SoakRun| alert(run, "Deep").is_some_and(|it| it.state == AlertState::Resolved);
    namespace.until("watches", "calmed", calm).await;
    namespace.patch_run("watches", json!({"abort": true})).await;
    namespace.ended("watches").await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_monitor_of_a_role_follows_it_and_an_alert_counts_for_no_cycle_after_the_swap() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    let maps = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    namespace.allow("soak-maps", maps).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    set_depth(&namespace, "11").await;
    let _operator = Operator::start(&namespace);
    let spec = json!({
        "cycles": 3, "targets": targets(), "monitors": [depth("primary")],
        "roles": {"primary": "hub-a", "secondary": "hub-b", "rotate": "AfterEveryCycle"},
        "phases": [{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": "10s"}}]}],
    });
    namespace.run("follows", spec).await;
    let run = namespace.ended("follows").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    let records = namespace.records(&run, "cycle").await;
    for (record, primary) in records.iter().zip(["hub-a", "hub-b", "hub-a"]) {
        let alerts = record["alerts"].as_array().unwrap();
        assert_eq!(alerts.len(), 1, "{alerts:#?}");
        assert_eq!(alerts[0]["subject"], format!("{primary}/queue"));
    }
    namespace.delete().await;
}
