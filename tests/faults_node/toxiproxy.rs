//! Faults of a real Toxiproxy.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use soak_operator::api::failureinjection::{EntryState, InjectionPhase};

use crate::{
    stage::{SERVE, Stage, address},
    support::wait_for,
};

/// A server of the real Toxiproxy, with a web server behind it in the same pod.
async fn toxiproxy(stage: &Stage) -> (String, String) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "toxiproxy"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "toxiproxy", "image": "localhost/toxiproxy:1", "imagePullPolicy": "Never"},
            {"name": "web", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", SERVE]},
        ]},
    });
    let address = address(&stage.create(pod).await);
    let api = format!("http://{address}:8474");
    let proxy = json!({"name": "web", "listen": "0.0.0.0:8666", "upstream": "127.0.0.1:8080", "enabled": true});
    wait_for("Toxiproxy", || async {
        let answer = http("POST", &format!("{api}/proxies"), Some(&proxy)).await?;
        (answer.0 == 201).then_some(())
    })
    .await;
    (api, format!("http://{address}:8666/"))
}

async fn http(method: &str, url: &str, body: Option<&Value>) -> Option<(u16, Value)> {
    let body = body.map(Value::to_string);
    let request = soak_operator::request::Request::new(url, Some(method), [], body, None).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), soak_operator::request::send(&request, true)).await;
    let answer = answer.ok()?.ok()?;
    Some((u16::try_from(answer["status"].as_u64()?).ok()?, answer["json"].clone()))
}

/// The shortest of two requests: the second must still be within a fault of some seconds that slows each down by one.
async fn fastest(url: &str) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..2 {
        let began = Instant::now();
        assert_eq!(http("GET", url, None).await.map(|it| it.0), Some(200));
        best = best.min(began.elapsed());
    }
    best
}

#[tokio::test]
async fn a_toxic_slows_connections_down_until_the_fault_ends() {
    let mut stage = Stage::set().await;
    let (api, url) = toxiproxy(&stage).await;
    let theirs = json!({"name": "theirs", "type": "slicer", "attributes": {"average_size": 10_000}});
    http("POST", &format!("{api}/proxies/web/toxics"), Some(&theirs)).await.unwrap();
    let before = fastest(&url).await;
    let toxic = json!({"url": api, "proxies": ["w*"], "type": "latency", "attributes": {"latency": 1_000}});
    stage.inject("slow", json!({"toxiproxy": toxic, "duration": "15s"})).await;
    stage.injected("slow").await;
    let slow = fastest(&url).await;
    assert!(slow > before * 3, "{slow:?} with the toxic, {before:?} before");
    // It is undone by another process, past its deadline.
    stage.kill();
    stage.start();
    assert_eq!(stage.recovered("slow").await, [EntryState::Reverted]);
    let after = fastest(&url).await;
    assert!(after * 3 < slow, "{after:?} afterwards, {slow:?} with the toxic");
    let (_, proxy) = http("GET", &format!("{api}/proxies/web"), None).await.unwrap();
    let left: Vec<&str> = proxy["toxics"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(left, ["theirs"]);
    stage.strike().await;
}

#[tokio::test]
async fn a_proxy_that_is_switched_off_is_switched_on_again() {
    let stage = Stage::set().await;
    let (api, url) = toxiproxy(&stage).await;
    let off = json!({"url": api, "proxies": ["web"], "disabled": true});
    stage.inject("off", json!({"toxiproxy": off, "duration": "10m"})).await;
    stage.injected("off").await;
    assert_eq!(http("GET", &url, None).await, None);
    stage.abort("off").await;
    assert_eq!(stage.recovered("off").await, [EntryState::Reverted]);
    assert_eq!(http("GET", &url, None).await.map(|it| it.0), Some(200));
    stage.strike().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_keeps_a_toxic_from_beginning() {
    let stage = Stage::set().await;
    let toxic = json!({"url": "http://127.0.0.1:9", "proxies": ["web"], "type": "latency"});
    stage.inject("nowhere", json!({"toxiproxy": toxic, "duration": "5s", "startingDeadline": "2s"})).await;
    let status = stage.until("nowhere", InjectionPhase::Failed).await.status.unwrap();
    assert_eq!(status.reason, "StartingDeadlineExceeded");
    assert!(status.message.contains("127.0.0.1:9"), "{}", status.message);
    stage.strike().await;
}
