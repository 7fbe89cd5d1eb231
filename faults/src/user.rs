//! What people and other programs do beside the operator: set up a namespace, change runs, write into a status.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::{
    api::Server,
    history::Version,
    injections::Injection,
    names,
    shared::Shared,
    workload::{self, DENIED, Run},
};

/// A cluster role of all sessions.
const OUTSIDE: &str = "soak-faults";

const LOOK: Duration = Duration::from_millis(100);

/// A namespace of a session.
#[derive(Clone)]
pub struct Place {
    /// The API server.
    pub server: Server,
    /// The namespace's name.
    pub namespace: String,
    /// A node of the session's own, which no other pods come to.
    pub node: String,
}

/// Phases that end a run.
pub fn is_final(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed" | "Inconclusive" | "Aborted")
}

impl Place {
    /// The path of the namespace's objects of a group and version.
    pub fn path(&self, root: &str, resource: &str) -> String {
        format!("{root}/namespaces/{}/{resource}", self.namespace)
    }

    /// The path of a run.
    pub fn run_path(&self, name: &str) -> String {
        self.path("/apis/soak.dev/v1alpha1", &format!("soakruns/{name}"))
    }

    /// The operator's own namespace: its lease and the kill switch are there.
    pub fn own(&self) -> String {
        format!("{}-own", self.namespace)
    }

