//! `network`: pods that do not reach others.

use std::collections::BTreeSet;

use kube::{
    Resource, ResourceExt,
    api::{DynamicObject, ListParams},
};
use serde_json::Value;

use super::{FaultContext, FaultKind, Refusal, helper, network_policy, of};
use crate::{
    api::{
        failureinjection::JournalEntry,
        fault::{NetworkFault, PartitionMeans},
        names::reason,
    },
    cluster::{error::ApiFailure, kinds::uid},
    engine::injection,
    helper::Prefix,
};

/// Most peers that are looked at.
const MAX_PEERS: u32 = 1_000;

/// Addresses and ranges as they were written, after a check that they are some.
pub(super) fn ranges(field: &str, written: &[String]) -> Result<Vec<String>, Refusal> {
    let parsed: Result<Vec<Prefix>, String> = written.iter().map(|text| text.parse()).collect();
    let parsed = parsed.map_err(|error| Refusal::never(reason::INVALID_SPEC, format!("{field}: {error}")))?;
    Ok(parsed.iter().map(ToString::to_string).collect())
}

/// All addresses of a pod.
pub(super) fn addresses(pod: &DynamicObject) -> Vec<String> {
    let status = &pod.data["status"];
    let many = status["podIPs"].as_array().into_iter().flatten().filter_map(|it| it["ip"].as_str());
    let all: BTreeSet<&str> = many.chain(status["podIP"].as_str()).filter(|it| !it.is_empty()).collect();
    all.into_iter().map(str::to_owned).collect()
}

/// The pods that are not reached any more: what the labels select, without what is hit, without what has ended.
pub(super) async fn peers(
    ctx: &FaultContext<'_>,
    fault: &NetworkFault,
    targets: &[DynamicObject],
) -> Result<Vec<DynamicObject>, Refusal> {
    let (Some(labels), Some(first)) = (&fault.peers, targets.first()) else { return Ok(Vec::new()) };
    let target = of(ctx, first).await?;
    let parameters = ListParams::default().labels(labels).limit(MAX_PEERS);
    let mut pods = target.api().list(&parameters).await.map_err(ApiFailure::from)?.items;
    pods.retain(|pod| {
        let phase = pod.data["status"]["phase"].as_str();
        let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
        !has_ended && !addresses(pod).is_empty() && targets.iter().all(|target| uid(target) != uid(pod))
    });
    if let Some(count) = fault.peer_count {
        let names = pods.iter().filter_map(|pod| pod.meta().name.clone()).collect();
        let chosen = injection::choose(ctx.seed, names, usize::try_from(count).unwrap_or(usize::MAX));
        pods.retain(|pod| chosen.contains(&pod.name_any()));
    }
    if pods.is_empty() {
        return Err(Refusal::NotYet {
            reason: reason::NO_TARGET.into(),
            message: format!("no pod of namespace {} with an address is a peer: `{labels}`", target.namespace),
        });
    }
    Ok(pods)
}

/// The helper's words.
fn arguments(fault: &NetworkFault, peers: &[DynamicObject]) -> Result<Vec<String>, Refusal> {
    let mut words = vec!["cut".to_owned()];
    if fault.isolates() {
        words.push("--all".into());
        for range in ranges("spec.network.except", &fault.except)? {
            words.extend(["--except".into(), range]);
        }
        return Ok(words);
    }
    let named = ranges("spec.network.addresses", &fault.addresses)?;
    let all: BTreeSet<String> = peers.iter().flat_map(addresses).chain(named).collect();
    words.extend(all.into_iter().flat_map(|address| ["--address".to_owned(), address]));
    Ok(words)
}

impl FaultKind for NetworkFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        let peers = peers(ctx, self, targets).await?;
        if self.means == PartitionMeans::NetworkPolicy {
            return network_policy::entries(ctx, self, targets, &peers).await;
        }
        helper::on_networks(ctx, targets, &arguments(self, &peers)?).await
    }
}

/// What a policy's labels would select is asked of the server with all labels of the pod.
pub(super) fn labels(pod: &DynamicObject) -> Value {
    serde_json::to_value(pod.meta().labels.clone().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, status: &Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
    }

    #[test]
    fn a_cut_names_every_address_of_each_peer_once() {
        let peers = [
            pod("a", &json!({"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]})),
            pod("b", &json!({"podIP": "10.0.0.8"})),
            pod("c", &json!({})),
        ];
        let fault = NetworkFault {
            peers: Some("app=x".into()),
            addresses: vec!["10.1.2.3/16".into()],
            ..NetworkFault::default()
        };
        let words = arguments(&fault, &peers).unwrap().join(" ");
        assert_eq!(words, "cut --address 10.0.0.7 --address 10.0.0.8 --address 10.1.0.0/16 --address fd00::7");
    }

    #[test]
    fn nobody_named_means_everybody_but_the_exceptions() {
        let fault = NetworkFault { except: vec!["10.88.0.1".into()], ..NetworkFault::default() };
        assert_eq!(arguments(&fault, &[]).unwrap(), ["cut", "--all", "--except", "10.88.0.1/32"]);
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        let fault = NetworkFault { addresses: vec!["db.local".into()], ..NetworkFault::default() };
        let Err(Refusal::Never { message, .. }) = arguments(&fault, &[]) else { panic!("not refused") };
        assert!(message.contains("spec.network.addresses") && message.contains("db.local"), "{message}");
    }
}
