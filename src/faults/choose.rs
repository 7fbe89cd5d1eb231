//! Choosing what is hit.

use kube::{
    Resource,
    api::{DynamicObject, ListParams},
};

use super::{FaultContext, Refusal, probe};
use crate::{
    api::{failureinjection::ObjectRef, names::reason},
    cluster::{
        error::{ApiFailure, Class},
        kinds::group_version_kind,
        object::is_path_segment,
    },
    engine::{
        expr::Scope,
        injection::{self, Share, TargetPlan},
    },
};

/// Most objects that are looked at.
const MAX_CANDIDATES: u32 = 5_000;

/// What was chosen.
pub(super) struct Chosen {
    /// The objects, by name.
    pub(super) objects: Vec<DynamicObject>,
    /// So many fitted.
    pub(super) candidates: usize,
    /// What was looked for, in words.
    pub(super) looked_for: String,
}

/// Chooses among the objects that fit. What is being deleted fits no more.
pub(super) async fn choose(ctx: &FaultContext<'_>, plan: &TargetPlan) -> Result<Chosen, Refusal> {
    let namespace = plan.namespace.as_deref().unwrap_or(&ctx.injection.namespace);
    if !is_path_segment(namespace) {
        return Err(Refusal::never("Invalid", format!("spec.target.namespace: `{namespace}` is none")));
    }
    let kind = match ctx.cluster.kinds.get(&group_version_kind(&plan.api_version, &plan.kind)).await {
        Ok(kind) => kind,
        Err(failure) if failure.class == Class::NotFound => {
            return Err(Refusal::never(reason::NOT_FOUND, format!("spec.target: {}", failure.message)));
        }
        Err(failure) => return Err(failure.into()),
    };
    ctx.may_touch(kind.place(namespace).unwrap_or_default()).await?;
    let api = kind.api(ctx.client()?, namespace);
    let mut objects = match &plan.name {
        Some(name) if !is_path_segment(name) => {
            return Err(Refusal::never("Invalid", format!("spec.target.name: `{name}` is none")));
        }
        Some(name) => api.get_opt(name).await.map_err(ApiFailure::from)?.into_iter().collect(),
        None => {
            let mut parameters = ListParams::default().limit(MAX_CANDIDATES);
            if let Some(labels) = &plan.label_selector {
                parameters = parameters.labels(labels);
            }
            api.list(&parameters).await.map_err(ApiFailure::from)?.items
        }
    };
    objects.retain(|object| object.meta().deletion_timestamp.is_none());
    if let Some(filter) = &plan.filter {
        objects.retain(|object| {
            let scope = Scope::new().with("object", serde_json::to_value(object).unwrap_or_default());
            // An error means that the object lacks what is asked for, so it does not fit.
            filter.evaluate(&scope).unwrap_or(false)
        });
    }
    if let Some(wanted) = &plan.probe {
        objects = probe::answered_well(ctx, wanted, objects).await?;
    }
    let candidates = objects.len();
    let share = if plan.name.is_some() { Share::Count(1) } else { plan.share };
    let count = share.of(candidates);
    let names = objects.iter().filter_map(|object| object.meta().name.clone()).collect();
    let names = injection::choose(ctx.seed, names, count);
    objects.retain(|object| object.meta().name.as_ref().is_some_and(|name| names.contains(name)));
    objects.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
    ctx.settings.guard_rails.check_share(objects.len(), candidates)?;
    let object = ObjectRef {
        kind: plan.kind.clone(),
        namespace: kind.place(namespace).unwrap_or_default().to_owned(),
        name: plan.name.clone().unwrap_or_default(),
        ..ObjectRef::default()
    };
    Ok(Chosen { objects, candidates, looked_for: looked_for(plan, &object) })
}

fn looked_for(plan: &TargetPlan, object: &ObjectRef) -> String {
    let mut text = if plan.name.is_some() {
        format!("there is no {}", object.title())
    } else {
        format!("no {} in namespace {} fits", object.kind, object.namespace)
    };
    for (what, condition) in [
        ("labels", plan.label_selector.clone()),
        ("filter", plan.filter.as_ref().map(|it| it.source().to_owned())),
        ("probe", plan.probe.as_ref().map(|it| it.expect.source().to_owned())),
    ] {
        if let Some(condition) = condition {
            text = format!("{text}; {what}: `{condition}`");
        }
    }
    text
}
