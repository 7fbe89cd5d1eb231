//! The CRD in a real API server: each rule of `src/api` refuses what it should, with a message that helps, and nothing else.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use soak_operator::api::crds;
use support::{Namespace, client, install_crds, wait_for};

/// The largest CRD that leaves client-side apply room: it stops at 262,144 bytes of annotation.
const LARGEST_CRD: usize = 200_000;

/// Two clusters with these roles.
fn hubs(roles: &Value) -> Value {
    json!({"targets": [{"name": "hub-a"}, {"name": "hub-b", "kubeconfigSecretRef": {"name": "hub-b"}}], "roles": roles})
}

/// The smallest spec that is accepted.
fn minimal() -> Value {
    json!({"serviceAccountName": "soak", "cycles": 1, "phases": [{"name": "p", "steps": [sleep("a")]}]})
}

fn sleep(name: &str) -> Value {
    json!({"name": name, "sleep": {"duration": "1s"}})
}

/// The minimal spec with a field set (or taken away by null), as in a JSON merge patch.
fn with(change: Value) -> Value {
    let mut spec = minimal();
    merge(&mut spec, change);
    spec
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, change) => *into = change,
    }
}

/// The minimal spec with these steps in its only phase.
fn steps(steps: Value) -> Value {
    let mut spec = minimal();
    spec["phases"][0]["steps"] = steps;
    spec
}

/// The minimal spec with one step that does this.
fn step(mut body: Value) -> Value {
    body.as_object_mut().unwrap().entry("name").or_insert_with(|| "a".into());
    steps(json!([body]))
}

fn object() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x"})
}

fn run(spec: &Value) -> Value {
    json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": "tried"}, "spec": spec})
}

/// Sends a request as a strict client does; the answer, or what the server says against it.
async fn send(namespace: &Namespace, method: &str, path: &str, content: &str, body: &Value) -> Result<Value, String> {
    let uri = format!("/apis/soak.dev/v1alpha1/namespaces/{}/soakruns{path}", namespace.name);
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", content)
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    namespace.client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => panic!("{other}"),
    })
}

/// Tries to create a run with that spec.
async fn try_spec(namespace: &Namespace, spec: &Value) -> Result<Value, String> {
    send(namespace, "POST", "?fieldValidation=Strict&dryRun=All", "application/json", &run(spec)).await
}

async fn accepted(specs: &[(&str, Value)]) {
    let namespace = Namespace::create("crd").await;
    for (what, spec) in specs {
        if let Err(message) = try_spec(&namespace, spec).await {
            panic!("{what} is refused: {message}");
        }
    }
    namespace.delete().await;
}

/// Each spec must be refused with a message that names the field and holds the text.
async fn refused(specs: &[(&str, Value, &str, &str)]) {
    let namespace = Namespace::create("crd").await;
    for (what, spec, field, text) in specs {
        match try_spec(&namespace, spec).await {
            Ok(_) => panic!("{what} is accepted"),
            Err(message) => assert!(message.contains(field) && message.contains(text), "{what}: {message}"),
        }
    }
    namespace.delete().await;
}

