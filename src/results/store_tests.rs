//! The store against a scripted API server: what a crash, a lost answer and a stranger leave behind.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{
    api::names::label,
    results::{
        ConfigMapRecord, KEY, RecordPart, Stored, delete_stored, prune, read, record_name,
        samples::{record, run, summary},
        store,
    },
};

/// What happens to one request.
#[derive(Clone, Copy)]
enum Fate {
    /// It is done and answered.
    Answered,
    /// It is done, but the answer is this error.
    Lost(u16),
    /// It is not done; the answer is this error.
    Refused(u16),
    /// It is not done and never answered.
    Hangs,
    /// It is done, but a webhook has changed the content.
    Altered,
}

#[derive(Default)]
struct Server {
    maps: BTreeMap<String, Value>,
    fates: VecDeque<Fate>,
    log: Vec<String>,
}

impl Server {
    /// Performs a request; the status code and the body of the answer.
    fn perform(&mut self, method: &Method, path: &str, body: &[u8], altered: bool) -> (u16, Value) {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        match *method {
            Method::POST => {
                let mut map: Value = serde_json::from_slice(body).unwrap();
                let name = map["metadata"]["name"].as_str().unwrap().to_owned();
                if self.maps.contains_key(&name) {
                    return (409, status(409, "AlreadyExists"));
                }
                if altered {
                    map["data"][KEY] = "{}".into();
                }
                map["metadata"]["uid"] = format!("uid-of-{name}").into();
                self.maps.insert(name, map.clone());
                (201, map)
            }
            Method::DELETE => {
                let options: Value = serde_json::from_slice(body).unwrap();
                assert!(options["preconditions"]["uid"].is_string(), "a deletion is bound to what was read");
                if self.maps.get(&name).is_some_and(|map| map["metadata"]["uid"] != options["preconditions"]["uid"]) {
                    return (409, status(409, "Conflict"));
                }
                self.maps.remove(&name).map_or_else(|| (404, status(404, "NotFound")), |map| (200, map))
            }
            _ if name == "configmaps" => {
                let items: Vec<&Value> = self.maps.values().collect();
                (200, json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            _ => self.maps.get(&name).map_or_else(|| (404, status(404, "NotFound")), |map| (200, map.clone())),
        }
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": format!("the server says {code}"), "metadata": {}})
}

fn server(fates: &[Fate]) -> (Client, Arc<Mutex<Server>>) {
    let server = Arc::new(Mutex::new(Server { fates: fates.iter().copied().collect(), ..Server::default() }));
    let shared = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let shared = shared.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (code, answer) = {
                let mut server = shared.lock().unwrap();
                server.log.push(parts.method.to_string());
                let fate = server.fates.pop_front().unwrap_or(Fate::Answered);
                match fate {
                    Fate::Refused(code) => (code, status(code, "")),
                    Fate::Hangs => (0, Value::Null),
                    Fate::Answered | Fate::Altered | Fate::Lost(_) => {
                        let done =
                            server.perform(&parts.method, parts.uri.path(), &body, matches!(fate, Fate::Altered));
                        if let Fate::Lost(code) = fate { (code, status(code, "")) } else { done }
                    }
                }
            };
            if code == 0 {
                std::future::pending::<()>().await;
            }
            let answer =
                Response::builder().status(code).body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap();
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    (Client::new(service, "soak"), server)
}

fn log(server: &Mutex<Server>) -> String {
    server.lock().unwrap().log.join(" ")
}

fn cycle() -> ConfigMapRecord {
    ConfigMapRecord::from(&record())
}

#[tokio::test]
async fn a_record_is_stored_once_and_adopted_after_a_crash() {
    let (client, server) = server(&[]);
    let ours = cycle().text().digest().to_owned();
    assert_eq!(
        store(client.clone(), &cycle()).await.unwrap(),
        Stored { digest: ours.clone(), uid: format!("uid-of-{}", cycle().name()), adopted: false }
    );

    // After the crash the pass is the same, but its log could not be read again: what counts is what is stored.
    let mut later = record();
    later.phases[0].steps[0].log = None;
    let later = ConfigMapRecord::from(&later);
    assert_ne!(later.text().digest(), ours);
    assert_eq!(
        store(client, &later).await.unwrap(),
        Stored { digest: ours, uid: format!("uid-of-{}", cycle().name()), adopted: true }
    );
    assert_eq!(log(&server), "POST POST GET");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_resolved_by_reading() {
    for fate in [Fate::Lost(500), Fate::Lost(503), Fate::Lost(504)] {
        let (client, server) = server(&[fate]);
        assert!(store(client, &cycle()).await.unwrap().adopted);
        assert_eq!(log(&server), "POST GET", "no second POST");
    }
    for fate in [Fate::Refused(500), Fate::Hangs] {
        let (client, server) = server(&[fate]);
        let error = store(client.clone(), &cycle()).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("it is not there"), "{error}");
        assert_eq!(log(&server), "POST GET", "no second POST");
        assert!(!store(client, &cycle()).await.unwrap().adopted, "the next try stores it");
    }
    let (client, server) = server(&[Fate::Lost(504), Fate::Hangs]);
    let error = store(client.clone(), &cycle()).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no answer within 30 s"), "{error}");
    assert!(store(client, &cycle()).await.unwrap().adopted);
    assert_eq!(log(&server), "POST GET POST GET");
}

#[tokio::test]
async fn what_is_refused_says_what_to_do() {
    for (code, transient, step) in [
        (403, false, "allow the operator's service account"),
        (404, false, "create it again"),
        (422, false, "admission policies"),
        (429, true, "tried again"),
    ] {
        let (client, server) = server(&[Fate::Refused(code)]);
        let error = store(client, &cycle()).await.unwrap_err();
        assert_eq!(error.is_transient(), transient, "{code}");
        assert!(error.to_string().contains(step), "{error}");
        assert!(error.to_string().starts_with("storing the record soak/switchover-"), "{error}");
        assert_eq!(log(&server), "POST");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_not_adopted() {
    let name = cycle().name();
    let spoil = |field: &str, value: Value| {
        let mut map = serde_json::to_value(cycle().manifest()).unwrap();
        *map.pointer_mut(field).unwrap() = value;
        map
    };
    for (map, problem) in [
        (spoil("/metadata/ownerReferences", json!([])), "belongs to somebody else"),
        (spoil("/metadata/labels/soak.dev~1run-uid", "another".into()), "belongs to somebody else"),
        (spoil("/metadata/labels/soak.dev~1run-attempt", "7".into()), "another record"),
        (spoil("/metadata/labels/soak.dev~1cycle", "13".into()), "another record"),
        (spoil("/data/record.json", "{}".into()), "was changed"),
        (spoil("/metadata/annotations", json!({})), "was changed"),
    ] {
        let (client, server) = server(&[]);
        server.lock().unwrap().maps.insert(name.clone(), map);
        let error = store(client, &cycle()).await.unwrap_err();
        assert!(
            !error.is_transient() && error.to_string().contains(problem) && error.to_string().contains("delete it"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn content_that_a_webhook_changed_is_not_counted_as_stored() {
    let (client, _) = server(&[Fate::Altered]);
    let error = store(client.clone(), &cycle()).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("webhook"), "{error}");
    assert!(store(client, &cycle()).await.is_err(), "nor at the next try");
}

#[tokio::test]
async fn pruning_leaves_strangers_alone_and_does_not_mind_what_is_gone() {
    let (client, server) = server(&[]);
    store(client.clone(), &cycle()).await.unwrap();
    let stranger = record_name(&run(), RecordPart::Cycle(3));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": stranger, "uid": "x", "labels": {label::RUN_UID: "another"}}});
    server.lock().unwrap().maps.insert(stranger.clone(), map);
    let names = [record_name(&run(), RecordPart::Cycle(1)), stranger.clone(), cycle().name()];
    let pruned = prune(client.clone(), "soak", &run().uid, &names).await.unwrap();
    assert_eq!((pruned.deleted, pruned.foreign), (1, vec![stranger.clone()]));
    assert_eq!(server.lock().unwrap().maps.keys().collect::<Vec<_>>(), [&stranger]);
    assert_eq!(prune(client, "soak", &run().uid, &names).await.unwrap().deleted, 0);
}

#[tokio::test]
async fn records_are_read_in_order_and_a_change_is_noticed() {
    let (client, server) = server(&[]);
    let mut second = record();
    second.cycle = 2;
    for record in [ConfigMapRecord::from(&summary()), cycle(), ConfigMapRecord::from(&second)] {
        store(client.clone(), &record).await.unwrap();
    }
    let mut foreign = serde_json::to_value(ConfigMap::default()).unwrap();
    foreign["metadata"]["name"] = "foreign".into();
    {
        let mut guard = server.lock().unwrap();
        guard.maps.insert("foreign".into(), foreign);
        guard.maps.get_mut(&cycle().name()).unwrap()["data"][KEY] = "{}".into();
    }
    let records = read(client, "soak", &run().uid).await.unwrap();
    let parts: Vec<(RecordPart, bool)> = records.iter().map(|record| (record.part, record.intact)).collect();
    assert_eq!(parts, [(RecordPart::Cycle(2), true), (RecordPart::Cycle(12), false), (RecordPart::Summary, true)]);
    assert_eq!(records[0].cycle().unwrap(), second);
    assert_eq!(records[2].summary().unwrap().verdict, summary().verdict);
    assert_eq!((records[0].outcome.as_str(), records[0].attempt), ("Failed", 1));
}

#[tokio::test]
async fn a_record_whose_uid_is_known_is_deleted_by_one_call_and_another_of_its_name_is_not() {
    let (client, server) = server(&[]);
    let stored = store(client.clone(), &cycle()).await.unwrap();
    let other = delete_stored(client.clone(), "soak", &cycle().name(), "another").await.unwrap_err();
    assert!(other.is_transient(), "{other}");
    delete_stored(client.clone(), "soak", &cycle().name(), &stored.uid).await.unwrap();
    delete_stored(client, "soak", &cycle().name(), &stored.uid).await.unwrap();
    assert_eq!(log(&server), "POST DELETE DELETE DELETE");
    assert!(server.lock().unwrap().maps.is_empty());
}
