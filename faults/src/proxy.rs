//! The proxy: ends the operator's TLS, does to each request what the script says, and records what it saw.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use crate::{
    api::Server,
    history::Request,
    names,
    process::Process,
    script::OnWrite,
    shared::Shared,
    stream::{self, Body},
    tls::Identity,
};

/// How long the API server may take for anything but a watch, before the proxy gives up.
const UPSTREAM_LIMIT: Duration = Duration::from_mins(1);

/// What a proxy is made of.
pub struct Proxy {
    /// The API server behind it.
    pub server: Server,
    /// The operator before it.
    pub process: Arc<Process>,
    /// What it shares with the rest of the session.
    pub shared: Arc<Shared>,
}

/// The connection is to end without an answer.
#[derive(Debug)]
struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection ends here by script")
    }
}

impl std::error::Error for Hangup {}

/// A request that was read in whole.
struct Taken {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
    life: String,
}

/// Opens a port on loopback; it serves until the task is aborted.
pub async fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Proxy {
    /// Serves for ever; without an identity there is no TLS.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, identity: Option<Identity>) {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            let (this, identity) = (self.clone(), identity.clone());
            // Connections that ended are dropped as new ones come.
            while connections.try_join_next().is_some() {}
            connections.spawn(async move {
                match identity {
                    Some(identity) => {
                        let Ok(connection) = identity.acceptor.accept(connection).await else { return };
                        this.connection(connection).await;
                    }
                    None => this.connection(connection).await,
                }
            });
        }
    }

    async fn connection(self: Arc<Self>, connection: impl AsyncRead + AsyncWrite + Unpin) {
        // Requests of a life may arrive after its end; they are still its own.
        let life = self.process.life();
        let service = service_fn(|request| self.clone().answer(request, life.clone()));
        let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
    }

    async fn answer(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
        life: String,
    ) -> Result<Response<Body>, Hangup> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Hangup)?.to_bytes();
        let taken = Taken {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
            life,
        };
        if self.shared.is_cut() {
            return Err(Hangup);
        }
        if names::is_write(taken.method.as_str(), &taken.path, &taken.query) {
            // What was sent on is recorded though the operator, and its connection with it, is gone by then.
            return tokio::spawn(self.write(taken)).await.unwrap_or(Err(Hangup));
        }
        self.read(taken).await
    }

    async fn read(self: Arc<Self>, taken: Taken) -> Result<Response<Body>, Hangup> {
        let mut record = self.record(&taken, Value::Null, None);
        let is_watch = taken.query.contains("watch=true") || taken.query.contains("watch=1");
        if let Some(version) = self.shared.stale_version(self.process.lives(), &taken.path, taken.method.as_str())
            && let Some(answer) = stream::stale(&self.server, &self.shared, &taken.path, &taken.query, version).await
        {
            self.shared.count("stale");
            record.fault = Some("stale".into());
            (record.code, record.told) = (200, 200);
            self.shared.recorder.request(record);
            return Ok(answer);
        }
        let Ok(upstream) = self.forward(&taken, is_watch).await else {
            self.shared.recorder.request(record);
            return Err(Hangup);
        };
        let code = upstream.status();
        (record.code, record.told) = (code.as_u16(), code.as_u16());
        self.shared.recorder.request(record);
        let kind = upstream.headers().get(header::CONTENT_TYPE).cloned();
        let mut response = Response::builder().status(code);
        if let Some(kind) = kind {
            response = response.header(header::CONTENT_TYPE, kind);
        }
        let body = stream::forwarded(upstream, self.shared.clone(), is_watch && code.is_success());
        response.body(body).map_err(|_| Hangup)
    }

    async fn write(self: Arc<Self>, taken: Taken) -> Result<Response<Body>, Hangup> {
        let body: Value =
            serde_json::from_slice(&taken.body).or_else(|_| serde_yaml_ng::from_slice(&taken.body)).unwrap_or_default();
        let key = names::write_key(taken.method.as_str(), &taken.path, &body);
        if self.shared.denies(&taken.path, &body) {
            self.shared.count("Denied");
            let denied = Request { fault: Some("Denied".into()), told: 403, ..self.record(&taken, body, Some(key)) };
            self.shared.recorder.request(denied);
            return Ok(refusal(403));
        }
        let fault = self.shared.on_write(&key, &taken.method, &taken.path);
        let mut record = self.record(&taken, body, Some(key));
        record.fault = fault.as_ref().map(|fault| format!("{fault:?}"));
        match &fault {
            Some(OnWrite::KillBefore) => {
                self.process.kill();
                self.shared.recorder.request(record);
                return Err(Hangup);
            }
            Some(OnWrite::Reset) => {
                self.shared.recorder.request(record);
                return Err(Hangup);
            }
            Some(OnWrite::Refuse(code)) => {
                record.told = *code;
                self.shared.recorder.request(record);
                return Ok(refusal(*code));
            }
            Some(OnWrite::Delay(millis)) => tokio::time::sleep(Duration::from_millis(*millis)).await,
            Some(OnWrite::Squat) => self.squat(&taken, &record.body).await,
            _ => {}
        }
        let Ok(upstream) = self.forward(&taken, false).await else {
            self.shared.recorder.request(record);
            return Err(Hangup);
        };
        let code = upstream.status();
        record.code = code.as_u16();
        let Ok(bytes) = upstream.bytes().await else {
            self.shared.recorder.request(record);
            return Err(Hangup);
        };
        record.answer = serde_json::from_slice(&bytes).unwrap_or_default();
        record.told = record.code;
        if record.is_injection_status() && record.is_committed() {
            self.shared.injection_stored(&record.body["status"]);
        }
        let answer = match fault {
            Some(OnWrite::Down(millis)) => {
                self.shared.stay_down(Duration::from_millis(millis));
                self.process.kill();
                record.told = 0;
                Err(Hangup)
            }
            Some(OnWrite::KillAfter) => {
                self.process.kill();
                record.told = 0;
                Err(Hangup)
            }
            Some(OnWrite::CommitAndReset) => {
                record.told = 0;
                Err(Hangup)
            }
            Some(OnWrite::CommitAndRefuse(code)) => {
                record.told = code;
                Ok(refusal(code))
            }
            Some(OnWrite::Pause(seconds)) => {
                self.shared.outage(Duration::from_secs(seconds));
                self.process.signal("-STOP");
                let process = self.process.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    process.signal("-CONT");
                });
                Ok(plain(code, bytes))
            }
            _ => Ok(plain(code, bytes)),
        };
        self.shared.recorder.request(record);
        answer
    }

    fn record(&self, taken: &Taken, body: Value, key: Option<String>) -> Request {
        Request {
            at: self.shared.recorder.now(),
            process: taken.life.clone(),
            method: taken.method.to_string(),
            path: taken.path.clone(),
            query: taken.query.clone(),
            user: taken.headers.get("impersonate-user").and_then(|user| user.to_str().ok()).map(str::to_owned),
            body,
            key,
            fault: None,
            code: 0,
            answer: Value::Null,
            told: 0,
        }
    }

    async fn forward(&self, taken: &Taken, is_watch: bool) -> reqwest::Result<reqwest::Response> {
        let query = if taken.query.is_empty() { String::new() } else { format!("?{}", taken.query) };
        let mut request = self.server.request(taken.method.clone(), &format!("{}{query}", taken.path));
        if !is_watch && !taken.query.contains("follow=true") {
            request = request.timeout(UPSTREAM_LIMIT);
        }
        for (name, value) in &taken.headers {
            let passes = name == header::CONTENT_TYPE || name == header::ACCEPT || name == header::USER_AGENT;
            if passes || name.as_str().starts_with("impersonate-") {
                request = request.header(name, value);
            }
        }
        request.body(taken.body.clone()).send().await
    }

    /// Creates a look-alike of what the operator is about to create: all the same but its owner.
    async fn squat(&self, taken: &Taken, body: &Value) {
        let mut foreign = body.clone();
        let metadata = &mut foreign["metadata"];
        metadata["ownerReferences"] = json!([]);
        metadata["labels"]["faults.soak.dev/squatter"] = json!("true");
        for label in ["soak.dev/run-uid", "soak.dev/injection-uid"] {
            if metadata["labels"][label].is_string() {
                metadata["labels"][label] = json!("00000000-0000-0000-0000-000000000000");
            }
        }
        // Nobody would take it off.
        metadata["finalizers"] = json!([]);
        metadata["annotations"]["soak.dev/created-by-run"] = json!("00000000-0000-0000-0000-000000000000");
        let _ = self.server.call(Method::POST, &taken.path, Some(&foreign)).await;
    }
}

