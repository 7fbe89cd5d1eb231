//! `http`: one request from the operator.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use chrono::Utc;
use reqwest::{
    Certificate, Client, Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use serde_json::{Map, Value, json};

use super::{
    StepKind,
    context::{Begun, StepContext},
    http_address::{Guard, Refused, check_literal},
    manifest::{coerce_text, coerce_texts},
    outputs,
};
use crate::{api::step::HttpStep, engine::seen::StepEnd};

/// Most of a body that is read; the rest is not looked at.
const MAX_BODY: usize = 1_048_576;
const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
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
        let answer = tokio::time::timeout(left, request(&step, ctx.settings.http_local_addresses)).await;
        Begun::ended(match answer {
            Ok(Ok(mut response)) => {
                response["millis"] = json!(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                judge(ctx, &response)
            }
            Ok(Err(end)) => end,
            Err(_) => StepEnd::transient("Timeout", format!("no whole answer within {}", ctx.leaf.timeout)),
        })
    }
}

struct Parsed {
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: Option<String>,
    authority: Option<String>,
}

fn parse(mut rendered: Value, step: &HttpStep) -> Result<Parsed, String> {
    for field in ["url", "body", "caBundle"] {
        coerce_text(&mut rendered[field]);
    }
    rendered["headers"].as_array_mut().into_iter().flatten().for_each(|header| coerce_texts(Some(header)));
    let text = |field: &str| rendered[field].as_str().map(str::to_owned);
    let url: Url = text("url").unwrap_or_default().parse().map_err(|error| format!("url: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("url: {} is neither http nor https", url.scheme()));
    }
    let mut headers = HeaderMap::new();
    for header in rendered["headers"].as_array().into_iter().flatten() {
        let name = header["name"].as_str().unwrap_or_default();
        let name: HeaderName = name.parse().map_err(|_| format!("headers: `{name}` is not the name of a header"))?;
        let value = HeaderValue::from_str(header["value"].as_str().unwrap_or_default())
            .map_err(|_| format!("headers: the value of {name} has characters that a header can't have"))?;
        headers.append(name, value);
    }
    let method = step.method.as_deref().unwrap_or("GET").parse().map_err(|_| "method: unknown".to_owned())?;
    Ok(Parsed { url, method, headers, body: text("body"), authority: text("caBundle") })
}

/// Clients by whether local addresses are allowed. Each holds the parsed public authorities, which takes a while to make.
static CLIENTS: [OnceLock<Client>; 2] = [OnceLock::new(), OnceLock::new()];

fn client(authority: Option<&str>, local: bool) -> Result<Client, StepEnd> {
    let slot = &CLIENTS[usize::from(local)];
    if let (None, Some(client)) = (authority, slot.get()) {
        return Ok(client.clone());
    }
    // An error means that there is a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("soak-operator/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        // Each request shows what a new client of the service would see.
        .pool_max_idle_per_host(0)
        .retry(reqwest::retry::never())
        .no_proxy()
        .redirect(redirect::Policy::custom(move |attempt| follow(attempt, local)));
    if !local {
        builder = builder.dns_resolver(Guard::new());
    }
    if let Some(authority) = authority {
        let certificates = Certificate::from_pem_bundle(authority.as_bytes())
            .map_err(|error| StepEnd::failed("Invalid", format!("caBundle: {error}")))?;
        builder = builder.tls_certs_merge(certificates);
    }
    let client = builder.build().map_err(|error| {
        StepEnd::failed("InfraError", format!("no HTTP client could be made: {}", innermost(&error)))
    })?;
    Ok(if authority.is_none() { slot.get_or_init(|| client).clone() } else { client })
}

/// A redirect is followed on the same host only: another host is another system, and must not get the headers.
fn follow(attempt: redirect::Attempt<'_>, local: bool) -> redirect::Action {
    let same_host = attempt.previous().last().is_some_and(|from| from.host_str() == attempt.url().host_str());
    let refused = (!local).then(|| check_literal(attempt.url()).err()).flatten();
    match refused {
        Some(refused) => attempt.error(refused),
        None if same_host && attempt.previous().len() <= MAX_REDIRECTS => attempt.follow(),
        None => attempt.stop(),
    }
}

async fn request(step: &Parsed, local: bool) -> Result<Value, StepEnd> {
    let Parsed { url, method, headers, body, authority } = step;
    if !local && let Err(refused) = check_literal(url) {
        return Err(StepEnd::failed("AddressRefused", refused.to_string()));
    }
    let mut request =
        client(authority.as_deref(), local)?.request(method.clone(), url.clone()).headers(headers.clone());
    if let Some(body) = body {
        request = request.body(body.clone());
    }
    let mut response = request.send().await.map_err(|error| failed(url, &error))?;
    let status = response.status().as_u16();
    let mut named = Map::new();
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let joined = named
            .get(name.as_str())
            .and_then(Value::as_str)
            .map_or_else(|| value.to_string(), |earlier| format!("{earlier}, {value}"));
        named.insert(name.to_string(), json!(joined));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(url, &error))? {
        let room = MAX_BODY - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if bytes.len() >= MAX_BODY {
            break;
        }
    }
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(json!({"status": status, "headers": named, "body": String::from_utf8_lossy(&bytes), "json": json}))
}

fn failed(url: &Url, error: &reqwest::Error) -> StepEnd {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return StepEnd::failed("AddressRefused", refused.to_string());
        }
        source = current.source();
    }
    let reason = if error.is_connect() { "ConnectionFailed" } else { "RequestFailed" };
    // Path and query may hold what is nobody's business.
    StepEnd::transient(reason, format!("{}: {}", url.origin().ascii_serialization(), innermost(error)))
}

/// The last cause in a chain of errors says most.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
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

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
