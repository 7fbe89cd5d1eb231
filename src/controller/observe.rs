//! Gathers what is known about the outside of a run. Nothing here calls a server.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{
    api::{
        SoakRun,
        status::{SoakRunStatus, StepState},
    },
    engine::{self, Plan, Seen, StepKey, StepSeen, expr::Scope},
    steps::{self, RunIdentity, StepContext},
};

use super::{Shell, memory::Memory, plans::Parsed};

/// What is known about a run's outside now.
pub fn observe(shell: &Shell, plan: &Parsed, run: &SoakRun, memory: &Memory) -> Seen {
    let uid = run.metadata.uid.as_deref().unwrap_or_default();
    let status = run.status.clone().unwrap_or_default();
    let recalled = memory.recall();
    let live = live_steps(&status);
    memory.keep(&live, &status.held.iter().map(engine::held_name).collect::<Vec<_>>());
    let steps = match plan {
        Ok(plan) if !live.is_empty() => observe_steps(shell, plan, run, &status, memory, live),
        _ => BTreeMap::new(),
    };
    Seen {
        steps,
        validation: recalled.validation,
        record_of: recalled.record.0,
        record: recalled.record.1,
        summary: recalled.summary,
        released: recalled.released,
        pods: if shell.cluster.pods.synced() { steps::pods_seen(&shell.cluster, uid) } else { Vec::new() },
    }
}

fn observe_steps(
    shell: &Shell,
    plan: &Plan,
    run: &SoakRun,
    status: &SoakRunStatus,
    memory: &Memory,
    live: Vec<StepKey>,
) -> BTreeMap<StepKey, StepSeen> {
    let identity = identity(run);
    let scope = engine::scope(plan, run, status);
    let mut seen = BTreeMap::new();
    for key in live {
        let known = memory.step(&key);
        let observed = match (known.certain, known.follow) {
            (Some(certain), _) => certain,
            (None, Some(follow)) => {
                let Some(context) = context(shell, plan, status, &identity, &key, &scope) else { continue };
                let observed = steps::observe(&context, &follow, Utc::now());
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
pub fn gives_up_at(shell: &Shell, run: &SoakRun) -> Option<DateTime<Utc>> {
    let live = run.status.as_ref().map(live_steps).unwrap_or_default();
    let identity = identity(run);
    let now = Utc::now();
    live.iter().filter_map(|key| steps::gives_up_at(&shell.cluster, &identity, key)).filter(|at| *at > now).min()
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

/// What a live attempt is performed and observed with; none if the spec has no such step.
pub fn context<'a>(
    shell: &'a Shell,
    plan: &'a Plan,
    status: &SoakRunStatus,
    identity: &'a RunIdentity,
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
    Some(StepContext {
        run: identity,
        key,
        leaf,
        scope,
        cluster: &shell.cluster,
        settings: &shell.step_settings,
        started_at: step.started_at.unwrap_or_default(),
        stopping_since: step.stopping_at,
    })
}
