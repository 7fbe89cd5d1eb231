//! Writes to the run itself: its status and its finalizers, each on condition that nobody wrote before.

use http::{HeaderValue, Request, header::ACCEPT};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde::Serialize;
use serde_json::json;

use super::cached::Stamp;
use crate::api::{SoakRun, SoakRunStatus, names};

/// The answer's spec and status are those that were sent.
const METADATA_ONLY: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// What the server takes from a write of the status, and what it insists on. The spec stays at home.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Precondition<'a>,
    spec: RequiredSpec<'a>,
    status: &'a SoakRunStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Precondition<'a> {
    name: &'a str,
    namespace: Option<&'a str>,
    uid: Option<&'a str>,
    resource_version: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequiredSpec<'a> {
    service_account_name: &'a str,
    phases: [(); 0],
}

/// Replaces the status by the one that `run` has. The answer is the run's metadata as it is stored now.
///
/// Errors: a conflict when the run has another resourceVersion by now; nothing is written then.
pub async fn status(client: &Client, run: &SoakRun) -> kube::Result<ObjectMeta> {
    let metadata = &run.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    if crate::switches::without("precondition") {
        let api: Api<SoakRun> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
        let patch = Patch::Merge(json!({"status": run.status}));
        return Ok(api.patch_status(name, &PatchParams::default(), &patch).await?.metadata);
    }
    let nothing = SoakRunStatus::default();
    let body = Body {
        api_version: &SoakRun::api_version(&()),
        kind: &SoakRun::kind(&()),
        metadata: Precondition {
            name,
            namespace: metadata.namespace.as_deref(),
            uid: metadata.uid.as_deref(),
            resource_version: metadata.resource_version.as_deref(),
        },
        spec: RequiredSpec { service_account_name: &run.spec.service_account_name, phases: [] },
        status: run.status.as_ref().unwrap_or(&nothing),
    };
    let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
    let parameters = PostParams { field_manager: Some(names::OPERATOR_FIELD_MANAGER.into()), ..PostParams::default() };
    let request = request(run).replace_subresource("status", name, &parameters, body);
    send(client, request).await
}

/// Puts the operator's finalizer on the run, or takes it off. Other finalizers stay as they are. The answer is as above.
///
/// Errors: a conflict when the run has another resourceVersion by now; nothing is written then.
pub async fn finalizer(client: &Client, run: &SoakRun, wanted: bool) -> kube::Result<ObjectMeta> {
    let metadata = &run.metadata;
    let mut finalizers: Vec<&str> =
        metadata.finalizers.iter().flatten().map(String::as_str).filter(|it| *it != names::FINALIZER).collect();
    if wanted {
        finalizers.push(names::FINALIZER);
    }
    let patch = Patch::Merge(json!({"metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }}));
    let parameters =
        PatchParams { field_manager: Some(names::OPERATOR_FIELD_MANAGER.into()), ..PatchParams::default() };
    send(client, request(run).patch(metadata.name.as_deref().unwrap_or_default(), &parameters, &patch)).await
}

fn request(run: &SoakRun) -> kube::core::Request {
    kube::core::Request::new(SoakRun::url_path(&(), run.metadata.namespace.as_deref()))
}

async fn send(
    client: &Client,
    request: Result<Request<Vec<u8>>, kube::core::request::Error>,
) -> kube::Result<ObjectMeta> {
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(ACCEPT, METADATA_ONLY);
    let stamp: Stamp = client.request(request).await?;
    Ok(stamp.metadata)
}
