//! A partition by a `NetworkPolicy`.
//!
//! A policy can only allow, so it allows everybody but those that are cut off. Whether packets stop is up to the cluster's
//! network plugin: the policy's note says what is known of it.

use kube::{
    Resource, ResourceExt,
    api::{DynamicObject, ListParams},
};
use serde_json::{Value, json};

use super::{
    FaultContext, Refusal,
    network::{addresses, labels, ranges},
    object_ref, of, resource,
};
use crate::{
    api::{failureinjection::JournalEntry, fault::NetworkFault, names::reason},
    cluster::error::ApiFailure,
};

/// The API groups of network plugins that enforce policies.
const ENFORCERS: [(&str, &str); 7] = [
    ("crd.projectcalico.org", "Calico"),
    ("projectcalico.org", "Calico"),
    ("cilium.io", "Cilium"),
    ("crd.antrea.io", "Antrea"),
    ("k8s.ovn.org", "OVN-Kubernetes"),
    ("networking.k8s.aws", "the Amazon VPC plugin"),
    ("policy.networking.k8s.io", "a plugin for cluster-wide policies"),
];
/// On a policy: whether the cluster enforces it.
pub(super) const NOTE: &str = "soak.dev/note";

/// An entry for each target.
pub(super) async fn entries(
    ctx: &FaultContext<'_>,
    fault: &NetworkFault,
    targets: &[DynamicObject],
    peers: &[DynamicObject],
) -> Result<Vec<JournalEntry>, Refusal> {
    let note = note(ctx).await?;
    let mut entries = Vec::new();
    for (index, pod) in targets.iter().enumerate() {
        let target = of(ctx, pod).await?;
        let labels = labels(pod);
        let selector = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
        let selector = selector.collect::<Vec<_>>().join(",");
        let alike = target.api().list(&ListParams::default().labels(&selector)).await.map_err(ApiFailure::from)?.items;
        let also: Vec<String> = alike
            .iter()
            .filter(|other| targets.iter().all(|it| it.meta().name != other.meta().name))
            .map(ResourceExt::name_any)
            .collect();
        if let Some(other) = also.first() {
            let message = format!(
                "a NetworkPolicy selects by labels, and those of {} fit {other} as well: give it a label of its own, or use means: Node",
                target.title()
            );
            return Err(Refusal::never(reason::INVALID_SPEC, message));
        }
        let peer_rules = allowed(&target.namespace, fault, peers)?;
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"namespace": target.namespace, "annotations": {NOTE: note}},
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": rules("from", &peer_rules),
                "egress": rules("to", &peer_rules),
            },
        });
        let hit = object_ref(&target, pod);
        entries.push(resource::entry(ctx, policy, index, Some(hit)).await?);
    }
    Ok(entries)
}

fn rules(direction: &str, allowed: &[Value]) -> Value {
    // A rule without peers would allow everybody.
    if allowed.is_empty() { json!([]) } else { json!([{direction: allowed}]) }
}

/// Who stays in reach.
fn allowed(namespace: &str, fault: &NetworkFault, peers: &[DynamicObject]) -> Result<Vec<Value>, Refusal> {
    if fault.isolates() {
        let except = ranges("spec.network.except", &fault.except)?;
        return Ok(except.into_iter().map(|range| json!({"ipBlock": {"cidr": range}})).collect());
    }
    let named = ranges("spec.network.addresses", &fault.addresses)?;
    let cut: Vec<String> = ranges("its peers", &peers.iter().flat_map(addresses).collect::<Vec<_>>())?;
    let cut: Vec<String> = cut.into_iter().chain(named).collect();
    let of_family = |v6: bool| cut.iter().filter(move |range| range.contains(':') == v6).collect::<Vec<_>>();
    let mut rules = vec![
        json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": of_family(false)}}),
        json!({"ipBlock": {"cidr": "::/0", "except": of_family(true)}}),
        // Some plugins take an ipBlock for what is outside of the cluster only.
        json!({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [namespace]},
        ]}}),
    ];
    match &fault.peers {
        None => rules.push(json!({"podSelector": {}})),
        Some(selector) => {
            rules.extend(others(selector)?.into_iter().map(|one| json!({"podSelector": {"matchExpressions": [one]}})));
        }
    }
    Ok(rules)
}