#[tokio::test]
async fn what_makes_sense_is_accepted() {
    let everything = json!({
        "timeout": "1m", "pendingTimeout": "30s", "retry": {"limit": 1, "backoff": "0s", "when": "failure.transient"},
        "outputs": [{"name": "x", "value": "1"}], "name": "a", "background": true,
        "pod": {
            "image": "i", "command": ["c"], "args": ["a"], "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": 1}}, "files": {"run.sh": "true"}, "resultsFile": "/r", "template": {"spec": {"anything": [1]}},
        },
    });
    accepted(&[
        ("the minimum", minimal()),
        ("a duration instead of cycles", with(json!({"cycles": null, "duration": "1h30m"}))),
        ("both", with(json!({"duration": "168h"}))),
        ("no failures", with(json!({"failurePolicy": {"maxFailures": 0, "maxConsecutiveFailures": 0}}))),
        ("no records", with(json!({"results": {"retention": {"failed": 0, "passed": 0}}}))),
        ("no pause", with(json!({"cooldown": "0s", "ttlAfterFinished": "0s"}))),
        ("empty sections", with(json!({"setup": [], "cleanup": [], "parameters": []}))),
        ("null, as templates write what is not there", step(json!({"pod": null, "timeout": null, "sleep": {"duration": "1s"}}))),
        ("a pod with every field", steps(json!([everything]))),
        ("a pod from a template", step(json!({"pod": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}))),
        ("a Job", step(json!({"jobTemplate": {"spec": {"completions": 2}}}))),
        ("a wait", step(json!({"wait": {"resource": object(), "until": "object == null", "failWhen": "false"}}))),
        ("an apply", step(json!({"apply": {"manifest": {"a": {"b": null}}, "deleteAfter": "Cycle", "force": true}}))),
        ("a merge patch", step(json!({"patch": {"resource": object(), "patch": {"metadata": {"labels": {"a": null}}}}}))),
        ("a JSON patch", step(json!({"patch": {"resource": object(), "type": "Json", "patch": [{"op": "remove", "path": "/a"}]}}))),
        ("a scale to a number", step(json!({"scale": {"resource": object(), "replicas": 0}}))),
        ("a scale to an expression", step(json!({"scale": {"resource": object(), "replicas": "${cycle.number % 3}", "wait": false}}))),
        ("a delete", step(json!({"delete": {"resource": object(), "wait": false, "ignoreNotFound": false}}))),
        ("a resource", step(json!({"resource": {"manifest": {}, "successCondition": "true"}}))),
        ("a request", step(json!({"http": {"url": "http://a", "method": "POST", "headers": [{"name": "a", "value": "b"}], "expect": "true"}}))),
        ("two clusters that swap roles", with(hubs(&json!({"primary": "hub-a", "secondary": "hub-b", "rotate": "AfterSuccess"})))),
        ("roles that stay", with(hubs(&json!({"primary": "hub-a", "secondary": "hub-b", "witness": "hub-b"})))),
        ("a step on a target", step(json!({"wait": {"target": "primary", "resource": object(), "until": "true"}}))),
        ("a key and rules", with(json!({"exclusive": {"key": "hubs"}, "failureRules": [{"when": "failure.exitCode == 3", "class": "Transient"}]}))),
        ("a group", step(json!({"parallel": [sleep("b"), sleep("c")]}))),
        ("equal names in different phases", with(json!({"phases": [{"name": "p", "steps": [sleep("a")]}, {"name": "q", "steps": [sleep("a")]}]}))),
    ])
    .await;
}

#[tokio::test]
async fn a_run_needs_an_end_phases_and_an_account() {
    refused(&[
        ("neither cycles nor duration", with(json!({"cycles": null})), "spec", "set cycles, duration or both"),
        ("no phases", with(json!({"phases": []})), "spec", "set phases, or a templateRef"),
        ("a phase without steps", steps(json!([])), "spec.phases[0].steps", "at least 1 items"),
        ("no account", with(json!({"serviceAccountName": null})), "spec.serviceAccountName", "Required value"),
        ("an empty account", with(json!({"serviceAccountName": ""})), "spec.serviceAccountName", "at least 1 chars"),
    ])
    .await;
}

