//! Which rights monitors need: asked for before the first cycle, so that no run is blind from its beginning.

use std::collections::BTreeMap;

use super::fetch::render;
use crate::{
    api::{
        monitor::{PodHealthMonitor, ResourceMonitor},
        names::reason,
    },
    cluster::{
        Cluster,
        access::{Right, lack},
        client::Account,
        error::{ApiFailure, Class},
        kinds::group_version_kind,
        targets::RunClusters,
    },
    engine::{
        Plan, Validation,
        expr::Scope,
        monitor::{MonitorPlan, Source},
    },
};

/// Asks on each cluster where monitors of `plan` may look in the course of the run whether they could: as the run's account, or
/// as the kubeconfig's user. `scope` is what the texts of monitors see.
///
/// A kind that is not served is no reason to refuse the run, as its setup may install it: a monitor that can't see tells so itself.
pub async fn validate(plan: &Plan, account: &Account, scope: &Scope, clusters: &RunClusters) -> Validation {
    for (target, cluster) in clusters.all() {
        let looks_here = |monitor: &MonitorPlan| {
            let places = plan.targets.possible_or_own(monitor.target.as_deref());
            places.iter().any(|place| clusters.get(place).is_ok_and(|it| it.watches.is_same(&cluster.watches)))
        };
        let mut rights: BTreeMap<Right, String> = BTreeMap::new();
        for (index, monitor) in plan.monitors.iter().enumerate().filter(|(_, monitor)| looks_here(monitor)) {
            let field = format!("spec.monitors[{index}].{}", monitor.source.kind());
            match needed(&monitor.source, &account.namespace, scope, cluster).await {
                Ok(needed) => needed.into_iter().for_each(|right| {
                    rights.entry(right).or_insert_with(|| field.clone());
                }),
                Err(failure) if failure.class == Class::Invalid => {
                    let message = format!("{field}: {}", failure.message);
                    return Validation::Invalid { reason: reason::INVALID_SPEC.into(), message };
                }
                Err(failure) => return not_yet(failure.class.reason(), format!("{field}: {}", failure.message)),
            }
        }
        if rights.is_empty() {
            continue;
        }
        match lack(cluster, target, account, &rights).await {
            Ok(None) => {}
            Ok(Some(what)) => return not_yet(reason::PERMISSION_DENIED, what),
            Err(failure) => return not_yet(failure.class.reason(), failure.message),
        }
    }
    Validation::Accepted
}

/// The rights that a monitor needs on a cluster. A request needs none, and a text that can't be rendered asks for nothing.
///
/// Errors: `apiVersion` and kind name none, or the server did not answer.
async fn needed(source: &Source, own: &str, scope: &Scope, cluster: &Cluster) -> Result<Vec<Right>, ApiFailure> {
    let (api_version, kind, namespace) = match render(source, scope) {
        Ok(Source::Resource(ResourceMonitor { api_version, kind, namespace, .. })) => (api_version, kind, namespace),
        Ok(Source::PodHealth(PodHealthMonitor { namespace, .. })) => ("v1".into(), "Pod".into(), namespace),
        Ok(Source::Promql(_) | Source::Http(_)) | Err(_) => return Ok(Vec::new()),
    };
    let kind = match cluster.kinds.get(&group_version_kind(&api_version, &kind)).await {
        Err(failure) if failure.is_not_found() => return Ok(Vec::new()),
        answer => answer?,
    };
    let namespace = namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(own);
    let right = |verb| Right::new(verb, &kind.resource.group, &kind.resource.plural, kind.place(namespace));
    // All of a kind are followed, also for a monitor of one object.
    Ok(["list", "watch"].map(right).into())
}

fn not_yet(reason: &str, message: String) -> Validation {
    Validation::NotYet { reason: reason.into(), message }
}
