//! An object that a fault makes: what another controller turns into a fault, a policy, a pod.

use kube::{Resource, api::DynamicObject};
use serde_json::{Value, json};

use super::{FaultContext, FaultKind, Refusal, injected, network_policy, not_injected, not_reverted};
use crate::{
    api::{
        failureinjection::{JournalEntry, MadeObject, ObjectRef, Undo},
        fault::ResourceFault,
        names::{GROUP, VERSION, label, reason},
    },
    cluster::{error::Class, kinds::uid, object::WriteMode},
    engine::{
        expr::{Condition, Scope},
        injection::EntrySeen,
    },
};

/// The entry of an object that is made. Without a name it gets one that is this injection's alone, without a namespace it is made in
/// the injection's. It is tried on the server.
pub(super) async fn entry(
    ctx: &FaultContext<'_>,
    mut manifest: Value,
    index: usize,
    hit: Option<ObjectRef>,
) -> Result<JournalEntry, Refusal> {
    let text = |manifest: &Value, pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let name = text(&manifest, "/metadata/name").unwrap_or_else(|| made_name(ctx, index));
    let namespace = text(&manifest, "/metadata/namespace").unwrap_or_else(|| ctx.injection.namespace.clone());
    let mut object = ObjectRef {
        api_version: text(&manifest, "/apiVersion").unwrap_or_default(),
        kind: text(&manifest, "/kind").unwrap_or_default(),
        namespace,
        name,
        uid: String::new(),
    };
    let target = ctx.target(&object).await?;
    if !target.kind.namespaced {
        object.namespace.clear();
    }
    ctx.may_touch(&object.namespace).await?;
    let metadata = manifest["metadata"].take();
    let mut metadata = if metadata.is_object() { metadata } else { json!({}) };
    metadata["name"] = json!(object.name);
    if target.kind.namespaced {
        metadata["namespace"] = json!(object.namespace);
    }
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][label::INJECTION_UID] = json!(ctx.injection.uid);
    metadata["labels"][label::MANAGED_BY] = json!(crate::api::names::OPERATOR_FIELD_MANAGER);
    if object.namespace == ctx.injection.namespace && !ctx.cluster.remote {
        // The garbage collector is the second net.
        metadata["ownerReferences"] = json!([{
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "FailureInjection",
            "name": ctx.injection.name, "uid": ctx.injection.uid,
        }]);
    }
    manifest["metadata"] = metadata;
    match target.create(&manifest, WriteMode::DryRun).await {
        Ok(_) => {}
        Err(failure) if failure.class == Class::AlreadyExists => {
            return Err(Refusal::never("NameTaken", format!("{} is there already", target.title())));
        }
        Err(failure) => return Err(failure.into()),
    }
    Ok(JournalEntry {
        target: hit.unwrap_or_else(|| object.clone()),
        undo: Undo::Made(MadeObject { object, manifest }),
        ..JournalEntry::default()
    })
}

/// A name that no other injection gives.
pub(super) fn made_name(ctx: &FaultContext<'_>, index: usize) -> String {
    let uid: String = ctx.injection.uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("soak-{uid}-{index}")
}

pub(super) fn is_ours(ctx: &FaultContext<'_>, object: &DynamicObject) -> bool {
    object.meta().labels.as_ref().and_then(|labels| labels.get(label::INJECTION_UID)) == Some(&ctx.injection.uid)
}

