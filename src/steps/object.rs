//! Objects that steps name: finding their kind, calling the server about them, judging them by conditions.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    context::{Begun, StepContext, refused_or_again, running},
    outputs,
    rights::{Reference, reference},
};
use crate::{
    api::step::ResourceRef,
    cluster::{
        error::ApiFailure,
        kinds::group_version_kind,
        watches::{Lease, Lookup},
    },
    engine::seen::{StepEnd, StepSeen},
};

pub(super) use crate::cluster::object::{PatchKind, Target, WriteMode, is_path_segment};

/// What could not be found out about a target.
pub(super) enum Unresolved {
    /// It can't work as it is written.
    Wrong(StepEnd),
    /// The server does not serve the kind, or did not answer.
    Failed(ApiFailure),
}

impl Unresolved {
    /// As the answer to an attempt that has made nothing yet. A kind that is missing may come: its CRD may be on the way.
    pub(super) async fn into_begun(self) -> Begun {
        match self {
            Self::Wrong(end) => Begun::ended(end),
            Self::Failed(failure) if failure.is_not_found() => {
                Begun::ended(StepEnd::transient(failure.class.reason(), failure.message))
            }
            Self::Failed(failure) => refused_or_again(&failure).await,
        }
    }
}

impl Target {
    /// The target of a step that refers to an object.
    pub(super) async fn of_reference(ctx: &StepContext<'_>, resource: &ResourceRef) -> Result<Self, Unresolved> {
        let rendered = rendered_reference(ctx, resource).map_err(Unresolved::Wrong)?;
        Self::find(ctx, &rendered).await
    }

    pub(super) async fn find(ctx: &StepContext<'_>, resource: &ResourceRef) -> Result<Self, Unresolved> {
        let ResourceRef { api_version, kind, name, namespace } = resource;
        let namespace = namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(&ctx.run.namespace);
        for (what, text) in [("name", name.as_str()), ("namespace", namespace)] {
            if !is_path_segment(text) {
                return Err(Unresolved::Wrong(StepEnd::failed(
                    "Invalid",
                    format!("{}: `{text}` is not the {what} of an object", ctx.leaf.field),
                )));
            }
        }
        let kind = ctx.cluster.kinds.get(&group_version_kind(api_version, kind)).await.map_err(Unresolved::Failed)?;
        let client = ctx.client().map_err(Unresolved::Failed)?;
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.clone(), client })
    }

    /// Watches it for the run.
    pub(super) fn lease(&self, ctx: &StepContext<'_>) -> Result<Lease, ApiFailure> {
        ctx.cluster.watches.lease(&ctx.run.account(), &self.kind, &self.namespace, &self.name, ctx.run.run_ref())
    }
}

/// A reference with its expressions replaced by their values, numbers as texts.
pub(super) fn rendered_reference(ctx: &StepContext<'_>, resource: &ResourceRef) -> Result<ResourceRef, StepEnd> {
    let text = |text: &str| match ctx.render(&Value::String(text.to_owned()))? {
        Value::String(text) => Ok(text),
        value @ (Value::Number(_) | Value::Bool(_)) => Ok(value.to_string()),
        _ => Err(StepEnd::failed("InvalidExpression", format!("{}: `{text}` does not give a text", ctx.leaf.field))),
    };
    Ok(ResourceRef {
        api_version: text(&resource.api_version)?,
        kind: text(&resource.kind)?,
        name: text(&resource.name)?,
        namespace: resource.namespace.as_deref().map(text).transpose()?,
    })
}

/// What a watch tells about an object that is judged by the step's conditions.
pub(super) enum Told {
    /// The object, or null while there is none.
    Object(Value),
    /// Nothing that could be judged.
    Seen(StepSeen),
}

/// Reads a lease: an object to be judged, or what keeps it from being seen.
pub(super) fn told(lease: &Lease) -> Told {
    match lease.lookup() {
        Lookup::Syncing => Told::Seen(StepSeen::Unknown),
        Lookup::Absent => Told::Object(Value::Null),
        Lookup::Present(object) => Told::Object(serde_json::to_value(&*object).unwrap_or_default()),
        Lookup::Failed { message, transient: true, .. } => Told::Seen(running(message)),
        Lookup::Failed { reason, message, transient: false } => {
            Told::Seen(StepSeen::Ended(StepEnd::failed(reason, message)))
        }
    }
}

/// Judges an object by the step's conditions.
pub(super) fn judge(ctx: &StepContext<'_>, object: &Value, since: Option<DateTime<Utc>>) -> StepSeen {
    let mut scope = ctx.scope.clone();
    scope.set("object", object.clone());
    if let Some(failure) = &ctx.leaf.failure
        && failure.evaluate(&scope).is_ok_and(|holds| holds)
    {
        return StepSeen::Ended(StepEnd::failed(
            "ConditionFailed",
            format!("`{}` holds{}", failure.source(), hint(object)),
        ));
    }
    let Some(success) = &ctx.leaf.success else { return StepSeen::Running { since, message: String::new() } };
    match success.evaluate(&scope) {
        Ok(true) => StepSeen::Ended(outputs::end_with(ctx, "object", object)),
        Ok(false) if object.is_null() => StepSeen::Running {
            since,
            message: format!("there is no {}; `{}` is not true yet", subject(ctx), success.source()),
        },
        Ok(false) => {
            StepSeen::Running { since, message: format!("`{}` is not true yet{}", success.source(), hint(object)) }
        }
        Err(_) if object.is_null() => StepSeen::Running { since, message: format!("there is no {} yet", subject(ctx)) },
        Err(error) => StepSeen::Running { since, message: error.to_string() },
    }
}

/// How the object that a step is about is called in its messages.
fn subject(ctx: &StepContext<'_>) -> String {
    match reference(ctx) {
        Reference::Known(it) if it.name.is_empty() => it.kind,
        Reference::Known(it) => format!("{} {}", it.kind, it.name),
        Reference::Unknown => "such object".into(),
    }
}

/// What the object says of itself, where it follows the usual forms.
fn hint(object: &Value) -> String {
    let status = &object["status"];
    if let Some(phase) = status["phase"].as_str() {
        return format!("; status.phase is {phase}");
    }
    let condition = status["conditions"].as_array().and_then(|all| {
        ["Failed", "Ready", "Available", "Succeeded", "Complete"]
            .iter()
            .find_map(|type_| all.iter().find(|condition| condition["type"] == *type_))
    });
    condition.map_or_else(String::new, |condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let message = text("message");
        format!("; {} is {}{}{message}", text("type"), text("status"), if message.is_empty() { "" } else { ": " })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_explains_itself_by_phase_or_condition() {
        assert_eq!(hint(&serde_json::json!({"status": {"phase": "Enabled"}})), "; status.phase is Enabled");
        let object = serde_json::json!({"status": {"conditions": [{"type": "Ready", "status": "False", "message": "no leader"}]}});
        assert_eq!(hint(&object), "; Ready is False: no leader");
        assert_eq!(hint(&serde_json::json!({})), "");
    }
}
