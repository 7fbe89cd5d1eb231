//! Several operators: by election one of them works and another takes over; even without one no step is run twice.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use soak_operator::api::{names::label, status::RunPhase};
use support::{Namespace, Operator, script, wait_for};
use tokio::task::JoinHandle;

/// How long a lease holds, and how long a replica may take to see that it is free and to begin.
const LEASE: Duration = Duration::from_secs(15);
const TAKEOVER: Duration = Duration::from_secs(10);

type Book = Arc<Mutex<BTreeMap<[String; 4], BTreeSet<String>>>>;

/// Every pod that was ever seen in the namespace: the uids by attempt of the run, cycle, phase and step.
struct Ledger {
    pods: Book,
    watch: JoinHandle<()>,
}

impl Ledger {
    fn open(namespace: &Namespace) -> Self {
        let pods = Book::default();
        let book = pods.clone();
        let events = watcher(namespace.pods(), watcher::Config::default().labels(label::RUN_UID)).default_backoff();
        let watch = tokio::spawn(events.touched_objects().for_each(move |pod| {
            let Ok(pod) = pod else { return std::future::ready(()) };
            let place = [label::RUN_ATTEMPT, label::CYCLE, label::PHASE, label::STEP]
                .map(|name| pod.labels().get(name).cloned().unwrap_or_default());
            book.lock().entry(place).or_default().insert(pod.uid().unwrap());
            std::future::ready(())
        }));
        Self { pods, watch }
    }

    /// Checks that each step of each cycle had exactly one pod, and answers how many pods that were.
    fn check(self) -> usize {
        self.watch.abort();
        let pods = self.pods.lock();
        for (place, pods) in &*pods {
            assert_eq!(pods.len(), 1, "{place:?} ran more than once");
        }
        pods.len()
    }
}

fn spec(cycles: u32, seconds: u32) -> Value {
    json!({
        "cycles": cycles,
        "setup": [{"name": "prepare", "pod": script("echo prepared")}],
        "phases": [{"name": "work", "steps": [
            {"name": "one", "pod": script(&format!("sleep {seconds}"))},
            {"name": "group", "parallel": [
                {"name": "left", "pod": script("echo left")},
                {"name": "right", "pod": script("echo right")},
            ]},
        ]}],
        "cleanup": [{"name": "tidy", "pod": script("echo tidied")}],
    })
}

async fn check(namespace: &Namespace, name: &str, cycles: u32, ledger: Ledger) {
    let run = namespace.ended(name).await;
    let status = run.status.as_ref().unwrap();
    assert_eq!(status.phase, RunPhase::Succeeded, "{status:#?}");
    assert_eq!((status.cycles.completed, status.cycles.passed), (cycles, cycles));
    let records = namespace.records(&run, "cycle").await;
    let numbers: Vec<u64> = records.iter().map(|record| record["cycle"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=u64::from(cycles)).collect::<Vec<_>>());
    assert_eq!(ledger.check(), 2 + 3 * cycles as usize);
}

fn candidate(namespace: &Namespace, name: &str) -> Operator {
    Operator::start_with(namespace, &["--leader-elect", "--instance", name])
}

fn leads(operator: &Operator) -> bool {
    operator.logged().contains("the operator works")
}

async fn led(operator: &Operator) {
    wait_for("the replica's lead", || async { leads(operator).then_some(()) }).await;
}

async fn holder(namespace: &Namespace) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
    leases.get("soak-operator").await.unwrap().spec.unwrap().holder_identity
}

/// Two replicas, the first of which leads, and a run at whose long step the test goes on.
async fn two_replicas(prefix: &str) -> (Namespace, Ledger, Operator, Operator) {
    let namespace = Namespace::create(prefix).await;
    let ledger = Ledger::open(&namespace);
    let leader = candidate(&namespace, "first");
    led(&leader).await;
    let standby = candidate(&namespace, "second");
    wait_for("the standby", || async { standby.logged().contains("waiting for the lease").then_some(()) }).await;
    namespace.run("shared", spec(2, 3)).await;
    let works = |run: &soak_operator::api::SoakRun| {
        run.status.as_ref().is_some_and(|status| status.position.contains("work/one"))
    };
    namespace.until("shared", "ran its step", works).await;
    assert_eq!(holder(&namespace).await.as_deref(), Some("first"));
    assert!(!leads(&standby), "only one works:\n{}", standby.logged());
    (namespace, ledger, leader, standby)
}

#[tokio::test]
async fn another_replica_takes_over_within_the_lease_of_a_killed_one() {
    let (namespace, ledger, leader, standby) = two_replicas("replicas").await;
    leader.kill();
    let killed = Instant::now();
    led(&standby).await;
    let took = killed.elapsed();
    assert!(took < LEASE + TAKEOVER, "{took:?}");
    check(&namespace, "shared", 2, ledger).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_replica_that_is_asked_to_end_hands_its_lease_over_at_once() {
    let (namespace, ledger, leader, standby) = two_replicas("replicas").await;
    let log = leader.log.clone();
    let asked = Instant::now();
    let (took, good) = tokio::task::spawn_blocking(move || leader.terminate()).await.unwrap();
    assert!(good && took < Duration::from_secs(5), "{took:?}\n{}", std::fs::read_to_string(log).unwrap());
    led(&standby).await;
    let took = asked.elapsed();
    assert!(took < LEASE / 2, "the lease was not given back: {took:?}");
    assert_eq!(holder(&namespace).await.as_deref(), Some("second"));
    check(&namespace, "shared", 2, ledger).await;

    let (took, good) = tokio::task::spawn_blocking(move || standby.terminate()).await.unwrap();
    assert!(good && took < Duration::from_secs(5), "{took:?}");
    namespace.delete().await;
}

#[tokio::test]
async fn a_replica_that_waits_ends_when_it_is_asked_to() {
    let namespace = Namespace::create("replicas").await;
    let leader = candidate(&namespace, "first");
    led(&leader).await;
    let standby = candidate(&namespace, "second");
    wait_for("the standby", || async { standby.logged().contains("waiting for the lease").then_some(()) }).await;
    let (took, good) = tokio::task::spawn_blocking(move || standby.terminate()).await.unwrap();
    assert!(good && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(holder(&namespace).await.as_deref(), Some("first"));
    namespace.delete().await;
}

#[tokio::test]
async fn two_operators_that_both_believe_they_lead_run_nothing_twice() {
    let namespace = Namespace::create("replicas").await;
    let ledger = Ledger::open(&namespace);
    let (one, other) = (Operator::start(&namespace), Operator::start(&namespace));
    led(&one).await;
    led(&other).await;
    namespace.run("shared", spec(4, 1)).await;
    check(&namespace, "shared", 4, ledger).await;
    namespace.delete().await;
}
