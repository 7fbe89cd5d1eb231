//! Where a fault is made: a namespace that agrees to it, one for helpers, pods that show what happens to them.

use std::time::Duration;

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

use crate::support::{self, Namespace, Operator, operator_image, wait_for};

/// A namespace that agrees to injections, one for helpers, and an operator that may use them.
pub struct Stage {
    pub team: Namespace,
    pub helpers: Namespace,
    pub operator: Option<Operator>,
}

impl Stage {
    pub async fn set() -> Self {
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

    pub fn start(&mut self) {
        let (image, helpers) = (operator_image(), &self.helpers.name);
        let arguments =
            ["--helper-image", &image, "--node-helper-namespace", helpers, "--node-helper-service-account", "soak"];
        self.operator = Some(Operator::start_beside(&self.team, helpers, &arguments));
    }

    pub fn kill(&mut self) {
        self.operator.take().unwrap().kill();
    }

    /// A pod that runs a script, with a label `app` of its name.
    pub async fn pod(&self, name: &str, script: &str) -> Pod {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", script],
            }]},
        });
        self.create(pod).await
    }

    pub async fn create(&self, pod: Value) -> Pod {
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
    pub async fn lines(&self, name: &str, count: i64) -> Vec<String> {
        let parameters = LogParams { tail_lines: Some(count), ..LogParams::default() };
        let text = self.team.pods().logs(name, &parameters).await.unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The number that a counting pod has reached.
    pub async fn count(&self, name: &str) -> u64 {
        self.lines(name, 1).await.first().and_then(|line| line.parse().ok()).unwrap_or_default()
    }

    pub async fn counts_beyond(&self, name: &str, count: u64) {
        wait_for(&format!("progress of {name}"), || async { (self.count(name).await > count).then_some(()) }).await;
    }

    /// Waits until the last lines of a pod are all the same word.
    pub async fn says(&self, name: &str, word: &str) {
        wait_for(&format!("`{word}` of {name}"), || async {
            let lines = self.lines(name, 3).await;
            (lines.len() == 3 && lines.iter().all(|line| line == word)).then_some(())
        })
        .await;
    }

    pub fn injections(&self) -> Api<FailureInjection> {
        Api::namespaced(self.team.client.clone(), &self.team.name)
    }

    pub async fn inject(&self, name: &str, mut spec: Value) {
        spec["serviceAccountName"] = json!("soak");
        let object = json!({
            "apiVersion": "soak.dev/v1alpha1", "kind": "FailureInjection", "metadata": {"name": name}, "spec": spec,
        });
        self.injections().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    pub async fn until(&self, name: &str, phase: InjectionPhase) -> FailureInjection {
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

    pub async fn injected(&self, name: &str) -> FailureInjection {
        self.until(name, InjectionPhase::Injected).await
    }

    /// Waits for the end, and that no pod of a helper is left.
    pub async fn recovered(&self, name: &str) -> Vec<EntryState> {
        let injection = self.until(name, InjectionPhase::Recovered).await;
        assert_eq!(self.helper_pods(&injection).await, Vec::<String>::new());
        injection.status.unwrap().journal.iter().map(|entry| entry.state).collect()
    }

    pub async fn helper_pods(&self, injection: &FailureInjection) -> Vec<String> {
        let selector = format!("soak.dev/injection-uid={}", injection.uid().unwrap());
        let pods = self.helpers.pods().list(&ListParams::default().labels(&selector)).await.unwrap().items;
        pods.iter().map(ResourceExt::name_any).collect()
    }

    pub async fn abort(&self, name: &str) {
        let patch = Patch::Merge(json!({"spec": {"abort": true}}));
        self.injections().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn strike(mut self) {
        self.operator.take();
        let pods = self.team.pods();
        let _ = pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await;
        self.helpers.delete().await;
        self.team.delete().await;
    }
}

/// A web server that says `good`.
pub const SERVE: &str = "mkdir -p /tmp/www; echo good > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";

pub fn address(pod: &Pod) -> String {
    pod.status.as_ref().unwrap().pod_ip.clone().unwrap()
}
