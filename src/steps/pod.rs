//! `pod`: one pod an attempt, created as the tenant, judged by the shared watch of pods.

use chrono::{DateTime, TimeDelta, Utc};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Preconditions},
};
use serde_json::{Value, json};

use super::{
    StepKind,
    context::{Begun, Follow, RunIdentity, StepContext},
    made,
    object::{PatchKind, Target, Unresolved, WriteMode},
    pod_manifest::{self, PodParts},
    pod_state,
    rights::Use,
    trial::{self, Untried},
};
use crate::{
    api::step::{PodStep, ResourceRef},
    cluster::{
        Cluster,
        access::Right,
        error::{ApiFailure, Class},
        pods::{Coordinates, PodSummary},
    },
    engine::seen::{PodSeen, StepEnd, StepKey, StepSeen},
};

/// A pod that has not ended so long after its deadline and its own grace is deleted: its node may be lost.
const STOP_BY_DEADLINE: TimeDelta = TimeDelta::seconds(60);

/// The attempt that a pod's labels tell.
pub fn coordinates_key(coordinates: &Coordinates) -> StepKey {
    let Coordinates { run_attempt, section, cycle, phase, step, attempt } = coordinates.clone();
    StepKey { run_attempt, section, cycle, phase, step, attempt }
}

/// The run's pods that are in the cluster, for [`Seen::pods`](crate::engine::seen::Seen::pods).
pub fn pods_seen(target: &str, cluster: &Cluster, run_uid: &str) -> Vec<PodSeen> {
    let seen = |pod: &PodSummary| PodSeen {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        key: pod.coordinates.as_ref().map(coordinates_key),
        ended: pod.ended(),
        deleting: pod.deleting_at.is_some(),
        target: target.to_owned(),
    };
    cluster.pods.pods_of(run_uid).iter().map(|pod| seen(pod)).collect()
}

/// Deletes exactly the pod with that uid, as the tenant. One that is gone is a success.
pub async fn delete_pod(cluster: &Cluster, run: &RunIdentity, name: &str, uid: &str) -> Result<(), ApiFailure> {
    let client = cluster
        .tenants
        .client(&run.account())
        .map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client, &run.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.into()), resource_version: None }),
        ..DeleteParams::background()
    };
    match pods.delete(name, &params).await.map_err(ApiFailure::from) {
        Err(failure) if !matches!(failure.class, Class::NotFound | Class::Conflict) => Err(failure),
        _ => Ok(()),
    }
}

/// The coordinates of an attempt as its containers read them, so that a workload can be idempotent by itself.
pub(super) fn environment(ctx: &StepContext<'_>) -> Vec<(&'static str, String)> {
    let StepKey { run_attempt, section: _, cycle, phase, step, attempt } = ctx.key;
    vec![
        ("SOAK_RUN", ctx.run.name.clone()),
        ("SOAK_RUN_UID", ctx.run.uid.clone()),
        ("SOAK_RUN_ATTEMPT", run_attempt.to_string()),
        ("SOAK_CYCLE", cycle.to_string()),
        ("SOAK_PHASE", phase.clone()),
        ("SOAK_STEP", step.clone()),
        ("SOAK_ATTEMPT", attempt.to_string()),
    ]
}

/// A timeout in whole seconds, rounded up, as Kubernetes counts deadlines.
pub(super) fn seconds(timeout: crate::api::Duration) -> u64 {
    let timeout = timeout.as_std();
    timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0)
}

/// The manifest of an attempt's pod.
pub(super) fn manifest(ctx: &StepContext<'_>, step: &PodStep) -> Result<Value, StepEnd> {
    let step = ctx.render(&serde_json::to_value(step).unwrap_or_default())?;
    let parts = PodParts {
        name: ctx.attempt_name(),
        namespace: &ctx.run.namespace,
        owner: ctx.owner_reference(),
        service_account: ctx.pod_account(),
        labels: ctx.labels(),
        annotations: ctx.annotations(),
        env: environment(ctx),
        deadline_seconds: seconds(ctx.leaf.timeout),
        helper_image: ctx.settings.helper_image.as_deref(),
    };
    pod_manifest::build(step, parts)
        .map_err(|problem| StepEnd::failed("Invalid", format!("{}.pod.{problem}", ctx.leaf.field)))
}

pub(super) async fn target(ctx: &StepContext<'_>) -> Result<Target, Unresolved> {
    let pod = ResourceRef { api_version: "v1".into(), kind: "Pod".into(), name: ctx.attempt_name(), namespace: None };
    Target::find(ctx, &pod).await
}

