//! Schedules make runs, keep to their policy, keep history by outcome, and tell at once what is wrong with them.
//!
//! A tick once a year is made to have been missed, so that nothing waits for the clock.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use chrono::{Datelike, TimeDelta, TimeZone, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use soak_operator::api::{Condition, ConditionStatus, SoakRun, SoakSchedule, condition, status::RunPhase};
use support::{Namespace, Operator, plugin, wait_for};

/// A run that waits for a word.
fn run_template() -> Value {
    json!({
        "metadata": {"labels": {"suite": "words"}},
        "spec": {
            "serviceAccountName": "soak", "cycles": 1,
            "phases": [{"name": "p", "steps": [{"name": "s", "wait": {
                "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "verdict"},
                "until": "object != null && object.data.word == 'good'",
                "failWhen": "object != null && object.data.word == 'bad'",
            }}]}],
        },
    })
}

fn schedule(name: &str, spec: &Value) -> Value {
    let mut all = json!({"schedule": "@yearly", "serviceAccountName": "scheduler", "runTemplate": run_template()});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakSchedule", "metadata": {"name": name}, "spec": all})
}

/// A namespace whose account `scheduler` may do what schedules do, and whose account `soak` may look at ConfigMaps.
async fn namespace() -> Namespace {
    let namespace = Namespace::create("schedules").await;
    namespace
        .allow("maps", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]))
        .await;
    let rules = json!([{"apiGroups": ["soak.dev"], "resources": ["soakruns"], "verbs": ["create", "patch", "delete"]}]);
    namespace.account("scheduler", rules).await;
    namespace
}

fn schedules(namespace: &Namespace) -> Api<SoakSchedule> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

fn ready(schedule: &SoakSchedule) -> Option<&Condition> {
    condition::find(&schedule.status.as_ref()?.conditions, "Ready")
}

async fn until(namespace: &Namespace, name: &str, what: &str, judge: impl Fn(&SoakSchedule) -> bool) -> SoakSchedule {
    let schedules = schedules(namespace);
    wait_for(&format!("schedule {name}, {what}"), || async { schedules.get(name).await.ok().filter(|it| judge(it)) })
        .await
}

async fn until_ready(namespace: &Namespace, name: &str, reason: &str) -> Condition {
    let found = until(namespace, name, reason, |it| {
        ready(it)
            .is_some_and(|ready| ready.reason == reason && Some(ready.observed_generation) == it.metadata.generation)
    })
    .await;
    ready(&found).unwrap().clone()
}

async fn change(namespace: &Namespace, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    schedules(namespace).patch("nightly", &PatchParams::default(), &patch).await.unwrap();
}

/// Lets the schedule have missed the tick of that day of this January, and no other.
async fn miss(namespace: &Namespace, day: u32) {
    let expression = format!("0 0 {day} 1 *");
    change(namespace, json!({"schedule": expression})).await;
    let seen = |it: &SoakSchedule| it.status.as_ref().is_some_and(|status| status.calendar.starts_with(&expression));
    until(namespace, "nightly", "its times", seen).await;
    let tick = Utc.with_ymd_and_hms(Utc::now().year(), 1, day, 0, 0, 0).unwrap();
    let past = Patch::Merge(json!({"status": {"handledUntil": tick - TimeDelta::hours(1)}}));
    schedules(namespace).patch_status("nightly", &PatchParams::default(), &past).await.unwrap();
}

fn run_of(day: u32) -> String {
    format!("nightly-{}01{day:02}0000", Utc::now().year())
}

async fn say(namespace: &Namespace, word: &str) {
    namespace
        .apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "verdict"}, "data": {"word": word}}),
        )
        .await;
}

async fn names(namespace: &Namespace) -> Vec<String> {
    let mut names: Vec<String> =
        namespace.runs().list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}

async fn until_names(namespace: &Namespace, expected: &[String]) {
    let expected = expected.to_vec();
    wait_for(&format!("runs {expected:?}"), || async { (names(namespace).await == expected).then_some(()) }).await;
}

fn runs(run: &SoakRun) -> bool {
    run.status.as_ref().is_some_and(|status| status.phase == RunPhase::Running)
}

