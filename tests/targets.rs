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
    api::{DeleteParams, ListParams, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use soak_operator::api::{SoakRun, names::reason, status::RunPhase};
use support::{Namespace, Operator, kubeconfig, script, wait_for};
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
