//! Whether the system is healthy again.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{FaultContext, probe};
use crate::{
    api::failureinjection::ObjectRef,
    cluster::watches::{Lease, Lookup},
    engine::{
        expr::Scope,
        injection::{Health, RecoveryPlan},
    },
};

/// A system that was never seen ill after its fault counts as healthy only when it has been healthy for so long: a controller needs
/// a moment to notice.
const SETTLE: Duration = Duration::from_secs(3);

/// What is kept between two looks. Losing it costs [`SETTLE`].
#[derive(Default)]
pub struct HealthWatch {
    lease: Option<Lease>,
    seen_ill: bool,
    healthy_since: Option<(Instant, DateTime<Utc>)>,
}

/// Looks once.
pub async fn health(ctx: &FaultContext<'_>, watch: &mut HealthWatch) -> Health {
    let Some(recovery) = ctx.plan.and_then(|plan| plan.recovery.as_ref()) else { return Health::Unknown };
    let ill = match look(ctx, recovery, watch).await {
        Ok(None) => return Health::Unknown,
        Ok(Some(())) => None,
        Err(message) => Some(message),
    };
    if let Some(message) = ill {
        watch.seen_ill = true;
        watch.healthy_since = None;
        return Health::NotYet { message };
    }
    let (since, at) = *watch.healthy_since.get_or_insert_with(|| (Instant::now(), Utc::now()));
    if watch.seen_ill || since.elapsed() >= SETTLE {
        Health::Healthy { at }
    } else {
        Health::NotYet { message: "it looks healthy; whether it stays so is looked at for a moment".into() }
    }
}

/// Healthy, not (with what is waited for), or not known yet.
async fn look(ctx: &FaultContext<'_>, recovery: &RecoveryPlan, watch: &mut HealthWatch) -> Result<Option<()>, String> {
    let mut object = Value::Null;
    if let Some((resource, until)) = &recovery.resource {
        // A cluster that was connected to anew is watched anew.
        if !watch.lease.as_ref().is_some_and(Lease::is_alive) {
            let named = ObjectRef {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
                namespace: resource.namespace.clone().unwrap_or_default(),
                name: resource.name.clone(),
                uid: String::new(),
            };
            let target = ctx.target(&named).await.map_err(|failure| failure.message)?;
            let (account, run) = (ctx.injection.account(), ctx.injection.run_ref());
            let lease = ctx.cluster.watches.lease(&account, &target.kind, &target.namespace, &target.name, run);
            watch.lease = Some(lease.map_err(|failure| failure.message)?);
        }
        let Some(lease) = &watch.lease else { return Ok(None) };
        object = match lease.lookup() {
            Lookup::Syncing => return Ok(None),
            Lookup::Absent => return Err(format!("there is no {} {}", resource.kind, resource.name)),
            Lookup::Present(object) => serde_json::to_value(&*object).unwrap_or_default(),
            Lookup::Failed { message, .. } => return Err(message),
        };
        let scope = Scope::new().with("object", object.clone());
        match until.evaluate(&scope) {
            Ok(true) => {}
            Ok(false) => return Err(format!("`{}` is not true yet", until.source())),
            Err(error) => return Err(error.to_string()),
        }
    }
    if let Some(plan) = &recovery.probe {
        match probe::ask(ctx.settings.local_addresses, plan, &object).await {
            Ok(true) => {}
            Ok(false) => return Err(format!("`{}` is not true yet", plan.expect.source())),
            Err(message) => return Err(message),
        }
    }
    Ok(Some(()))
}
