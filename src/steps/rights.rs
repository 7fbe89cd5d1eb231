//! Which rights a step needs: asked for before the first cycle, so that a run does not die of one at hour 37.

use serde_json::json;

use super::{
    context::StepContext,
    object::{is_path_segment, rendered_reference},
};
use crate::{
    api::step::{DeleteAfter, ResourceRef},
    cluster::{
        access::Right,
        error::ApiFailure,
        kinds::{Kind, group_version_kind},
    },
    engine::plan::Action,
};

/// What a step does to the objects of a kind.
struct Use {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Use {
    fn right(&self, verb: &str) -> Right {
        Right::new(verb, &self.kind.resource.group, &self.kind.resource.plural, self.kind.place(&self.namespace))
    }

    /// A right on the one object, which a role may grant by its name. Creating and listing can't be granted so.
    fn on_it(&self, verb: &str) -> Right {
        self.right(verb).named(&self.name)
    }
}

/// What is known of the object that a step is about.
pub(super) enum Reference {
    /// This object.
    Known(ResourceRef),
    /// It depends on what earlier steps hand on, or it has no object.
    Unknown,
}

/// The object that a step refers to, as far as it can be told before the run.
pub(super) fn reference(ctx: &StepContext<'_>) -> Reference {
    let of_manifest = |manifest: &serde_json::Value| {
        let head = json!({"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "name": manifest["metadata"]["name"], "namespace": manifest["metadata"]["namespace"]});
        let head = ctx.render(&head).ok()?;
        let text = |field: &str| head[field].as_str().map(str::to_owned);
        Some(ResourceRef {
            api_version: text("apiVersion")?,
            kind: text("kind")?,
            name: text("name").unwrap_or_default(),
            namespace: text("namespace"),
        })
    };
    let found = match &ctx.leaf.action {
        Action::Pod(_) => Some(ResourceRef { api_version: "v1".into(), kind: "Pod".into(), ..ResourceRef::default() }),
        Action::Job(_) => {
            Some(ResourceRef { api_version: "batch/v1".into(), kind: "Job".into(), ..ResourceRef::default() })
        }
        Action::Wait(step) => rendered_reference(ctx, &step.resource).ok(),
        Action::Patch(step) => rendered_reference(ctx, &step.resource).ok(),
        Action::Scale(step) => rendered_reference(ctx, &step.resource).ok(),
        Action::Delete(step) => rendered_reference(ctx, &step.resource).ok(),
        Action::Apply(step) => of_manifest(&step.manifest),
        Action::Resource(step) => of_manifest(&step.manifest),
        Action::Http(_) | Action::Sleep(_) => None,
    };
    found
        .filter(|it| {
            it.namespace.as_deref().is_none_or(is_path_segment) && (it.name.is_empty() || is_path_segment(&it.name))
        })
        .map_or(Reference::Unknown, Reference::Known)
}

/// The rights that a step needs on the object it refers to.
///
/// Errors: the server does not serve the kind.
pub(super) async fn needed(ctx: &StepContext<'_>, reference: &ResourceRef) -> Result<Vec<Right>, ApiFailure> {
    let ResourceRef { api_version, kind, name, namespace } = reference;
    let kind = ctx.cluster.kinds.get(&group_version_kind(api_version, kind)).await?;
    let namespace =
        namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| ctx.run.namespace.clone());
    let it = Use { kind, namespace, name: name.clone() };
    let watch = |wanted: bool| if wanted { vec![it.right("list"), it.right("watch")] } else { Vec::new() };
    let mut rights = match &ctx.leaf.action {
        Action::Pod(_) => {
            vec![it.right("create"), it.right("get"), it.right("patch"), it.right("delete"), it.right("get").on("log")]
        }
        Action::Job(_) => vec![it.right("create"), it.right("get"), it.right("patch"), it.right("delete")],
        Action::Apply(step) => {
            let mut rights = vec![it.on_it("get"), it.right("create"), it.on_it("patch")];
            if step.delete_after != DeleteAfter::Never {
                rights.push(it.on_it("delete"));
            }
            rights
        }
        Action::Patch(step) => vec![it.on_it("patch").on(step.subresource.as_deref().unwrap_or_default())],
        Action::Scale(_) => vec![it.on_it("patch").on("scale")],
        Action::Delete(_) => vec![it.on_it("get"), it.on_it("delete")],
        Action::Resource(_) => vec![it.right("create"), it.right("get"), it.right("delete")],
        Action::Wait(_) | Action::Http(_) | Action::Sleep(_) => Vec::new(),
    };
    rights.extend(watch(match &ctx.leaf.action {
        Action::Wait(_) | Action::Job(_) | Action::Resource(_) => true,
        Action::Scale(step) => step.wait,
        Action::Delete(step) => step.wait,
        _ => false,
    }));
    Ok(rights)
}
