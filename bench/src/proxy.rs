//! Stands between the operator and the API server and counts what passes. It speaks plain HTTP to the operator, which
//! needs no key to be shared, and adds the administrator's credentials.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::Result;
use axum::{Router, extract::Request, response::Response};
use futures::StreamExt;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use soak_operator::api::names::label;

/// What was counted up to some moment.
#[derive(Clone, Debug)]
pub struct Count {
    /// When.
    pub at: Instant,
    /// Requests by `verb resource`, such as `update soakruns/status`.
    pub requests: BTreeMap<String, u64>,
    /// Bytes of the bodies in both directions, those of watches included.
    pub bytes: u64,
}

impl Count {
    /// All requests.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// What came between `earlier` and this.
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, u64> {
        let grown = |(key, count): (&String, &u64)| {
            let more = count - earlier.requests.get(key).unwrap_or(&0);
            (more > 0).then(|| (key.clone(), more))
        };
        self.requests.iter().filter_map(grown).collect()
    }
}

struct Counted {
    now: Count,
    /// The state at each stored record: where a cycle ends, seen from outside.
    records: Vec<Count>,
    largest_status: usize,
}

/// The proxy. It ends with the process.
#[derive(Clone)]
pub struct Proxy {
    counted: Arc<Mutex<Counted>>,
    /// The operator's way to it.
    pub kubeconfig: PathBuf,
}

impl Proxy {
    /// Starts one in front of the server of `client`.
    pub async fn start(client: Client) -> Result<Self> {
        let now = Count { at: Instant::now(), requests: BTreeMap::new(), bytes: 0 };
        let counted = Arc::new(Mutex::new(Counted { now, records: Vec::new(), largest_status: 0 }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let kubeconfig = std::env::temp_dir().join(format!("soak-bench-{}.kubeconfig", std::process::id()));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}]\n\
             users: [{{name: c, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n"
        );
        std::fs::write(&kubeconfig, text)?;
        let sink = counted.clone();
        let app = Router::new().fallback(move |request| forward(client.clone(), sink.clone(), request));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { counted, kubeconfig })
    }

    /// What was counted until each record was stored, in order.
    pub fn records(&self) -> Vec<Count> {
        self.counted.lock().expect("no panic holds it").records.clone()
    }

    /// The longest body of a status write, in bytes.
    pub fn largest_status(&self) -> usize {
        self.counted.lock().expect("no panic holds it").largest_status
    }
}

async fn forward(client: Client, counted: Arc<Mutex<Counted>>, request: Request) -> Response {
    let key = key(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return refusal("the request's body was cut off") };
    let body = body.to_bytes();
    {
        let mut counted = counted.lock().expect("no panic holds it");
        if key == "update soakruns/status" {
            counted.largest_status = counted.largest_status.max(body.len());
        }
        counted.now.bytes += body.len() as u64;
        *counted.now.requests.entry(key.clone()).or_default() += 1;
        if key == "create configmaps" && is_record(&body) {
            let here = Count { at: Instant::now(), ..counted.now.clone() };
            counted.records.push(here);
        }
    }
    let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    match client.send(request).await {
        Ok(answer) => answer.map(|body| {
            let stream = body.into_data_stream().inspect(move |chunk| {
                if let Ok(chunk) = chunk {
                    counted.lock().expect("no panic holds it").now.bytes += chunk.len() as u64;
                }
            });
            axum::body::Body::from_stream(stream)
        }),
        Err(error) => refusal(&error.to_string()),
    }
}

/// Whether a ConfigMap is the record of a cycle or the summary, and not what tells of the run's surroundings.
fn is_record(body: &[u8]) -> bool {
    let object: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    matches!(object["metadata"]["labels"][label::RECORD].as_str(), Some("cycle" | "summary"))
}

fn refusal(why: &str) -> Response {
    let mut response = Response::new(axum::body::Body::from(why.to_owned()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

/// `verb resource` of a request, as RBAC names them.
fn key(method: &Method, path: &str, query: &str) -> String {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (["api", _, rest @ ..] | ["apis", _, _, rest @ ..]) = segments.as_slice() else {
        return format!("get {path}");
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let (resource, named) = match rest {
        [] => return "discover".into(),
        [resource] => ((*resource).to_owned(), false),
        [resource, _] => ((*resource).to_owned(), true),
        [resource, _, more @ ..] => (format!("{resource}/{}", more.join("/")), true),
    };
    let watch = query.split('&').any(|pair| pair == "watch=true");
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ if watch => "watch",
        _ if named => "get",
        _ => "list",
    };
    format!("{verb} {resource}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_as_rbac_names_them() {
        let named = |method, path| key(&method, path, "");
        assert_eq!(
            named(Method::PUT, "/apis/soak.dev/v1alpha1/namespaces/n/soakruns/r/status"),
            "update soakruns/status"
        );
        assert_eq!(named(Method::GET, "/api/v1/namespaces/n/configmaps"), "list configmaps");
        assert_eq!(named(Method::GET, "/api/v1/namespaces/n"), "get namespaces");
        assert_eq!(named(Method::GET, "/api/v1/namespaces/n/pods/p/log"), "get pods/log");
        assert_eq!(named(Method::GET, "/apis/apps/v1"), "discover");
        assert_eq!(key(&Method::GET, "/api/v1/pods", "a=b&watch=true"), "watch pods");
    }
}