pub(super) async fn inject(ctx: &FaultContext<'_>, made: &MadeObject) -> EntrySeen {
    let target = match ctx.target(&made.object).await {
        Ok(target) => target,
        Err(failure) => return not_injected(&failure),
    };
    let object = match target.get().await {
        Ok(Some(object)) if is_ours(ctx, &object) => object,
        Ok(Some(_)) => {
            let message = format!("{} is there already and is not this injection's", target.title());
            return EntrySeen::NeverBegan { reason: "NameTaken".into(), message };
        }
        Ok(None) if ctx.is_stale() => {
            return EntrySeen::Failing { message: "the decision is too old to act on".into() };
        }
        Ok(None) => match target.create(&made.manifest, WriteMode::Brief).await {
            Ok(object) => object,
            Err(failure) if failure.class == Class::AlreadyExists => {
                return EntrySeen::Failing { message: failure.message };
            }
            Err(failure) => return not_injected(&failure),
        },
        Err(failure) => return not_injected(&failure),
    };
    let (there, never) = ctx.plan.map_or((None, None), |plan| (plan.injected_when.as_ref(), plan.failed_when.as_ref()));
    let scope = Scope::new().with("object", serde_json::to_value(&object).unwrap_or_default());
    let holds = |condition: &Condition| condition.evaluate(&scope).unwrap_or(false);
    if let Some(never) = never.filter(|never| holds(never)) {
        let message = format!("`{}` holds for {}", never.source(), target.title());
        return EntrySeen::Broken { reason: "ConditionFailed".into(), message };
    }
    match there {
        Some(there) if !holds(there) => {
            EntrySeen::Failing { message: format!("`{}` is not true yet for {}", there.source(), target.title()) }
        }
        Some(_) => injected(String::new()),
        None => is_there(&target.title(), &object),
    }
}

/// Whether an object has its effect, where that shows: a pod runs. What a policy's note says is handed on.
fn is_there(title: &str, object: &DynamicObject) -> EntrySeen {
    let note = object.meta().annotations.as_ref().and_then(|all| all.get(network_policy::NOTE));
    let is_pod = object.types.as_ref().is_some_and(|types| types.api_version == "v1" && types.kind == "Pod");
    match object.data["status"]["phase"].as_str() {
        Some("Running") | None => injected(note.cloned().unwrap_or_default()),
        _ if !is_pod => injected(note.cloned().unwrap_or_default()),
        Some(phase @ ("Failed" | "Succeeded")) => EntrySeen::Broken {
            reason: reason::INFRA_ERROR.into(),
            message: format!("{title} has ended already: {phase}"),
        },
        Some(_) => {
            let waiting = &object.data["status"]["containerStatuses"][0]["state"]["waiting"];
            let why = waiting["message"].as_str().or(waiting["reason"].as_str()).unwrap_or_default();
            EntrySeen::Failing { message: format!("{title} does not run yet {why}").trim_end().to_owned() }
        }
    }
}

pub(super) async fn revert(ctx: &FaultContext<'_>, made: &MadeObject) -> EntrySeen {
    let target = match ctx.target(&made.object).await {
        Ok(target) => target,
        Err(failure) if failure.class == Class::NotFound => {
            return EntrySeen::Gone { message: format!("{}: its kind is not served any more", made.object.title()) };
        }
        Err(failure) => return not_reverted(ctx, &made.object, &failure).await,
    };
    match target.get().await {
        Ok(Some(object)) if !is_ours(ctx, &object) => {
            EntrySeen::Superseded { message: format!("{} is somebody else's", target.title()) }
        }
        Ok(Some(object)) => {
            let meta = object.meta();
            if meta.deletion_timestamp.is_none()
                && let Err(failure) = target.delete_exactly(uid(&object), None).await
            {
                return not_reverted(ctx, &made.object, &failure).await;
            }
            if crate::switches::without("read-back") {
                return EntrySeen::Reverted { message: String::new() };
            }
            let holders = meta.finalizers.clone().unwrap_or_default().join(", ");
            let held = if holders.is_empty() { String::new() } else { format!(", held by {holders}") };
            EntrySeen::Failing { message: format!("{} is being deleted{held}", target.title()) }
        }
        Ok(None) if ctx.is_open() => {
            EntrySeen::Failing { message: "a call that would create it may still be under way".into() }
        }
        Ok(None) => EntrySeen::Reverted { message: String::new() },
        Err(failure) => not_reverted(ctx, &made.object, &failure).await,
    }
}

impl FaultKind for ResourceFault {
    async fn entries(&self, ctx: &FaultContext<'_>, _targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        if !self.manifest.is_object() {
            return Err(Refusal::never(reason::INVALID_SPEC, "spec.resource.manifest: not an object"));
        }
        Ok(vec![entry(ctx, self.manifest.clone(), 0, None).await?])
    }
}
