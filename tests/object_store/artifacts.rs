//! Logs and files of steps: stored as they come, after a crash and an outage as well, and without secrets.

use std::io::Read;

use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::{
    Api,
    api::{DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use soak_operator::api::{ConditionStatus, SoakRun, names::condition_type::RECORDS_STORED, status::RunPhase};

use crate::{
    check, plugin, spec, status,
    support::{
        Namespace, Operator,
        bucket::{Bucket, SECRET},
        is_condition, operator_image, script, wait_for,
    },
};

/// Every text that the bucket holds, packed ones unpacked.
fn texts(bucket: &Bucket) -> Vec<(String, String)> {
    let unpacked = |bytes: Vec<u8>| {
        let mut text = Vec::new();
        match GzDecoder::new(bytes.as_slice()).read_to_end(&mut text) {
            Ok(_) => text,
            Err(_) => bytes,
        }
    };
    let all = bucket.everything().into_iter();
    all.map(|(path, bytes)| (path.display().to_string(), String::from_utf8_lossy(&unpacked(bytes)).into_owned()))
        .collect()
}

/// The text of the only log of that name, once it is there.
async fn log(bucket: &Bucket, name: &str, holds: &str) -> String {
    wait_for(&format!("{name} with {holds:?} in the store"), || async {
        texts(bucket)
            .into_iter()
            .find(|(path, text)| path.ends_with(name) && text.contains(holds))
            .map(|(_, text)| text)
    })
    .await
}

const TOKEN: &str = "canary-token-5f1e77";

/// A Secret with the token, and an entry of a pod's environment that gives it to a step.
async fn token(namespace: &Namespace) -> Value {
    namespace
        .apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"t": TOKEN}}))
        .await;
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["token"], "verbs": ["get"]}]);
    namespace.allow("soak-token", rules).await;
    json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}}])
}

/// Makes sure that no secret is left anywhere: run, operator's log, events, ConfigMaps, the store.
async fn no_secret_is_left(namespace: &Namespace, run: &SoakRun, operator: &Operator, bucket: &Bucket) {
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let left = [
        json!(run).to_string(),
        operator.logged(),
        json!(events.list(&ListParams::default()).await.unwrap()).to_string(),
        json!(maps.list(&ListParams::default()).await.unwrap()).to_string(),
    ];
    let left = left.into_iter().map(|text| ("the cluster".to_owned(), text)).chain(texts(bucket));
    for (place, text) in left {
        for secret in [TOKEN, SECRET, "Y2FuYXJ5LXRva2VuLTVmMWU3N"] {
            assert!(!text.contains(secret) && !place.contains(secret), "{place} tells {secret}");
        }
    }
}

