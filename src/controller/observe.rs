//! Gathers what is known about the outside of a run. Nothing here calls a server.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    api::{
        SoakRun,
        names::FINALIZER,
        status::{SoakRunStatus, StepState},
    },
    cluster::targets::{Health, RunClusters},
    engine::{self, Plan, Seen, StepKey, StepSeen, TargetSeen, expr::Scope},
    steps::{self, RunIdentity, StepContext},
};

use super::{
    Shell,
    memory::{Basis, Memory, Task},
    monitors,
    plans::Parsed,
};

/// What is known about a run's outside now.
pub fn observe(shell: &Shell, plan: &Parsed, run: &SoakRun, memory: &Memory) -> Seen {
    let uid = run.metadata.uid.as_deref().unwrap_or_default();
    let status = run.status.clone().unwrap_or_default();
    let digest = plan.as_ref().map_or_else(|_| String::new(), |plan| plan.digest.clone());
    let recalled = memory.recall(&Basis { attempt: engine::attempt(run), digest });
    let live = live_steps(&status);
    if is_at_rest(run, &status) {
        memory.connections().disconnect();
    } else if let Ok(plan) = plan {
        let identity = identity(run);
        memory.connections().connect(&shell.clusters, plan, &identity.account(), &identity.run_ref());
    }
    let clusters = memory.connections().clusters(&shell.clusters);
    if memory.connections().hears_news(&clusters) {
        memory.hurry(&Task::Validate);
    }
    let held: Vec<String> = status.held.iter().map(engine::held_name).collect();
    memory.keep(&live, &held, &status.records.waiting);
    // First: as long as monitors use a connection with old credentials, steps do so as well.
    let monitors = monitors::seen(shell, plan, run, &status, (memory, &clusters));
    let steps = match plan {
        Ok(plan) if !live.is_empty() => observe_steps(shell, plan, run, &status, (memory, &clusters), live),
        _ => BTreeMap::new(),
    };
    Seen {
        steps,
        validation: recalled.validation,
        record_of: recalled.record.0,
        record: recalled.record.1,
        summary: recalled.summary,
        forwarding: recalled.forwarding,
        released: recalled.released,
        monitors,
        targets: plan.as_ref().map(|plan| targets_seen(shell, plan, &clusters)).unwrap_or_default(),
        lock: recalled.lock,
        pods: clusters
            .all()
            .filter(|(_, cluster)| cluster.pods.synced())
            .flat_map(|(target, cluster)| steps::pods_seen(target, cluster, uid))
            .collect(),
    }
}

/// Whether nothing is left to be done for a run.
fn is_at_rest(run: &SoakRun, status: &SoakRunStatus) -> bool {
    status.phase.is_final() && !run.metadata.finalizers.iter().flatten().any(|it| it == FINALIZER)
}

fn targets_seen(shell: &Shell, plan: &Plan, clusters: &RunClusters) -> BTreeMap<String, TargetSeen> {
    let seen = plan.targets.targets.iter().map(|target| {
        let seen = match clusters.remotes.get(&target.name) {
            // Without this one nothing at all is seen.
            None => TargetSeen {
                reachable: true,
                reason: "Reachable".into(),
                version: Some(shell.kubernetes_version.clone()),
                ..TargetSeen::default()
            },
            Some((cluster, Health { reachable, reason, message, version, latency_millis })) => TargetSeen {
                reachable: *reachable,
                reason: reason.clone(),
                message: message.clone(),
                version: version.clone(),
                latency_millis: *latency_millis,
                pods_unknown: target.runs_pods && !cluster.as_ref().is_some_and(|cluster| cluster.pods.synced()),
            },
        };
        (target.name.clone(), seen)
    });
    seen.collect()
}

fn observe_steps(
    shell: &Shell,
    plan: &Plan,
    run: &SoakRun,
    status: &SoakRunStatus,
    (memory, clusters): (&Memory, &RunClusters),
    live: Vec<StepKey>,
) -> BTreeMap<StepKey, StepSeen> {
    let identity = identity(run);
    let scope = engine::scope(plan, run, status);
    // It was loaded before the step was begun or taken up, without which there is nothing to follow.
    let redactor = memory.redactor(Duration::MAX).unwrap_or_default();
    let mut seen = BTreeMap::new();
    for key in live {
        let known = memory.step(&key);
        let observed = match (known.certain, known.follow) {
            (Some(certain), _) => certain,
            (None, Some(follow)) if !follow.is_alive() => {
                memory.unfollow(&key);
                StepSeen::Unknown
            }
            (None, Some(follow)) => {
                let Some(context) = context(shell, plan, status, &identity, clusters, &key, &scope) else { continue };
                let observed = redactor.seen(steps::observe(&context, &follow, Utc::now()));
                memory.note_silence(&key, observed == StepSeen::Unknown);
                observed
            }
            (None, None) => StepSeen::Unknown,
        };
        seen.insert(key, observed);
    }
    seen
}

/// When the first of the pending pods is given up (an image that can't be pulled), though no event tells.
pub fn gives_up_at(shell: &Shell, memory: &Memory, run: &SoakRun) -> Option<DateTime<Utc>> {
    let clusters = memory.connections().clusters(&shell.clusters);
    let live = run.status.as_ref().map(live_steps).unwrap_or_default();
    let identity = identity(run);
    let now = Utc::now();
    live.iter()
        .flat_map(|key| clusters.all().filter_map(|(_, cluster)| steps::gives_up_at(cluster, &identity, key)))
        .filter(|at| *at > now)
        .min()
}

/// The attempts that are live according to the status.
pub fn live_steps(status: &SoakRunStatus) -> Vec<StepKey> {
    let Some(pass) = &status.current else { return Vec::new() };
    let mut live = Vec::new();
    for phase in &pass.phases {
        for step in phase.steps.iter().filter(|step| matches!(step.state, StepState::Active | StepState::Stopping)) {
            live.push(StepKey {
                run_attempt: status.attempt,
                section: pass.section,
                cycle: pass.cycle,
                phase: phase.name.clone(),
                step: step.name.clone(),
                attempt: step.attempt,
            });
        }
    }
    live
}

/// The run as steps know it.
pub fn identity(run: &SoakRun) -> RunIdentity {
    let metadata = &run.metadata;
    RunIdentity {
        name: metadata.name.clone().unwrap_or_default(),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        service_account: run.spec.service_account_name.clone(),
    }
}

/// What a live attempt is performed and observed with; none if the spec has no such step, or its cluster can't be asked.
pub fn context<'a>(
    shell: &'a Shell,
    plan: &'a Plan,
    status: &SoakRunStatus,
    identity: &'a RunIdentity,
    clusters: &'a RunClusters,
    key: &'a StepKey,
    scope: &'a Scope,
) -> Option<StepContext<'a>> {
    let leaf = plan.leaf(key.section, &key.phase, &key.step)?;
    let step = status
        .current
        .iter()
        .flat_map(|pass| &pass.phases)
        .filter(|phase| phase.name == key.phase)
        .flat_map(|phase| &phase.steps)
        .find(|step| step.name == key.step)?;
    let target = step.target.as_deref().unwrap_or_default();
    let place = if leaf.action.works_here() { "" } else { target };
    Some(StepContext {
        run: identity,
        key,
        leaf,
        scope,
        cluster: clusters.get(place).ok()?,
        kubeconfig: plan.targets.secret(target),
        settings: &shell.step_settings,
        started_at: step.started_at.unwrap_or_default(),
        stopping_since: step.stopping_at,
    })
}
