//! What expressions see.

use serde_json::{Map, Value, json};

use crate::api::{
    SoakRun,
    status::{Pass, SoakRunStatus},
};

use super::{Plan, expr::Scope};

/// The variables of a run at its current pass, or between passes.
pub fn scope(plan: &Plan, run: &SoakRun, status: &SoakRunStatus) -> Scope {
    match &status.current {
        Some(pass) => in_pass(plan, run, status, pass),
        None => base(plan, run, status, 0),
    }
}

/// The variables while `pass` is taken out of the status.
pub(super) fn in_pass(plan: &Plan, run: &SoakRun, status: &SoakRunStatus, pass: &Pass) -> Scope {
    let mut scope = base(plan, run, status, pass.cycle);
    let mut steps = Map::new();
    let mut phases = Map::new();
    for phase in &pass.phases {
        let millis = phase.finished_at.map(|at| (at - phase.first_started_at).num_milliseconds());
        phases
            .insert(phase.name.clone(), json!({"outcome": phase.outcome, "attempt": phase.attempt, "millis": millis}));
        for step in &phase.steps {
            steps.insert(step.name.clone(), json!({"outputs": step.outputs, "state": step.state, "attempt": step.attempt, "reason": step.reason, "exitCode": step.exit_code}));
        }
    }
    scope.set("steps", Value::Object(steps));
    scope.set("phases", Value::Object(phases));
    scope
}

fn base(plan: &Plan, run: &SoakRun, status: &SoakRunStatus, cycle: u32) -> Scope {
    let mut scope = Scope::new();
    let metadata = &run.metadata;
    scope.set(
        "run",
        json!({
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "attempt": status.attempt,
            "serviceAccountName": run.spec.service_account_name,
            "passed": status.cycles.passed,
            "failed": status.cycles.failed,
            "seed": super::seed(run),
        }),
    );
    scope.set("cycle", json!({"number": cycle}));
    scope.set("params", json!(plan.parameters));
    scope.set("roles", json!(status.roles));
    let targets: Map<String, Value> = status
        .targets
        .iter()
        .map(|target| (target.name.clone(), json!({"reachable": target.reachable, "version": target.version})))
        .collect();
    scope.set("targets", Value::Object(targets));
    scope.set("steps", json!({}));
    scope.set("phases", json!({}));
    scope
}
