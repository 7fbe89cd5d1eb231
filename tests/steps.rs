//! Every kind of step does in a real cluster what its fields say, and tells in the record what came of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use soak_operator::api::{
    SoakRun,
    status::{RunPhase, StepStatus},
};
use support::{Namespace, Operator, script, wait_for};

/// A namespace whose account may do what the steps of these tests need.
async fn namespace() -> Namespace {
    let namespace = Namespace::create("steps").await;
    let verbs = json!(["create", "get", "list", "watch", "patch", "delete"]);
    namespace
        .allow(
            "soak-objects",
            json!([
                {"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": verbs},
                {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": verbs},
                {"apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"], "verbs": verbs},
            ]),
        )
        .await;
    namespace
}

fn maps(namespace: &Namespace) -> Api<ConfigMap> {
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

async fn data(namespace: &Namespace, name: &str) -> Option<Value> {
    maps(namespace).get_opt(name).await.unwrap().map(|map| json!(map.data))
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn map_reference(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name})
}

#[expect(clippy::needless_pass_by_value, reason = "it is always a literal")]
fn phase(name: &str, steps: Value) -> Value {
    json!({"name": name, "steps": steps})
}

/// The steps of a run's first cycle by their names, after the run has ended as `expected`.
async fn ended(namespace: &Namespace, name: &str, expected: RunPhase) -> impl Fn(&str) -> Value + use<> {
    let run = namespace.ended(name).await;
    let record = namespace.records(&run, "cycle").await.into_iter().next().unwrap_or_default();
    assert_eq!(run.status.as_ref().unwrap().phase, expected, "{:#?}\n{record:#}", run.status);
    move |step| {
        let phases = record["phases"].as_array().unwrap();
        let mut steps = phases.iter().flat_map(|phase| phase["steps"].as_array().unwrap());
        steps.find(|it| it["name"] == *step).unwrap_or_else(|| panic!("no step {step}: {record:#}")).clone()
    }
}

fn active<'a>(run: &'a SoakRun, name: &str) -> Option<&'a StepStatus> {
    let pass = run.status.as_ref()?.current.as_ref()?;
    let step = pass.phases.iter().flat_map(|phase| &phase.steps).find(|step| step.name == name)?;
    step.running_at.is_some().then_some(step)
}

