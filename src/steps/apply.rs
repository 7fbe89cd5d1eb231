//! `apply`: an object by server-side apply.

use serde_json::{Value, json};

use super::{
    StepKind,
    context::{Begun, StepContext, refused_or_again, run_labels},
    manifest::{as_object, coerce_manifest, coerce_texts},
    object::{PatchKind, Target, Unresolved, WriteMode},
    outputs,
    rights::{self, Use},
    trial::{self, Untried},
};
use crate::{
    api::{
        names::label,
        step::{ApplyStep, DeleteAfter, ResourceRef},
    },
    cluster::{
        access::Right,
        error::{ApiFailure, Class},
    },
    engine::{StepKey, seen::StepEnd},
};

/// The object that a manifest is about, and the manifest with its expressions replaced.
pub(super) async fn prepare(
    ctx: &StepContext<'_>,
    manifest: &Value,
    name: Option<String>,
) -> Result<(Target, Value), Unresolved> {
    let mut manifest = ctx.render(manifest).map_err(Unresolved::Wrong)?;
    let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
    coerce_manifest(&kind, &mut manifest);
    let text =
        |path: &str| manifest.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let missing = |field: &str| {
        Unresolved::Wrong(StepEnd::failed("Invalid", format!("{}: the manifest has no {field}", ctx.leaf.field)))
    };
    let reference = ResourceRef {
        api_version: text("/apiVersion").ok_or_else(|| missing("apiVersion"))?,
        kind: text("/kind").ok_or_else(|| missing("kind"))?,
        name: text("/metadata/name").or(name).ok_or_else(|| missing("metadata.name"))?,
        namespace: text("/metadata/namespace"),
    };
    let target = Target::find(ctx, &reference).await?;
    let metadata = as_object(&mut manifest["metadata"]);
    metadata.insert("name".into(), json!(target.name));
    if target.kind.namespaced {
        metadata.insert("namespace".into(), json!(target.namespace));
    } else {
        metadata.remove("namespace");
    }
    metadata.remove("managedFields");
    Ok((target, manifest))
}

/// Adds labels and annotations to a manifest.
pub(super) fn mark(
    manifest: &mut Value,
    labels: Vec<(&'static str, String)>,
    annotations: Vec<(&'static str, String)>,
) {
    let metadata = as_object(&mut manifest["metadata"]);
    for (field, marks) in [("labels", labels), ("annotations", annotations)] {
        let map = as_object(metadata.entry(field).or_insert(Value::Null));
        map.extend(marks.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
        coerce_texts(metadata.get_mut(field));
    }
}

async fn apply(ctx: &StepContext<'_>, step: &ApplyStep) -> Result<Begun, Unresolved> {
    let (target, mut manifest) = prepare(ctx, &step.manifest, None).await?;
    let before = target.get().await.map_err(Unresolved::Failed)?;
    let created_by = before
        .as_ref()
        .map(|object| object.metadata.annotations.as_ref().and_then(|annotations| annotations.get(label::CREATED_BY)));
    // What was there before is changed, but stays its owner's: it must not be deleted when the run ends.
    if created_by.is_none_or(|uid| uid == Some(&ctx.run.uid)) {
        mark(&mut manifest, made_in(ctx, step.delete_after), vec![(label::CREATED_BY, ctx.run.uid.clone())]);
    }
    match target.patch(PatchKind::Apply { force: step.force }, None, &manifest, WriteMode::Plain).await {
        Ok(object) => {
            let object = serde_json::to_value(&object).unwrap_or_default();
            Ok(Begun::ended(outputs::end_with(ctx, "object", &object)))
        }
        Err(failure) => Ok(end_of(&target, &failure).await),
    }
}

/// The labels that tell which run made an object, and when. What outlives its cycle is not changed by each cycle, so it does not name one.
fn made_in(ctx: &StepContext<'_>, until: DeleteAfter) -> Vec<(&'static str, String)> {
    let mut labels = run_labels(ctx.run);
    let StepKey { run_attempt, cycle, .. } = ctx.key;
    if until != DeleteAfter::Never {
        labels.push((label::RUN_ATTEMPT, run_attempt.to_string()));
    }
    if matches!(until, DeleteAfter::Phase | DeleteAfter::Cycle) {
        labels.push((label::CYCLE, cycle.to_string()));
    }
    labels
}

/// A conflict of server-side apply does not go away by itself, unlike a conflict of versions.
async fn end_of(target: &Target, failure: &ApiFailure) -> Begun {
    if failure.class == Class::Conflict && failure.message.contains("Apply failed with") {
        let hint = "leave those fields out, or set force to take them over";
        let message = format!("{}: {}; {hint}", target.title(), failure.message);
        return Begun::ended(StepEnd::failed("ApplyConflict", message));
    }
    refused_or_again(failure).await
}

impl StepKind for ApplyStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        match apply(ctx, self).await {
            Ok(begun) => begun,
            Err(unresolved) => unresolved.into_begun().await,
        }
    }

    fn reference(&self, ctx: &StepContext<'_>) -> Option<ResourceRef> {
        rights::made(ctx, self)
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        let mut rights = vec![it.on_it("get"), it.right("create"), it.on_it("patch")];
        if self.delete_after != DeleteAfter::Never {
            rights.push(it.on_it("delete"));
        }
        rights
    }

    async fn dry_run(&self, ctx: &StepContext<'_>) -> Result<(), Untried> {
        let (target, manifest) = prepare(ctx, &self.manifest, None).await?;
        trial::patch(&target, PatchKind::Apply { force: self.force }, None, &manifest).await
    }
}
