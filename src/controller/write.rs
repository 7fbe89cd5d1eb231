//! Writes to the run itself: its status and its finalizers, each on condition that nobody wrote before.

use http::Request;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::api::{SoakRun, SoakRunStatus, names};

/// Replaces the status. The answer is the run as it is stored now.
///
/// Errors: a conflict when the run has another resourceVersion by now; nothing is written then.
pub async fn status(client: &Client, run: &SoakRun, status: &SoakRunStatus) -> kube::Result<SoakRun> {
    let metadata = &run.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    if crate::switches::without("precondition") {
        let api: Api<SoakRun> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
        return api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await;
    }
    // The server takes only the status from this, so the spec stays at home.
    let body = json!({
        "apiVersion": SoakRun::api_version(&()),
        "kind": SoakRun::kind(&()),
        "metadata": {
            "name": name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        },
        "spec": {"serviceAccountName": run.spec.service_account_name, "phases": []},
        "status": status,
    });
    let url = SoakRun::url_path(&(), metadata.namespace.as_deref());
    let parameters = PostParams { field_manager: Some(names::OPERATOR_FIELD_MANAGER.into()), ..PostParams::default() };
    let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
    let request: Request<Vec<u8>> = kube::core::Request::new(url)
        .replace_subresource("status", name, &parameters, body)
        .map_err(kube::Error::BuildRequest)?;
    client.request::<SoakRun>(request).await
}

/// Puts the operator's finalizer on the run, or takes it off. Other finalizers stay as they are.
///
/// Errors: a conflict when the run has another resourceVersion by now; nothing is written then.
pub async fn finalizer(client: &Client, run: &SoakRun, wanted: bool) -> kube::Result<SoakRun> {
    let metadata = &run.metadata;
    let mut finalizers: Vec<&str> =
        metadata.finalizers.iter().flatten().map(String::as_str).filter(|it| *it != names::FINALIZER).collect();
    if wanted {
        finalizers.push(names::FINALIZER);
    }
    let patch: Value = json!({"metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }});
    let api: Api<SoakRun> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let parameters =
        PatchParams { field_manager: Some(names::OPERATOR_FIELD_MANAGER.into()), ..PatchParams::default() };
    api.patch(metadata.name.as_deref().unwrap_or_default(), &parameters, &Patch::Merge(patch)).await
}