#[tokio::test]
async fn a_pod_gets_what_its_fields_say_and_hands_outputs_on() {
    let namespace = namespace().await;
    let _operator = Operator::start(&namespace);
    let text = "set -e; test \"$WORD\" = hello; test $1 = 7; test $2 = true; /soak/files/check.sh; \
                echo '{\"number\": 1.5, \"text\": \"a b\", \"yes\": true}' > /tmp/results.json";
    let mut pod = script(text);
    pod["command"] = json!(["sh", "-c", text, "sh"]);
    pod["args"] = json!(["${params.count}", "${cycle.number == 1}"]);
    pod["env"] = json!([{"name": "WORD", "value": "${params.word}"}]);
    pod["files"] = json!({"check.sh": "#!/bin/sh\ntest $SOAK_STEP = all && echo checked in $SOAK_PHASE\n"});
    pod["resultsFile"] = json!("/tmp/results.json");
    pod["resources"] = json!({"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}});
    pod["template"]["metadata"] = json!({"labels": {"mine": "yes"}});
    let check = "test ${steps.all.outputs.number + 1.0} = 2.5 && test '${steps.all.outputs.text}' = 'a b' && \
                 test ${phases.first.outcome} = Succeeded";
    namespace
        .run(
            "pod",
            json!({
                "parameters": [{"name": "word", "value": "hello"}, {"name": "count", "value": "${3 + 4}"}],
                "phases": [
                    phase("first", json!([{"name": "all", "pod": pod}])),
                    phase("second", json!([{"name": "use", "pod": script(check)}])),
                ],
            }),
        )
        .await;
    let step = ended(&namespace, "pod", RunPhase::Succeeded).await;
    assert_eq!(step("all")["outputs"], json!({"number": 1.5, "text": "a b", "yes": true}));
    assert_eq!(step("all")["log"]["text"], "checked in first\n");
    namespace.delete().await;
}

#[tokio::test]
async fn jobs_end_as_their_conditions_say() {
    let namespace = namespace().await;
    let _operator = Operator::start(&namespace);
    let job = |text: &str, more: Value| {
        let container = json!({"name": "c", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", text]});
        let mut spec = json!({"backoffLimit": 0, "template": {"spec": {"containers": [container]}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"jobTemplate": {"spec": spec}})
    };
    let run = |mut step: Value| {
        step["name"] = json!("job");
        json!({"phases": [phase("work", json!([step]))]})
    };
    namespace.run("two", run(job("true", json!({"completions": 2, "parallelism": 2})))).await;
    namespace.run("bad", run(job("exit 4", json!({})))).await;
    let _ = ended(&namespace, "two", RunPhase::Succeeded).await;
    let step = ended(&namespace, "bad", RunPhase::Failed).await;
    assert_eq!(step("job")["reason"], "BackoffLimitExceeded", "{:#}", step("job"));
    let jobs: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(namespace.client.clone(), &namespace.name);
    wait_for("the end of the Jobs", || async {
        jobs.list(&ListParams::default()).await.ok()?.items.is_empty().then_some(())
    })
    .await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_wait_follows_an_object_through_its_life() {
    let namespace = namespace().await;
    let _operator = Operator::start(&namespace);
    let wait = |until: &str| json!({"resource": map_reference("watched"), "until": until});
    namespace
        .run("wait", json!({"phases": [phase("work", json!([
            {"name": "comes", "wait": wait("object != null"), "outputs": [{"name": "color", "value": "object.data.color"}]},
            {"name": "turns", "wait": wait("object.data.color == 'green'")},
            {"name": "goes", "wait": wait("object == null")},
        ]))]}))
        .await;
    namespace.until("wait", "waited", |run| active(run, "comes").is_some()).await;
    namespace.apply(map("watched", &json!({"color": "red"}))).await;
    namespace.until("wait", "saw it come", |run| active(run, "turns").is_some()).await;
    namespace.apply(map("watched", &json!({"color": "green"}))).await;
    namespace.until("wait", "saw it turn", |run| active(run, "goes").is_some()).await;
    maps(&namespace).delete("watched", &kube::api::DeleteParams::default()).await.unwrap();
    let step = ended(&namespace, "wait", RunPhase::Succeeded).await;
    assert_eq!(step("comes")["outputs"]["color"], "red");

    namespace.apply(map("watched", &json!({"color": "black"}))).await;
    let mut fail = wait("object.data.color == 'white'");
    fail["failWhen"] = json!("object.data.color == 'black'");
    namespace.run("fail", json!({"phases": [phase("work", json!([{"name": "w", "wait": fail}]))]})).await;
    let step = ended(&namespace, "fail", RunPhase::Failed).await;
    assert_eq!(step("w")["reason"], "ConditionFailed");
    namespace.delete().await;
}

#[tokio::test]
async fn what_a_run_applies_goes_when_its_scope_ends_and_what_was_there_stays() {
    let namespace = namespace().await;
    let _operator = Operator::start(&namespace);
    namespace.apply(map("theirs", &json!({"a": "1"}))).await;
    let apply = |name: &str, scope: &str| json!({"name": name, "apply": {"deleteAfter": scope, "manifest": map(name, &json!({"by": "run"}))}});
    let gone = |name: &str| json!({"name": format!("{name}-is-gone"), "wait": {"resource": map_reference(name), "until": "object == null"}, "timeout": "20s"});
    namespace
        .run("apply", json!({
            "cycles": 1,
            "phases": [
                phase("first", json!([apply("for-phase", "Phase"), apply("for-cycle", "Cycle"), apply("for-run", "Run"), apply("for-ever", "Never"), apply("theirs", "Run")])),
                phase("second", json!([gone("for-phase"), {"name": "still", "wait": {"resource": map_reference("for-cycle"), "until": "object != null"}}])),
            ],
            "cleanup": [gone("for-cycle"), {"name": "still-there", "wait": {"resource": map_reference("for-run"), "until": "object != null"}}],
        }))
        .await;
    let run = namespace.ended("apply").await;
    assert_eq!(run.status.as_ref().unwrap().phase, RunPhase::Succeeded, "{:#?}", run.status);
    let mut left: Vec<String> = maps(&namespace)
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|map| map.metadata.name)
        .collect();
    left.retain(|name| ["for-phase", "for-cycle", "for-run", "for-ever", "theirs"].contains(&name.as_str()));
    left.sort();
    assert_eq!(left, ["for-ever", "theirs"]);
    assert_eq!(data(&namespace, "theirs").await.unwrap(), json!({"a": "1", "by": "run"}));

    // A field of somebody else is not taken, unless that is asked for.
    let take = |force: bool| json!({"phases": [phase("work", json!([{"name": "take", "apply": {"force": force, "deleteAfter": "Never", "manifest": map("theirs", &json!({"a": "2"}))}}]))]});
    namespace.run("polite", take(false)).await;
    let status = namespace.ended("polite").await.status.unwrap();
    assert!(status.phase == RunPhase::Failed && status.message.contains("theirs"), "{status:#?}");
    assert_eq!(data(&namespace, "theirs").await.unwrap()["a"], "1");
    namespace.run("rude", take(true)).await;
    let _ = ended(&namespace, "rude", RunPhase::Succeeded).await;
    assert_eq!(data(&namespace, "theirs").await.unwrap()["a"], "2");
    namespace.delete().await;
}

#[tokio::test]
async fn patch_delete_and_resource_change_what_they_name() {
    let namespace = namespace().await;
    let _operator = Operator::start(&namespace);
    namespace.apply(map("m", &json!({"a": "1", "b": "2"}))).await;
    namespace.apply(map("doomed", &json!({}))).await;
    let patch = |type_: &str, patch: Value| json!({"resource": map_reference("m"), "type": type_, "patch": patch});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "c", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["true"]},
        ]}}},
    });
    let done = "object.status.conditions.exists(c, c.type == 'Complete' && c.status == 'True')";
    namespace
        .run("change", json!({"phases": [phase("work", json!([
            {"name": "merge", "patch": patch("Merge", json!({"data": {"a": "${cycle.number + 8}", "b": null}})), "outputs": [{"name": "a", "value": "object.data.a"}]},
            {"name": "list", "patch": patch("Json", json!([{"op": "test", "path": "/data/a", "value": "9"}, {"op": "add", "path": "/data/c", "value": "3"}]))},
            {"name": "strategic", "patch": patch("Strategic", json!({"metadata": {"labels": {"d": "4"}}}))},
            {"name": "delete", "delete": {"resource": map_reference("doomed")}},
            {"name": "again", "delete": {"resource": map_reference("doomed")}},
            {"name": "job", "resource": {"manifest": job, "successCondition": done}, "outputs": [{"name": "succeeded", "value": "object.status.succeeded"}]},
        ]))]}))
        .await;
    let step = ended(&namespace, "change", RunPhase::Succeeded).await;
    assert_eq!(step("merge")["outputs"]["a"], "9");
    assert_eq!(step("job")["outputs"]["succeeded"], 1);
    assert_eq!(data(&namespace, "m").await.unwrap(), json!({"a": "9", "c": "3"}));
    assert_eq!(maps(&namespace).get("m").await.unwrap().metadata.labels.unwrap()["d"], "4");
    assert!(data(&namespace, "doomed").await.is_none());

    let strict = json!({"name": "d", "delete": {"resource": map_reference("doomed"), "ignoreNotFound": false}});
    namespace.run("strict", json!({"phases": [phase("work", json!([strict]))]})).await;
    assert_eq!(ended(&namespace, "strict", RunPhase::Failed).await("d")["reason"], "NotFound");
    let refused = json!({"name": "p", "patch": patch("Merge", json!({"data": 5}))});
    namespace.run("refused", json!({"phases": [phase("work", json!([refused]))]})).await;
    let run = namespace.ended("refused").await;
    let status = run.status.unwrap();
    assert!(status.message.contains("spec.phases[0].steps[0]"), "the server's dry run told it before: {status:#?}");
    namespace.delete().await;
}

