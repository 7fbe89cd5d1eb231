//! The example `raft-resilience`: two real clusters of etcd, a run a scenario, and what they come to.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    cluster::Running,
    example::{self, Ended, Figures, text},
    kubectl::Kubectl,
    operator_image, toxiproxy, workspace,
};

/// Where both clusters and all runs are.
pub const NAMESPACE: &str = "raft-soak";
/// The namespace of helpers on nodes, and their account.
const HELPERS: &str = "raft-soak-helpers";
const FOLDER: &str = "examples/raft-resilience";
/// The run of many cycles with faults by chance.
const SOAK: &str = "soakrun.yaml";
/// The clusters: StatefulSet and members.
const CLUSTERS: [(&str, u64); 2] = [("etcd3", 3), ("etcd5", 5)];

/// Every scenario by its name, and the soak at the end.
pub fn runs(scenario: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace::root().join(FOLDER).join("scenarios"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".yaml").map(str::to_owned));
    }
    names.sort();
    let path = |name: &String| format!("scenarios/{name}.yaml");
    match scenario {
        None => Ok(names.iter().map(path).chain([SOAK.to_owned()]).collect()),
        Some("soak") => Ok(vec![SOAK.to_owned()]),
        Some(name) => {
            let found = names.iter().find(|it| *it == name).map(path);
            Ok(vec![
                found.with_context(|| format!("there is no scenario {name}; there are soak, {}", names.join(", ")))?,
            ])
        }
    }
}

/// Lets the operator have helpers on nodes, which stop and kill processes; the answer is its options for that.
pub fn allow_helpers(cluster: &Running, kubectl: &Kubectl) -> Result<Vec<String>> {
    let image = operator_image::build(workspace::Profile::Release)?;
    cluster.load_image(&image.tar)?;
    kubectl.apply(&workspace::read(&format!("{FOLDER}/helpers.yaml"))?)?;
    let options = [
        ("--helper-image", image.reference.as_str()),
        ("--node-helper-namespace", HELPERS),
        ("--node-helper-service-account", HELPERS),
    ];
    Ok(options.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect())
}

/// Builds the images, and waits for both clusters.
pub fn prepare(cluster: &Running, kubectl: &Kubectl) -> Result<()> {
    example::load_ledger(cluster)?;
    cluster.load_image(&toxiproxy::build()?)?;
    let manifests = ["common.yaml", "etcd-3.yaml", "etcd-5.yaml"].map(|file| format!("{FOLDER}/{file}"));
    example::apply_with_volumes(cluster, kubectl, NAMESPACE, &manifests.each_ref().map(String::as_str))?;
    for (name, members) in CLUSTERS {
        eprintln!("waiting for {members} members of {name}");
        kubectl.run(&["rollout", "status", &format!("statefulset/{name}"), "-n", NAMESPACE, "--timeout=240s"])?;
    }
    Ok(())
}

