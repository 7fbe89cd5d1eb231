//! `jobTemplate`: a Job an attempt, for who needs completions, parallelism or pod failure policies.

use chrono::{DateTime, Utc};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{
    StepKind,
    context::{Begun, Follow, StepContext, refused, run_labels, running},
    made,
    manifest::{as_object, coerce_texts},
    object::{PatchKind, Target, Told, Unresolved, WriteMode, told},
    pod::{environment, seconds},
    pod_manifest::add_env,
    rights::Use,
    trial::{self, Untried},
};
use crate::{
    api::{
        names::label,
        step::{JobStep, ResourceRef},
    },
    cluster::{
        access::Right,
        error::{ApiFailure, Class},
    },
    engine::seen::{StepEnd, StepSeen},
};

/// The manifest of an attempt's Job.
pub(super) fn manifest(ctx: &StepContext<'_>, step: &JobStep) -> Result<Value, StepEnd> {
    let JobStep { target: _, metadata, spec } = step;
    let rendered = ctx.render(&json!({"metadata": metadata, "spec": spec}))?;
    Ok(build(rendered, ctx))
}

fn build(mut job: Value, ctx: &StepContext<'_>) -> Value {
    job["apiVersion"] = json!("batch/v1");
    job["kind"] = json!("Job");
    let metadata = as_object(&mut job["metadata"]);
    metadata.retain(|field, _| matches!(field.as_str(), "labels" | "annotations"));
    metadata.insert("name".into(), json!(ctx.attempt_name()));
    metadata.insert("namespace".into(), json!(ctx.run.namespace));
    if let Some(owner) = ctx.owner_reference() {
        metadata.insert("ownerReferences".into(), json!([owner]));
    }
    for (field, marks) in [("labels", ctx.labels()), ("annotations", ctx.annotations())] {
        let map = as_object(metadata.entry(field).or_insert(Value::Null));
        map.extend(marks.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
        coerce_texts(metadata.get_mut(field));
    }
    let spec = as_object(&mut job["spec"]);
    spec.entry("activeDeadlineSeconds").or_insert(json!(seconds(ctx.leaf.timeout).max(1)));
    let template = as_object(spec.entry("template").or_insert(Value::Null));
    let labels =
        as_object(as_object(template.entry("metadata").or_insert(Value::Null)).entry("labels").or_insert(Value::Null));
    // The Job is their controller, so they are not taken for pods of the run itself.
    labels.extend(run_labels(ctx.run).into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
    let pod = as_object(template.entry("spec").or_insert(Value::Null));
    pod.entry("restartPolicy").or_insert(json!("Never"));
    if let Some(account) = ctx.pod_account() {
        pod.entry("serviceAccountName").or_insert(json!(account));
    }
    let env = environment(ctx);
    for list in ["containers", "initContainers"] {
        for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            add_env(container, &env);
            coerce_texts(container.get_mut("command"));
            coerce_texts(container.get_mut("args"));
        }
    }
    job
}

pub(super) async fn target(ctx: &StepContext<'_>) -> Result<Target, Unresolved> {
    let job =
        ResourceRef { api_version: "batch/v1".into(), kind: "Job".into(), name: ctx.attempt_name(), namespace: None };
    Target::find(ctx, &job).await
}

async fn follow(ctx: &StepContext<'_>) -> Result<(Target, Follow), Begun> {
    match target(ctx).await {
        Ok(target) => match target.lease(ctx) {
            Ok(lease) => Ok((target, Follow { lease: Some(lease), ..Follow::default() })),
            Err(failure) if failure.class == Class::Transient => Err(Begun::seen(StepSeen::Unknown)),
            Err(failure) => Err(Begun::ended(refused(&failure))),
        },
        Err(Unresolved::Wrong(end)) => Err(Begun::ended(end)),
        Err(Unresolved::Failed(_)) => Err(Begun::seen(StepSeen::Unknown)),
    }
}

impl StepKind for JobStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        let manifest = match manifest(ctx, self) {
            Ok(manifest) => manifest,
            Err(end) => return Begun::ended(end),
        };
        let (target, follow) = match follow(ctx).await {
            Ok(found) => found,
            Err(begun) => return begun,
        };
        let ours = |object: &DynamicObject| made::is_owned(ctx, object);
        match made::create_once(&target, &manifest, follow, ours).await {
            Ok((_, follow)) => Begun::following(running("the Job was created"), follow),
            Err(begun) => begun,
        }
    }

    async fn resume(&self, ctx: &StepContext<'_>) -> Begun {
        match follow(ctx).await {
            Ok((_, follow)) => Begun::following(StepSeen::Unknown, follow),
            Err(begun) => begun,
        }
    }

    fn observe(&self, ctx: &StepContext<'_>, follow: &Follow, _now: DateTime<Utc>) -> StepSeen {
        let Some(lease) = &follow.lease else { return StepSeen::Unknown };
        match told(lease) {
            // It may not have reached the watch yet; whether it is gone is asked by confirm_absent.
            Told::Object(Value::Null) => StepSeen::Unknown,
            Told::Object(job) => {
                if !is_ours(ctx, &job) {
                    return StepSeen::Unknown;
                }
                follow.mark_existing();
                judge(&job)
            }
            Told::Seen(seen) => seen,
        }
    }

    async fn confirm_absent(&self, ctx: &StepContext<'_>, follow: Option<&Follow>) -> StepSeen {
        match target(ctx).await {
            Ok(target) => made::confirm(ctx, &target, follow, |object| made::is_owned(ctx, object)).await,
            Err(Unresolved::Wrong(end)) => StepSeen::Ended(end),
            Err(Unresolved::Failed(_)) => StepSeen::Unknown,
        }
    }

    async fn stop(&self, ctx: &StepContext<'_>) -> Result<(), ApiFailure> {
        let target = match target(ctx).await {
            Ok(target) => target,
            Err(Unresolved::Failed(failure)) => return Err(failure),
            Err(Unresolved::Wrong(_)) => return Ok(()),
        };
        // The Job controller ends its pods and marks the Job as failed; the Job itself stays to be looked at.
        match target
            .patch(PatchKind::Merge, None, &json!({"spec": {"activeDeadlineSeconds": 1}}), WriteMode::Plain)
            .await
        {
            Err(failure) if !matches!(failure.class, Class::NotFound | Class::Conflict) => Err(failure),
            _ => Ok(()),
        }
    }

    fn reference(&self, _ctx: &StepContext<'_>) -> Option<ResourceRef> {
        Some(ResourceRef { api_version: "batch/v1".into(), kind: "Job".into(), ..ResourceRef::default() })
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        it.rights(&["create", "get", "patch", "delete", "list", "watch"])
    }

    async fn dry_run(&self, ctx: &StepContext<'_>) -> Result<(), Untried> {
        trial::create(&target(ctx).await?, &manifest(ctx, self)?).await
    }
}

