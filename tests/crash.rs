//! The operator is killed at any moment and started again: no step is run twice, no cycle is lost, the verdict is right.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use soak_operator::api::{SoakRun, names::label, status::RunPhase};
use support::{Namespace, Operator, is_running, script, step, wait_for};
use tokio::task::JoinHandle;

/// Attempt of the run, cycle, phase, step.
type Place = [String; 4];

/// Attempt of the step, and uid, of each pod of a place.
type Book = BTreeMap<Place, BTreeSet<(String, String)>>;

/// Every pod that was ever seen in the namespace, by where in the run it belongs.
struct Ledger {
    pods: Arc<Mutex<Book>>,
    watch: JoinHandle<()>,
}

impl Ledger {
    fn open(namespace: &Namespace) -> Self {
        let pods = Arc::<Mutex<Book>>::default();
        let book = pods.clone();
        let events = watcher(namespace.pods(), watcher::Config::default().labels(label::RUN_UID)).default_backoff();
        let watch = tokio::spawn(events.touched_objects().for_each(move |pod| {
            let Ok(pod) = pod else { return std::future::ready(()) };
            let place = [label::RUN_ATTEMPT, label::CYCLE, label::PHASE, label::STEP].map(|name| of(&pod, name));
            book.lock().entry(place).or_default().insert((of(&pod, label::STEP_ATTEMPT), pod.uid().unwrap()));
            std::future::ready(())
        }));
        Self { pods, watch }
    }

    /// Checks that each step of each cycle had exactly one pod, and answers how many pods that were.
    fn check(self) -> usize {
        self.watch.abort();
        let pods = self.pods.lock();
        for (place, pods) in &*pods {
            assert_eq!(pods.len(), 1, "{place:?} ran more than once: {pods:?}");
        }
        pods.len()
    }
}

fn of(pod: &Pod, name: &str) -> String {
    pod.labels().get(name).cloned().unwrap_or_default()
}

/// A step that says once where it is, and takes a while.
fn say(seconds: &str) -> Value {
    script(&format!(
        r#"echo $SOAK_CYCLE $SOAK_PHASE $SOAK_STEP; sleep {seconds}; echo '{{"ran": 1}}' > /dev/termination-log"#
    ))
}

/// What the tests run: setup, a phase, a phase with a background step and a group, cooldown, cleanup. Six pods a cycle. At `met` it
/// lasts long enough to be met there on a slow machine as well.
fn spec(cycles: u32, met: &str) -> Value {
    let lasts = |place: &str| if place == met { "8" } else { "1" };
    let load = script(&format!(
        "echo $SOAK_CYCLE $SOAK_PHASE $SOAK_STEP; trap 'sleep {}; exit 0' TERM; while true; do sleep 0.1; done",
        lasts("stopping")
    ));
    json!({
        "cycles": cycles,
        "cooldown": format!("{}s", lasts("cooldown")),
        "setup": [{"name": "prepare", "pod": say(lasts("setup"))}],
        "phases": [
            {"name": "first", "steps": [{"name": "one", "pod": say(lasts("first"))}]},
            {"name": "second", "steps": [
                {"name": "load", "background": true, "pod": load},
                {"name": "before", "pod": say(lasts("background"))},
                {"name": "group", "parallel": [
                    {"name": "left", "pod": say(lasts("group"))},
                    {"name": "right", "pod": say(lasts("group"))},
                    {"name": "nap", "sleep": {"duration": "1500ms"}},
                ]},
            ]},
        ],
        "cleanup": [{"name": "tidy", "pod": say(lasts("cleanup"))}],
    })
}

/// Checks the verdict, the counters, the records and that every step told once where it ran.
async fn check(namespace: &Namespace, name: &str, ledger: Ledger, cycles: u32) {
    let run = namespace.ended(name).await;
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Succeeded, "Passed"), "{status:#?}");
    let counts = &status.cycles;
    assert_eq!((counts.completed, counts.passed, counts.failed, counts.inconclusive), (cycles, cycles, 0, 0));
    let records = namespace.records(&run, "cycle").await;
    let numbers: Vec<u64> = records.iter().map(|record| record["cycle"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=u64::from(cycles)).collect::<Vec<_>>());
    let mut told = 0;
    for kind in ["setup", "cycle", "cleanup"] {
        let records = namespace.records(&run, kind).await;
        assert_eq!(records.len(), if kind == "cycle" { cycles as usize } else { 1 }, "{kind}");
        for record in &records {
            assert_eq!(record["outcome"], "Succeeded", "{record:#}");
            for phase in record["phases"].as_array().unwrap() {
                for step in phase["steps"].as_array().unwrap().iter().filter(|step| step["kind"] == "pod") {
                    let text = format!("{} {} {}\n", record["cycle"], text(&phase["name"]), text(&step["name"]));
                    assert_eq!(text_of_log(step), text, "{step:#}");
                    told += 1;
                }
            }
        }
    }
    assert_eq!(namespace.records(&run, "summary").await.len(), 1);
    assert_eq!(told, 2 + 5 * cycles as usize);
    assert_eq!(ledger.check(), told, "each step had its one pod");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn text_of_log(step: &Value) -> &str {
    step["log"]["text"].as_str().unwrap_or_default()
}

/// How long the operator stays away.
#[derive(Clone, Copy)]
enum Away {
    /// It is started again at once.
    Briefly,
    /// Until every pod but the background step's has ended without it.
    UntilPodsEnd,
}