async fn begun(namespace: &Namespace, run: &str) {
    wait_for(run, || async { namespace.runs().get_opt(run).await.unwrap() }).await;
    namespace.until(run, "began", runs).await;
}

#[tokio::test]
async fn a_schedule_makes_runs_by_its_policy_and_keeps_them_by_outcome() {
    let namespace = namespace().await;
    let operator = Operator::start(&namespace);
    say(&namespace, "hold").await;
    let limits = json!({"successfulRunsHistoryLimit": 1, "failedRunsHistoryLimit": 1});
    namespace.apply(schedule("nightly", &limits)).await;
    until_ready(&namespace, "nightly", "Scheduled").await;
    assert!(names(&namespace).await.is_empty(), "a tick from before the schedule is none");

    miss(&namespace, 1).await;
    begun(&namespace, &run_of(1)).await;
    let run = namespace.runs().get(&run_of(1)).await.unwrap();
    assert_eq!((&run.labels()["soak.dev/schedule"][..], &run.labels()["suite"][..]), ("nightly", "words"));
    assert!(run.annotations()["soak.dev/scheduled-at"].ends_with("-01-01T00:00:00Z"));
    let owner = &run.owner_references()[0];
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), None));
    let creates = |it: &ManagedFieldsEntry| it.manager.as_deref() == Some("soak-run") && it.subresource.is_none();
    assert!(run.managed_fields().iter().any(creates), "it is made as what a spec asks for");
    operator.kill();
    let operator = Operator::start(&namespace);

    miss(&namespace, 2).await;
    let waits = until_ready(&namespace, "nightly", "WaitingForRun").await;
    assert!(waits.message.ends_with(&format!("waits for the end of {}", run_of(1))), "{}", waits.message);
    assert_eq!(names(&namespace).await, [run_of(1)]);
    say(&namespace, "good").await;
    until_names(&namespace, &[run_of(2)]).await;
    let good = until(&namespace, "nightly", "two good runs", |it| {
        it.status.as_ref().unwrap().last_run.as_ref().is_some_and(|run| run.name == run_of(2))
    })
    .await;
    assert!(good.status.unwrap().last_successful_time.is_some());

    say(&namespace, "bad").await;
    miss(&namespace, 3).await;
    let failed =
        until(&namespace, "nightly", "a failed run", |it| it.status.as_ref().unwrap().consecutive_failures == 1).await;
    assert_eq!(failed.status.unwrap().last_run.unwrap().verdict, RunPhase::Failed);
    until_names(&namespace, &[run_of(2), run_of(3)]).await;
    let triggered = plugin(&namespace, &["trigger", "nightly", "--name", "by-hand"]);
    assert_eq!(String::from_utf8_lossy(&triggered.stdout), "soakrun.soak.dev/by-hand created\n", "{triggered:?}");
    until(&namespace, "nightly", "two failed runs", |it| it.status.as_ref().unwrap().consecutive_failures == 2).await;
    // By hand it was made after the tick of the third of January.
    until_names(&namespace, &["by-hand".to_owned(), run_of(2)]).await;

    say(&namespace, "hold").await;
    change(&namespace, json!({"concurrencyPolicy": "Replace", "failedRunsHistoryLimit": 3})).await;
    miss(&namespace, 4).await;
    begun(&namespace, &run_of(4)).await;
    miss(&namespace, 5).await;
    let replaced = namespace.ended(&run_of(4)).await;
    assert_eq!(replaced.status.unwrap().phase, RunPhase::Aborted);
    begun(&namespace, &run_of(5)).await;
    let status =
        until(&namespace, "nightly", "one active run", |it| it.status.as_ref().unwrap().active_runs == 1).await;
    assert_eq!(status.status.unwrap().active[0].name, run_of(5));

    schedules(&namespace).delete("nightly", &DeleteParams::default()).await.unwrap();
    until_names(&namespace, &[]).await;
    assert!(!operator.logged().contains("panicked"), "{}", operator.log.display());
    namespace.delete().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_at_once_and_harms_nobody_else() {
    let namespace = namespace().await;
    for name in ["nobody", "creator"] {
        namespace.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})).await;
    }
    let refused = |spec: Value| {
        let object = serde_json::from_value::<SoakSchedule>(schedule("refused", &spec)).unwrap();
        let schedules = schedules(&namespace);
        async move { schedules.create(&kube::api::PostParams::default(), &object).await.unwrap_err().to_string() }
    };
    let message = refused(json!({"schedule": "0 0 2 * * *"})).await;
    assert!(message.contains("write five fields"), "{message}");
    let message = refused(json!({"startingDeadline": "1s"})).await;
    assert!(message.contains("10s at least"), "{message}");

    let _operator = Operator::start(&namespace);
    let with = |change: Value| {
        let mut template = run_template();
        template["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"runTemplate": template})
    };
    let mut bad_expression = run_template();
    bad_expression["spec"]["phases"][0]["steps"][0]["wait"]["until"] = "object.".into();
    let cases = [
        ("minute", json!({"schedule": "61 * * * *"}), "InvalidSchedule", "`61 * * * *` can't be read"),
        ("never", json!({"schedule": "0 0 30 2 *"}), "InvalidSchedule", "no such time will ever come"),
        ("zone", json!({"timeZone": "Europe/Berln"}), "InvalidSchedule", "write one such as Europe/Berlin"),
        ("type", with(json!({"cycles": "many"})), "InvalidSpec", "spec.cycles"),
        ("field", with(json!({"cyles": 2})), "InvalidSpec", "unknown field \"spec.cyles\""),
        ("rule", with(json!({"phases": []})), "InvalidSpec", "set phases, or a templateRef"),
        ("expression", json!({"runTemplate": bad_expression}), "InvalidSpec", "until"),
        ("template", with(json!({"templateRef": {"name": "gone"}})), "NotFound", "there is no SoakTemplate gone"),
        (
            "rights",
            json!({"serviceAccountName": "nobody"}),
            "PermissionDenied",
            "/nobody may not create soakruns.soak.dev",
        ),
    ];
    for (name, spec, ..) in &cases {
        namespace.apply(schedule(name, spec)).await;
    }
    namespace.apply(schedule("good", &json!({}))).await;
    until_ready(&namespace, "good", "Scheduled").await;
    for (name, _, reason, told) in &cases {
        let ready = until_ready(&namespace, name, reason).await;
        assert_eq!(ready.status, ConditionStatus::False, "{name}");
        assert!(ready.message.contains(told), "{name}: {}", ready.message);
    }
    assert!(names(&namespace).await.is_empty(), "to be tried is not to be made");

    // Rights come without a change of the schedule.
    namespace.bind("nobody", "scheduler", "nobody").await;
    until_ready(&namespace, "rights", "Scheduled").await;
    namespace.apply(schedule("type", &json!({}))).await;
    until_ready(&namespace, "type", "Scheduled").await;
    namespace.delete().await;
}

#[tokio::test]
async fn the_schedules_in_the_guide_and_in_the_example_are_accepted() {
    let namespace = namespace().await;
    let guide = include_str!("../docs/schedules.md");
    let guide = guide.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let example = include_str!("../examples/hub-switchover/nightly.yaml").split("---\n").next().unwrap();
    for text in [guide, example] {
        let mut object: Value = serde_yaml_ng::from_str(text).unwrap();
        object["metadata"]["namespace"] = namespace.name.clone().into();
        let send = async |plural: &str, object: &Value| {
            let uri = format!(
                "/apis/soak.dev/v1alpha1/namespaces/{}/{plural}?fieldValidation=Strict&dryRun=All",
                namespace.name
            );
            let request = http::Request::post(uri).body(serde_json::to_vec(object).unwrap()).unwrap();
            namespace.client.request::<Value>(request).await.unwrap()
        };
        send("soakschedules", &object).await;
        let mut schedule: SoakSchedule = serde_json::from_value(object).unwrap();
        schedule.metadata.uid = Some("00000000-0000-0000-0000-000000000000".into());
        send("soakruns", &schedule.run("made", None)).await;
    }
    namespace.delete().await;
}
