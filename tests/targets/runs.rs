//! Steps on a target: as whom they are done, what a run waits for, what it does when a target goes away.

use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use soak_operator::api::{names::reason, status::RunPhase};

use crate::{
    support::{
        Namespace, Operator,
        bucket::{Bucket, SECRET},
        operator_image, phase, script, wait_for,
    },
    world::{Other, Way, leave, message, one_step, put_secret, reachable, secrets, targets},
};

#[tokio::test]
async fn what_is_done_on_a_target_is_done_as_its_kubeconfigs_user_and_no_secret_is_told() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let operator = Operator::start(&namespace);
    // The run's own account has no right on ConfigMaps at all.
    let mut spec = one_step(&leave("left", "hub-b", "Never"));
    spec["phases"][0]["steps"].as_array_mut().unwrap().extend([
        leave("held", "hub-b", "Cycle"),
        json!({"name": "pod", "pod": with_target(script("echo from there"))}),
    ]);
    namespace.run("there", spec).await;
    let run = namespace.ended("there").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    let target = run.status.as_ref().unwrap().targets.iter().find(|target| target.name == "hub-b").unwrap().clone();
    assert!(target.reachable && target.version.is_some() && target.latency_millis.is_some(), "{target:?}");
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let left = maps.get("left").await.unwrap();
    assert!(left.owner_references().is_empty());
    assert!(maps.get_opt("held").await.unwrap().is_none(), "it is let go on the cluster that it is on");
    let records = namespace.records(&run, "cycle").await;
    let step = &records[0]["phases"][0]["steps"][2];
    assert_eq!(step["target"], "hub-b");
    assert_eq!(step["log"]["text"], "from there\n");
    assert!(records[0]["environment"]["targets"]["hub-b"].is_string());
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    wait_for("the pod's end", || async {
        pods.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
    namespace.until("there", "let go", |run| run.finalizers().is_empty()).await;
    let told = [
        operator.logged(),
        json!(namespace.runs().get("there").await.unwrap()).to_string(),
        json!(records).to_string(),
    ];
    for text in told {
        assert!(!text.contains(&other.token), "a token was told");
    }
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_on_a_target_prints_and_leaves_behind_arrives_in_the_store() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let bucket = Bucket::start("there").await;
    bucket.secret(&namespace, SECRET).await;
    let image = operator_image();
    let _operator = Operator::start_with(&namespace, &["--helper-image", &image]);
    let mut pod = with_target(script("echo from there; seq 10000 > $SOAK_ARTIFACTS/there.txt; exit 3"));
    pod["artifacts"] = json!({});
    let mut spec = one_step(&json!({"name": "pod", "pod": pod}));
    spec["results"] = json!({"objectStore": bucket.spec()});
    namespace.run("stored", spec).await;
    let run = namespace.ended("stored").await;
    assert_eq!(phase(&run), RunPhase::Failed, "{}", message(&run));
    let step = &bucket.cycles(&run)[0]["phases"][0]["steps"][0];
    assert_eq!((&step["target"], &step["log"]["text"]), (&json!("hub-b"), &json!("from there\n")), "{step:#}");
    assert_eq!((&step["artifacts"]["bytes"], &step["artifacts"]["lost"]), (&json!(48_894), &Value::Null), "{step:#}");
    let folder = bucket.attempt(&run, 1);
    let there = std::fs::read_to_string(folder.join("artifacts/c000001/work/pod-1/there.txt")).unwrap();
    assert!(there.ends_with("\n10000\n"), "{}", there.len());
    assert!(folder.join(step["log"]["file"].as_str().unwrap()).is_file());
    namespace.delete().await;
}

fn with_target(mut step: Value) -> Value {
    step["target"] = json!("hub-b");
    step
}

#[tokio::test]
async fn a_run_waits_for_credentials_says_what_is_wrong_with_them_and_takes_new_ones_up() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    let operator = Operator::start(&namespace);
    namespace.run("waits", one_step(&leave("left", "hub-b", "Never"))).await;
    let until = |told: &'static str| {
        let namespace = &namespace;
        async move {
            let run = namespace.until("waits", "told what it waits for", |run| message(run).contains(told)).await;
            assert_eq!(run.status.unwrap().reason, reason::TARGET_UNREACHABLE);
        }
    };
    until("hub-b is not there").await;
    put_secret(&namespace, "users: canary-token").await;
    until("it is no kubeconfig in YAML").await;
    let wrong = other.with(&other.server, "canary-token", &other.authority);
    put_secret(&namespace, &wrong).await;
    until("does not accept the credentials").await;
    // A self-signed authority that has signed nothing.
    let stranger = stranger_authority();
    put_secret(&namespace, &other.with(&other.server, &other.token, &stranger)).await;
    until("certificate").await;
    secrets(&namespace).delete("hub-b", &DeleteParams::default()).await.unwrap();
    until("hub-b is not there").await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let run = namespace.ended("waits").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    for text in [operator.logged(), json!(run).to_string()] {
        assert!(!text.contains("canary-token") && !text.contains(&other.token), "a token was told");
    }
    namespace.delete().await;
}