/// Kills the operator at the first moment that satisfies `moment`, in the first cycle.
async fn killed(name: &str, away: Away, moment: impl Fn(&SoakRun) -> bool) {
    let namespace = Namespace::create("crash").await;
    let ledger = Ledger::open(&namespace);
    let operator = Operator::start(&namespace);
    namespace.run(name, spec(1 + u32::from(name == "cooldown"), name)).await;
    namespace.until(name, "came to the moment of the crash", moment).await;
    operator.kill();
    if matches!(away, Away::UntilPodsEnd) {
        wait_for("the end of the pods", || async {
            let pods = namespace.pods().list(&kube::api::ListParams::default()).await.ok()?;
            let ended = |pod: &Pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                matches!(phase, Some("Succeeded" | "Failed")) || of(pod, label::STEP) == "load"
            };
            pods.iter().all(ended).then_some(())
        })
        .await;
    }
    let _operator = Operator::start(&namespace);
    check(&namespace, name, ledger, 1 + u32::from(name == "cooldown")).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_crash_in_the_setup() {
    killed("setup", Away::Briefly, |run| is_running(run, "prepare")).await;
}

#[tokio::test]
async fn a_crash_in_the_first_phase_while_its_step_ends() {
    killed("first", Away::UntilPodsEnd, |run| is_running(run, "one")).await;
}

#[tokio::test]
async fn a_crash_as_soon_as_an_intent_is_written() {
    killed("intent", Away::Briefly, |run| step(run, "one").is_some_and(|step| step.attempt == 1)).await;
}

#[tokio::test]
async fn a_crash_beside_a_background_step() {
    killed("background", Away::UntilPodsEnd, |run| is_running(run, "load") && is_running(run, "before")).await;
}

#[tokio::test]
async fn a_crash_while_a_background_step_is_stopped() {
    killed("stopping", Away::Briefly, |run| step(run, "load").is_some_and(|step| step.stopping_at.is_some())).await;
}

#[tokio::test]
async fn a_crash_in_a_parallel_group() {
    killed("group", Away::UntilPodsEnd, |run| is_running(run, "group/left") && is_running(run, "group/right")).await;
}

#[tokio::test]
async fn a_crash_in_the_cooldown() {
    let cooling = |run: &SoakRun| run.status.as_ref().is_some_and(|status| status.phase == RunPhase::CoolingDown);
    killed("cooldown", Away::Briefly, cooling).await;
}

#[tokio::test]
async fn a_crash_in_the_cleanup() {
    killed("cleanup", Away::UntilPodsEnd, |run| is_running(run, "tidy")).await;
}

#[tokio::test]
async fn a_crash_right_after_a_record_is_stored() {
    let namespace = Namespace::create("crash").await;
    let ledger = Ledger::open(&namespace);
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let selector = format!("{}=cycle", label::RECORD);
    let mut records =
        watcher(maps, watcher::Config::default().labels(&selector)).default_backoff().applied_objects().boxed();
    let mut operator = Operator::start(&namespace);
    namespace.run("record", spec(2, "")).await;
    for _ in 0..2 {
        tokio::time::timeout(support::PATIENCE, records.try_next()).await.expect("no record came").unwrap();
        operator.kill();
        operator = Operator::start(&namespace);
    }
    check(&namespace, "record", ledger, 2).await;
    namespace.delete().await;
}

#[tokio::test]
async fn crashes_at_random_moments_of_four_cycles() {
    /// After so many crashes the operator is left alone (L1).
    const CRASHES: u32 = 30;
    let namespace = Namespace::create("crash").await;
    let ledger = Ledger::open(&namespace);
    let mut spec = spec(4, "");
    spec["cooldown"] = json!("200ms");
    namespace.run("random", spec).await;
    let version = || async { namespace.runs().get("random").await.unwrap().resource_version().unwrap() };
    let mut still = 0;
    for _ in 0..CRASHES {
        let before = version().await;
        let operator = Operator::start(&namespace);
        wait_for("the operator", || async { operator.logged().contains("the operator works").then_some(()) }).await;
        if still == 3 {
            // An intent without a pod is doubted for some seconds: let one life be long enough for that.
            wait_for("progress", || async { (version().await != before).then_some(()) }).await;
        }
        // The random moment is what is tested here; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..700))).await;
        operator.kill();
        still = if version().await == before { still + 1 } else { 0 };
    }
    let _operator = Operator::start(&namespace);
    check(&namespace, "random", ledger, 4).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_step_runs_out_of_time_while_the_operator_is_down() {
    let namespace = Namespace::create("crash").await;
    let ledger = Ledger::open(&namespace);
    let operator = Operator::start(&namespace);
    let hang = script("trap 'exit 143' TERM; while true; do sleep 0.1; done");
    namespace
        .run("late", json!({"phases": [{"name": "work", "steps": [{"name": "hang", "timeout": "4s", "pod": hang}]}]}))
        .await;
    namespace.until("late", "ran its step", |run| is_running(run, "hang")).await;
    operator.kill();
    wait_for("the pod's end by its own deadline", || async {
        let pods = namespace.pods().list(&kube::api::ListParams::default()).await.ok()?;
        let status = pods.items.first()?.status.clone()?;
        (status.reason.as_deref() == Some("DeadlineExceeded")).then_some(())
    })
    .await;
    let _operator = Operator::start(&namespace);
    let run = namespace.ended("late").await;
    let status = run.status.as_ref().unwrap();
    assert_eq!(status.phase, RunPhase::Failed);
    let record = &namespace.records(&run, "cycle").await[0];
    let step = &record["phases"][0]["steps"][0];
    assert_eq!((&step["reason"], &step["attempts"]), (&json!("Timeout"), &json!(1)), "{step:#}");
    assert_eq!(ledger.check(), 1);
    namespace.delete().await;
}
