//! Requests over HTTP from the operator to the systems under test, as steps and probes make them.

mod address;

use std::{sync::OnceLock, time::Duration};

use reqwest::{
    Certificate, Client, Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use serde_json::{Map, Value, json};

use address::{Guard, Refused, check_literal};

pub use address::is_local;

/// Most of a body that is read; the rest is not looked at.
const MAX_BODY: usize = 1_048_576;
const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that was parsed.
#[derive(Clone, Debug)]
pub struct Request {
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: Option<String>,
    authority: Option<String>,
}

impl Request {
    /// Parses a request. `authority` holds PEM certificates that are trusted beside the public ones.
    ///
    /// Errors: the field that is wrong, and how.
    pub fn new<'a>(
        url: &str,
        method: Option<&str>,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: Option<String>,
        authority: Option<String>,
    ) -> Result<Self, String> {
        let url: Url = url.parse().map_err(|error| format!("url: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("url: {} is neither http nor https", url.scheme()));
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName =
                name.parse().map_err(|_| format!("headers: `{name}` is not the name of a header"))?;
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("headers: the value of {name} has characters that a header can't have"))?;
            map.append(name, value);
        }
        let method = method.unwrap_or("GET").parse().map_err(|_| "method: unknown".to_owned())?;
        Ok(Self { url, method, headers: map, body, authority })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestFailure {
    /// A reason word.
    pub reason: &'static str,
    /// Whom it was made to, and what happened.
    pub message: String,
    /// Whether it may go away by itself.
    pub transient: bool,
}

impl RequestFailure {
    fn certain(reason: &'static str, message: String) -> Self {
        Self { reason, message, transient: false }
    }

    fn refused(refused: &Refused) -> Self {
        Self::certain("AddressRefused", refused.to_string())
    }
}

/// Clients by whether local addresses are allowed. Each holds the parsed public authorities, which takes a while to make.
static CLIENTS: [OnceLock<Client>; 2] = [OnceLock::new(), OnceLock::new()];

fn client(authority: Option<&str>, local: bool) -> Result<Client, RequestFailure> {
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
            .map_err(|error| RequestFailure::certain("Invalid", format!("caBundle: {error}")))?;
        builder = builder.tls_certs_merge(certificates);
    }
    let client = builder.build().map_err(|error| {
        RequestFailure::certain("InfraError", format!("no HTTP client could be made: {}", innermost(&error)))
    })?;
    Ok(if authority.is_none() { slot.get_or_init(|| client).clone() } else { client })
}

/// A client for calls to other servers than an API server, each of which ends within `timeout`. It follows no redirect, and
/// connects to no name that leads to an address of the operator's own host or link unless `local`; what is written as an
/// address is the caller's to check, by [`is_local`].
///
/// Errors: there is no TLS to be had.
pub fn bounded_client(timeout: Duration, local: bool) -> Result<Client, reqwest::Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("soak-operator/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .no_proxy()
        .redirect(redirect::Policy::none());
    if local { builder } else { builder.dns_resolver(Guard::new()) }.build()
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

/// Makes a request once and reads its answer: `status`, `headers`, `body`, and `json` where the body is JSON.
///
/// `local` allows addresses of the operator's own host and link. It has no limit of time of its own beyond that of connecting:
/// wrap it in a timeout.
pub async fn send(request: &Request, local: bool) -> Result<Value, RequestFailure> {
    let Request { url, method, headers, body, authority } = request;
    if !local && let Err(refused) = check_literal(url) {
        return Err(RequestFailure::refused(&refused));
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

fn failed(url: &Url, error: &reqwest::Error) -> RequestFailure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return RequestFailure::refused(refused);
        }
        source = current.source();
    }
    let reason = if error.is_connect() { "ConnectionFailed" } else { "RequestFailed" };
    // Path and query may hold what is nobody's business.
    RequestFailure {
        reason,
        message: format!("{}: {}", url.origin().ascii_serialization(), innermost(error)),
        transient: true,
    }
}

/// The last cause in a chain of errors says most.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

#[cfg(test)]
mod tests;
