//! Faults that a helper on the target's node makes, and how they are undone without the operator.

use std::{fs, process::Command};

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use soak_operator::api::failureinjection::{EntryState, InjectionPhase};

use crate::{
    stage::{SERVE, Stage, address},
    support::{Operator, wait_for},
};

const COUNT: &str = "n=0; while true; do n=$((n+1)); echo $n; sleep 0.1; done";

fn target(name: &str) -> Value {
    json!({"name": name})
}

/// The processes of a pod on this machine, by the uid in their control group.
fn processes(uid: &str) -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let within = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(uid));
    names.filter(within).collect()
}

fn command_line(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

/// The time that a pod's processes have computed, in ticks of the clock.
fn computed(uid: &str) -> u64 {
    let of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    processes(uid).into_iter().filter_map(of).sum()
}

#[tokio::test]
async fn a_paused_container_stands_still_and_goes_on() {
    let stage = Stage::set().await;
    stage.pod("paused", COUNT).await;
    stage.pod("twin", COUNT).await;
    stage.counts_beyond("paused", 3).await;
    stage.inject("pause", json!({"target": target("paused"), "process": {"signal": "Pause"}, "duration": "10m"})).await;
    stage.injected("pause").await;
    let (stands_at, twin) = (stage.count("paused").await, stage.count("twin").await);
    stage.counts_beyond("twin", twin + 15).await;
    assert_eq!(stage.count("paused").await, stands_at);
    stage.abort("pause").await;
    assert_eq!(stage.recovered("pause").await, [EntryState::Reverted]);
    stage.counts_beyond("paused", stands_at).await;
    stage.strike().await;
}

#[tokio::test]
async fn a_killed_process_is_started_again_by_its_kubelet() {
    let stage = Stage::set().await;
    stage.pod("victim", COUNT).await;
    stage.inject("kill", json!({"target": target("victim"), "process": {"signal": "Kill"}})).await;
    wait_for("a restart", || async {
        let pod = stage.team.pods().get("victim").await.ok()?;
        let container = pod.status?.container_statuses?.into_iter().next()?;
        let end = container.last_state?.terminated?;
        (container.restart_count == 1 && end.exit_code == 137).then_some(())
    })
    .await;
    assert_eq!(stage.recovered("kill").await, [EntryState::Reverted]);
    stage.strike().await;
}

/// Asks without `wget -T`, which ends with a segmentation fault in Debian's static busybox.
fn ask(address: &str) -> String {
    format!(
        "while true; do if echo GET / | timeout 2 nc -w 1 {address} 8080 2>/dev/null | grep -q HTTP; then echo yes; else echo no; fi; sleep 0.2; done"
    )
}

#[tokio::test]
async fn a_cut_pod_does_not_reach_its_peers_and_reaches_others() {
    let stage = Stage::set().await;
    let (peer, other) = (stage.pod("peer", SERVE).await, stage.pod("other", SERVE).await);
    let script = format!("({}) & {}", ask(&address(&peer)).replace("echo ", "echo peer-"), ask(&address(&other)));
    stage.pod("client", &script).await;
    let said = async |wanted: &'static [&'static str]| {
        wait_for(&format!("{wanted:?}"), || async {
            let lines = stage.lines("client", 12).await;
            let recent: std::collections::BTreeSet<&str> = lines.iter().map(String::as_str).collect();
            (lines.len() == 12 && recent.into_iter().eq(wanted.iter().copied())).then_some(())
        })
        .await;
    };
    said(&["peer-yes", "yes"]).await;
    stage.inject("cut", json!({"target": target("client"), "network": {"peers": "app=peer"}, "duration": "10m"})).await;
    stage.injected("cut").await;
    said(&["peer-no", "yes"]).await;
    stage.abort("cut").await;
    assert_eq!(stage.recovered("cut").await, [EntryState::Reverted]);
    said(&["peer-yes", "yes"]).await;
    stage.strike().await;
}

/// The client says that it is answered, but for the time in which the fault is there.
async fn cuts_the_client_off(stage: &Stage, name: &str, fault: Value) {
    stage.says("client", "yes").await;
    stage.inject(name, fault).await;
    stage.injected(name).await;
    stage.says("client", "no").await;
    stage.abort(name).await;
    assert_eq!(stage.recovered(name).await, [EntryState::Reverted]);
    stage.says("client", "yes").await;
}

#[tokio::test]
async fn an_isolated_pod_reaches_nobody() {
    let stage = Stage::set().await;
    let peer = stage.pod("peer", SERVE).await;
    stage.pod("client", &ask(&address(&peer))).await;
    cuts_the_client_off(&stage, "isolate", json!({"target": target("client"), "network": {}, "duration": "10m"})).await;
    stage.strike().await;
}

#[tokio::test]
async fn lookups_of_names_time_out_and_work_again() {
    let stage = Stage::set().await;
    let script = "while true; do if timeout 2 nslookup kubernetes.default.svc.cluster.local >/dev/null 2>&1; then echo yes; else echo no; fi; sleep 0.2; done";
    stage.pod("client", script).await;
    cuts_the_client_off(&stage, "dns", json!({"target": target("client"), "dns": {}, "duration": "10m"})).await;
    stage.strike().await;
}