#[tokio::test]
async fn a_deployment_is_scaled_and_asked_over_http() {
    let namespace = namespace().await;
    let _operator = Operator::start(&namespace);
    let container = json!({
        "name": "web", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "mkdir /tmp/w && echo '{\"answer\": 42}' > /tmp/w/index.html && exec httpd -f -p 8080 -h /tmp/w"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    });
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}},
    });
    namespace.apply(web).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let service = namespace.apply(service).await;
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let up = "object.status.?readyReplicas.orValue(0) == 2";
    namespace
        .run("web", json!({
            "parameters": [{"name": "replicas", "value": "2"}],
            "phases": [phase("work", json!([
                {"name": "up", "scale": {"resource": reference, "replicas": "${int(params.replicas)}"}},
                {"name": "ready", "wait": {"resource": reference, "until": up}},
                {
                    "name": "ask", "retry": {"limit": 20, "backoff": "200ms"},
                    "http": {"url": format!("http://{address}/"), "expect": "response.status == 200 && response.json.answer == 42"},
                    "outputs": [{"name": "answer", "value": "response.json.answer"}],
                },
                {"name": "down", "scale": {"resource": reference, "replicas": 0}},
            ]))],
        }))
        .await;
    let step = ended(&namespace, "web", RunPhase::Succeeded).await;
    assert_eq!(step("ask")["outputs"]["answer"], 42);
    let deployments: Api<Deployment> = Api::namespaced(namespace.client.clone(), &namespace.name);
    assert_eq!(deployments.get("web").await.unwrap().status.unwrap().ready_replicas.unwrap_or(0), 0);

    // Nobody listens there.
    let dead = json!({"name": "dead", "timeout": "5s", "http": {"url": "http://127.0.0.1:9/"}});
    namespace.run("dead", json!({"phases": [phase("work", json!([dead]))]})).await;
    let step = ended(&namespace, "dead", RunPhase::Failed).await;
    assert!(step("dead")["message"].as_str().unwrap().contains("127.0.0.1:9"), "{:#}", step("dead"));
    assert_eq!(step("dead")["transient"], true, "{:#}", step("dead"));
    namespace.delete().await;
}

