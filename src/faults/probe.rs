//! Asking objects over HTTP.

use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::DynamicObject;
use serde_json::Value;

use super::{FaultContext, Refusal};
use crate::{
    engine::{
        expr::{Roots, Scope, Template},
        injection::ProbePlan,
    },
    request::{self, Request},
};

/// Longest time that an answer may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Objects that are asked at the same time.
const CONCURRENCY: usize = 8;

/// Those of the objects that answer well. One that does not answer does not fit.
///
/// Errors: none answered, so that nothing is known of any.
pub(super) async fn answered_well(
    ctx: &FaultContext<'_>,
    plan: &ProbePlan,
    objects: Vec<DynamicObject>,
) -> Result<Vec<DynamicObject>, Refusal> {
    let asked = stream::iter(objects)
        .map(|object| async {
            let value = serde_json::to_value(&object).unwrap_or_default();
            (object, ask(ctx.settings.local_addresses, plan, &value).await)
        })
        .buffered(CONCURRENCY);
    let answers: Vec<_> = asked.collect().await;
    let unanswered = answers.iter().find_map(|(_, answer)| answer.as_ref().err()).cloned();
    if let Some(message) = unanswered
        && answers.iter().all(|(_, answer)| answer.is_err())
    {
        return Err(Refusal::NotYet { reason: "ProbeFailed".into(), message: format!("no object answers: {message}") });
    }
    Ok(answers.into_iter().filter(|(_, answer)| answer == &Ok(true)).map(|(object, _)| object).collect())
}

/// Asks once; whether the answer is as it should be.
pub(super) async fn ask(local: bool, plan: &ProbePlan, object: &Value) -> Result<bool, String> {
    let scope = Scope::new().with("object", object.clone());
    let text = |text: &str| {
        let template = Template::parse(text, &Roots::new(["object"])).map_err(|error| error.to_string())?;
        template.render(&scope).map_err(|error| error.to_string())
    };
    let probe = &plan.probe;
    let body = probe.body.as_deref().map(text).transpose()?;
    let headers = probe.headers.iter().map(|header| (header.name.as_str(), header.value.as_str()));
    let request = Request::new(&text(&probe.url)?, probe.method.as_deref(), headers, body, None)?;
    let response = match tokio::time::timeout(LIMIT, request::send(&request, local)).await {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => return Err(failure.to_string()),
        Err(_) => return Err(format!("no answer within {} s", LIMIT.as_secs())),
    };
    // An answer that lacks what is asked for is no good answer.
    Ok(plan.expect.evaluate(&scope.with("response", response)).unwrap_or(false))
}