    /// Makes the namespaces, what injections hit, an account `soak` that may do what the workload asks for, and one that may do nothing.
    pub async fn prepare(&self) -> Result<()> {
        let name = &self.namespace;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"faults.soak.dev/session": "true", "soak.dev/injection": "allowed"}}});
        self.server.apply(&format!("/api/v1/namespaces/{name}"), &namespace).await?;
        let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.own(), "labels": {"faults.soak.dev/session": "true"}}});
        self.server.apply(&format!("/api/v1/namespaces/{}", self.own()), &own).await?;
        for account in ["soak", "bare"] {
            let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}});
            self.server.apply(&self.path("/api/v1", &format!("serviceaccounts/{account}")), &object).await?;
        }
        let rules = json!([
            {"apiGroups": [""], "resources": ["pods", "pods/log", "pods/eviction", "configmaps"], "verbs": ["*"]},
            {"apiGroups": ["soak.dev"], "resources": ["failureinjections"], "verbs": ["*"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["*"]},
            {"apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"], "verbs": ["*"]},
            {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]},
        ]);
        let group = "rbac.authorization.k8s.io";
        let role =
            json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "soak"}, "rules": rules});
        self.server.apply(&self.path(&format!("/apis/{group}/v1"), "roles/soak"), &role).await?;
        // A node is in no namespace, and what keeps injections out of a closed one must not be a missing right.
        let outside = json!([
            {"apiGroups": [""], "resources": ["nodes", "configmaps"], "verbs": ["get", "list", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        ]);
        let role = json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": OUTSIDE}, "rules": outside});
        self.server.apply(&format!("/apis/{group}/v1/clusterroles/{OUTSIDE}"), &role).await?;
        self.grant().await?;
        self.make_targets().await
    }

    /// Gives the account `soak` its rights.
    pub async fn grant(&self) -> Result<()> {
        let group = "rbac.authorization.k8s.io";
        let binding = |kind: &str, role: &str, name: &str| {
            json!({
                "apiVersion": format!("{group}/v1"), "kind": format!("{kind}Binding"), "metadata": {"name": name},
                "roleRef": {"apiGroup": group, "kind": kind, "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": "soak", "namespace": self.namespace}],
            })
        };
        self.server.apply(&self.bindings()[0], &binding("Role", "soak", "soak")).await?;
        self.server.apply(&self.bindings()[1], &binding("ClusterRole", OUTSIDE, &self.namespace)).await.map(|_| ())
    }

    /// Takes them away.
    pub async fn revoke(&self) -> Result<()> {
        for path in self.bindings() {
            self.server.call(Method::DELETE, &path, None).await?;
        }
        Ok(())
    }

    /// Changes an annotation of each pod. A simulated node that was killed in the midst of a pod's life goes on with it only when the pod
    /// changes; a kubelet would by itself.
    pub async fn nudge_pods(&self) -> Result<()> {
        let pods = self.server.get(&self.path("/api/v1", "pods")).await?.unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let path = self.path("/api/v1", &format!("pods/{}", names::text(&pod["metadata"]["name"])));
            let nudge = json!({"metadata": {"annotations": {"faults.soak.dev/nudged": fastrand::u32(..).to_string()}}});
            self.server.call(Method::PATCH, &path, Some(&nudge)).await?;
        }
        Ok(())
    }

    fn bindings(&self) -> [String; 2] {
        let root = "/apis/rbac.authorization.k8s.io/v1";
        [self.path(root, "rolebindings/soak"), format!("{root}/clusterrolebindings/{}", self.namespace)]
    }

    /// Turns the kill switch on or off.
    pub async fn halt(&self, on: bool) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/configmaps/soak-kill-switch", self.own());
        if on {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "soak-kill-switch"}, "data": {"halt": "true"}});
            return self.server.apply(&path, &map).await.map(|_| ());
        }
        self.server.call(Method::DELETE, &path, None).await.map(|_| ())
    }

    /// Creates the runs of the workload.
    pub async fn submit(&self, runs: &[Run]) -> Result<()> {
        for run in runs {
            let mut spec = run.spec.clone();
            if spec["serviceAccountName"].is_null() {
                spec["serviceAccountName"] = json!("soak");
            }
            let object = json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": run.name}, "spec": spec});
            self.server.create(&self.path("/apis/soak.dev/v1alpha1", "soakruns"), &object).await?;
        }
        Ok(())
    }

    /// Creates the injections of the workload.
    pub async fn submit_injections(&self, injections: &[Injection]) -> Result<()> {
        for injection in injections {
            let mut spec = injection.spec.clone();
            spec["serviceAccountName"] = json!("soak");
            let object = json!({"apiVersion": "soak.dev/v1alpha1", "kind": "FailureInjection",
                "metadata": {"name": injection.name}, "spec": spec});
            let path = self.path("/apis/soak.dev/v1alpha1", "failureinjections");
            self.server.create(&path, &object).await?;
        }
        Ok(())
    }

    /// Deletes all that a session made; its end is not waited for.
    pub async fn tidy(&self) {
        // Left behind, it harms nobody: the names are never used again.
        self.release().await;
        let _ = self.delete().await;
        let nodes = format!("/api/v1/nodes/{}", self.node);
        for path in [format!("/api/v1/namespaces/{}", self.own()), self.bindings()[1].clone(), nodes] {
            let _ = self.server.call(Method::DELETE, &path, None).await;
        }
    }

    /// Deletes the namespace; its end is not waited for.
    pub async fn delete(&self) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        self.server.call(Method::DELETE, &path, None).await.map(|_| ())
    }

    /// Does to the workload's runs, injections and targets what their names say, for ever.
    pub async fn tend(self, shared: Arc<Shared>) {
        loop {
            tokio::time::sleep(LOOK).await;
            for run in newest(&shared) {
                // What fails is found undone at the next look.
                let _ = self.tend_one(&run, &shared).await;
            }
            let _ = self.meddle(&shared).await;
        }
    }

    async fn tend_one(&self, run: &Version, shared: &Shared) -> Result<()> {
        let (spec, status) = (&run.object["spec"], &run.object["status"]);
        let path = self.run_path(run.name());
        let deleting = run.object["metadata"]["deletionTimestamp"].is_string();
        let ended = is_final(names::text(&status["phase"]));
        let change = match run.name() {
            "suspended" if status["suspendedAt"].is_string() && spec["suspend"] == true => json!({"suspend": false}),
            "aborted" if spec["abort"].is_null() && is_at(status, "nap", "Active") => json!({"abort": true}),
            "again" if spec["rerun"].is_null() && ended => json!({"rerun": "2", "cycles": 1}),
            DENIED if spec["abort"].is_null() && others_have_ended(shared) => json!({"abort": true}),
            "deleted" if !deleting && is_running(status, "busy") => {
                return self.server.call(Method::DELETE, &path, None).await.map(|_| ());
            }
            _ => return Ok(()),
        };
        self.server.call(Method::PATCH, &path, Some(&json!({"spec": change}))).await.map(|_| ())
    }

    /// Writes into the status of every run that has not ended, again and again.
    pub async fn scribble(self, shared: Arc<Shared>) {
        for turn in 0_u64.. {
            tokio::time::sleep(LOOK).await;
            for run in newest(&shared) {
                if run.gone || is_final(names::text(&run.object["status"]["phase"])) {
                    continue;
                }
                // On condition that it has not ended meanwhile: nobody but the operator may touch an ended run here.
                let body = json!({
                    "metadata": {"resourceVersion": run.object["metadata"]["resourceVersion"]},
                    "status": {"position": format!("nowhere {turn}")},
                });
                let path = format!("{}/status", self.run_path(run.name()));
                if let Ok((200, _)) = self.server.call(Method::PATCH, &path, Some(&body)).await {
                    shared.count("SecondWriter");
                }
            }
        }
    }

    /// Removes what squatters have made, some time after it came.
    pub async fn evict(self, shared: Arc<Shared>) {
        loop {
            tokio::time::sleep(Duration::from_secs(6)).await;
            let squatters: Vec<(&str, String)> = shared.recorder.with(|history| {
                let is =
                    |version: &&Version| version.object["metadata"]["labels"]["faults.soak.dev/squatter"].is_string();
                history
                    .versions
                    .iter()
                    .filter(is)
                    .map(|version| (version.resource, version.name().to_owned()))
                    .collect()
            });
            for (resource, name) in squatters {
                let path = self.path("/api/v1", &format!("{resource}/{name}"));
                // By label, so that what the operator has made since under that name is left alone.
                if let Ok(Some(object)) = self.server.get(&path).await
                    && object["metadata"]["labels"]["faults.soak.dev/squatter"].is_string()
                {
                    let body = json!({"preconditions": {"uid": object["metadata"]["uid"]}, "gracePeriodSeconds": 0});
                    let _ = self.server.call(Method::DELETE, &path, Some(&body)).await;
                }
            }
        }
    }
}