#[tokio::test]
async fn groups_background_steps_and_retries_keep_their_rules() {
    let namespace = namespace().await;
    let _operator = Operator::start(&namespace);
    // Fails in its first attempt, as the attempt's number is told to the pod.
    let flaky = script("test $SOAK_ATTEMPT = 2 || exit 75");
    let load =
        script("trap 'echo {\\\"seen\\\": 3} > /dev/termination-log; exit 0' TERM; while true; do sleep 0.1; done");
    namespace
        .run("rules", json!({"phases": [
            phase("work", json!([
                {"name": "load", "background": true, "pod": load},
                {"name": "flaky", "retry": {"limit": 3, "backoff": "100ms", "when": "failure.exitCode == 75"}, "pod": flaky},
                {"name": "group", "parallel": [
                    {"name": "left", "pod": script("echo '{\"n\": 1}' > /dev/termination-log")},
                    {"name": "right", "pod": script("echo '{\"n\": 2}' > /dev/termination-log")},
                ]},
                {"name": "sum", "pod": script("test ${steps['group/left'].outputs.n + steps['group/right'].outputs.n} = 3")},
            ])),
        ]}))
        .await;
    let step = ended(&namespace, "rules", RunPhase::Succeeded).await;
    assert_eq!(step("load")["outputs"]["seen"], 3);
    assert_eq!((&step("flaky")["attempts"], &step("flaky")["past"][0]["exitCode"]), (&json!(2), &json!(75)));
    assert_eq!(step("group/right")["outputs"]["n"], 2);

    namespace
        .run("failing", json!({"phases": [
            phase("work", json!([
                {"name": "load", "background": true, "pod": script("trap 'exit 0' TERM; while true; do sleep 0.1; done")},
                {"name": "group", "parallel": [
                    {"name": "good", "pod": script("sleep 1")},
                    {"name": "bad", "retry": {"limit": 3, "when": "failure.exitCode == 75"}, "pod": script("exit 1")},
                ]},
                {"name": "never", "pod": script("true")},
            ])),
            phase("not-begun", json!([{"name": "neither", "sleep": {"duration": "1ms"}}])),
        ]}))
        .await;
    let step = ended(&namespace, "failing", RunPhase::Failed).await;
    assert_eq!((&step("group/bad")["attempts"], &step("group/bad")["exitCode"]), (&json!(1), &json!(1)));
    assert_eq!(step("group/good")["state"], "Succeeded", "a group ends when all its members have");
    assert_eq!(step("never")["attempts"], 0);

    // A phase is tried again as a whole.
    let count = "test $(( $(date +%s%N) )) -gt 0; test -n \"$SOAK_ATTEMPT\"; exit 1";
    let mut twice = phase("work", json!([{"name": "bad", "pod": script(count)}]));
    twice["retry"] = json!({"limit": 1, "backoff": "100ms"});
    namespace.run("twice", json!({"phases": [twice]})).await;
    let run = namespace.ended("twice").await;
    assert_eq!(namespace.records(&run, "cycle").await[0]["phases"][0]["attempts"], 2);
    namespace.delete().await;
}