fn plain(code: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// What an API server says with a code.
fn refusal(code: u16) -> Response<Body> {
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let message = if code == 403 {
        "admission webhook \"faults.soak.dev\" denied the request: not now"
    } else {
        "answered so by the fault proxy"
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code,
    });
    let mut response = plain(StatusCode::from_u16(code).unwrap_or_default(), status.to_string().into());
    if code == 429 {
        response.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    BoxBody::new(Full::new(bytes.into()).map_err(|never: Infallible| -> io::Error { match never {} }))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    use super::*;
    use crate::{process::Launch, script::Script};

    #[tokio::test]
    async fn a_write_is_recorded_though_the_operator_dies_before_its_answer() {
        let (upstream, address) = listen().await.unwrap();
        let nowhere = PathBuf::new;
        let launch = Launch {
            program: nowhere(),
            kubeconfig: nowhere(),
            arguments: Vec::new(),
            without: None,
            folder: nowhere(),
        };
        let shared = Arc::new(Shared::new(Script::default()).0);
        let proxy = Proxy {
            server: Server::plain(&format!("http://{address}")).unwrap(),
            process: Arc::new(Process::new(0, launch)),
            shared: shared.clone(),
        };
        let (listener, address) = listen().await.unwrap();
        let serving = tokio::spawn(Arc::new(proxy).serve(listener, None));

        let mut operator = TcpStream::connect(address).await.unwrap();
        operator.write_all(b"POST /proxies/db HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        let (mut sent, _) = upstream.accept().await.unwrap();
        assert!(sent.read(&mut [0; 1_024]).await.unwrap() > 0);
        drop(operator);
        // The proxy has every occasion to notice that before the answer comes.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let _ = sent.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;

        let recorded = async {
            while shared.recorder.with(|history| history.requests.is_empty()) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), recorded).await.expect("the write was made and is not in the history");
        assert_eq!(shared.recorder.with(|history| history.requests[0].code), 200);
        serving.abort();
    }
}
