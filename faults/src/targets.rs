//! What injections hit: made before a session, and read back after it, past the operator.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{
    api::Server,
    injections::{HOLD, MAPS, PROXIES, good, target},
    names::text,
    shared::Shared,
    user::Place,
};

const TRIES: u32 = 100;
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A real Toxiproxy on loopback; it ends when this is dropped.
pub struct Toxiproxy {
    /// Its API, past the session's proxy.
    pub server: Server,
    _child: Child,
}

impl Toxiproxy {
    /// Starts it with a proxy for each name in [`PROXIES`].
    ///
    /// Errors: it does not answer.
    pub async fn start(program: &Path, upstream: &str) -> Result<Self> {
        // Asked for port 0 it would not tell which one it took.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new(program)
            .args(["-host", "127.0.0.1", "-port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", program.display()))?;
        let server = Server::plain(&format!("http://127.0.0.1:{port}"))?;
        for turn in 0.. {
            match server.get("/proxies").await {
                Ok(_) => break,
                Err(error) if turn == TRIES => return Err(error.context("Toxiproxy does not answer")),
                Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
        for name in PROXIES {
            let proxy = json!({"name": name, "listen": "127.0.0.1:0", "upstream": upstream, "enabled": true});
            server.create("/proxies", &proxy).await?;
        }
        Ok(Self { server, _child: child })
    }
}

/// A pod on the session's own node that stays until it is killed.
fn pod(name: &str, app: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": target(name), "labels": {"app": app}}, "spec": {
        "nodeName": node, "terminationGracePeriodSeconds": 0,
        // The account `default` comes some time after its namespace.
        "serviceAccountName": "soak", "automountServiceAccountToken": false,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sleep", "600"]}],
    }})
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": target(name), "labels": {"kept": name}}, "data": data})
}

impl Place {
    /// Makes all that is hit.
    pub async fn make_targets(&self) -> Result<()> {
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.node, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            // Nobody else's pods come here.
            "spec": {"taints": [{"key": "faults.soak.dev/session", "effect": "NoSchedule"}]},
            "status": {"capacity": {"pods": "20"}, "allocatable": {"pods": "20"}}});
        self.server.apply(&format!("/api/v1/nodes/{}", self.node), &node).await?;
        for name in MAPS {
            let path = self.path("/api/v1", &format!("configmaps/{}", target(name)));
            self.server.apply(&path, &map(name, &good())).await?;
        }
        let closed = format!("/api/v1/namespaces/default/configmaps/{}", target("closed"));
        self.server.apply(&closed, &map("closed", &good())).await?;
        for (name, app) in
            [("kill-0", "victim"), ("kill-1", "victim"), ("drained", "drained"), ("isolated", "isolated")]
        {
            self.server.create(&self.path("/api/v1", "pods"), &pod(name, app, &self.node)).await?;
        }
        let labels = json!({"app": target("scale")});
        let scale = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": target("scale")},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "localhost/busybox:1",
                    "imagePullPolicy": "Never", "command": ["sleep", "600"]}]}}}});
        let path = self.path("/apis/apps/v1", &format!("deployments/{}", target("scale")));
        self.server.apply(&path, &scale).await.map(|_| ())
    }

    /// What of a fault is still there, read from outside. Empty is good.
    ///
    /// `whole` says whether the namespace is still there. Errors: something could not be read.
    pub async fn left(&self, toxiproxy: &Server, shared: &Shared, whole: bool) -> Result<Vec<String>> {
        let mut left = Vec::new();
        if let Some(node) = self.server.get(&format!("/api/v1/nodes/{}", self.node)).await?
            && node["spec"]["unschedulable"] == true
        {
            left.push(format!("node {} is still cordoned", self.node));
        }
        let proxies = toxiproxy.get("/proxies").await?.unwrap_or_default();
        for name in PROXIES {
            let proxy = &proxies[name];
            if proxy["enabled"] != true || proxy["toxics"].as_array().is_none_or(|toxics| !toxics.is_empty()) {
                left.push(format!("proxy {name} is still {proxy}"));
            }
        }
        let closed = self.server.get(&format!("/api/v1/namespaces/default/configmaps/{}", target("closed"))).await?;
        if closed.is_none_or(|map| map["data"] != good()) {
            left.push("the object in a namespace that has not opted in was touched".into());
        }
        if !whole {
            return Ok(left);
        }
        for name in MAPS {
            let object = self.server.get(&self.path("/api/v1", &format!("configmaps/{}", target(name)))).await?;
            if let Some(problem) = changed(name, object.as_ref(), shared) {
                left.push(problem);
            }
        }
        let deployment =
            self.server.get(&self.path("/apis/apps/v1", &format!("deployments/{}", target("scale")))).await?;
        let replicas = deployment.map(|it| it["spec"]["replicas"].clone());
        if replicas != Some(json!(0)) {
            left.push(format!("t-scale has {replicas:?} replicas"));
        }
        for (root, resource) in [("/api/v1", "configmaps"), ("/apis/networking.k8s.io/v1", "networkpolicies")] {
            let path = self.path(root, &format!("{resource}?labelSelector=soak.dev/injection-uid"));
            let list = self.server.get(&path).await?.unwrap_or_default();
            for item in list["items"].as_array().into_iter().flatten() {
                // A squatter's look-alike names no injection that exists.
                if !text(&item["metadata"]["labels"]["soak.dev/injection-uid"]).starts_with("00000000") {
                    left.push(format!("{resource} {} that an injection made is still there", item["metadata"]["name"]));
                }
            }
        }
        Ok(left)
    }

    /// Lets go of what would keep the namespace.
    pub async fn release(&self) {
        let path = self.path("/api/v1", &format!("configmaps/{}", target("external")));
        let _ = self.server.call(Method::PATCH, &path, Some(&json!({"metadata": {"finalizers": []}}))).await;
    }
}

