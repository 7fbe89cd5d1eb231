//! `/metrics`, `/healthz` and `/readyz` over plain HTTP.
//!
//! The port is open to the whole cluster network, so each thing that a client can hold is bounded: the number of
//! connections, the time until its request is read, the time a connection lives, and one rendering at a time.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    health::{Health, Report},
    metrics::{CONTENT_TYPE, Metrics},
};

const MAX_CONNECTIONS: usize = 64;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A scraper that is cut off between two requests just connects again.
const CONNECTION_LIFETIME: Duration = Duration::from_mins(1);
/// How long a request that is under way may go on when its connection or the server ends.
const GRACE: Duration = Duration::from_secs(5);
/// The pause after a failed accept (too many open files, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    health: Health,
    rendering: Arc<Semaphore>,
}

/// Serves until `shutdown` completes, then ends requests under way within five seconds. Only GET and HEAD are answered.
///
/// # Errors
/// When the address can't be bound. A failing client or a failed accept is not an error of the server.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    health: Health,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    serve_on(TcpListener::bind(address).await?, metrics, health, shutdown).await;
    Ok(())
}

/// As [`serve`], on a listener that is bound already.
pub async fn serve_on(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = router(Shared { metrics, health, rendering: Arc::new(Semaphore::new(1)) });
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            // The semaphore is never closed, and without a permit there is no accept: the kernel's backlog is the queue.
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = next => accepted,
        };
        match accepted {
            (Ok(permit), Ok((stream, _))) => {
                let (router, stopped) = (router.clone(), stopped.clone());
                connections.spawn(async move {
                    connection(stream, router, stopped).await;
                    drop(permit);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection to the metrics port was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    drop(stop);
    // Each connection ends by its own grace time; the JoinSet aborts what does not.
    let _ = timeout(GRACE * 2, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<()>) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(16 * 1024);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    // Errors are the client's (reset, time-out, malformed request) and nothing can be done about them here.
    tokio::select! {
        _ = served.as_mut() => return,
        _ = stopped.changed() => {}
        () = tokio::time::sleep(CONNECTION_LIFETIME) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, served).await;
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async |State(shared): State<Shared>| probe(shared.health.liveness())))
        .route("/readyz", get(async |State(shared): State<Shared>| probe(shared.health.readiness())))
        .with_state(shared)
}

fn probe(report: Report) -> Response {
    let status = if report.passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], report.body).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let Ok(_one) = shared.rendering.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    // At the caps a scrape is some megabytes of text: too long for a thread that also drives reconciles.
    let metrics = shared.metrics.clone();
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "the metrics could not be rendered");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    struct Server {
        address: SocketAddr,
        health: Health,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    async fn start(health: Health) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve_on(listener, Metrics::new("9"), health.clone(), shutdown));
        Server { address, health, stop, task }
    }

    async fn ask(server: &Server, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, head.to_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn metrics_are_served_with_their_type() {
        let server = start(Health::new(Duration::from_mins(1))).await;
        let (status, head, body) = ask(&server, "GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("soak_build_info{version=\"9\"} 1"), "{body}");
        let (status, _, body) = ask(&server, "HEAD", "/metrics").await;
        assert_eq!((status, body.as_str()), (200, ""));
    }

    #[tokio::test]
    async fn only_reading_is_allowed_and_only_what_there_is() {
        let server = start(Health::new(Duration::from_mins(1))).await;
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            assert_eq!(ask(&server, method, "/metrics").await.0, 405, "{method}");
        }
        assert_eq!(ask(&server, "GET", "/debug/pprof").await.0, 404);
    }

    #[tokio::test]
    async fn probes_follow_health() {
        let server = start(Health::new(Duration::from_millis(0))).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(ask(&server, "GET", "/healthz").await.0, 503);
        server.health.register("watches");
        let (status, _, body) = ask(&server, "GET", "/readyz?verbose").await;
        assert_eq!(status, 503);
        assert!(body.contains("[-]watches failed"), "{body}");
        server.health.set_ready("watches", true);
        assert_eq!(ask(&server, "GET", "/readyz").await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_its_header_is_cut_off() {
        let server = start(Health::new(Duration::from_mins(1))).await;
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.expect("writes");
        let mut rest = Vec::new();
        let ended = timeout(HEADER_READ_TIMEOUT * 2, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "still connected after twice the time");
    }

    #[tokio::test]
    async fn shutdown_ends_idle_connections_and_frees_the_port() {
        let server = start(Health::new(Duration::from_mins(1))).await;
        let mut idle = TcpStream::connect(server.address).await.expect("connects");
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("writes");
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.expect("an answer");
        let begun = Instant::now();
        server.stop.send(()).expect("the server runs");
        server.task.await.expect("ends");
        assert!(begun.elapsed() < GRACE, "an idle keep-alive connection does not hold the shutdown up");
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
