//! `http`: one request from the operator.

use std::time::Instant;

use chrono::Utc;
use serde_json::{Value, json};

use super::{
    StepKind,
    context::{Begun, StepContext},
    manifest::{coerce_text, coerce_texts},
    outputs,
};
use crate::{
    api::step::{Header, HttpStep},
    engine::seen::StepEnd,
    request::{Request, RequestFailure, send},
};

const DEFAULT_EXPECTATION: &str = "response.status < 400";

impl StepKind for HttpStep {
    /// Makes the request and waits for its answer. It is made once: a lost answer is a failure of the step, whose retry
    /// rule decides.
    async fn begin(&self, ctx: &StepContext<'_>) -> Begun {
        let rendered = json!({"url": self.url, "headers": self.headers, "body": self.body, "caBundle": self.ca_bundle});
        let step = match ctx.render(&rendered).and_then(|rendered| {
            parse(rendered, self)
                .map_err(|problem| StepEnd::failed("Invalid", format!("{}.http.{problem}", ctx.leaf.field)))
        }) {
            Ok(step) => step,
            Err(end) => return Begun::ended(end),
        };
        let spent = (Utc::now() - ctx.started_at).to_std().unwrap_or_default();
        let left = ctx.leaf.timeout.as_std().saturating_sub(spent);
        let began = Instant::now();
        let answer = tokio::time::timeout(left, send(&step, ctx.settings.http_local_addresses)).await;
        Begun::ended(match answer {
            Ok(Ok(mut response)) => {
                response["millis"] = json!(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                judge(ctx, &response)
            }
            Ok(Err(RequestFailure { reason, message, transient: true })) => StepEnd::transient(reason, message),
            Ok(Err(RequestFailure { reason, message, transient: false })) => StepEnd::failed(reason, message),
            Err(_) => StepEnd::transient("Timeout", format!("no whole answer within {}", ctx.leaf.timeout)),
        })
    }
}

fn parse(mut rendered: Value, step: &HttpStep) -> Result<Request, String> {
    for field in ["url", "body", "caBundle"] {
        coerce_text(&mut rendered[field]);
    }
    rendered["headers"].as_array_mut().into_iter().flatten().for_each(|header| coerce_texts(Some(header)));
    let text = |field: &str| rendered[field].as_str().map(str::to_owned);
    let headers: Vec<Header> = serde_json::from_value(rendered["headers"].clone()).unwrap_or_default();
    let headers = headers.iter().map(|Header { name, value }| (name.as_str(), value.as_str()));
    Request::new(&text("url").unwrap_or_default(), step.method.as_deref(), headers, text("body"), text("caBundle"))
}

fn judge(ctx: &StepContext<'_>, response: &Value) -> StepEnd {
    let status = response["status"].as_u64().unwrap_or_default();
    let mut scope = ctx.scope.clone();
    scope.set("response", response.clone());
    let (holds, expected) = match &ctx.leaf.success {
        Some(expected) => (expected.evaluate(&scope).map_err(|error| error.to_string()), expected.source().to_owned()),
        None => (Ok(status < 400), DEFAULT_EXPECTATION.to_owned()),
    };
    let problem = match holds {
        Ok(true) => return outputs::end_with(ctx, "response", response),
        Ok(false) => format!("`{expected}` is false"),
        Err(problem) => problem,
    };
    let body: String = response["body"].as_str().unwrap_or_default().trim().chars().take(80).collect();
    let body = if body.is_empty() { String::new() } else { format!("; body: {body}") };
    let message = format!("status {status}: {problem}{body}");
    if status >= 500 || status == 429 {
        StepEnd::transient("UnexpectedResponse", message)
    } else {
        StepEnd::failed("UnexpectedResponse", message)
    }
}
