//! Keeps a run's monitors at work while it runs, and puts what they saw into records.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use kube::runtime::reflector::ObjectRef;

use crate::{
    analysis::Series,
    api::{
        SoakRun,
        names::reason,
        status::{Pass, SoakRunStatus},
    },
    cluster::targets::RunClusters,
    engine::{
        Plan,
        monitor::{self, MonitorPlan, MonitorSeen, fired_during},
    },
    monitors::{Monitors, Place, Surroundings},
    results::{AlertRecord, MonitorRecord},
};

use super::{Shell, memory::Memory, observe::identity, plans::Parsed};

/// Buckets of a monitor's samples in the record of a cycle.
const RECORD_BUCKETS: usize = 60;

/// What the monitors have seen; they are started when the run has begun, and ended with it.
pub fn seen(
    shell: &Shell,
    plan: &Parsed,
    run: &SoakRun,
    status: &SoakRunStatus,
    (memory, clusters): (&Memory, &RunClusters),
) -> BTreeMap<String, MonitorSeen> {
    let plan = plan.as_ref().ok().filter(|plan| !plan.monitors.is_empty() && !status.phase.is_final());
    let (Some(plan), Some(started_at)) = (plan, status.started_at) else {
        memory.end_monitors();
        return BTreeMap::new();
    };
    let recorded: BTreeMap<String, DateTime<Utc>> =
        kept(status).filter_map(|kept| Some((kept.name.clone(), kept.until?))).collect();
    let place = |monitor: &MonitorPlan| place(monitor, status, clusters);
    let mut seen = memory.monitors(
        &recorded,
        || Monitors::start(&plan.monitors, &surroundings(shell, plan, run, status.attempt, started_at), place),
        |monitors| monitors.look_at(&plan.monitors, place),
    );
    // What holds is told by the rule and a number; why a monitor can't see may quote what it was told.
    let redactor = memory.redactor(Duration::MAX).unwrap_or_default();
    for (_, why) in seen.values_mut().filter_map(|seen| seen.broken.as_mut()) {
        *why = redactor.text(std::mem::take(why));
    }
    seen
}

/// Where a monitor looks as the roles and the connections are now.
fn place(monitor: &MonitorPlan, status: &SoakRunStatus, clusters: &RunClusters) -> Place {
    let target = monitor::target(monitor, &status.roles).unwrap_or_default();
    let cluster = match clusters.remotes.get(&target) {
        Some((_, health)) if health.reason == reason::CONNECTING => Ok(None),
        Some((_, health)) if !health.reachable => Err(format!("target {target}: {}", health.message)),
        _ => clusters.get(&target).map(|cluster| Some(cluster.clone())).map_err(|failure| failure.message),
    };
    Place { target, cluster }
}

fn surroundings(shell: &Shell, plan: &Plan, run: &SoakRun, attempt: u32, started_at: DateTime<Utc>) -> Surroundings {
    let identity = identity(run);
    let (wake, object) = (shell.wake.clone(), ObjectRef::from_obj(run));
    Surroundings {
        namespace: identity.namespace.clone(),
        account: identity.account(),
        started_at,
        scope: monitor::scope(plan, run, attempt),
        local_addresses: shell.step_settings.http_local_addresses,
        wake: Arc::new(move || {
            // The receiver goes only with the process.
            let _ = wake.send(object.clone());
        }),
    }
}

fn kept(status: &SoakRunStatus) -> impl Iterator<Item = &crate::api::status::MonitorStatus> {
    status.alerts.iter().flat_map(|alerts| &alerts.monitors)
}

/// The alerts that fired at some time of a pass.
pub fn alerts_of(status: &SoakRunStatus, pass: &Pass) -> Vec<AlertRecord> {
    let until = pass.finished_at.unwrap_or(DateTime::<Utc>::MAX_UTC);
    let list = status.alerts.iter().flat_map(|alerts| &alerts.list);
    list.filter(|alert| fired_during(alert, pass.started_at, until)).filter_map(AlertRecord::of).collect()
}

/// The newest alerts of the run.
pub fn newest_alerts(status: &SoakRunStatus) -> Vec<AlertRecord> {
    status.alerts.iter().flat_map(|alerts| &alerts.list).filter_map(AlertRecord::of).collect()
}

/// The samples that were taken during a pass.
pub fn samples_of(
    plan: &Plan,
    status: &SoakRunStatus,
    pass: &Pass,
    seen: &BTreeMap<String, MonitorSeen>,
) -> Vec<MonitorRecord> {
    let until = pass.finished_at.map_or(i64::MAX, |at| at.timestamp_millis());
    let from = pass.started_at.timestamp_millis();
    records(plan, status, |monitor| {
        let mut series = Series::new(RECORD_BUCKETS, width(monitor));
        if let Some(seen) = seen.get(&monitor.name) {
            series.take_in(&seen.series, from, until);
        }
        series
    })
}

/// The samples of the whole run.
pub fn samples_of_all(plan: &Plan, status: &SoakRunStatus, seen: &BTreeMap<String, MonitorSeen>) -> Vec<MonitorRecord> {
    records(plan, status, |monitor| {
        let kept = kept(status).find(|kept| kept.name == monitor.name).cloned().unwrap_or_default();
        let mut series = monitor::whole(&kept, monitor);
        if let Some(seen) = seen.get(&monitor.name) {
            let from = kept.until.map_or(i64::MIN, |until| until.timestamp_millis());
            series.take_in(&seen.series, from, i64::MAX);
        }
        series
    })
}

fn width(monitor: &MonitorPlan) -> u64 {
    u64::try_from(monitor.interval.as_std().as_millis()).unwrap_or(u64::MAX)
}

fn records(plan: &Plan, status: &SoakRunStatus, series: impl Fn(&MonitorPlan) -> Series) -> Vec<MonitorRecord> {
    let record = |monitor: &MonitorPlan| {
        let series = series(monitor);
        let start = |number: i64| number.saturating_mul(i64::try_from(series.width()).unwrap_or(i64::MAX));
        MonitorRecord {
            name: monitor.name.clone(),
            kind: monitor.source.kind().into(),
            samples: series.buckets().iter().map(|bucket| u64::from(bucket.count)).sum(),
            fired: kept(status).find(|kept| kept.name == monitor.name).map_or(0, |kept| kept.fired),
            width_millis: series.width(),
            buckets: series.buckets().iter().map(|it| (start(it.number), it.count, it.min, it.mean, it.max)).collect(),
        }
    };
    plan.monitors.iter().map(record).collect()
}