/// The certificate of an authority of the test's own, in base64.
fn stranger_authority() -> String {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /CN=stranger -days 2 2>/dev/null | base64 -w0";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "openssl made no certificate");
    text
}

#[tokio::test]
async fn a_cluster_that_goes_away_holds_up_only_what_needs_it_and_nobody_else() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    namespace
        .allow("soak-maps", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]}]))
        .await;
    let mut way = Way::open(other.address()).await;
    put_secret(&namespace, &other.by(&way)).await;
    let _operator = Operator::start(&namespace);
    let wait = json!({"name": "go", "wait": {"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "go"}, "until": "object != null"}});
    let spec = json!({"targets": targets(), "phases": [{"name": "work", "steps": [wait, leave("here", "hub-a", "Never"), leave("there", "hub-b", "Never")]}]});
    namespace.run("held-up", spec).await;
    namespace.until("held-up", "began", |run| phase(run) == RunPhase::Running).await;
    way.close().await;
    namespace.until("held-up", "saw that hub-b is away", |run| reachable(run, "hub-b") == Some(false)).await;
    namespace.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "go"}})).await;
    let run = namespace.until("held-up", "waits", |run| message(run).contains("waits for target hub-b")).await;
    assert_eq!(phase(&run), RunPhase::Running);
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    assert!(maps.get_opt("here").await.unwrap().is_some(), "what needs the other cluster was done");
    namespace
        .run(
            "undisturbed",
            json!({"phases": [{"name": "work", "steps": [{"name": "nap", "sleep": {"duration": "1s"}}]}]}),
        )
        .await;
    assert_eq!(phase(&namespace.ended("undisturbed").await), RunPhase::Succeeded);
    way.reopen().await;
    let run = namespace.ended("held-up").await;
    assert_eq!(phase(&run), RunPhase::Succeeded, "{}", message(&run));
    assert_eq!(reachable(&run, "hub-b"), Some(true));
    namespace.delete().await;
}

#[tokio::test]
async fn roles_swap_after_each_cycle_though_the_operator_is_killed_in_between() {
    let namespace = Namespace::create("targets").await;
    let other = Other::create(&namespace).await;
    namespace
        .allow(
            "soak-maps",
            json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "patch", "delete"]}]),
        )
        .await;
    put_secret(&namespace, &other.kubeconfig()).await;
    let nap = |name: &str| json!({"name": name, "sleep": {"duration": "500ms"}});
    let mut spec = json!({
        "cycles": 4,
        "targets": targets(),
        "roles": {"primary": "hub-a", "secondary": "hub-b", "rotate": "AfterSuccess"},
        "phases": [
            {"name": "one", "steps": [nap("n"), leave("old", "primary", "Cycle")]},
            {"name": "two", "steps": [nap("m"), leave("new", "secondary", "Cycle")]},
        ],
    });
    spec["phases"][0]["steps"].as_array_mut().unwrap().push(json!({"name": "pod", "pod": {"target": "secondary", "image": "localhost/busybox:1", "command": ["true"], "template": {"spec": {"containers": [{"name": "step", "imagePullPolicy": "Never"}]}}}}));
    let mut operator = Operator::start(&namespace);
    namespace.run("swaps", spec).await;
    for (cycle, place) in [(1, "one"), (2, "two"), (3, "one"), (4, "two")] {
        let there = format!("{cycle} {place}");
        namespace
            .until("swaps", "came so far", |run| {
                let status = run.status.clone().unwrap_or_default();
                status.position.starts_with(&there) || status.cycles.completed >= cycle
            })
            .await;
        operator.kill();
        operator = Operator::start(&namespace);
    }
    let run = namespace.ended("swaps").await;
    let status = run.status.clone().unwrap();
    assert_eq!((phase(&run), status.role_swaps), (RunPhase::Succeeded, 4), "{}", message(&run));
    assert_eq!(status.roles["primary"], "hub-a");
    for record in namespace.records(&run, "cycle").await {
        let cycle = record["cycle"].as_u64().unwrap();
        let (primary, secondary) = if cycle % 2 == 1 { ("hub-a", "hub-b") } else { ("hub-b", "hub-a") };
        assert_eq!(record["environment"]["roles"], json!({"primary": primary, "secondary": secondary}));
        for step in record["phases"].as_array().unwrap().iter().flat_map(|phase| phase["steps"].as_array().unwrap()) {
            let expected = match step["name"].as_str().unwrap() {
                "old" => json!(primary),
                "new" | "pod" => json!(secondary),
                _ => Value::Null,
            };
            assert_eq!(step["target"], expected, "cycle {cycle}: {step}");
        }
    }
    drop(operator);
    namespace.delete().await;
}
