//! Connections: the operator's own client, and the same connections used as a tenant.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use kube::{Client, Config, client::Body};
use lru::LruCache;
use tower::{BoxError, Service};

use super::error::DeadlineExceeded;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long any call but a watch or a log may take, its answer's body included.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Tenants whose client is kept; a client is one small task, not a connection.
const MAX_TENANTS: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");

/// Makes the operator's own client.
///
/// No call is repeated by the client: whoever makes a POST has to look before making it again (kube 2082). A call that
/// is neither a watch nor a log ends within [`CALL_DEADLINE`]; watches have the watcher's idle timeout instead.
pub fn connect(mut config: Config) -> kube::Result<Client> {
    config.default_retry = crate::switches::without("post-retry-off");
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = None;
    config.write_timeout = Some(CALL_DEADLINE);
    let namespace = config.default_namespace.clone();
    let raw = Client::try_from(config)?;
    Ok(Client::new(Bounded { inner: raw, deadline: CALL_DEADLINE }, namespace))
}

/// A service account that is acted as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The text can't name a service account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a service account")]
pub struct BadAccount(String);

/// Clients that act as service accounts, all over the connections of one base client.
#[derive(Clone)]
pub struct Tenants {
    base: Client,
    impersonate: bool,
    clients: Arc<Mutex<LruCache<Account, Client>>>,
}

impl Tenants {
    /// Tenants of the cluster that `base` talks to.
    pub fn new(base: Client) -> Self {
        Self { base, impersonate: true, clients: Arc::new(Mutex::new(LruCache::new(MAX_TENANTS))) }
    }

    /// Whoever asks acts as the client's own user: on a cluster that a run has brought its own credentials for.
    pub fn itself(base: Client) -> Self {
        Self { impersonate: false, ..Self::new(base) }
    }

    /// The operator's own client.
    pub fn operator(&self) -> &Client {
        &self.base
    }

    /// A client that acts as `account`. Must be called inside a tokio runtime.
    ///
    /// Errors: a name that is no DNS name. Such a text must never become a header: `a:b` would be another user.
    pub fn client(&self, account: &Account) -> Result<Client, BadAccount> {
        if ![&account.namespace, &account.name].into_iter().all(|name| is_dns_name(name)) {
            return Err(BadAccount(account.to_string()));
        }
        if !self.impersonate {
            return Ok(self.base.clone());
        }
        let user = format!("system:serviceaccount:{}:{}", account.namespace, account.name);
        let user = HeaderValue::try_from(user).map_err(|_| BadAccount(account.to_string()))?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.get_or_insert(account.clone(), || {
            // The API server adds the groups of a service account by itself.
            Client::new(Impersonate { inner: self.base.clone(), user }, account.namespace.clone())
        });
        Ok(client.clone())
    }
}

fn is_dns_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 253
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

/// Sets the impersonation header of each request.
struct Impersonate {
    inner: Client,
    user: HeaderValue,
}

impl Service<Request<Body>> for Impersonate {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // `send` waits for the shared client to be ready; being ready here says nothing about it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(IMPERSONATE_USER, self.user.clone());
        let inner = self.inner.clone();
        Box::pin(async move { inner.send(request).await.map_err(BoxError::from) })
    }
}

/// Ends calls that hang.
struct Bounded {
    inner: Client,
    deadline: Duration,
}

impl Service<Request<Body>> for Bounded {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.inner.clone();
        let deadline = self.deadline;
        let streams = streams(&request);
        Box::pin(async move {
            let answer = async {
                let response = inner.send(request).await.map_err(BoxError::from)?;
                if streams {
                    return Ok(response);
                }
                let (parts, body) = response.into_parts();
                let bytes = body.collect().await.map_err(BoxError::from)?.to_bytes();
                Ok(Response::from_parts(parts, Body::from(bytes)))
            };
            tokio::time::timeout(deadline, answer)
                .await
                .unwrap_or_else(|_| Err(DeadlineExceeded(deadline.as_secs()).into()))
        })
    }
}

