//! Bodies that come in pieces: watches, with what the script does to their events, and logs.

use std::{
    fmt::Write,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Response, header};
use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{self, Sender},
    time::Instant,
};

use crate::{
    api::{Lines, Server},
    names,
    script::OnEvent,
    shared::Shared,
};

/// The body of an answer.
pub type Body = BoxBody<Bytes, io::Error>;

type Piece = Result<Frame<Bytes>, io::Error>;

/// A body whose pieces come through a channel.
struct Channel(mpsc::Receiver<Piece>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.0.poll_recv(context)
    }
}

/// How long the events of a stale cache are held back after a restart.
pub const STALE: Duration = Duration::from_secs(3);

/// How long a watch that misses an event lasts at most.
const INCOMPLETE: Duration = Duration::from_secs(5);
const FOREVER: Duration = Duration::from_hours(1);

/// The API server's answer, piece by piece.
pub fn forwarded(upstream: reqwest::Response, shared: Arc<Shared>, is_watch: bool) -> Body {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        pump(upstream, &sender, &shared, is_watch).await;
    });
    BoxBody::new(Channel(receiver))
}

async fn pump(mut upstream: reqwest::Response, sender: &Sender<Piece>, shared: &Shared, is_watch: bool) {
    let mut lines = Lines::default();
    let mut dropped = 0;
    // When a watch that misses an event ends at the latest, though nothing more happens.
    let mut end = Instant::now() + FOREVER;
    loop {
        let piece = tokio::select! {
            piece = upstream.chunk() => piece.ok(),
            () = tokio::time::sleep_until(end) => {
                let _ = send(sender, expired()).await;
                return;
            }
            () = shared.cut_comes() => None,
            () = sender.closed() => return,
        };
        let piece = match piece {
            Some(Some(piece)) => piece,
            Some(None) => return,
            None => {
                let _ = sender.send(Err(io::ErrorKind::ConnectionReset.into())).await;
                return;
            }
        };
        if !is_watch {
            if send(sender, piece).await.is_err() {
                return;
            }
            continue;
        }
        for line in lines.feed(&piece) {
            let fault = if dropped > 0 {
                dropped -= 1;
                (dropped == 0).then_some(OnEvent::Expire)
            } else if is_event(&line) {
                shared.on_event()
            } else {
                None
            };
            let line = Bytes::from(line);
            let sent = match fault {
                None => send(sender, line).await,
                Some(OnEvent::Drop) => {
                    // A watch in the middle of which an event is missing does not last: a later one finds it expired.
                    (dropped, end) = (4, Instant::now() + INCOMPLETE);
                    Ok(())
                }
                Some(OnEvent::Duplicate) => match send(sender, line.clone()).await {
                    Ok(()) => send(sender, line).await,
                    failed => failed,
                },
                Some(OnEvent::Hold(millis)) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    send(sender, line).await
                }
                Some(OnEvent::Expire) => {
                    let _ = send(sender, expired()).await;
                    return;
                }
                Some(OnEvent::Silence) => {
                    // The connection stays open, as through a firewall that has forgotten it.
                    sender.closed().await;
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

async fn send(sender: &Sender<Piece>, bytes: impl Into<Bytes>) -> Result<(), ()> {
    sender.send(Ok(Frame::data(bytes.into()))).await.map_err(|_| ())
}

fn is_event(line: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned();
    ["ADDED", "MODIFIED", "DELETED"].iter().any(|type_| head.contains(type_))
}

fn expired() -> String {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410});
    format!("{}\n", json!({"type": "ERROR", "object": status}))
}

/// What a server with an old cache would answer to a list, or to a watch that begins with one.
pub async fn stale(
    server: &Server,
    shared: &Arc<Shared>,
    path: &str,
    query: &str,
    version: u64,
) -> Option<Response<Body>> {
    let streaming = query.contains("sendInitialEvents=true");
    if !streaming && query.contains("watch=") {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|part| part.contains("Selector=")).collect();
    let exact = format!("resourceVersion={version}&resourceVersionMatch=Exact");
    let list = format!("{path}?{}", [kept.as_slice(), &[&exact]].concat().join("&"));
    let (code, list) = server.call(Method::GET, &list, None).await.ok()?;
    if code != 200 {
        return None;
    }
    let kind = (header::CONTENT_TYPE, "application/json");
    if !streaming {
        let (sender, receiver) = mpsc::channel(1);
        let _ = sender.try_send(Ok(Frame::data(list.to_string().into())));
        return Response::builder().header(kind.0, kind.1).body(BoxBody::new(Channel(receiver))).ok();
    }
    let at = names::text(&list["metadata"]["resourceVersion"]).to_owned();
    let item_kind = names::text(&list["kind"]).trim_end_matches("List").to_owned();
    let mut first = String::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let _ = writeln!(first, "{}", json!({"type": "ADDED", "object": item}));
    }
    let bookmark = json!({"kind": item_kind, "apiVersion": list["apiVersion"], "metadata": {
        "resourceVersion": at, "annotations": {"k8s.io/initial-events-end": "true"}}});
    let _ = writeln!(first, "{}", json!({"type": "BOOKMARK", "object": bookmark}));
    let (sender, receiver) = mpsc::channel(16);
    let (server, shared, path) = (server.clone(), shared.clone(), path.to_owned());
    tokio::spawn(async move {
        if send(&sender, first).await.is_err() {
            return;
        }
        tokio::time::sleep(STALE).await;
        if let Ok(upstream) = server.watch(&path, &at).await {
            pump(upstream, &sender, &shared, true).await;
        }
    });
    Response::builder().header(kind.0, kind.1).body(BoxBody::new(Channel(receiver))).ok()
}

/// An event of a watch as JSON; none for a line that is no event, such as the Status that a refused watch is answered with.
pub fn event(line: &[u8]) -> Option<(String, Value)> {
    let mut event: Value = serde_json::from_slice(line).ok()?;
    let type_ = event["type"].as_str()?.to_owned();
    Some((type_, event["object"].take()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_refused_watch_is_no_event() {
        let bookmark = br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#;
        assert_eq!(event(bookmark).unwrap().0, "BOOKMARK");
        assert_eq!(event(br#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":503}"#), None);
    }
}