/// In what a hit `ConfigMap` differs from what it was, with what others have made of it.
fn changed(name: &str, object: Option<&Value>, shared: &Shared) -> Option<String> {
    let mut wanted = Some(good());
    match name {
        // Deleting it was the whole fault.
        "remove" => return object.filter(|it| it["data"] != good()).map(|it| format!("t-remove is {}", it["data"])),
        "lost" if shared.did("lost") => wanted = None,
        "anew" if shared.did("anew") => wanted = Some(anew()),
        "foreign" if shared.did("foreign") => wanted = Some(json!({"mode": "theirs", "other": "1"})),
        _ => {}
    }
    let is = object.map(|object| &object["data"]);
    if is != wanted.as_ref() {
        return Some(format!("t-{name} is {is:?} instead of {wanted:?}"));
    }
    let kept = object.is_none_or(|it| name == "anew" || it["metadata"]["labels"]["kept"] == name);
    (!kept).then(|| format!("t-{name} has lost its label"))
}

/// What somebody makes anew under the name of a target: it happens to look as the fault does.
fn anew() -> Value {
    json!({"mode": "bad", "extra": "x", "other": "1", "fresh": "yes"})
}

impl Place {
    /// Does to injections and their targets what their names say.
    pub(crate) async fn meddle(&self, shared: &Shared) -> Result<()> {
        for injection in shared.recorder.with(|history| history.newest("failureinjections")) {
            let status = &injection.object["status"];
            if injection.gone || status["phase"] != "Injected" {
                continue;
            }
            let own = self.path("/apis/soak.dev/v1alpha1", &format!("failureinjections/{}", injection.name()));
            let hit = self.path("/api/v1", &format!("configmaps/{}", target(injection.name())));
            match injection.name() {
                "deleted" if injection.object["metadata"]["deletionTimestamp"].is_null() => {
                    self.server.call(Method::DELETE, &own, None).await?;
                }
                "aborted" if injection.object["spec"]["abort"].is_null() => {
                    self.server.call(Method::PATCH, &own, Some(&json!({"spec": {"abort": true}}))).await?;
                }
                "lost" if !shared.did("lost") && self.server.call(Method::DELETE, &hit, None).await?.0 == 200 => {
                    shared.act("lost");
                }
                "anew" if !shared.did("anew-gone") && self.server.call(Method::DELETE, &hit, None).await?.0 == 200 => {
                    shared.act("anew-gone");
                }
                "foreign" if !shared.did("foreign") => {
                    let theirs = json!({"data": {"mode": "theirs"}});
                    if self.server.call(Method::PATCH, &hit, Some(&theirs)).await?.0 == 200 {
                        shared.act("foreign");
                    }
                }
                _ => {}
            }
        }
        if shared.did("anew-gone") && !shared.did("anew") {
            let body =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": target("anew")}, "data": anew()});
            if self.server.call(Method::POST, &self.path("/api/v1", "configmaps"), Some(&body)).await?.0 == 201 {
                shared.act("anew");
            }
        }
        let now = shared.recorder.now();
        let external = target("external");
        let held = shared.recorder.with(|history| {
            let newest = history.versions.iter().rfind(|it| it.resource == "configmaps" && it.name() == external);
            newest.is_some_and(|map| {
                let metadata = &map.object["metadata"];
                let held = metadata["finalizers"].as_array().is_some_and(|all| all.iter().any(|it| it == HOLD));
                held && !map.gone && map.at + 1_000 < now && metadata["deletionTimestamp"].is_string()
            })
        });
        if held {
            self.release().await;
        }
        Ok(())
    }
}
