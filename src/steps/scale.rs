//! `scale`: sets the replicas of anything with a scale subresource.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    StepKind,
    context::{Begun, Follow, StepContext, refused_or_again, running},
    object::{PatchKind, Target, Told, WriteMode, rendered_reference, told},
    outputs,
    rights::Use,
};
use crate::{
    api::step::{ResourceRef, ScaleStep},
    cluster::access::Right,
    engine::seen::{StepEnd, StepSeen},
};

/// The replicas that are wanted, as a number or as a text that is one.
fn wanted(ctx: &StepContext<'_>, step: &ScaleStep) -> Result<i64, StepEnd> {
    let value = ctx.render(&step.replicas)?;
    let number = match &value {
        Value::Number(number) => number.as_i64().or_else(|| {
            number.as_f64().filter(|number| number.fract() == 0.0).and_then(|number| format!("{number}").parse().ok())
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| (0..=i64::from(i32::MAX)).contains(number)).ok_or_else(|| {
        StepEnd::failed("Invalid", format!("{}.scale.replicas: {value} is not a number of replicas", ctx.leaf.field))
    })
}

impl StepKind for ScaleStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        let replicas = match wanted(ctx, self) {
            Ok(replicas) => replicas,
            Err(end) => return Begun::ended(end),
        };
        let target = match Target::of_reference(ctx, &self.resource).await {
            Ok(target) => target,
            Err(unresolved) => return unresolved.into_begun().await,
        };
        if !target.kind.subresources.iter().any(|subresource| subresource.ends_with("scale")) {
            return Begun::ended(StepEnd::failed(
                "Invalid",
                format!("{}: {} has no scale subresource", ctx.leaf.field, target.kind.plural_and_group()),
            ));
        }
        // Watched before it is scaled, so that the account's missing right is told before anything is changed.
        let lease = match self.wait.then(|| target.lease(ctx)).transpose() {
            Ok(lease) => lease,
            Err(failure) => return refused_or_again(&failure).await,
        };
        match target
            .patch(PatchKind::Merge, Some("scale"), &json!({"spec": {"replicas": replicas}}), WriteMode::Plain)
            .await
        {
            Ok(_) if self.wait => Begun::following(
                running(format!("waits for {replicas} replicas")),
                Follow { lease, replicas: Some(replicas), ..Follow::default() },
            ),
            Ok(scale) => {
                Begun::ended(outputs::end_with(ctx, "object", &serde_json::to_value(&scale).unwrap_or_default()))
            }
            Err(failure) => refused_or_again(&failure).await,
        }
    }

    fn observe(&self, ctx: &StepContext<'_>, follow: &Follow, _now: DateTime<Utc>) -> StepSeen {
        let (Some(lease), Some(replicas)) = (&follow.lease, follow.replicas) else { return StepSeen::Unknown };
        match told(lease) {
            Told::Object(Value::Null) => {
                StepSeen::Ended(StepEnd::transient("Deleted", "somebody deleted the object that was scaled"))
            }
            Told::Object(object) => match missing(&object, replicas) {
                None => StepSeen::Ended(outputs::end_with(ctx, "object", &object)),
                Some(message) => running(message),
            },
            Told::Seen(seen) => seen,
        }
    }

    fn reference(&self, ctx: &StepContext<'_>) -> Option<ResourceRef> {
        rendered_reference(ctx, &self.resource).ok()
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        let mut rights = vec![it.on_it("patch").on("scale")];
        if self.wait {
            rights.extend(it.rights(&["list", "watch"]));
        }
        rights
    }
}

/// What is missing until an object has so many replicas, all ready if its kind counts ready ones.
fn missing(object: &Value, replicas: i64) -> Option<String> {
    let status = &object["status"];
    if let Some(asked) = object["spec"]["replicas"].as_i64()
        && asked != replicas
    {
        return Some(format!(
            "spec.replicas is {asked}: the change has not been seen yet, or somebody else scales as well"
        ));
    }
    if let (Some(seen), Some(generation)) =
        (status["observedGeneration"].as_i64(), object["metadata"]["generation"].as_i64())
        && seen < generation
    {
        return Some("its controller has not seen the change yet".into());
    }
    let present = status["replicas"].as_i64().unwrap_or(0);
    // Built-in kinds leave a count of zero out; other kinds may not count ready replicas at all.
    let counts_ready =
        matches!(object["apiVersion"].as_str(), Some("apps/v1" | "v1")) || status.get("readyReplicas").is_some();
    let ready = if counts_ready { status["readyReplicas"].as_i64().unwrap_or(0) } else { present };
    (present != replicas || ready != replicas).then(|| format!("{ready} ready of {present}, {replicas} wanted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_replicas_are_there_and_ready_for_the_generation_that_was_asked_for() {
        let deployment = |asked: i64, observed: i64, present: i64, ready: i64| {
            json!({
                "apiVersion": "apps/v1", "metadata": {"generation": 2}, "spec": {"replicas": asked},
                "status": {"observedGeneration": observed, "replicas": present, "readyReplicas": ready},
            })
        };
        assert_eq!(missing(&deployment(3, 2, 3, 3), 3), None);
        assert!(missing(&deployment(3, 2, 3, 2), 3).unwrap().contains("2 ready of 3"));
        assert!(missing(&deployment(1, 2, 1, 1), 3).unwrap().contains("spec.replicas is 1"));
        assert!(missing(&deployment(3, 1, 3, 3), 3).unwrap().contains("not seen"));
        let none = json!({"apiVersion": "apps/v1", "metadata": {"generation": 2}, "spec": {"replicas": 0}, "status": {"observedGeneration": 2}});
        assert_eq!(missing(&none, 0), None);
        let custom = json!({"apiVersion": "example.com/v1", "status": {"replicas": 2}});
        assert_eq!(missing(&custom, 2), None);
    }
}
