//! The other side: an account there, the credentials for it, and a way to it that can be closed.

use std::{net::SocketAddr, process::Command};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
};
use kube::{Api, api::PostParams, config::Kubeconfig};
use serde_json::{Value, json};
use soak_operator::api::SoakRun;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::support::{Namespace, kubeconfig};

/// An account on the other side, and what a kubeconfig for it is made of.
pub struct Other {
    pub server: String,
    pub authority: String,
    pub token: String,
}

impl Other {
    /// Gives the run's account the right to read the Secret `hub-b` only, and the account `other` rights on ConfigMaps.
    pub async fn create(namespace: &Namespace) -> Self {
        let secret = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["hub-b"], "verbs": ["get", "list", "watch"]}]);
        namespace.allow("read-hub-b", secret).await;
        let rules = json!([
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
        ]);
        namespace.account("other", rules).await;
        let admin = Kubeconfig::read_from(kubeconfig()).unwrap();
        let cluster = admin.clusters[0].cluster.clone().unwrap();
        let authority = cluster.certificate_authority_data.unwrap_or_else(|| {
            let output =
                Command::new("base64").args(["-w0", &cluster.certificate_authority.unwrap()]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        Self { server: cluster.server.unwrap(), authority, token: token(namespace).await }
    }

    pub fn kubeconfig(&self) -> String {
        self.with(&self.server, &self.token, &self.authority)
    }

    /// A kubeconfig that leads there by a way.
    pub fn by(&self, way: &Way) -> String {
        self.with(&format!("https://{}", way.address), &self.token, &self.authority)
    }

    pub fn with(&self, server: &str, token: &str, authority: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": server, "certificate-authority-data": authority, "tls-server-name": self.host()}}],
            "users": [{"name": "u", "user": {"token": token}}],
        })
        .to_string()
    }

    pub fn host(&self) -> String {
        self.server.trim_start_matches("https://").split(':').next().unwrap().to_owned()
    }

    pub fn address(&self) -> SocketAddr {
        self.server.trim_start_matches("https://").parse().unwrap()
    }
}

pub async fn token(namespace: &Namespace) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    let answer = accounts.create_token_request("other", &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token.unwrap()
}

pub fn secrets(namespace: &Namespace) -> Api<Secret> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

pub async fn put_secret(namespace: &Namespace, kubeconfig: &str) {
    namespace
        .apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub-b"}, "stringData": {"kubeconfig": kubeconfig}}))
        .await;
}

pub fn targets() -> Value {
    json!([{"name": "hub-a"}, {"name": "hub-b", "kubeconfigSecretRef": {"name": "hub-b"}}])
}

/// A step that leaves a ConfigMap on a target.
pub fn leave(name: &str, target: &str, delete_after: &str) -> Value {
    json!({"name": name, "apply": {"target": target, "deleteAfter": delete_after, "manifest": {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"cycle": "${cycle.number}", "primary": "${roles.?primary.orValue('')}"}}}})
}

pub fn one_step(step: &Value) -> Value {
    json!({"targets": targets(), "phases": [{"name": "work", "steps": [step]}]})
}

pub fn message(run: &SoakRun) -> &str {
    run.status.as_ref().map_or("", |status| status.message.as_str())
}

pub fn reachable(run: &SoakRun, name: &str) -> Option<bool> {
    Some(run.status.as_ref()?.targets.iter().find(|target| target.name == name)?.reachable)
}

/// A way to an address that can be closed.
pub struct Way {
    address: SocketAddr,
    to: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Way {
    pub async fn open(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, to, task: Some(tokio::spawn(forward(listener, to))) }
    }

    pub async fn close(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub async fn reopen(&mut self) {
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
