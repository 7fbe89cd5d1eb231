//! Results in an object store: a real S3 server, the faults that one has, and an operator that is killed meanwhile.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::Read;

use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::{
    Api,
    api::{DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use soak_operator::api::{
    ConditionStatus, SoakRun,
    names::condition_type::RECORDS_STORED,
    status::{RunPhase, SoakRunStatus},
};
use support::{
    Namespace, Operator,
    bucket::{Bucket, Fault, SECRET},
    is_condition, script, wait_for,
};

fn spec(bucket: &Bucket, cycles: u32) -> Value {
    let mut store = bucket.spec();
    store["maxWaiting"] = json!(3);
    json!({
        "cycles": cycles, "cooldown": "300ms", "results": {"objectStore": store},
        "phases": [{"name": "rest", "steps": [{"name": "s", "sleep": {"duration": "0s"}}]}],
    })
}

fn status(run: &SoakRun) -> SoakRunStatus {
    run.status.clone().unwrap_or_default()
}

/// Checks that the store has exactly the records of these cycles, that nothing waits, and that the index came last.
async fn check(namespace: &Namespace, bucket: &Bucket, run: &SoakRun, cycles: u32) {
    let ended = status(run);
    assert_eq!((ended.phase, ended.cycles.passed), (RunPhase::Succeeded, cycles), "{ended:#?}");
    let numbers: Vec<u64> = bucket.cycles(run).iter().map(|record| record["cycle"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=u64::from(cycles)).collect::<Vec<_>>());
    for kind in ["setup", "cycle", "cleanup", "summary"] {
        assert!(namespace.records(run, kind).await.is_empty(), "a {kind} is left in a ConfigMap");
    }
    assert!(is_condition(run, RECORDS_STORED, ConditionStatus::True));
    let index = bucket.json(run, "index.json").expect("there is an index");
    let indexed = index["files"].as_array().unwrap();
    let digests: Vec<&Value> = indexed.iter().map(|file| &file["digest"]).filter(|digest| !digest.is_null()).collect();
    assert_eq!(digests.len(), cycles as usize + 1, "each cycle and the summary: {index:#}");
    let last = &ended.recent.last().unwrap().digest;
    assert!(digests.iter().any(|digest| *digest == last), "what was counted is what is stored");
    for (path, bytes) in bucket.everything() {
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{} has the secret", path.display());
    }
    assert!(!json!(run).to_string().contains(SECRET));
}

/// What `kubectl soak` prints.
fn plugin(namespace: &Namespace, arguments: &[&str]) -> String {
    let output = support::plugin(namespace, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_in_the_store_and_the_plugin_reads_them() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("plain").await;
    bucket.secret(&namespace, SECRET).await;
    let operator = Operator::start(&namespace);
    namespace.run("plain", spec(&bucket, 4)).await;
    let run = namespace.ended("plain").await;
    check(&namespace, &bucket, &run, 4).await;

    let listed = plugin(&namespace, &["cycles", "plain"]);
    assert_eq!(listed.lines().filter(|line| line.contains("Succeeded")).count(), 4, "{listed}");
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&namespace.name);
    plugin(&namespace, &["report", "plain", "--exit-code", "--output", folder.to_str().unwrap()]);
    assert!(plugin(&namespace, &["compare", "plain", "plain"]).starts_with("METRIC "));

    let mut other = bucket.spec();
    other["url"] = json!("s3://soak/elsewhere");
    let change = Patch::Merge(json!({"spec": {"results": {"objectStore": other}}}));
    let refused = namespace.runs().patch("plain", &PatchParams::default(), &change).await.unwrap_err();
    assert!(refused.to_string().contains("a run's spec is fixed"), "{refused}");
    assert!(!operator.logged().contains(SECRET));
    namespace.delete().await;
}

/// The store is out in the middle of a run, the operator is killed while records wait, and then the store is back.
async fn survives(name: &str, breaks: impl AsyncFn(&Bucket), mends: impl AsyncFn(&Bucket)) {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start(name).await;
    bucket.secret(&namespace, SECRET).await;
    let operator = Operator::start(&namespace);
    namespace.run(name, spec(&bucket, 20)).await;
    namespace.until(name, "stored a record", |run| status(run).cycles.completed >= 1).await;
    breaks(&bucket).await;
    let run = namespace
        .until(name, "paused", |run| {
            let status = status(run);
            status.records.waiting.len() == 3 && status.message.starts_with("paused")
        })
        .await;
    assert!(is_condition(&run, RECORDS_STORED, ConditionStatus::False));
    let counted = status(&run).cycles.completed;
    operator.kill();
    let _operator = Operator::start(&namespace);
    mends(&bucket).await;
    let run = namespace.ended(name).await;
    assert!(counted < 20);
    check(&namespace, &bucket, &run, 20).await;
    namespace.delete().await;
}

async fn survives_fault(name: &str, fault: Fault) {
    survives(name, async |bucket| bucket.fault(fault), async |bucket| bucket.fault(Fault::None)).await;
}

#[tokio::test]
async fn a_store_that_closes_connections() {
    survives_fault("closed", Fault::Closed).await;
}

#[tokio::test]
async fn a_store_that_is_too_busy() {
    survives_fault("busy", Fault::Busy).await;
}

#[tokio::test]
async fn a_store_that_is_full() {
    survives_fault("full", Fault::Full).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_of_a_record() {
    survives_fault("cut", Fault::Cut).await;
}

#[tokio::test]
async fn a_store_that_never_answers() {
    survives_fault("silent", Fault::Silent).await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again() {
    survives("killed", async |bucket| bucket.kill(), async |bucket| bucket.serve().await).await;
}

#[tokio::test]
async fn a_slow_store_only_takes_longer() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("slow").await;
    bucket.secret(&namespace, SECRET).await;
    bucket.fault(Fault::Slow);
    let _operator = Operator::start(&namespace);
    namespace.run("slow", spec(&bucket, 2)).await;
    let run = namespace.ended("slow").await;
    check(&namespace, &bucket, &run, 2).await;
    namespace.delete().await;
}

#[tokio::test]
async fn wrong_credentials_hold_a_run_up_and_right_ones_let_it_go() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("wrong").await;
    bucket.secret(&namespace, "another-secret-key").await;
    let operator = Operator::start(&namespace);
    namespace.run("wrong", spec(&bucket, 1)).await;
    let run = namespace.until("wrong", "told what is wrong", |run| status(run).reason == "StoreUnavailable").await;
    assert!(status(&run).message.contains("check the credentials in the Secret"), "{}", status(&run).message);
    assert!(!json!(run).to_string().contains("another-secret-key"));
    assert!(!operator.logged().contains("another-secret-key"));
    bucket.secret(&namespace, SECRET).await;
    let run = namespace.ended("wrong").await;
    check(&namespace, &bucket, &run, 1).await;
    namespace.delete().await;
}

#[tokio::test]
async fn ended_runs_beyond_the_retention_go() {
    let namespace = Namespace::create("store").await;
    let bucket = Bucket::start("retention").await;
    bucket.secret(&namespace, SECRET).await;
    let _operator = Operator::start(&namespace);
    let mut spec = spec(&bucket, 1);
    spec["results"]["objectStore"]["retention"] = json!({"maxRuns": 1});
    let mut runs = Vec::new();
    for name in ["first", "second"] {
        namespace.run(name, spec.clone()).await;
        runs.push(namespace.ended(name).await);
    }
    assert_eq!(bucket.json(&runs[0], "index.json"), None, "the older one is gone");
    assert!(bucket.cycles(&runs[0]).is_empty());
    check(&namespace, &bucket, &runs[1], 1).await;
    namespace.delete().await;
}

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

    let image = support::operator_image();
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
    let image = support::operator_image();
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
    let image = support::operator_image();
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

#[tokio::test]
async fn a_volume_is_a_store_as_well_where_there_is_one() {
    let namespace = Namespace::create("store").await;
    let volume = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-volume", namespace.name));
    let operator = Operator::start(&namespace);
    let spec = json!({
        "cycles": 2, "results": {"objectStore": {"url": "file:///nightly"}},
        "phases": [{"name": "rest", "steps": [{"name": "s", "sleep": {"duration": "0s"}}]}],
    });
    namespace.run("kept", spec).await;
    let run = namespace.until("kept", "told what is missing", |run| status(run).reason == "StoreUnavailable").await;
    assert!(status(&run).message.contains("--store-volume"), "{}", status(&run).message);
    operator.kill();
    let _operator = Operator::start_with(&namespace, &["--store-volume", volume.to_str().unwrap()]);
    let run = namespace.ended("kept").await;
    assert_eq!(status(&run).phase, RunPhase::Succeeded, "{:#?}", status(&run));
    let attempt = volume.join("nightly").join(&namespace.name).join("kept").join(run.metadata.uid.unwrap()).join("a1");
    for file in ["cycles/c000001.json", "cycles/c000002.json", "summary.json", "series.jsonl", "index.json"] {
        assert!(attempt.join(file).is_file(), "{file}");
    }
    std::fs::remove_dir_all(volume).unwrap();
    namespace.delete().await;
}
