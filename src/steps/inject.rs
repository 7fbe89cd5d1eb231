//! `inject`: a failure injection, made and followed as the tenant.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    StepKind,
    context::{Begun, Follow, StepContext, running},
    object::{PatchKind, Unresolved, WriteMode},
    outputs, resource,
    rights::{self, Use},
    trial::{self, Untried},
};
use crate::{
    api::{
        FailureInjectionSpec, FailureInjectionStatus,
        failureinjection::InjectionPhase,
        names::reason,
        status::OutputValue,
        step::{DeleteAfter, InjectStep, ResourceRef, ResourceStep},
    },
    cluster::{access::Right, error::ApiFailure},
    engine::{
        injection::InjectionPlan,
        seen::{StepEnd, StepSeen},
    },
};

/// The step as one that makes an object of any kind.
fn as_resource(step: &InjectStep, ctx: &StepContext<'_>) -> ResourceStep {
    let mut manifest = step.manifest();
    let spec = &mut manifest["spec"];
    if spec.get("serviceAccountName").is_none() {
        spec["serviceAccountName"] = json!(ctx.run.service_account);
    }
    if let Some(secret) = ctx.kubeconfig {
        spec["kubeconfigSecretRef"] = json!(secret);
    }
    if spec.get("seed").is_none() {
        // Each attempt has its own chance, which the run's seed decides.
        let key = ctx.key;
        let seed = ctx.scope.get("run").map(|run| run["seed"].clone()).unwrap_or_default();
        spec["seed"] = json!(format!("{seed}/{}/{}/{}/{}", key.cycle, key.phase, key.step, key.attempt));
    }
    ResourceStep {
        manifest,
        success_condition: String::new(),
        failure_condition: None,
        target: None,
        delete_after: DeleteAfter::Cycle,
    }
}

/// What the injection's status tells about the step.
fn judge(ctx: &StepContext<'_>, object: &Value) -> StepSeen {
    let status: FailureInjectionStatus = serde_json::from_value(object["status"].clone()).unwrap_or_default();
    let said = if status.message.is_empty() {
        status.reason.clone()
    } else {
        format!("{}: {}", status.reason, status.message)
    };
    if !status.phase.is_final() {
        let phase = status.phase.as_str();
        return running(if said.is_empty() { phase.to_owned() } else { format!("{phase}; {said}") });
    }
    let mut end = match status.phase {
        InjectionPhase::Failed => {
            // Whose fault it is that the system did not recover is another question than why nothing was injected.
            let reason = if status.reason == reason::NOT_RECOVERED { reason::NOT_RECOVERED } else { "InjectionFailed" };
            StepEnd::failed(reason, said)
        }
        _ => outputs::end_with(ctx, "object", object),
    };
    end.outputs.extend(told(&status));
    end.running_at = status.injected_at;
    StepSeen::Ended(end)
}

/// What every injection hands on.
fn told(status: &FailureInjectionStatus) -> Vec<(String, OutputValue)> {
    let time = |at: Option<DateTime<Utc>>| at.map(|at| OutputValue::Text(at.to_rfc3339()));
    let active = status.injected_at.zip(status.reverted_at).map(|(from, to)| (to - from).as_seconds_f64().max(0.0));
    let text = |text: &str| (!text.is_empty()).then(|| OutputValue::Text(text.to_owned()));
    [
        ("fault", text(&status.fault)),
        ("targets", text(&status.target)),
        ("injectedAt", time(status.injected_at)),
        ("activeSeconds", active.map(OutputValue::Number)),
        ("timeToRecoverSeconds", status.time_to_recover_seconds.map(OutputValue::Number)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

impl StepKind for InjectStep {
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        as_resource(self, ctx).begin(ctx).await
    }

    async fn resume(&self, ctx: &StepContext<'_>) -> Begun {
        as_resource(self, ctx).resume(ctx).await
    }

    fn observe(&self, ctx: &StepContext<'_>, follow: &Follow, _now: DateTime<Utc>) -> StepSeen {
        match resource::seen(ctx, follow) {
            Ok(object) => judge(ctx, &object),
            Err(seen) => seen,
        }
    }

    async fn confirm_absent(&self, ctx: &StepContext<'_>, follow: Option<&Follow>) -> StepSeen {
        as_resource(self, ctx).confirm_absent(ctx, follow).await
    }

    /// The fault is undone; the injection tells when that is done.
    async fn stop(&self, ctx: &StepContext<'_>) -> Result<(), ApiFailure> {
        let target = match resource::manifest(ctx, &as_resource(self, ctx)).await {
            Ok((target, _)) => target,
            Err(Unresolved::Failed(failure)) => return Err(failure),
            Err(Unresolved::Wrong(_)) => return Ok(()),
        };
        match target.patch(PatchKind::Merge, None, &json!({"spec": {"abort": true}}), WriteMode::Plain).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_not_found() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn reference(&self, ctx: &StepContext<'_>) -> Option<ResourceRef> {
        rights::made(ctx, self)
    }

    fn rights(&self, it: &Use) -> Vec<Right> {
        it.rights(&["create", "get", "delete", "list", "watch", "patch"])
    }

    async fn dry_run(&self, ctx: &StepContext<'_>) -> Result<(), Untried> {
        let (target, manifest) = resource::manifest(ctx, &as_resource(self, ctx)).await?;
        trial::create(&target, &manifest).await?;
        let wrong =
            |problem: String| StepEnd::failed("Invalid", format!("{}.inject.template: {problem}", ctx.leaf.field));
        let spec: FailureInjectionSpec =
            serde_json::from_value(manifest["spec"].clone()).map_err(|error| wrong(error.to_string()))?;
        InjectionPlan::parse(&spec, "").map_err(|error| wrong(error.to_string()))?;
        Ok(())
    }
}