/// What selects the pods that a selector does not: one of these holds for each of them.
fn others(selector: &str) -> Result<Vec<Value>, Refusal> {
    let mut requirements = Vec::new();
    for part in split(selector) {
        requirements.push(opposite(part).ok_or_else(|| {
            Refusal::never(reason::INVALID_SPEC, format!("spec.network.peers: `{part}` is not understood"))
        })?);
    }
    Ok(requirements)
}

/// The requirements of a selector: commas inside of parentheses belong to a list of values.
fn split(selector: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = selector.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn opposite(part: &str) -> Option<Value> {
    let requirement = |key: &str, operator: &str, values: Vec<&str>| {
        let key = key.trim();
        let good = !key.is_empty() && !key.contains(|c: char| c.is_whitespace() || "!=(),".contains(c));
        let values: Vec<&str> = values.into_iter().map(str::trim).collect();
        good.then(|| {
            if values.is_empty() {
                json!({"key": key, "operator": operator})
            } else {
                json!({"key": key, "operator": operator, "values": values})
            }
        })
    };
    if let Some((key, value)) = part.split_once("!=") {
        return requirement(key, "In", vec![value]);
    }
    if let Some((key, value)) = part.split_once('=') {
        return requirement(key, "NotIn", vec![value.trim_start_matches('=')]);
    }
    if let Some((head, list)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let operator = match word {
            "in" => "NotIn",
            "notin" => "In",
            _ => return None,
        };
        return requirement(key, operator, list.split(',').collect());
    }
    match part.strip_prefix('!') {
        Some(key) => requirement(key, "Exists", Vec::new()),
        None => requirement(part, "DoesNotExist", Vec::new()),
    }
}

/// Whether the cluster enforces policies, as far as is known.
async fn note(ctx: &FaultContext<'_>) -> Result<String, Refusal> {
    Ok(match ctx.settings.network_policy_enforced.filter(|_| !ctx.cluster.remote) {
        Some(true) => String::new(),
        Some(false) => "this cluster does not enforce NetworkPolicies: nothing is cut off; use means: Node".into(),
        None => {
            let groups = ctx.client()?.list_api_groups().await.map_err(ApiFailure::from)?.groups;
            let known = ENFORCERS.iter().find(|(group, _)| groups.iter().any(|it| it.name == *group));
            match known {
                Some((_, plugin)) => format!("{plugin} is installed, which enforces NetworkPolicies"),
                None => "no network plugin is known here that enforces NetworkPolicies: if nothing is cut off, use means: Node".into(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_selected_is_selected_by_an_opposite() {
        for (selector, opposites) in [
            ("app=etcd", json!([{"key": "app", "operator": "NotIn", "values": ["etcd"]}])),
            (
                "app==etcd, role!=witness",
                json!([
                    {"key": "app", "operator": "NotIn", "values": ["etcd"]},
                    {"key": "role", "operator": "In", "values": ["witness"]},
                ]),
            ),
            (
                "tier in (a, b),x notin (c)",
                json!([
                    {"key": "tier", "operator": "NotIn", "values": ["a", "b"]},
                    {"key": "x", "operator": "In", "values": ["c"]},
                ]),
            ),
            (
                "has,!hasnot",
                json!([{"key": "has", "operator": "DoesNotExist"}, {"key": "hasnot", "operator": "Exists"}]),
            ),
        ] {
            assert_eq!(json!(others(selector).unwrap()), opposites, "{selector}");
        }
        for bad in ["a b", "tier is (a)", "=x"] {
            assert!(others(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_isolated_pod_is_allowed_nothing_but_the_exceptions() {
        assert_eq!(rules("from", &allowed("n", &NetworkFault::default(), &[]).unwrap()), json!([]));
        let fault = NetworkFault { except: vec!["10.0.0.1".into()], ..NetworkFault::default() };
        assert_eq!(
            rules("to", &allowed("n", &fault, &[]).unwrap()),
            json!([{"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}])
        );
    }
}