impl StepKind for PodStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        let manifest = match manifest(ctx, self) {
            Ok(manifest) => manifest,
            Err(end) => return Begun::ended(end),
        };
        let target = match target(ctx).await {
            Ok(target) => target,
            Err(Unresolved::Wrong(end)) => return Begun::ended(end),
            // Nothing was asked for yet: the attempt is lost, the next one will have a server to ask.
            Err(Unresolved::Failed(_)) => return Begun::following(StepSeen::Unknown, Follow::default()),
        };
        let ours = |object: &DynamicObject| made::is_owned(ctx, object);
        match made::create_once(&target, &manifest, Follow::default(), ours).await {
            Ok((_, follow)) => {
                Begun::following(StepSeen::Pending { reason: "Created".into(), message: String::new() }, follow)
            }
            Err(begun) => begun,
        }
    }

    async fn resume(&self, _ctx: &StepContext<'_>) -> Begun {
        Begun::following(StepSeen::Unknown, Follow::default())
    }

    fn observe(&self, ctx: &StepContext<'_>, follow: &Follow, now: DateTime<Utc>) -> StepSeen {
        let Some(pod) = ctx.cluster.pods.find(&ctx.run.uid, &ctx.attempt_name()) else { return StepSeen::Unknown };
        follow.mark_existing();
        pod_state::judge(&pod, ctx.stopping_since.is_some(), now)
    }

    async fn confirm_absent(&self, ctx: &StepContext<'_>, follow: Option<&Follow>) -> StepSeen {
        // Before the watch has caught up, a pod that ended while the operator was down is not known yet.
        if !ctx.cluster.pods.synced() || follow.is_some_and(Follow::is_open) {
            return StepSeen::Unknown;
        }
        // Looked at as the operator: the account may be gone, and this is bookkeeping.
        let operator = ctx.cluster.tenants.operator().clone();
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(operator, &ctx.run.namespace);
        let name = ctx.attempt_name();
        match pods.get_metadata_opt(&name).await {
            Ok(None) => {
                // The watch may have told its end while the server was asked.
                if let Some(pod) = ctx.cluster.pods.find(&ctx.run.uid, &name) {
                    return pod_state::judge(&pod, ctx.stopping_since.is_some(), Utc::now());
                }
                if follow.is_some_and(Follow::existed) {
                    return StepSeen::Ended(StepEnd::transient("PodDeleted", "somebody deleted the pod"));
                }
                StepSeen::Absent
            }
            Ok(Some(pod)) => {
                if made::is_owned(ctx, &pod) {
                    StepSeen::Unknown
                } else {
                    StepSeen::Ended(StepEnd::failed(
                        "NameTaken",
                        format!("pod {name} is there already and is not this run's: it is left as it is"),
                    ))
                }
            }
            Err(_) => StepSeen::Unknown,
        }
    }

    async fn stop(&self, ctx: &StepContext<'_>) -> Result<(), ApiFailure> {
        let name = ctx.attempt_name();
        let Some(pod) = ctx.cluster.pods.find(&ctx.run.uid, &name) else { return Ok(()) };
        if pod.ended() {
            return Ok(());
        }
        // No kubelet looks at the deadline of a pod without a node, and there is no log to lose.
        let unheeded = ctx
            .stopping_since
            .is_some_and(|since| Utc::now() - since > STOP_BY_DEADLINE + TimeDelta::seconds(pod.grace_seconds));
        if pod.node.is_none() || unheeded {
            return if pod.deleting_at.is_some() && !unheeded {
                Ok(())
            } else {
                delete_pod(ctx.cluster, ctx.run, &name, &pod.uid).await
            };
        }
        if pod.deadline_seconds == Some(1) || pod.deleting_at.is_some() {
            return Ok(());
        }
        let Ok(target) = target(ctx).await else {
            return Err(ApiFailure::definite(Class::Transient, "the kind Pod could not be looked up"));
        };
        // A deadline in the past makes the kubelet end the containers; pod, log and results stay, as they would not with a deletion.
        let patch = json!({"metadata": {"uid": pod.uid}, "spec": {"activeDeadlineSeconds": 1}});
        match target.patch(PatchKind::Merge, None, &patch, WriteMode::Plain).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.class, Class::NotFound | Class::Conflict) => Ok(()),
            Err(failure) if failure.class == Class::Transient => Err(failure),
            Err(failure) => {
                tracing::info!(pod = name, error = %failure, "the pod's deadline could not be set; it is deleted instead");
                delete_pod(ctx.cluster, ctx.run, &name, &pod.uid).await
            }
        }
    }

    fn reference(&self, _ctx: &StepContext<'_>) -> Option<ResourceRef> {
        Some(ResourceRef { api_version: "v1".into(), kind: "Pod".into(), ..ResourceRef::default() })
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        let mut rights = it.rights(&["create", "get", "patch", "delete"]);
        rights.push(it.right("get").on("log"));
        if it.remote {
            rights.extend(it.rights(&["list", "watch"]));
        }
        rights
    }

    async fn dry_run(&self, ctx: &StepContext<'_>) -> Result<(), Untried> {
        trial::create(&target(ctx).await?, &manifest(ctx, self)?).await
    }
}

/// When an attempt's pod will be given up by itself although nothing happens to it, so that the run is looked at then.
pub fn gives_up_at(cluster: &Cluster, run: &RunIdentity, key: &StepKey) -> Option<DateTime<Utc>> {
    let name = crate::engine::names::attempt_name(&run.name, &run.uid, key);
    pod_state::gives_up_at(&*cluster.pods.find(&run.uid, &name)?)
}
