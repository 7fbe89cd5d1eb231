//! A minimal client of the cluster: plain requests, as fast as the server answers them.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, Request};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

/// Clients at the same time, as in the limits that the benches measure.
pub const CLIENTS: usize = 32;
const RUNS: &str = "soakruns";
/// How long the deletion of all objects of a resource may take.
const EMPTY_PATIENCE: Duration = Duration::from_mins(5);

/// The cluster, and the namespaces that the bench has made in it.
pub struct Cluster {
    /// As the administrator.
    pub client: Client,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    namespaces: Mutex<Vec<String>>,
}

/// A namespace with a service account `soak` that may do what the benches' steps do.
#[derive(Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    client: Client,
}

impl Cluster {
    /// Connects as the kubeconfig says.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        Ok(Self { client: Client::try_from(config)?, kubeconfig: kubeconfig.to_owned(), namespaces: Mutex::default() })
    }

    /// Makes a namespace of a name that was not there before.
    pub async fn namespace(&self, what: &str) -> Result<Namespace> {
        let count = self.namespaces.lock().expect("no panic holds it").len();
        let name = format!("bench-{what}-{}-{count}", std::process::id());
        let this = Namespace { name: name.clone(), client: self.client.clone() };
        call(&self.client, Method::POST, "/api/v1/namespaces", Some(&json!({"metadata": {"name": name}}))).await?;
        self.namespaces.lock().expect("no panic holds it").push(name.clone());
        this.create("serviceaccounts", &json!({"metadata": {"name": "soak"}})).await?;
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{name}");
        let rules = json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "delete", "patch"]},
            {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "patch"]},
        ]);
        let role = json!({"metadata": {"name": "soak"}, "rules": rules});
        call(&self.client, Method::POST, &format!("{rbac}/roles"), Some(&role)).await?;
        let binding = json!({
            "metadata": {"name": "soak"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "soak"},
            "subjects": [{"kind": "ServiceAccount", "name": "soak", "namespace": name}],
        });
        call(&self.client, Method::POST, &format!("{rbac}/rolebindings"), Some(&binding)).await?;
        Ok(this)
    }

    /// Takes away what the bench has made. The operator must have ended: runs lose their finalizers here.
    pub async fn clean_up(&self) -> Result<()> {
        let names = std::mem::take(&mut *self.namespaces.lock().expect("no panic holds it"));
        for name in names {
            let namespace = Namespace { name: name.clone(), client: self.client.clone() };
            let held: Vec<String> = namespace
                .list(RUNS)
                .await?
                .iter()
                .filter(|run| run["metadata"]["finalizers"].is_array())
                .map(name_of)
                .collect();
            let free = json!({"metadata": {"finalizers": null}});
            each(held, |run| {
                let (namespace, free) = (namespace.clone(), free.clone());
                async move { namespace.patch(RUNS, &run, &free).await }
            })
            .await?;
            namespace.empty(RUNS).await?;
            namespace.empty("configmaps").await?;
            call(&self.client, Method::DELETE, &format!("/api/v1/namespaces/{name}"), None).await?;
        }
        Ok(())
    }
}

impl Namespace {
    /// The path of a resource's collection.
    pub fn path(&self, resource: &str) -> String {
        let group = if resource == RUNS { "/apis/soak.dev/v1alpha1" } else { "/api/v1" };
        format!("{group}/namespaces/{}/{resource}", self.name)
    }

    /// Deletes all objects of a resource. The server gives up after a minute, which ten thousand objects take longer than: it is asked
    /// again for what is left.
    async fn empty(&self, resource: &str) -> Result<()> {
        let end = Instant::now() + EMPTY_PATIENCE;
        loop {
            match call(&self.client, Method::DELETE, &self.path(resource), None).await {
                Err(error) if Instant::now() < end => {
                    eprintln!("  {resource} are deleted further: {error:#}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                answer => return answer.map(drop),
            }
        }
    }

    /// Creates an object.
    pub async fn create(&self, resource: &str, object: &Value) -> Result<Value> {
        call(&self.client, Method::POST, &self.path(resource), Some(object)).await
    }

    /// Creates a run.
    pub async fn create_run(&self, name: &str, spec: &Value) -> Result<Value> {
        let run =
            json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": name}, "spec": spec});
        self.create(RUNS, &run).await
    }

    /// Reads an object.
    pub async fn get(&self, resource: &str, name: &str) -> Result<Value> {
        call(&self.client, Method::GET, &format!("{}/{name}", self.path(resource)), None).await
    }

    /// Merges a change into an object (`name`) or a subresource of it (`name/status`).
    pub async fn patch(&self, resource: &str, name: &str, change: &Value) -> Result<Value> {
        call(&self.client, Method::PATCH, &format!("{}/{name}", self.path(resource)), Some(change)).await
    }

    /// All objects of a resource.
    pub async fn list(&self, resource: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut token = String::new();
        loop {
            let path = format!("{}?limit=1000&continue={token}", self.path(resource));
            let mut page = call(&self.client, Method::GET, &path, None).await?;
            if let Value::Array(more) = page["items"].take() {
                items.extend(more);
            }
            match page["metadata"]["continue"].as_str().unwrap_or_default() {
                "" => return Ok(items),
                more => more.clone_into(&mut token),
            }
        }
    }

    /// Waits until a run has ended, and returns it.
    pub async fn ended(&self, run: &str, limit: Duration) -> Result<Value> {
        let end = Instant::now() + limit;
        loop {
            let seen = self.get(RUNS, run).await?;
            if !seen["status"]["finishedAt"].is_null() {
                if seen["status"]["phase"] != "Succeeded" {
                    bail!("run {run} did not succeed: {}", seen["status"]);
                }
                return Ok(seen);
            }
            if Instant::now() > end {
                bail!("run {run} has not ended after {} s: {}", limit.as_secs(), seen["status"]);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Changes of a resource from now on, as the objects that they leave (with `type` beside `object`).
    pub async fn watch(
        &self,
        resource: &str,
    ) -> Result<impl futures::Stream<Item = Result<Value>> + Send + Unpin + use<>> {
        use futures::AsyncBufReadExt;
        let list = call(&self.client, Method::GET, &format!("{}?limit=1", self.path(resource)), None).await?;
        let version = list["metadata"]["resourceVersion"].as_str().context("a list without a version")?.to_owned();
        let path = format!("{}?watch=true&resourceVersion={version}&timeoutSeconds=3600", self.path(resource));
        let lines = self.client.request_stream(Request::get(path).body(Vec::new())?).await?.lines();
        Ok(Box::pin(lines.map(|line| Ok(serde_json::from_str(&line?)?))))
    }
}

/// Does the same for all, a few at the same time.
pub async fn each<T, F, O>(all: impl IntoIterator<Item = T>, work: impl Fn(T) -> F) -> Result<()>
where
    F: Future<Output = Result<O>>,
{
    stream::iter(all).map(work).buffer_unordered(CLIENTS).try_for_each(|_| async { Ok(()) }).await
}

/// The name of an object.
pub fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// One request.
pub async fn call(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    let request = Request::builder().method(method.clone()).uri(path).header("content-type", kind).body(body)?;
    client.request(request).await.with_context(|| format!("{method} {path}"))
}