/// Deletes all pods at once, as the loss of their node does.
async fn lose_pods(namespace: &Namespace) {
    let pods = namespace.pods();
    let now = DeleteParams::default().grace_period(0);
    for lost in pods.list(&ListParams::default()).await.unwrap() {
        pods.delete(lost.metadata.name.as_deref().unwrap(), &now).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_prints_is_stored_while_it_runs_and_no_secret_is() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("logs").await;
    bucket.secret(&namespace, SECRET).await;
    let token = token(&namespace).await;
    let operator = Operator::start(&namespace);
    // The first attempt is lost with its pod; the second one fails, and says the secret in every way it can.
    let mut pod = script(
        "if [ $SOAK_RUN-$SOAK_ATTEMPT = logs-1 ]; then echo the first says $TOKEN; sleep 600; fi; echo the second says $TOKEN; \
         printf %s $TOKEN | base64; yes \"many lines with $TOKEN\" | head -c 5000000; echo the last line; \
         printf '{\"token\":\"%s\"}' $TOKEN >/dev/termination-log; exit 3",
    );
    pod["env"] = token;
    let mut spec = spec(&bucket, 1);
    spec["phases"] = json!([{"name": "work", "steps": [{"name": "say", "retry": {"limit": 1}, "pod": pod}]}]);
    namespace.run("logs", spec).await;

    let first = log(&bucket, "logs/c000001/work/say-1.log.gz", "the first says").await;
    assert_eq!(first, "the first says [redacted]\n");
    lose_pods(&namespace).await;
    let run = namespace.ended("logs").await;
    assert_eq!(status(&run).phase, RunPhase::Failed);
    assert_eq!(log(&bucket, "say-1.log.gz", "").await, first, "the log has survived its pod");
    let second = log(&bucket, "say-2.log.gz", "the last line").await;
    assert!(
        second.starts_with("the second says [redacted]\n[redacted]\nmany lines with [redacted]\n"),
        "{}",
        &second[..99]
    );
    assert!(second.ends_with("the last line\n"), "{}", &second[second.len() - 99..]);
    assert!(second.contains("bytes are left out here]\n") && second.len() < 2_200_000, "{}", second.len());
    let record = &bucket.cycles(&run)[0];
    let step = &record["phases"][0]["steps"][0];
    assert_eq!(step["log"]["file"], "logs/c000001/work/say-2.log.gz", "{record:#}");
    assert!(
        step["log"]["text"].as_str().unwrap().contains("the last line")
            && step["log"]["bytes"].as_u64() > Some(5_000_000)
    );

    let command = step["rerun"].as_str().unwrap().strip_prefix("kubectl soak ").unwrap();
    let command = command
        .strip_suffix(" | kubectl create -f -")
        .unwrap()
        .replace(&format!("--namespace {} ", namespace.name), "");
    let manifest = plugin(&namespace, &command.split(' ').collect::<Vec<_>>());
    let again =
        namespace.runs().create(&PostParams::default(), &serde_json::from_str(&manifest).unwrap()).await.unwrap();
    let again = namespace.ended(&again.metadata.name.unwrap()).await;
    let failed = &bucket.cycles(&again)[0]["phases"][0]["steps"][0];
    assert_eq!((&failed["state"], &failed["exitCode"]), (&step["state"], &step["exitCode"]), "it fails alone as well");

    no_secret_is_left(&namespace, &run, &operator, &bucket).await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_steps_leave_behind_are_stored_after_a_crash_as_well_and_no_secret_is() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("files").await;
    bucket.secret(&namespace, SECRET).await;
    let token = token(&namespace).await;
    let mut good = script(
        "cd $SOAK_ARTIFACTS; echo '{\"ok\":true}' > result.json; mkdir -p deep/er; seq 100000 > deep/er/trace.txt; \
         echo no > notes.txt; ln -s /etc/passwd link.json; echo '{\"n\":1}' >/dev/termination-log",
    );
    good["artifacts"] = json!({"directory": "/results", "paths": ["*.json", "deep/**"]});
    // The first attempt goes on until its pod is lost.
    let mut bad = script(
        "cd $SOAK_ARTIFACTS; echo $SOAK_ATTEMPT says $TOKEN > token-$TOKEN.txt; printf \"\\377\\000$TOKEN\" > binary; \
         head -c 2000 /dev/zero > large; [ $SOAK_ATTEMPT = 1 ] && sleep 600; exit 3",
    );
    bad["artifacts"] = json!({"maxBytes": 1000});
    bad["env"] = token;
    let mut spec = spec(&bucket, 1);
    spec["phases"] = json!([{"name": "work", "steps": [
        {"name": "good", "pod": good}, {"name": "bad", "retry": {"limit": 1}, "pod": bad},
    ]}]);

    let operator = Operator::start(&namespace);
    namespace.run("refused", spec.clone()).await;
    let refused = namespace.ended("refused").await;
    let message = status(&refused).message;
    assert!(
        message.starts_with("spec.phases[0].steps[0].pod.artifacts: ") && message.contains("--helper-image"),
        "{message}"
    );
    operator.kill();

    let image = operator_image();
    let operator = Operator::start_with(&namespace, &["--helper-image", &image]);
    namespace.run("files", spec).await;
    let result = "artifacts/c000001/work/good-1/result.json";
    log(&bucket, result, "ok").await;
    let second = |step: &soak_operator::api::status::StepStatus| step.name == "bad" && step.running_at.is_some();
    namespace
        .until("files", "run its second step", |run| {
            status(run).current.iter().flat_map(|pass| &pass.phases).flat_map(|phase| &phase.steps).any(second)
        })
        .await;
    // What was stored before a crash does not count: all of it is read again.
    operator.kill();
    for (path, _) in bucket.everything().into_iter().filter(|(path, _)| path.ends_with(result)) {
        std::fs::remove_file(path).unwrap();
    }
    let operator = Operator::start_with(&namespace, &["--helper-image", &image]);
    log(&bucket, result, "ok").await;
    lose_pods(&namespace).await;
    let run = namespace.ended("files").await;
    assert_eq!(status(&run).phase, RunPhase::Failed);

    let record = &bucket.cycles(&run)[0];
    let steps = &record["phases"][0]["steps"];
    let kept = &steps[0]["artifacts"];
    assert_eq!(kept["folder"], "artifacts/c000001/work/good-1", "{record:#}");
    assert_eq!(
        kept["files"],
        json!([{"path": "deep/er/trace.txt", "bytes": 588_895}, {"path": "result.json", "bytes": 12}])
    );
    assert_eq!((&kept["count"], &kept["bytes"]), (&json!(2), &json!(588_907)));
    assert_eq!(kept["leftOut"], json!([{"path": "link.json", "why": "a symbolic link"}]));
    assert_eq!(steps[0]["outputs"]["n"], 1.0, "the helper beside it does not matter to the step");
    let trace = bucket.attempt(&run, 1).join("artifacts/c000001/work/good-1/deep/er/trace.txt");
    assert!(std::fs::read_to_string(trace).unwrap().ends_with("\n100000\n"));

    let kept = &steps[1]["artifacts"];
    assert_eq!((&steps[1]["exitCode"], &kept["lost"]), (&json!(3), &Value::Null), "{record:#}");
    assert_eq!(
        kept["files"],
        json!([{"path": "binary", "bytes": 12}, {"path": "token-redacted.txt", "bytes": 18}]),
        "{record:#}"
    );
    assert_eq!(kept["leftOut"][0]["path"], "large");
    assert_eq!(log(&bucket, "work/bad-2/token-redacted.txt", "").await, "2 says [redacted]\n");
    let index = bucket.json(&run, "index.json").unwrap();
    let indexed: Vec<&str> =
        index["files"].as_array().unwrap().iter().filter_map(|file| file["path"].as_str()).collect();
    assert!(indexed.contains(&result) && !indexed.iter().any(|path| path.contains("notes")), "{indexed:?}");
    no_secret_is_left(&namespace, &run, &operator, &bucket).await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_files_wait_for_the_store_when_their_pods_are_gone() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("later").await;
    bucket.secret(&namespace, SECRET).await;
    let image = operator_image();
    let _operator = Operator::start_with(&namespace, &["--helper-image", &image]);
    let mut pod = script(
        "cd $SOAK_ARTIFACTS; seq 50000 > trace.txt; echo {} > result.json; seq 20000; [ $SOAK_CYCLE = 1 ] && sleep 10; echo the last line",
    );
    pod["artifacts"] = json!({});
    let mut spec = spec(&bucket, 2);
    spec["phases"] = json!([{"name": "work", "steps": [{"name": "leave", "pod": pod}]}]);
    namespace.run("later", spec).await;
    let runs = |run: &SoakRun| {
        status(run)
            .current
            .iter()
            .flat_map(|pass| &pass.phases)
            .flat_map(|phase| &phase.steps)
            .any(|step| step.running_at.is_some())
    };
    namespace.until("later", "run its first step", runs).await;
    bucket.kill();
    let run = namespace.until("later", "went on without the store", |run| status(run).records.waiting.len() == 2).await;
    assert!(is_condition(&run, RECORDS_STORED, ConditionStatus::False), "{:#?}", status(&run));
    wait_for("the pods' end", || async {
        namespace.pods().list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
    bucket.serve().await;
    let run = namespace.ended("later").await;
    check(&namespace, &bucket, &run, 2).await;

    let index = bucket.json(&run, "index.json").unwrap();
    let length = |path: &str| {
        let file = index["files"].as_array().unwrap().iter().find(|file| file["path"] == path);
        file.unwrap_or_else(|| panic!("{path} is not in {index:#}"))["bytes"].clone()
    };
    for (record, cycle) in bucket.cycles(&run).iter().zip(["c000001", "c000002"]) {
        let step = &record["phases"][0]["steps"][0];
        let log_file = format!("logs/{cycle}/work/leave-1.log.gz");
        assert_eq!(step["log"]["file"], log_file, "{record:#}");
        let printed = log(&bucket, &log_file, "").await;
        assert!(printed.starts_with("1\n2\n") && printed.ends_with("\n20000\nthe last line\n"), "{}", printed.len());
        assert!(length(&log_file).as_u64() > Some(20_000));
        let kept = &step["artifacts"];
        assert_eq!((&kept["count"], &kept["lost"]), (&json!(2), &Value::Null), "{record:#}");
        assert_eq!(length(&format!("artifacts/{cycle}/work/leave-1/result.json")), 3);
        assert_eq!(length(&format!("artifacts/{cycle}/work/leave-1/trace.txt")), 288_894);
    }
    namespace.delete().await;
}

/// A pod that leaves a file when it begins and one when it is told to end, and says so.
fn lasting() -> Value {
    let mut pod = script(
        "trap 'echo told to end; echo more > late.txt; exit 143' TERM; cd $SOAK_ARTIFACTS; echo first > early.txt; \
         echo begun; sleep 600 & wait",
    );
    pod["artifacts"] = json!({});
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_has_left_that_was_ended_early_is_stored() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("early").await;
    bucket.secret(&namespace, SECRET).await;
    let image = operator_image();
    let _operator = Operator::start_with(&namespace, &["--helper-image", &image]);
    let one = |step: Value| {
        let mut spec = spec(&bucket, 1);
        spec["phases"] = json!([{"name": "work", "steps": [step]}]);
        spec
    };
    // It does not listen, and is killed two seconds later.
    let mut stubborn =
        script("trap '' TERM; cd $SOAK_ARTIFACTS; echo first > early.txt; echo begun; while :; do sleep 1; done");
    stubborn["artifacts"] = json!({});
    stubborn["template"]["spec"]["terminationGracePeriodSeconds"] = json!(2);
    let mut stopped = one(json!({"name": "end", "background": true, "pod": lasting()}));
    let go = json!({"name": "go", "wait": {"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "go"}, "until": "object != null"}});
    stopped["phases"][0]["steps"].as_array_mut().unwrap().push(go);
    let maps = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    namespace.allow("soak-maps", maps).await;
    let ends = ["evicted", "deleted", "late", "stubborn", "stopped"];
    for name in ends {
        let spec = match name {
            "stubborn" => one(json!({"name": "end", "pod": stubborn})),
            "stopped" => stopped.clone(),
            _ => one(json!({"name": "end", "pod": lasting()})),
        };
        namespace.run(name, spec).await;
    }
    let pods = namespace.pods();
    for name in ends {
        let selector = ListParams::default().labels(&format!("soak.dev/run={name}"));
        let pod = wait_for("a pod that has begun", || async {
            let pod = pods.list(&selector).await.unwrap().items.pop()?.metadata.name?;
            let log = pods.logs(&pod, &LogParams::default()).await;
            log.is_ok_and(|log| log.contains("begun")).then_some(pod)
        })
        .await;
        match name {
            "evicted" => drop(pods.evict(&pod, &EvictParams::default()).await.unwrap()),
            "deleted" => drop(pods.delete(&pod, &DeleteParams::default()).await.unwrap()),
            "stopped" => {
                namespace.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "go"}})).await;
            }
            // Its deadline is now.
            _ => {
                let now = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
                pods.patch(&pod, &PatchParams::default(), &now).await.unwrap();
            }
        }
    }
    for (name, reason) in [
        ("evicted", json!("Evicted")),
        ("deleted", json!("PodDeleted")),
        ("late", json!("Timeout")),
        ("stubborn", json!("Timeout")),
        ("stopped", Value::Null),
    ] {
        let run = namespace.ended(name).await;
        let record = &bucket.cycles(&run)[0];
        let step = &record["phases"][0]["steps"][0];
        assert_eq!(step["reason"], reason, "{name}: {record:#}");
        let (printed, files) = match name {
            "stubborn" => ("begun\n", json!([{"path": "early.txt", "bytes": 6}])),
            _ => ("begun\ntold to end\n", json!([{"path": "early.txt", "bytes": 6}, {"path": "late.txt", "bytes": 5}])),
        };
        assert_eq!(step["log"]["text"], printed, "{name}: {record:#}");
        let file = step["log"]["file"].as_str().unwrap();
        let file = bucket.attempt(&run, 1).join(file).display().to_string();
        assert_eq!(log(&bucket, &file, "").await, printed, "{name}");
        assert_eq!(
            (&step["artifacts"]["files"], &step["artifacts"]["lost"]),
            (&files, &Value::Null),
            "{name}: {record:#}"
        );
        for file in files.as_array().unwrap() {
            let place =
                bucket.attempt(&run, 1).join("artifacts/c000001/work/end-1").join(file["path"].as_str().unwrap());
            assert!(place.is_file(), "{name}: {}", place.display());
        }
    }
    namespace.delete().await;
}
