//! Requests against a server of the test's own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// Answers each connection with `answer` and counts them.
async fn server(answer: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut request = vec![0; 4_096];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    (url, count)
}

fn parsed(url: &str, method: &str) -> Request {
    Request::new(url, Some(method), [("x-cycle", "3")], None, None).unwrap()
}

#[tokio::test]
async fn an_answer_is_handed_on_in_all_its_parts() {
    let (url, _) =
        server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10\r\nX-A: 1\r\nX-A: 2\r\n\r\n{\"ok\": no}".into())
            .await;
    let response = send(&parsed(&url, "GET"), true).await.unwrap();
    assert_eq!(
        (&response["status"], &response["headers"]["x-a"], &response["json"]),
        (&json!(503), &json!("1, 2"), &Value::Null)
    );
    assert_eq!(response["body"], "{\"ok\": no}");
}

#[tokio::test]
async fn the_operators_own_host_is_out_of_reach_by_address_and_by_name() {
    let (url, count) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()).await;
    for url in [url.clone(), url.replace("127.0.0.1", "localhost")] {
        let end = send(&parsed(&url, "GET"), false).await.unwrap_err();
        assert_eq!(end.reason, "AddressRefused", "{url}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_redirect_to_another_host_is_the_answer_itself() {
    let (target, count) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()).await;
    let location = target.replace("127.0.0.1", "localhost");
    let (url, _) = server(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")).await;
    let response = send(&parsed(&url, "GET"), true).await.unwrap();
    assert_eq!((&response["status"], count.load(Ordering::Relaxed)), (&json!(302), 0));
}

#[tokio::test]
async fn a_post_whose_answer_is_lost_is_not_repeated() {
    let (url, count) = server(String::new()).await;
    let failure = send(&parsed(&url, "POST"), true).await.unwrap_err();
    assert!(failure.transient, "{failure:?}");
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn only_the_beginning_of_a_large_body_is_read() {
    let body = "x".repeat(3 * MAX_BODY);
    let (url, _) = server(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    let response = send(&parsed(&url, "GET"), true).await.unwrap();
    assert_eq!(response["body"].as_str().unwrap().len(), MAX_BODY);
}