/// The newest version of each run.
pub fn newest(shared: &Shared) -> Vec<Version> {
    shared.recorder.with(|history| history.newest("soakruns"))
}

/// Whether an injection has come to its end, as the watch saw it.
pub fn injection_has_ended(injection: &Version) -> bool {
    let (metadata, status) = (&injection.object["metadata"], &injection.object["status"]);
    let held = metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    let going = metadata["deletionTimestamp"].is_string() || injection.object["spec"]["ttlAfterFinished"].is_string();
    let is_final = matches!(names::text(&status["phase"]), "Recovered" | "Failed" | "Skipped");
    injection.gone || (is_final && !held && !going)
}

/// Whether a run has come to its end, as the watch saw it.
pub fn has_ended(run: &Version) -> bool {
    let again = run.name() == "again" && run.object["status"]["attempt"] != 2;
    let going = run.object["metadata"]["deletionTimestamp"].is_string() || run.name() == "short";
    run.gone || (is_final(names::text(&run.object["status"]["phase"])) && !again && !going)
}

fn others_have_ended(shared: &Shared) -> bool {
    let newest = newest(shared);
    newest.len() >= workload::runs("").len() && newest.iter().filter(|run| run.name() != DENIED).all(has_ended)
}

fn steps<'a>(status: &'a Value, name: &'a str) -> impl Iterator<Item = &'a Value> {
    let phases = status["current"]["phases"].as_array().into_iter().flatten();
    phases.flat_map(|phase| phase["steps"].as_array().into_iter().flatten()).filter(move |step| step["name"] == name)
}

fn is_at(status: &Value, name: &str, state: &str) -> bool {
    steps(status, name).any(|step| step["state"] == state)
}

fn is_running(status: &Value, name: &str) -> bool {
    steps(status, name).any(|step| step["state"] == "Active" && step["runningAt"].is_string())
}