/// The figures of all runs.
pub fn figures(kubectl: &Kubectl, ended: &[Ended]) -> Result<Figures> {
    let left = faults_left(kubectl)?;
    for what in &left {
        eprintln!("left behind: {what}");
    }
    let failed: Vec<String> = ended
        .iter()
        .filter(|run| !run.passed())
        .map(|run| format!("{} ended as {}: {}", run.name, text(&run.status, "phase"), text(&run.status, "message")))
        .collect();
    let (soaks, scenarios): (Vec<&Ended>, Vec<&Ended>) = ended.iter().partition(|run| run.name == "raft-soak");
    let (lost, invented) = (sum(ended, "lostWrites"), sum(ended, "inventedWrites"));
    let reordered = sum(ended, "reorderedWrites");
    let good = failed.is_empty() && left.is_empty() && lost + invented + reordered == 0;
    let line = json!({
        "verdict": if good { "Succeeded" } else { "Failed" },
        "scenarios": scenarios.len(),
        "scenariosPassed": scenarios.iter().filter(|run| run.passed()).count(),
        "soakCycles": soaks.iter().map(|run| run.records.len()).sum::<usize>(),
        "keysVerified": sum(ended, "keysVerified"),
        "lostWrites": lost,
        "inventedWrites": invented,
        "reorderedWrites": reordered,
        "reelectionSecondsMax": most(ended.iter().flat_map(|run| run.numbers("reelectionSeconds"))),
        "writeGapSecondsMax": most(gaps(ended)),
        "catchUpSecondsMax": most(ended.iter().flat_map(|run| run.numbers("catchUpSeconds"))),
        "faultsInjected": faults_injected(ended),
        "faultsLeft": left.len(),
    });
    let wrong = (!good).then(|| {
        let figures =
            format!("{lost} writes lost, {invented} invented, {reordered} reordered, {} faults left", left.len());
        failed.into_iter().chain([figures]).collect::<Vec<_>>().join("; ")
    });
    Ok(Figures { line, wrong })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of writes")]
fn sum(ended: &[Ended], output: &str) -> u64 {
    ended.iter().flat_map(|run| run.numbers(output)).sum::<f64>() as u64
}

fn most(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    numbers.reduce(f64::max)
}

/// Times without an acknowledged write, of the loads that must not be stopped. One that goes on through a loss of quorum
/// has another name, since there writes have to stop.
fn gaps(ended: &[Ended]) -> impl Iterator<Item = f64> {
    let loads = ended.iter().flat_map(Ended::steps).filter(|step| step["name"] == "load");
    loads.filter_map(|step| Some(step.pointer("/outputs/longestGapMillis")?.as_f64()? / 1000.0))
}

/// Injections that were steps, and those that came beside a cycle's steps.
fn faults_injected(ended: &[Ended]) -> usize {
    let steps = ended.iter().flat_map(Ended::steps).filter(|step| step.pointer("/outputs/fault").is_some()).count();
    let records = ended.iter().flat_map(|run| &run.records);
    let beside = records.flat_map(|record| record["injections"].as_array().into_iter().flatten());
    steps + beside.filter(|injection| !injection["injectedAt"].is_null()).count()
}

/// What of the faults is still there, asked from the targets themselves and not from the operator.
fn faults_left(kubectl: &Kubectl) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (name, members) in CLUSTERS {
        let set = kubectl.json(&["get", "statefulset", name, "-n", NAMESPACE])?;
        if set["spec"]["replicas"] != members {
            left.push(format!("{name} has {} replicas", set["spec"]["replicas"]));
        }
        if set["status"]["readyReplicas"] != members {
            left.push(format!("{name} has {} ready members", set["status"]["readyReplicas"]));
        }
        for member in 0..members {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/services/{name}-{member}-toxiproxy:8474/proxy/proxies");
            let proxies: Value = serde_json::from_str(&kubectl.run(&["get", "--raw", &path])?)?;
            let Some(proxies) = proxies.as_object().filter(|all| !all.is_empty()) else {
                bail!("the Toxiproxy of {name}-{member} tells of no proxies");
            };
            left.extend(proxies.iter().flat_map(|(proxy, state)| left_in(&format!("{name}-{member}/{proxy}"), state)));
        }
    }
    let policies = kubectl.json(&["get", "networkpolicies", "-n", NAMESPACE])?;
    for policy in policies["items"].as_array().into_iter().flatten() {
        left.push(format!("network policy {}", policy["metadata"]["name"]));
    }
    left.extend(stopped_processes("etcd")?);
    Ok(left)
}

fn left_in(proxy: &str, state: &Value) -> Vec<String> {
    let toxics = state["toxics"].as_array().into_iter().flatten();
    let mut left: Vec<String> = toxics.map(|toxic| format!("{proxy} has the toxic {}", toxic["name"])).collect();
    if state["enabled"] != true {
        left.push(format!("{proxy} is switched off"));
    }
    left
}

/// Processes of that name that stand still; the node is this machine.
fn stopped_processes(name: &str) -> Result<Vec<String>> {
    let mut stopped = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(folder.join("stat")) else { continue };
        if let Some((before, after)) = stat.rsplit_once(") ")
            && before.split_once('(').is_some_and(|(_, it)| it == name)
            && after.starts_with(['T', 't'])
        {
            stopped.push(format!("process {before}) stands still"));
        }
    }
    Ok(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_in_a_proxy_is_told() {
        assert!(left_in("p", &json!({"enabled": true, "toxics": []})).is_empty());
        let both = left_in("p", &json!({"enabled": false, "toxics": [{"name": "soak-1"}]}));
        assert_eq!(both.len(), 2, "{both:?}");
    }

    #[test]
    fn there_are_twelve_scenarios_and_a_soak() {
        let all = runs(None).expect("the folder is there");
        assert!(all.len() > 12 && all.ends_with(&[SOAK.to_owned()]), "{all:?}");
        assert_eq!(runs(Some("leader-kill")).expect("is one"), ["scenarios/leader-kill.yaml"]);
        assert!(runs(Some("no-such")).is_err());
    }
}
