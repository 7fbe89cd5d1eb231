//! What people do to a run: suspend, abort, delete, run again; and how it ends, with and without them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{self as k8s, ConfigMap, Pod},
    events::v1::Event,
    rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use soak_operator::api::{
    ConditionStatus, SoakRun,
    names::label,
    status::{RunPhase, StepState},
};
use support::{Namespace, Operator, is_condition, is_running, kubeconfig, phase, script, step, wait_for};

/// A moment of a run.
type Moment = fn(&SoakRun) -> bool;

/// After so long a run gives up what it may not delete.
const RELEASE_LIMIT: Duration = Duration::from_mins(2);

/// How long a test looks on to see that nothing happens.
const LOOK: Duration = Duration::from_secs(2);

/// A step that can be asked to stop.
fn busy(seconds: u32) -> Value {
    script(&format!("trap 'exit 0' TERM; for i in $(seq {seconds}0); do sleep 0.1; done"))
}

/// A run that stays in the phase of its name until it is ended, so that it is met there on a slow machine as well; a cleanup, which
/// nothing ends, lasts for a while. It leaves the ConfigMap `tidied-RUN`.
fn long(name: &str) -> Value {
    let lasts = |place: &str, seconds: u32| if place == name { seconds } else { 1 };
    json!({
        "cycles": 2,
        "cooldown": format!("{}s", lasts("cooldown", 600)),
        "setup": [{"name": "prepare", "pod": busy(lasts("setup", 600))}],
        "phases": [{"name": "work", "steps": [
            {"name": "load", "background": true, "pod": busy(600)},
            {"name": "one", "pod": busy(lasts("running", 600))},
        ]}],
        "cleanup": [
            {"name": "tidy", "pod": busy(lasts("cleanup", 10))},
            {"name": "tell", "apply": {"deleteAfter": "Never", "manifest": {
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("tidied-{name}")}, "data": {"by": "cleanup"},
            }}},
        ],
    })
}

/// Each phase that a run can be met in, by the name of a run that is met there.
fn moments() -> [(&'static str, Moment); 4] {
    [
        ("setup", |run| is_running(run, "prepare")),
        ("running", |run| is_running(run, "load") && is_running(run, "one")),
        ("cooldown", |run| phase(run) == RunPhase::CoolingDown),
        ("cleanup", |run| is_running(run, "tidy")),
    ]
}

async fn namespace(prefix: &str) -> Namespace {
    let namespace = Namespace::create(prefix).await;
    let verbs = json!(["create", "get", "list", "watch", "patch", "delete"]);
    namespace.allow("soak-maps", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}])).await;
    namespace
}

fn maps(namespace: &Namespace) -> Api<ConfigMap> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

async fn is_tidied(namespace: &Namespace, run: &str) -> bool {
    maps(namespace).get_opt(&format!("tidied-{run}")).await.unwrap().is_some()
}

/// Waits until a run has no pods.
async fn pods_are_gone(namespace: &Namespace, run: &str) {
    wait_for("the end of the run's pods", || async { pods_of(namespace, run).await.is_empty().then_some(()) }).await;
}

async fn pods_of(namespace: &Namespace, run: &str) -> Vec<Pod> {
    let selector = ListParams::default().labels(&format!("{}={run}", label::RUN));
    namespace.pods().list(&selector).await.unwrap().items
}