#[tokio::test]
async fn roles_are_of_targets_and_two_when_they_swap() {
    let roles = |roles: Value| with(hubs(&roles));
    refused(&[
        ("a role of no target", roles(json!({"primary": "hub-c"})), "spec", "each role names one of spec.targets"),
        ("roles without targets", with(json!({"roles": {"primary": "hub-a"}})), "spec", "each role names one of"),
        ("a role with a target's name", roles(json!({"hub-a": "hub-b"})), "spec", "a role or a target, not both"),
        ("an unknown rotation", roles(json!({"rotate": "Daily"})), "spec.roles", "AfterSuccess or AfterEveryCycle"),
        (
            "three roles that swap",
            roles(json!({"a": "hub-a", "b": "hub-b", "c": "hub-b", "rotate": "AfterSuccess"})),
            "spec.roles",
            "exactly two",
        ),
        ("a key with a slash", with(json!({"exclusive": {"key": "a/b"}})), "spec.exclusive.key", "should match"),
        (
            "an unknown class",
            with(json!({"failureRules": [{"when": "true", "class": "Bad"}]})),
            "spec.failureRules[0].class",
            "Unsupported value",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_step_does_exactly_one_thing() {
    let one = "does exactly one thing: set one of pod, jobTemplate, wait";
    let nested = json!({"name": "b", "parallel": [sleep("c")]});
    refused(&[
        ("nothing", step(json!({})), "spec.phases[0].steps[0]", one),
        ("nothing but a null", step(json!({"pod": null})), "spec.phases[0].steps[0]", one),
        (
            "two",
            step(json!({"sleep": {"duration": "1s"}, "delete": {"resource": object()}})),
            "spec.phases[0].steps[0]",
            one,
        ),
        (
            "a step and a group",
            step(json!({"sleep": {"duration": "1s"}, "parallel": [sleep("b")]})),
            "spec.phases[0].steps[0]",
            one,
        ),
        (
            "two in a setup",
            with(json!({"setup": [{"name": "a", "sleep": {"duration": "1s"}, "pod": {"image": "i"}}]})),
            "spec.setup[0]",
            one,
        ),
        ("none in a cleanup", with(json!({"cleanup": [{"name": "a"}]})), "spec.cleanup[0]", one),
        (
            "an empty member",
            step(json!({"parallel": [sleep("b"), {"name": "c"}]})),
            "spec.phases[0].steps[0].parallel[1]",
            one,
        ),
        ("a group in a group", step(json!({"parallel": [nested]})), "parallel", "unknown field"),
        ("an empty group", step(json!({"parallel": []})), "spec.phases[0].steps[0].parallel", "at least 1 items"),
        (
            "a group in the background",
            step(json!({"background": true, "parallel": [sleep("b")]})),
            "spec.phases[0].steps[0]",
            "a group can't run in the background",
        ),
        (
            "a pod without an image",
            step(json!({"pod": {"args": ["a"]}})),
            "spec.phases[0].steps[0].pod",
            "give the image, or a template",
        ),
    ])
    .await;
}

#[tokio::test]
async fn numbers_and_times_have_limits() {
    let retry = |limit: i64| step(json!({"sleep": {"duration": "1s"}, "retry": {"limit": limit}}));
    let step_time = |field: &str, time: &str| step(json!({"sleep": {"duration": "1s"}, field: time}));
    let mut cases = vec![
        ("no cycles", with(json!({"cycles": 0})), "spec.cycles", "greater than or equal to 1"),
        ("negative cycles", with(json!({"cycles": -1})), "spec.cycles", "greater than or equal to 1"),
        ("too many cycles", with(json!({"cycles": 1_000_001})), "spec.cycles", "less than or equal to 1000000"),
        ("half a cycle", with(json!({"cycles": 1.5})), "spec.cycles", "integer"),
        (
            "negative failures",
            with(json!({"failurePolicy": {"maxFailures": -1}})),
            "spec.failurePolicy.maxFailures",
            "greater than or equal to 0",
        ),
        (
            "negative failures in a row",
            with(json!({"failurePolicy": {"maxConsecutiveFailures": -1}})),
            "maxConsecutiveFailures",
            "greater than or equal to 0",
        ),
        (
            "more records than fit",
            with(json!({"results": {"retention": {"passed": 201}}})),
            "spec.results.retention.passed",
            "less than or equal to 200",
        ),
        ("no retry", retry(0), "retry.limit", "greater than or equal to 1"),
        ("endless retries", retry(101), "retry.limit", "less than or equal to 100"),
        (
            "negative replicas",
            step(json!({"scale": {"resource": object(), "replicas": -1}})),
            "scale.replicas",
            "greater than or equal to 0",
        ),
        (
            "a rate above 1",
            with(json!({"criteria": {"minSuccessRate": "1.1"}})),
            "spec.criteria.minSuccessRate",
            "should match",
        ),
        ("certainty", with(json!({"criteria": {"confidence": "1"}})), "spec.criteria.confidence", "should match"),
        ("no confidence", with(json!({"criteria": {"confidence": "0.0"}})), "spec.criteria.confidence", "should match"),
        ("a duration of 0s", with(json!({"duration": "0s"})), "spec.duration", "a duration must be longer than 0s"),
        ("a duration of 0h0m", with(json!({"duration": "0h0m"})), "spec.duration", "a duration must be longer than 0s"),
        ("a step's timeout of 0s", step_time("timeout", "0s"), "steps[0].timeout", "a timeout must be longer than 0s"),
        (
            "a pending timeout of 0ms",
            step_time("pendingTimeout", "0ms"),
            "steps[0].pendingTimeout",
            "a timeout must be longer than 0s",
        ),
        (
            "a phase's timeout of 0s",
            with(json!({"phases": [{"name": "p", "timeout": "0s", "steps": [sleep("a")]}]})),
            "spec.phases[0].timeout",
            "longer than 0s",
        ),
    ];
    for field in ["cycleTimeout", "setupTimeout", "cleanupTimeout"] {
        cases.push(("a timeout of 0s", with(json!({field: "0s"})), field, "a timeout must be longer than 0s"));
    }
    for malformed in ["", "5", "1d", "-1s", "1.5h", "1h 2m", "100000s", "1h1h1h1h1h"] {
        cases.push(("a malformed cooldown", with(json!({"cooldown": malformed})), "spec.cooldown", "should match"));
        cases.push((
            "a malformed sleep",
            step(json!({"sleep": {"duration": malformed}})),
            "sleep.duration",
            "should match",
        ));
    }
    refused(&cases).await;
}

#[tokio::test]
async fn names_are_short_valid_and_unique() {
    let long = "a".repeat(41);
    let parameter = |name: &str| json!({"name": name, "value": ""});
    let phase = |name: &str| json!({"name": name, "steps": [sleep("a")]});
    refused(&[
        (
            "a long step",
            step(json!({"name": long, "sleep": {"duration": "1s"}})),
            "steps[0].name",
            "may not be more than 40",
        ),
        ("a long phase", with(json!({"phases": [phase(&long)]})), "spec.phases[0].name", "may not be more than 40"),
        (
            "a step in capitals",
            step(json!({"name": "A", "sleep": {"duration": "1s"}})),
            "steps[0].name",
            "should match",
        ),
        (
            "a step with a dot",
            step(json!({"name": "a.b", "sleep": {"duration": "1s"}})),
            "steps[0].name",
            "should match",
        ),
        (
            "a parameter with a dash",
            with(json!({"parameters": [parameter("a-b")]})),
            "spec.parameters[0].name",
            "should match",
        ),
        ("two steps", steps(json!([sleep("a"), sleep("a")])), "steps[1]", "Duplicate value"),
        ("two phases", with(json!({"phases": [phase("p"), phase("p")]})), "spec.phases[1]", "Duplicate value"),
        ("two members", step(json!({"parallel": [sleep("b"), sleep("b")]})), "parallel[1]", "Duplicate value"),
        (
            "two parameters",
            with(json!({"parameters": [parameter("a"), parameter("a")]})),
            "spec.parameters[1]",
            "Duplicate value",
        ),
        (
            "a long expression",
            step(json!({"wait": {"resource": object(), "until": "x".repeat(4_097)}})),
            "wait.until",
            "may not be more than 4096",
        ),
        ("a long rerun", with(json!({"rerun": "r".repeat(64)})), "spec.rerun", "may not be more than 63"),
    ])
    .await;
}

#[tokio::test]
async fn a_misspelt_field_is_refused_by_a_strict_client() {
    refused(&[
        ("in the spec", with(json!({"cycle": 3})), "spec.cycle", "unknown field"),
        (
            "in a step",
            step(json!({"timeOut": "1s", "sleep": {"duration": "1s"}})),
            "spec.phases[0].steps[0].timeOut",
            "unknown field",
        ),
        (
            "in a kind",
            step(json!({"sleep": {"duration": "1s", "for": "2s"}})),
            "spec.phases[0].steps[0].sleep.for",
            "unknown field",
        ),
        (
            "in a choice",
            step(json!({"apply": {"manifest": {}, "deleteAfter": "Now"}})),
            "apply.deleteAfter",
            "supported values: \"Phase\", \"Cycle\"",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_spec_is_fixed_until_a_rerun() {
    let namespace = Namespace::create("crd").await;
    let two = || json!([sleep("a"), sleep("b")]);
    let turned = || json!([sleep("b"), sleep("a")]);
    let phase = |name: &str, steps: Value| json!({"name": name, "steps": steps});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c"});
    // The patch has no schema.
    let patch = |n: &str| json!({"name": "n", "patch": {"resource": config, "patch": {"data": {"n": n}}}});
    let spec = with(json!({
        "phases": [phase("p", two()), phase("q", two())], "setup": two(),
        "cleanup": [{"name": "g", "parallel": two()}, patch("1")],
        "parameters": [{"name": "x", "value": "1"}, {"name": "y", "value": "2"}],
    }));
    send(&namespace, "POST", "", "application/json", &run(&spec)).await.unwrap();
    let patched = async |change: Value| {
        send(
            &namespace,
            "PATCH",
            "/tried?dryRun=All&fieldValidation=Strict",
            "application/merge-patch+json",
            &json!({"spec": change}),
        )
        .await
    };
    // A policy is asked as soon as the server has noticed it.
    wait_for("the policy", || async { patched(json!({"cycles": 2})).await.err() }).await;
    for change in [
        json!({"suspend": true}),
        json!({"abort": true}),
        json!({"ttlAfterFinished": "1h"}),
        json!({"dryRun": false, "cooldown": null, "monitors": []}),
        json!({"rerun": "2"}),
    ] {
        patched(change.clone()).await.unwrap_or_else(|message| panic!("{change} is refused: {message}"));
    }
    for change in [
        json!({"serviceAccountName": "other"}),
        json!({"cycles": 2}),
        json!({"cycles": null, "duration": "1h"}),
        json!({"duration": "1h"}),
        json!({"cooldown": "1s"}),
        json!({"cycleTimeout": "1h"}),
        json!({"setupTimeout": "1h"}),
        json!({"cleanupTimeout": "1h"}),
        json!({"failurePolicy": {"stopOnFailure": true}}),
        json!({"criteria": {"minSuccessRate": "0.5"}}),
        json!({"results": {"retention": {"failed": 1}}}),
        json!({"suspendedTime": "Excluded"}),
        json!({"targets": [{"name": "hub-a"}]}),
        json!({"exclusive": {"key": "hubs"}}),
        json!({"failureRules": [{"when": "true", "class": "Timeout"}]}),
        json!({"dryRun": true}),
        json!({"parameters": [{"name": "x", "value": "1"}, {"name": "y", "value": "3"}]}),
        json!({"parameters": [{"name": "y", "value": "2"}, {"name": "x", "value": "1"}]}),
        json!({"setup": null}),
        json!({"setup": turned()}),
        json!({"cleanup": [{"name": "g", "parallel": turned()}, patch("1")]}),
        json!({"cleanup": [{"name": "g", "parallel": two()}, patch("2")]}),
        json!({"phases": [phase("p", two())]}),
        json!({"phases": [phase("q", two()), phase("p", two())]}),
        json!({"phases": [phase("p", two()), phase("q", turned())]}),
    ] {
        let message = patched(change.clone()).await.expect_err(&format!("{change} is accepted"));
        let fields: Vec<String> = change.as_object().unwrap().keys().map(|field| format!("spec.{field}")).collect();
        assert!(message.contains(&format!("{}: ", fields.join(", "))), "{fields:?} in {message}");
        assert!(
            message.contains("a run's spec is fixed but for suspend, abort and ttlAfterFinished: change rerun as well"),
            "{message}"
        );
        let mut rerun = change;
        rerun["rerun"] = "2".into();
        patched(rerun.clone()).await.unwrap_or_else(|message| panic!("{rerun} is refused: {message}"));
    }
    namespace.delete().await;
}

#[tokio::test]
async fn a_spec_as_large_as_etcd_allows_can_be_suspended() {
    let namespace = Namespace::create("crd").await;
    let text = "x".repeat(3_000);
    let steps: Vec<Value> =
        (0..32).map(|step| json!({"name": format!("s{step}"), "pod": {"image": "i", "args": [text]}})).collect();
    let phases: Vec<Value> = (0..8).map(|phase| json!({"name": format!("p{phase}"), "steps": steps})).collect();
    send(&namespace, "POST", "", "application/json", &run(&with(json!({"phases": phases})))).await.unwrap();
    // The rule that compares all of it has a budget of time.
    let suspend = json!({"spec": {"suspend": true}});
    send(&namespace, "PATCH", "/tried", "application/merge-patch+json", &suspend).await.unwrap();
    namespace.delete().await;
}

#[tokio::test]
async fn the_status_is_a_subresource() {
    let namespace = Namespace::create("crd").await;
    let mut object = run(&minimal());
    object["status"] = json!({"phase": "Succeeded"});
    let created = send(&namespace, "POST", "", "application/json", &object).await.unwrap();
    assert!(created.get("status").is_none(), "a status can't be created: {created}");
    let change = json!({"spec": {"suspend": true}, "status": {"phase": "Running"}});
    let changed = send(&namespace, "PATCH", "/tried/status", "application/merge-patch+json", &change).await.unwrap();
    assert_eq!((&changed["status"]["phase"], changed["spec"].get("suspend")), (&json!("Running"), None));
    assert_eq!(changed["metadata"]["generation"], 1, "a status does not change the generation");
    namespace.delete().await;
}

#[tokio::test]
async fn kubectl_shows_what_people_look_for() {
    let namespace = Namespace::create("crd").await;
    send(&namespace, "POST", "", "application/json", &run(&minimal())).await.unwrap();
    let status = json!({"status": {
        "phase": "Running", "progress": "12/20", "position": "13 activation/restore", "reason": "Running",
        "cycles": {"completed": 12, "passed": 11, "failed": 1, "inconclusive": 0, "consecutiveFailures": 0},
    }});
    send(&namespace, "PATCH", "/tried/status", "application/merge-patch+json", &status).await.unwrap();
    let request = Request::get(format!("/apis/soak.dev/v1alpha1/namespaces/{}/soakruns", namespace.name))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = namespace.client.request(request).await.unwrap();
    let columns: Vec<(&str, i64)> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["priority"].as_i64().unwrap()))
        .collect();
    let expected = [
        ("Name", 0),
        ("Phase", 0),
        ("Cycles", 0),
        ("Passed", 0),
        ("Failed", 0),
        ("Now", 0),
        ("Reason", 0),
        ("Rate", 1),
        ("Alerts", 1),
        ("Message", 1),
        ("Age", 0),
    ];
    assert_eq!(columns, expected);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[..7],
        [
            json!("tried"),
            json!("Running"),
            json!("12/20"),
            json!(11),
            json!(1),
            json!("13 activation/restore"),
            json!("Running")
        ]
    );

    let request = Request::get("/apis/soak.dev/v1alpha1").body(Vec::new()).unwrap();
    let resources: Value = namespace.client.request(request).await.unwrap();
    let resource =
        |name: &str| resources["resources"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    assert_eq!(
        (&resource("soakruns")["shortNames"], &resource("soakruns")["categories"]),
        (&json!(["sr"]), &json!(["soak"]))
    );
    assert_eq!(resource("soakruns/status")["kind"], "SoakRun");
    namespace.delete().await;
}

#[tokio::test]
async fn the_crd_is_small_and_gives_no_warning() {
    let client = client().await;
    install_crds(&client).await;
    for mut crd in crds() {
        let text = crd.to_string();
        assert!(text.len() < LARGEST_CRD, "{} bytes", text.len());
        // What client-side apply does: the whole object once more, in an annotation.
        let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
        crd["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": text});
        let request = Request::patch(format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}?dryRun=All&fieldValidation=Strict"
        ))
        .header("content-type", "application/merge-patch+json")
        .body(Body::from(crd.to_string().into_bytes()))
        .unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("warning"), None, "the server warns whoever installs it");
    }
}
