//! Which rights a step needs: asked for before the first cycle, so that a run does not die of one at hour 37.

use super::{StepKind, context::StepContext, object::is_path_segment};
use crate::{
    api::step::{ResourceRef, StepSpec, each_kind},
    cluster::{
        access::Right,
        error::ApiFailure,
        kinds::{Kind, group_version_kind},
    },
};

/// What a step does to the objects of a kind.
pub(super) struct Use {
    kind: Kind,
    namespace: String,
    name: String,
    /// On another cluster the kubeconfig's user watches pods too; here the operator does.
    pub(super) remote: bool,
}

impl Use {
    /// A right on the kind's objects in the namespace.
    pub(super) fn right(&self, verb: &str) -> Right {
        Right::new(verb, &self.kind.resource.group, &self.kind.resource.plural, self.kind.place(&self.namespace))
    }

    /// Rights on the kind's objects in the namespace.
    pub(super) fn rights(&self, verbs: &[&str]) -> Vec<Right> {
        verbs.iter().map(|verb| self.right(verb)).collect()
    }

    /// A right on the one object, which a role may grant by its name. Creating and listing can't be granted so.
    pub(super) fn on_it(&self, verb: &str) -> Right {
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
    each_kind!(&ctx.leaf.action, step => step.reference(ctx))
        .filter(|it| {
            it.namespace.as_deref().is_none_or(is_path_segment) && (it.name.is_empty() || is_path_segment(&it.name))
        })
        .map_or(Reference::Unknown, Reference::Known)
}

/// The object that a step makes, for its [`StepKind::reference`].
pub(super) fn made(ctx: &StepContext<'_>, step: &impl StepSpec) -> Option<ResourceRef> {
    let head = ctx.render(&step.made()?.head).ok()?;
    let text = |field: &str| head[field].as_str().map(str::to_owned);
    Some(ResourceRef {
        api_version: text("apiVersion")?,
        kind: text("kind")?,
        name: text("name").unwrap_or_default(),
        namespace: text("namespace"),
    })
}

/// The rights that a step needs on the object it refers to.
///
/// Errors: the server does not serve the kind.
pub(super) async fn needed(ctx: &StepContext<'_>, reference: &ResourceRef) -> Result<Vec<Right>, ApiFailure> {
    let ResourceRef { api_version, kind, name, namespace } = reference;
    let kind = ctx.cluster.kinds.get(&group_version_kind(api_version, kind)).await?;
    let namespace =
        namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| ctx.run.namespace.clone());
    let it = Use { kind, namespace, name: name.clone(), remote: ctx.cluster.remote };
    Ok(each_kind!(&ctx.leaf.action, step => step.rights(&it)))
}