/// Whether the answer's body is read as it comes: only its beginning has the deadline.
fn streams(request: &Request<Body>) -> bool {
    let uri = request.uri();
    let watch = uri.query().is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1")));
    watch || uri.path().ends_with("/log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_names_become_users() {
        for good in ["default", "soak-1", "a.b"] {
            assert!(is_dns_name(good), "{good}");
        }
        for bad in ["", "a:b", "kube-system:x", "A", "a\nb", "-a", "a_b", &"a".repeat(254)] {
            assert!(!is_dns_name(bad), "{bad}");
        }
    }

    /// A client whose requests are answered by `answer`.
    fn client<F>(answer: impl Fn(Request<Body>) -> F + Send + 'static) -> Client
    where
        F: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
    {
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_at_its_deadline_and_a_watch_does_not() {
        let hanging = Bounded { inner: client(|_| std::future::pending()), deadline: CALL_DEADLINE };
        let request = Request::get("/api/v1/pods").body(Body::empty()).unwrap();
        let error = Client::new(hanging, "default").send(request).await.unwrap_err();
        assert!(error.to_string().contains("did not answer within 30 s"), "{error}");
        assert!(super::super::error::classify(&error).ambiguous, "what was asked may have been done");
        for path in ["/api/v1/pods?watch=true&timeoutSeconds=9", "/api/v1/namespaces/n/pods/p/log?tailLines=5"] {
            assert!(streams(&Request::get(path).body(Body::empty()).unwrap()), "{path}");
        }
    }

    #[tokio::test]
    async fn each_request_of_a_tenant_names_it() {
        let base = client(|request| async move {
            let user = request.headers()["impersonate-user"].to_str().unwrap().to_owned();
            Ok(Response::builder().header("was", user).body(Body::empty()).unwrap())
        });
        let tenants = Tenants::new(base);
        let client = tenants.client(&Account { namespace: "team".into(), name: "soak".into() }).unwrap();
        let request = Request::get("/").header("Impersonate-User", "admin").body(Body::empty()).unwrap();
        assert_eq!(client.send(request).await.unwrap().headers()["was"], "system:serviceaccount:team:soak");
        assert!(tenants.client(&Account { namespace: "team".into(), name: "a:b".into() }).is_err());
    }

    /// Kube's client would repeat a POST after these answers (kube 2082).
    #[tokio::test]
    async fn a_post_is_made_once_whatever_the_answer() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: http::Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let answers = ["429 Too Many Requests", "503 Service Unavailable", "504 Gateway Timeout", ""];
        let server = tokio::spawn(async move {
            let mut posts = 0;
            while let Ok(Ok((mut connection, _))) =
                tokio::time::timeout(Duration::from_secs(2), listener.accept()).await
            {
                let mut request = vec![0; 4_096];
                let _ = connection.read(&mut request).await;
                let answer = answers.get(posts).copied().unwrap_or_default();
                posts += 1;
                if !answer.is_empty() {
                    let _ = connection
                        .write_all(
                            format!(
                                "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n"
                            )
                            .as_bytes(),
                        )
                        .await;
                }
            }
            posts
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tenants = Tenants::new(connect(Config::new(url)).unwrap());
        let client = tenants.client(&Account { namespace: "team".into(), name: "soak".into() }).unwrap();
        for answer in answers {
            let error = client
                .request_text(Request::post("/api/v1/namespaces/team/pods").body(b"{}".to_vec()).unwrap())
                .await
                .unwrap_err();
            let failure = super::super::error::classify(&error);
            assert_eq!(failure.class, super::super::error::Class::Transient, "{answer}: {error}");
            assert_eq!(failure.ambiguous, !answer.starts_with("429"), "{answer}: {error}");
        }
        assert_eq!(server.await.unwrap(), answers.len());
    }
}
