//! Writes to the injection itself: its status and its finalizer, each on condition that nobody wrote before.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::MANAGER;
use crate::api::{FailureInjection, names::FINALIZER};

fn api(client: &Client, injection: &FailureInjection) -> Api<FailureInjection> {
    Api::namespaced(client.clone(), &injection.namespace().unwrap_or_default())
}

/// Replaces the status by the one that `injection` has. The answer is the metadata as it is stored now.
///
/// Errors: a conflict when it has another resourceVersion by now; nothing is written then.
pub(super) async fn status(client: &Client, injection: &FailureInjection) -> kube::Result<ObjectMeta> {
    let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    Ok(api(client, injection).replace_status(&injection.name_any(), &parameters, injection).await?.metadata)
}

/// Puts the operator's finalizer on, or takes it off. Other finalizers stay as they are. The answer is as above.
///
/// Errors: a conflict when it has another resourceVersion by now; nothing is written then.
pub(super) async fn finalizer(client: &Client, injection: &FailureInjection, wanted: bool) -> kube::Result<ObjectMeta> {
    let metadata = &injection.metadata;
    let mut finalizers: Vec<&str> =
        metadata.finalizers.iter().flatten().map(String::as_str).filter(|it| *it != FINALIZER).collect();
    if wanted {
        finalizers.push(FINALIZER);
    }
    let patch = Patch::Merge(json!({"metadata": {
        "uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": finalizers,
    }}));
    let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    Ok(api(client, injection).patch_metadata(&injection.name_any(), &parameters, &patch).await?.metadata)
}
