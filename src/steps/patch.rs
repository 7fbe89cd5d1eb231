//! `patch`: changes an object that is there.

use serde_json::Value;

use super::{
    StepKind,
    context::{Begun, StepContext, refused_or_again},
    manifest::coerce_manifest,
    object::{Target, Unresolved, WriteMode, is_path_segment, rendered_reference},
    outputs,
    rights::Use,
    trial::{self, Untried},
};
use crate::{
    api::step::{PatchStep, PatchType, ResourceRef},
    cluster::{access::Right, error::Class},
    engine::seen::StepEnd,
};

/// The patch with its expressions replaced, and what it is for.
pub(super) async fn prepare(ctx: &StepContext<'_>, step: &PatchStep) -> Result<(Target, Value), Unresolved> {
    let mut patch = ctx.render(&step.patch).map_err(Unresolved::Wrong)?;
    coerce_manifest(&step.resource.kind, &mut patch);
    let fits = if step.type_ == PatchType::Json { patch.is_array() } else { patch.is_object() };
    if !fits {
        let wanted = if step.type_ == PatchType::Json { "a list of operations" } else { "an object" };
        return Err(Unresolved::Wrong(StepEnd::failed(
            "Invalid",
            format!("{}.patch.patch: not {wanted}, as its type needs", ctx.leaf.field),
        )));
    }
    if let Some(subresource) = &step.subresource
        && !is_path_segment(subresource)
    {
        return Err(Unresolved::Wrong(StepEnd::failed(
            "Invalid",
            format!("{}.patch.subresource: `{subresource}` is none", ctx.leaf.field),
        )));
    }
    Ok((Target::of_reference(ctx, &step.resource).await?, patch))
}

impl StepKind for PatchStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        let (target, patch) = match prepare(ctx, self).await {
            Ok(prepared) => prepared,
            Err(unresolved) => return unresolved.into_begun().await,
        };
        match target.patch(self.type_.into(), self.subresource.as_deref(), &patch, WriteMode::Plain).await {
            Ok(object) => {
                Begun::ended(outputs::end_with(ctx, "object", &serde_json::to_value(&object).unwrap_or_default()))
            }
            Err(failure) => refused_or_again(&failure).await,
        }
    }

    fn reference(&self, ctx: &StepContext<'_>) -> Option<ResourceRef> {
        rendered_reference(ctx, &self.resource).ok()
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        vec![it.on_it("patch").on(self.subresource.as_deref().unwrap_or_default())]
    }

    async fn dry_run(&self, ctx: &StepContext<'_>) -> Result<(), Untried> {
        let (target, patch) = prepare(ctx, self).await?;
        // Its paths and tests depend on what earlier steps will have made of the object.
        if self.type_ == PatchType::Json {
            return Err(Untried::Later);
        }
        match trial::patch(&target, self.type_.into(), self.subresource.as_deref(), &patch).await {
            // An earlier step may make the object.
            Err(Untried::Refused(failure)) if failure.class == Class::NotFound => Err(Untried::Later),
            tried => tried,
        }
    }
}