#[tokio::test]
async fn a_dry_run_validates_on_the_server_and_performs_nothing() {
    let namespace = namespace().await;
    let _operator = Operator::start(&namespace);
    let spec = |manifest: Value| {
        json!({"dryRun": true, "phases": [phase("work", json!([
            {"name": "p", "pod": script("true")},
            {"name": "a", "apply": {"manifest": manifest}},
        ]))]})
    };
    namespace.run("good", spec(map("never-made", &json!({"a": "1"})))).await;
    let bad = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "never-made"}, "dta": {"a": "1"}});
    namespace.run("bad", spec(bad)).await;
    let good = namespace.ended("good").await.status.unwrap();
    assert_eq!((good.phase, good.reason.as_str()), (RunPhase::Succeeded, "DryRunPassed"), "{good:#?}");
    let bad = namespace.ended("bad").await.status.unwrap();
    assert_eq!(bad.phase, RunPhase::Failed);
    assert!(bad.message.contains("spec.phases[0].steps[1]") && bad.message.contains("dta"), "{}", bad.message);
    assert!(data(&namespace, "never-made").await.is_none());
    assert!(namespace.pods().list(&ListParams::default()).await.unwrap().items.is_empty());
    // It leaves nothing behind that would keep a real run of the name from being made.
    namespace.runs().delete("good", &kube::api::DeleteParams::default()).await.unwrap();
    wait_for("its end", || async { namespace.runs().get_opt("good").await.ok()?.is_none().then_some(()) }).await;
    let run: SoakRun = serde_json::from_value(json!({
        "apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": "good"},
        "spec": {"serviceAccountName": "soak", "cycles": 1, "phases": [phase("work", json!([{"name": "z", "sleep": {"duration": "1ms"}}]))]},
    }))
    .unwrap();
    namespace.runs().create(&PostParams::default(), &run).await.unwrap();
    let _ = ended(&namespace, "good", RunPhase::Succeeded).await;
    namespace.delete().await;
}