/// Whether the run made a Job; on another cluster its marks tell, here its owner does.
fn is_ours(ctx: &StepContext<'_>, job: &Value) -> bool {
    let metadata = &job["metadata"];
    if ctx.cluster.remote {
        return metadata["annotations"][label::CREATED_BY] == *ctx.run.uid;
    }
    let owners = metadata["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *ctx.run.uid))
}

fn judge(job: &Value) -> StepSeen {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    let status = &job["status"];
    let running_at = time(&status["startTime"]);
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let holds =
        |type_: &str| conditions.iter().find(|condition| condition["type"] == *type_ && condition["status"] == "True");
    if let Some(complete) = holds("Complete") {
        let finished_at = time(&status["completionTime"]).or_else(|| time(&complete["lastTransitionTime"]));
        return StepSeen::Ended(StepEnd { running_at, finished_at, ..StepEnd::succeeded() });
    }
    if let Some(failed) = holds("Failed") {
        let reason = failed["reason"].as_str().unwrap_or("JobFailed");
        let message = failed["message"].as_str().unwrap_or_default();
        let end = StepEnd::failed(if reason == "DeadlineExceeded" { "Timeout" } else { reason }, message);
        return StepSeen::Ended(StepEnd { running_at, finished_at: time(&failed["lastTransitionTime"]), ..end });
    }
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    StepSeen::Running {
        since: running_at,
        message: format!("{} active, {} succeeded, {} failed", count("active"), count("succeeded"), count("failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_judged_by_its_final_conditions() {
        let job = |conditions: Value| json!({"status": {"startTime": "2026-01-01T00:00:00Z", "active": 1, "conditions": conditions}});
        assert!(
            matches!(judge(&job(json!([]))), StepSeen::Running { message, .. } if message == "1 active, 0 succeeded, 0 failed")
        );
        // A criterion that is met comes before the pods have ended.
        assert!(matches!(
            judge(&job(json!([{"type": "SuccessCriteriaMet", "status": "True"}]))),
            StepSeen::Running { .. }
        ));
        let StepSeen::Ended(end) =
            judge(&job(json!([{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z"}])))
        else {
            unreachable!()
        };
        assert!(end.failure.is_none() && end.finished_at.is_some());
        let StepSeen::Ended(end) = judge(&job(
            json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]),
        )) else {
            unreachable!()
        };
        assert_eq!(end.failure.unwrap().reason, "BackoffLimitExceeded");
    }
}