#[tokio::test]
async fn a_stress_pod_uses_cpu_until_the_fault_ends() {
    let stage = Stage::set().await;
    stage.pod("neighbour", COUNT).await;
    stage
        .inject("stress", json!({"target": target("neighbour"), "stress": {"cpuWorkers": 1}, "duration": "10m"}))
        .await;
    let injection = stage.injected("stress").await;
    let selector = format!("soak.dev/injection-uid={}", injection.uid().unwrap());
    let selector = ListParams::default().labels(&selector);
    let pods = stage.team.pods().list(&selector).await.unwrap().items;
    let uid = pods[0].uid().unwrap();
    let before = computed(&uid);
    // Half a second of computing, in ticks of 10 ms.
    wait_for("CPU time", || async { (computed(&uid) > before + 50).then_some(()) }).await;
    stage.abort("stress").await;
    assert_eq!(stage.recovered("stress").await, [EntryState::Reverted]);
    assert!(stage.team.pods().list(&selector).await.unwrap().items.is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_policy_is_made_and_deleted_and_its_note_says_that_nobody_enforces_it() {
    let stage = Stage::set().await;
    stage.pod("client", COUNT).await;
    let network = json!({"means": "NetworkPolicy"});
    stage.inject("policy", json!({"target": target("client"), "network": network, "duration": "10m"})).await;
    let injection = stage.injected("policy").await;
    let message = &injection.status.as_ref().unwrap().journal[0].message;
    assert!(message.contains("no network plugin is known here"), "{message}");
    let policies: Api<k8s_openapi::api::networking::v1::NetworkPolicy> =
        Api::namespaced(stage.team.client.clone(), &stage.team.name);
    let policy = policies.list(&ListParams::default()).await.unwrap().items.remove(0).spec.unwrap();
    assert_eq!(policy.pod_selector.unwrap().match_labels.unwrap()["app"], "client");
    assert_eq!(policy.policy_types.unwrap(), ["Ingress", "Egress"]);
    stage.abort("policy").await;
    assert_eq!(stage.recovered("policy").await, [EntryState::Reverted]);
    assert!(policies.list(&ListParams::default()).await.unwrap().items.is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn a_helper_undoes_its_work_while_the_operator_is_down_past_the_deadline() {
    let mut stage = Stage::set().await;
    stage.pod("paused", COUNT).await;
    stage.counts_beyond("paused", 3).await;
    stage.inject("pause", json!({"target": target("paused"), "process": {}, "duration": "12s"})).await;
    let injection = stage.injected("pause").await;
    stage.kill();
    let stands_at = stage.count("paused").await;
    stage.counts_beyond("paused", stands_at).await;
    let now = stage.injections().get("pause").await.unwrap();
    assert_eq!(now.status, injection.status, "somebody else has written it");
    stage.start();
    assert_eq!(stage.recovered("pause").await, [EntryState::Reverted]);
    stage.strike().await;
}

#[tokio::test]
async fn what_a_killed_helper_left_is_undone_by_another() {
    let stage = Stage::set().await;
    let peer = stage.pod("peer", SERVE).await;
    stage.pod("client", &ask(&address(&peer))).await;
    stage.says("client", "yes").await;
    stage.inject("isolate", json!({"target": target("client"), "network": {}, "duration": "10m"})).await;
    let injection = stage.injected("isolate").await;
    let helper = stage.helpers.pods().get(&stage.helper_pods(&injection).await[0]).await.unwrap();
    let (name, uid) = (helper.name_any(), helper.uid().unwrap());
    // Without a word, as when memory runs out.
    for pid in processes(&uid).into_iter().filter(|pid| command_line(*pid).contains("node-helper")) {
        Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    }
    wait_for("the helper's end", || async {
        (stage.helpers.pods().get(&name).await.ok()?.status?.phase? == "Failed").then_some(())
    })
    .await;
    stage.helpers.pods().delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
    stage.says("client", "no").await;
    stage.abort("isolate").await;
    assert_eq!(stage.recovered("isolate").await, [EntryState::Reverted]);
    stage.says("client", "yes").await;
    stage.strike().await;
}

#[tokio::test]
async fn a_target_that_is_deleted_leaves_nothing_to_undo() {
    let stage = Stage::set().await;
    stage.pod("paused", COUNT).await;
    stage.inject("pause", json!({"target": target("paused"), "process": {}, "duration": "10m"})).await;
    stage.injected("pause").await;
    stage.team.pods().delete("paused", &DeleteParams::default().grace_period(0)).await.unwrap();
    stage.abort("pause").await;
    let states = stage.recovered("pause").await;
    // The helper may have let the processes go on before they were killed.
    assert!(matches!(states[..], [EntryState::Gone | EntryState::Reverted]), "{states:?}");
    stage.strike().await;
}

#[tokio::test]
async fn nobody_gets_a_helper_who_may_not_execute_programs_in_the_target() {
    let stage = Stage::set().await;
    stage.pod("target", COUNT).await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "create", "delete"]}]);
    stage.team.allow("faults", rules).await;
    stage
        .inject("pause", json!({"target": target("target"), "process": {}, "duration": "5s", "startingDeadline": "4s"}))
        .await;
    let injection = stage.until("pause", InjectionPhase::Failed).await;
    let message = injection.status.as_ref().unwrap().message.clone();
    assert!(message.contains("may not create pods/exec named target"), "{message}");
    assert!(stage.helper_pods(&injection).await.is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn without_the_administrators_leave_there_are_no_helpers() {
    let mut stage = Stage::set().await;
    stage.kill();
    stage.operator = Some(Operator::start_beside(&stage.team, &stage.helpers.name, &[]));
    stage.pod("target", COUNT).await;
    stage.inject("pause", json!({"target": target("target"), "process": {}, "duration": "5s"})).await;
    let status = stage.until("pause", InjectionPhase::Failed).await.status.unwrap();
    assert_eq!(status.reason, "NotAllowed");
    assert!(status.message.contains("nodeHelper.enabled"), "{}", status.message);
    stage.strike().await;
}
