//! `node`: a node that takes no further pods, and is drained when that is asked for.

use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, ListParams},
};
use serde_json::{Value, json};

use super::{FaultContext, FaultKind, Refusal, fields, injected, not_injected};
use crate::{
    api::{
        failureinjection::{JournalEntry, ObjectRef, Undo},
        fault::NodeFault,
    },
    cluster::{
        error::{ApiFailure, Class},
        kinds::uid,
        object::PatchKind,
    },
    engine::injection::EntrySeen,
};

/// Marks a pod that the kubelet runs from a file; an eviction would only delete its image in the API.
const MIRROR: &str = "kubernetes.io/config.mirror";

impl FaultKind for NodeFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        let unschedulable = json!({"spec": {"unschedulable": true}});
        let mut entries = fields::entries(ctx, targets, PatchKind::Merge, &unschedulable).await?;
        if self.drain {
            let pods: Api<Pod> = Api::all(ctx.client()?);
            for node in targets {
                let mut parameters = ListParams::default().fields(&format!("spec.nodeName={}", node.name_any()));
                if let Some(labels) = &self.pods {
                    parameters = parameters.labels(labels);
                }
                for pod in pods.list(&parameters).await.map_err(ApiFailure::from)?.items {
                    let namespace = pod.namespace().unwrap_or_default();
                    if stays(&pod) || ctx.may_touch(&namespace).await.is_err() {
                        continue;
                    }
                    let target = ObjectRef {
                        api_version: "v1".into(),
                        kind: "Pod".into(),
                        namespace,
                        name: pod.name_any(),
                        uid: uid(&pod).to_owned(),
                    };
                    entries.push(JournalEntry { target, undo: Undo::Nothing, ..JournalEntry::default() });
                }
            }
        }
        Ok(entries)
    }

    /// Evicts a pod, so that disruption budgets are kept.
    async fn strike(&self, ctx: &FaultContext<'_>, entry: &JournalEntry) -> EntrySeen {
        let target = match ctx.target(&entry.target).await {
            Ok(target) => target,
            Err(failure) => return not_injected(&failure),
        };
        if ctx.is_stale() {
            return EntrySeen::Failing { message: "the decision is too old to act on".into() };
        }
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": target.name, "namespace": target.namespace},
            "deleteOptions": {"preconditions": {"uid": entry.target.uid}},
        });
        let url = format!("{}/{}/eviction", target.api().resource_url(), target.name);
        let request = Request::post(url).header(http::header::CONTENT_TYPE, "application/json");
        let request = match request.body(serde_json::to_vec(&eviction).unwrap_or_default()) {
            Ok(request) => request,
            Err(error) => return not_injected(&ApiFailure::definite(Class::Invalid, error.to_string())),
        };
        match target.client.request::<Value>(request).await.map_err(ApiFailure::from) {
            Ok(_) => injected("evicted"),
            Err(failure) if matches!(failure.class, Class::NotFound | Class::Conflict) => injected("it is gone"),
            Err(failure) => not_injected(&failure),
        }
    }
}

/// What `kubectl drain` leaves alone: pods of DaemonSets and mirror pods, and those that have ended.
fn stays(pod: &Pod) -> bool {
    let of_daemon_set = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet");
    let ended = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|it| it == "Succeeded" || it == "Failed");
    of_daemon_set || ended || pod.annotations().contains_key(MIRROR) || pod.meta().deletion_timestamp.is_some()
}