async fn is_gone(namespace: &Namespace, run: &str) {
    wait_for("the run's end", || async { namespace.runs().get_opt(run).await.ok()?.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn no_step_begins_while_a_run_is_suspended() {
    let namespace = namespace("suspend").await;
    let _operator = Operator::start(&namespace);
    namespace
        .run(
            "held",
            json!({"phases": [{"name": "work", "steps": [
                {"name": "one", "pod": busy(8)},
                {"name": "two", "pod": busy(1)},
            ]}]}),
        )
        .await;
    namespace.until("held", "ran its first step", |run| is_running(run, "one")).await;
    namespace.patch_run("held", json!({"suspend": true})).await;
    let one_has_ended = |run: &SoakRun| {
        step(run, "one").is_some_and(|step| step.state == StepState::Succeeded)
            && run.status.as_ref().is_some_and(|status| status.suspended_at.is_some())
    };
    namespace.until("held", "ended the step that ran", one_has_ended).await;
    tokio::time::sleep(LOOK).await;
    let run = namespace.runs().get("held").await.unwrap();
    assert_eq!(step(&run, "two").unwrap().attempt, 0, "{:#?}", run.status);
    let second = |pod: &&Pod| pod.labels().get(label::STEP).is_some_and(|step| step == "two");
    assert_eq!(pods_of(&namespace, "held").await.iter().filter(second).count(), 0);

    namespace.patch_run("held", json!({"suspend": false})).await;
    let run = namespace.ended("held").await;
    assert_eq!(phase(&run), RunPhase::Succeeded);
    assert!(run.status.unwrap().suspended_millis >= 2_000);
    namespace.delete().await;
}

#[tokio::test]
async fn an_abort_cleans_up_in_every_phase() {
    let namespace = namespace("abort").await;
    let _operator = Operator::start(&namespace);
    for (name, _) in moments() {
        namespace.run(name, long(name)).await;
    }
    let abort = |(name, moment): (&'static str, Moment)| {
        let namespace = &namespace;
        async move {
            namespace.until(name, "came to its moment", moment).await;
            namespace.patch_run(name, json!({"abort": true})).await;
            let run = namespace.ended(name).await;
            let status = run.status.as_ref().unwrap();
            // Once the verdict is given, an abort has nothing to stop.
            let expected =
                if name == "cleanup" { (RunPhase::Succeeded, "Passed") } else { (RunPhase::Aborted, "Aborted") };
            assert_eq!((status.phase, status.reason.as_str()), expected, "{name}: {status:#?}");
            assert!(is_tidied(namespace, name).await, "{name}");
            assert_eq!(namespace.records(&run, "summary").await.len(), 1, "{name}");
            pods_are_gone(namespace, name).await;
        }
    };
    futures::future::join_all(moments().map(abort)).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_deleted_run_cleans_up_and_disappears_in_every_phase() {
    let namespace = namespace("delete").await;
    let _operator = Operator::start(&namespace);
    for (name, _) in moments() {
        namespace.run(name, long(name)).await;
    }
    let delete = |(name, moment): (&'static str, Moment)| {
        let namespace = &namespace;
        async move {
            namespace.until(name, "came to its moment", moment).await;
            namespace.runs().delete(name, &DeleteParams::background()).await.unwrap();
            is_gone(namespace, name).await;
            assert!(is_tidied(namespace, name).await, "{name}");
            pods_are_gone(namespace, name).await;
        }
    };
    futures::future::join_all(moments().map(delete)).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_namespace_does_not_wait_for_a_run_that_may_not_delete_what_it_made() {
    let namespace = namespace("going").await;
    let _operator = Operator::start(&namespace);
    let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}});
    let steps = json!([
        {"name": "made", "apply": {"deleteAfter": "Run", "manifest": made}},
        {"name": "long", "sleep": {"duration": "1h"}},
    ]);
    namespace.run("holds", json!({"phases": [{"name": "work", "steps": steps}]})).await;
    namespace.until("holds", "made it", |run| step(run, "long").is_some_and(|it| it.state == StepState::Active)).await;
    // The rights go with the namespace, sometimes before what they are for.
    let bindings: Api<RoleBinding> = Api::namespaced(namespace.client.clone(), &namespace.name);
    bindings.delete("soak-maps", &DeleteParams::default()).await.unwrap();
    let (namespaces, name) = (Api::<k8s::Namespace>::all(namespace.client.clone()), namespace.name.clone());
    let began = Instant::now();
    namespace.delete().await;
    wait_for("the namespace to go", || async { namespaces.get_opt(&name).await.ok()?.is_none().then_some(()) }).await;
    assert!(began.elapsed() < RELEASE_LIMIT, "the run was let go when it had given its object up");
}

#[tokio::test]
async fn a_run_that_never_began_or_has_ended_is_deleted_at_once() {
    let namespace = namespace("delete").await;
    namespace.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bare"}})).await;
    let _operator = Operator::start(&namespace);
    let mut without_rights = long("waits");
    without_rights["serviceAccountName"] = json!("bare");
    namespace.run("waits", without_rights).await;
    namespace.run("ended", json!({"phases": [{"name": "work", "steps": [{"name": "one", "pod": busy(1)}]}]})).await;
    let refused = |run: &SoakRun| run.status.as_ref().is_some_and(|status| status.reason == "PermissionDenied");
    namespace.until("waits", "was refused", refused).await;
    namespace.ended("ended").await;
    for name in ["waits", "ended"] {
        namespace.runs().delete(name, &DeleteParams::background()).await.unwrap();
        is_gone(&namespace, name).await;
        pods_are_gone(&namespace, name).await;
    }
    assert!(!is_tidied(&namespace, "waits").await, "nothing was done that had to be cleaned up");
    namespace.delete().await;
}

#[tokio::test]
async fn a_foreground_deletion_ends_without_a_cleanup_that_could_not_run() {
    let namespace = namespace("delete").await;
    let _operator = Operator::start(&namespace);
    namespace.run("fore", long("running")).await;
    namespace.until("fore", "ran", |run| is_running(run, "load") && is_running(run, "one")).await;
    namespace.runs().delete("fore", &DeleteParams::foreground()).await.unwrap();
    is_gone(&namespace, "fore").await;
    pods_are_gone(&namespace, "fore").await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_run_that_waits_for_a_right_is_aborted_or_goes_on_when_it_comes() {
    let namespace = namespace("rights").await;
    namespace.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bare"}})).await;
    let _operator = Operator::start(&namespace);
    let spec =
        json!({"serviceAccountName": "bare", "phases": [{"name": "work", "steps": [{"name": "one", "pod": busy(1)}]}]});
    namespace.run("aborted", spec.clone()).await;
    namespace.run("patient", spec).await;
    let refused = |run: &SoakRun| run.status.as_ref().is_some_and(|status| status.reason == "PermissionDenied");
    for name in ["aborted", "patient"] {
        namespace.until(name, "was refused", refused).await;
    }
    namespace.patch_run("aborted", json!({"abort": true})).await;
    assert_eq!(phase(&namespace.ended("aborted").await), RunPhase::Aborted);
    namespace.bind("bare", "soak-pods", "bare").await;
    assert_eq!(phase(&namespace.ended("patient").await), RunPhase::Succeeded);
    namespace.delete().await;
}

#[tokio::test]
async fn each_failure_policy_ends_a_run_when_it_is_exceeded() {
    let namespace = namespace("policy").await;
    let _operator = Operator::start(&namespace);
    let fails_in = |cycles: &str, policy: Value| {
        let step = script(&format!("case $SOAK_CYCLE in {cycles}) exit 3;; esac"));
        json!({"cycles": 6, "failurePolicy": policy, "phases": [{"name": "work", "steps": [{"name": "one", "pod": step}]}]})
    };
    namespace.run("first", fails_in("2", json!({"stopOnFailure": true}))).await;
    namespace.run("most", fails_in("1|3", json!({"maxFailures": 1}))).await;
    namespace.run("in-a-row", fails_in("1|3|4", json!({"maxConsecutiveFailures": 1}))).await;
    namespace.run("none", fails_in("5", json!({}))).await;
    for (name, reason, completed, failed) in [
        ("first", "FailurePolicyExceeded", 2, 1),
        ("most", "FailurePolicyExceeded", 3, 2),
        ("in-a-row", "FailurePolicyExceeded", 4, 3),
        ("none", "ThresholdFailed", 6, 1),
    ] {
        let run = namespace.ended(name).await;
        let status = run.status.as_ref().unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Failed, reason), "{name}: {status:#?}");
        assert_eq!((status.cycles.completed, status.cycles.failed), (completed, failed), "{name}");
        assert_eq!(namespace.records(&run, "cycle").await.len(), completed as usize, "{name}");
        assert!(is_condition(&run, "Succeeded", ConditionStatus::False), "{name}");
    }
    namespace.delete().await;
}

#[tokio::test]
async fn a_run_and_its_records_go_when_their_time_is_over() {
    let namespace = namespace("ttl").await;
    let _operator = Operator::start(&namespace);
    let spec =
        json!({"ttlAfterFinished": "8s", "phases": [{"name": "work", "steps": [{"name": "one", "pod": busy(1)}]}]});
    namespace.run("short", spec).await;
    let run = namespace.ended("short").await;
    assert_eq!(namespace.records(&run, "cycle").await.len(), 1);
    is_gone(&namespace, "short").await;
    wait_for("the end of the records", || async {
        let selector = ListParams::default().labels(&format!("{}={}", label::RUN_UID, run.uid().unwrap()));
        maps(&namespace).list(&selector).await.ok()?.items.is_empty().then_some(())
    })
    .await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_rerun_begins_a_new_attempt_with_records_of_its_own() {
    let namespace = namespace("rerun").await;
    let _operator = Operator::start(&namespace);
    let spec = |code: u32| json!({"cycles": 1, "phases": [{"name": "work", "steps": [{"name": "one", "pod": script(&format!("exit {code}"))}]}]});
    namespace.run("again", spec(1)).await;
    let first = namespace.ended("again").await;
    assert_eq!((phase(&first), first.status.as_ref().unwrap().attempt), (RunPhase::Failed, 1));
    let mut second = spec(0);
    second["rerun"] = json!("two");
    second["cycles"] = json!(2);
    namespace.patch_run("again", second).await;
    let run = namespace
        .until("again", "ended again", |run| {
            run.status.as_ref().is_some_and(|status| status.attempt == 2 && status.phase.is_final())
        })
        .await;
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.cycles.completed, status.cycles.failed), (RunPhase::Succeeded, 2, 0));
    let attempts: Vec<Value> =
        namespace.records(&run, "cycle").await.iter().map(|record| record["run"]["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 2, 2]);
    assert_eq!(namespace.records(&run, "summary").await.len(), 2);
    namespace.delete().await;
}

#[tokio::test]
async fn a_finished_run_costs_no_writes() {
    let namespace = namespace("finished").await;
    let operator = Operator::start(&namespace);
    let spec = json!({"phases": [{"name": "work", "steps": [{"name": "one", "pod": busy(1)}]}]});
    namespace.run("done", spec.clone()).await;
    namespace.ended("done").await;
    pods_are_gone(&namespace, "done").await;
    let released = |run: &SoakRun| run.metadata.finalizers.iter().flatten().next().is_none();
    let version = namespace.until("done", "was released", released).await.resource_version();
    for _ in 0..2 {
        tokio::time::sleep(LOOK).await;
        assert_eq!(namespace.runs().get("done").await.unwrap().resource_version(), version);
    }
    operator.kill();
    let _operator = Operator::start(&namespace);
    // The new process has looked at the old run long before it has driven another one to its end.
    namespace.run("other", spec).await;
    namespace.ended("other").await;
    assert_eq!(namespace.runs().get("done").await.unwrap().resource_version(), version);
    namespace.delete().await;
}

#[tokio::test]
async fn a_second_writer_does_not_disturb_a_run() {
    let namespace = namespace("writer").await;
    let _operator = Operator::start(&namespace);
    let spec = json!({"cycles": 3, "phases": [{"name": "work", "steps": [
        {"name": "one", "pod": script("echo $SOAK_CYCLE")},
        {"name": "nap", "sleep": {"duration": "100ms"}},
    ]}]});
    namespace.run("shared", spec).await;
    let runs = namespace.runs();
    let writer = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for tick in 0_u32.. {
            ticks.tick().await;
            let label = json!({"metadata": {"labels": {"example.com/tick": tick.to_string()}}});
            let forged = json!({"status": {"message": format!("tick {tick}"), "position": "nowhere"}});
            let parameters = PatchParams::default();
            if tick % 2 == 0 {
                let _ = runs.patch("shared", &parameters, &Patch::Merge(label)).await;
            } else {
                let _ = runs.patch_status("shared", &parameters, &Patch::Merge(forged)).await;
            }
        }
    });
    let run = namespace.ended("shared").await;
    writer.abort();
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.cycles.completed, status.cycles.passed), (RunPhase::Succeeded, 3, 3));
    let records = namespace.records(&run, "cycle").await;
    let numbers: Vec<&Value> = records.iter().map(|record| &record["cycle"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    for record in &records {
        let step = &record["phases"][0]["steps"][0];
        assert_eq!((&step["attempts"], &step["log"]["text"]), (&json!(1), &json!(format!("{}\n", record["cycle"]))));
    }
    namespace.delete().await;
}

#[tokio::test]
async fn a_wait_for_completion_ends_on_a_failed_run_and_events_tell_of_it() {
    let namespace = namespace("events").await;
    let _operator = Operator::start(&namespace);
    let spec = json!({"phases": [{"name": "work", "steps": [{"name": "one", "pod": script("sleep 1; exit 9")}]}]});
    let run = namespace.run("bad", spec).await;
    let kubectl = std::env::var("SOAK_TEST_KUBECTL").unwrap_or_else(|_| "kubectl".into());
    let arguments =
        ["wait", "--for=condition=Completed", "--timeout=60s", "soakrun/bad", "--namespace", &namespace.name];
    let mut command = Command::new(&kubectl);
    command.args(arguments).env("KUBECONFIG", kubeconfig());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("{kubectl} can't be started ({error}): set SOAK_TEST_KUBECTL"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(phase(&namespace.runs().get("bad").await.unwrap()), RunPhase::Failed);

    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    wait_for("the events Started and ThresholdFailed", || async {
        let selector = ListParams::default().fields(&format!("regarding.uid={}", run.uid().unwrap()));
        let events = events.list(&selector).await.ok()?;
        let told = |reason: &str| events.iter().any(|event| event.reason.as_deref() == Some(reason));
        (told("Started") && told("ThresholdFailed")).then_some(())
    })
    .await;
    namespace.delete().await;
}

#[tokio::test]
async fn an_ended_run_lets_its_finalizer_go_and_disappears_at_its_time_to_live() {
    let namespace = Namespace::create("lifecycle").await;
    let _operator = Operator::start(&namespace);
    let mut spec = json!({"phases": [{"name": "work", "steps": [{"name": "one", "sleep": {"duration": "0s"}}]}]});
    namespace.run("stays", spec.clone()).await;
    let free = |run: &SoakRun| {
        is_condition(run, "Completed", ConditionStatus::True) && run.metadata.finalizers.iter().flatten().count() == 0
    };
    namespace.until("stays", "let its finalizer go", free).await;
    spec["ttlAfterFinished"] = json!("1s");
    namespace.run("short", spec).await;
    let runs = namespace.runs();
    wait_for("the run's deletion", || async { runs.get_opt("short").await.ok()?.is_none().then_some(()) }).await;
    namespace.delete().await;
}
