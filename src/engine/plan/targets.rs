//! Targets and roles as the engine uses them.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{
    SoakRunSpec,
    step::Action,
    target::{Rotate, SecretKeyRef},
};

use super::{MonitorPlan, PhasePlan, PlanError, references::unique};

/// A cluster that steps may work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    /// Its name.
    pub name: String,
    /// Where its kubeconfig is; none: it is the cluster that the operator runs in.
    pub secret: Option<SecretKeyRef>,
    /// Whether steps may run pods there.
    pub runs_pods: bool,
}

/// The targets of a run, and who plays which role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetsPlan {
    /// The targets, in the order of the spec.
    pub targets: Vec<TargetPlan>,
    /// The target of each role at the beginning.
    pub roles: BTreeMap<String, String>,
    /// When the roles swap.
    pub rotate: Rotate,
}

impl TargetsPlan {
    pub(super) fn parse(spec: &SoakRunSpec) -> Result<Self, PlanError> {
        unique("spec.targets", spec.targets.iter().map(|target| target.name.as_str()))?;
        let roles = spec.roles.clone().unwrap_or_default();
        let known: BTreeSet<&str> = spec.targets.iter().map(|target| target.name.as_str()).collect();
        for (role, target) in &roles.targets {
            let path = format!("spec.roles.{role}");
            if !is_name(role) {
                return Err(PlanError::new(path, "a role's name has at most 40 lower-case letters, digits and -"));
            }
            if known.contains(role.as_str()) {
                return Err(PlanError::new(path, "a name is a role or a target, not both"));
            }
            if !known.contains(target.as_str()) {
                return Err(PlanError::new(path, format!("there is no target {target} in spec.targets")));
            }
        }
        if roles.rotate != Rotate::Never {
            let players: BTreeSet<&String> = roles.targets.values().collect();
            if roles.targets.len() != 2 || players.len() != 2 {
                return Err(PlanError::new("spec.roles", "roles that swap are exactly two, of two targets"));
            }
        }
        let targets = spec
            .targets
            .iter()
            .map(|target| TargetPlan {
                name: target.name.clone(),
                secret: target.kubeconfig_secret_ref.clone(),
                runs_pods: false,
            })
            .collect();
        Ok(Self { targets, roles: roles.targets, rotate: roles.rotate })
    }

    /// Checks the names that steps use, and notes where pods may run.
    pub(super) fn check<'p>(&mut self, phases: impl Iterator<Item = &'p PhasePlan>) -> Result<(), PlanError> {
        for leaf in phases.flat_map(|phase| &phase.leaves) {
            let Some(name) = leaf.action.target() else { continue };
            let possible = self.known(name, || format!("{}.{}.target", leaf.field, leaf.action.kind()))?;
            if matches!(leaf.action, Action::Pod(_)) {
                for target in self.targets.iter_mut().filter(|target| possible.contains(&target.name)) {
                    target.runs_pods = true;
                }
            }
        }
        Ok(())
    }

    /// Checks the names that monitors use.
    pub(super) fn check_monitors(&self, monitors: &[MonitorPlan]) -> Result<(), PlanError> {
        for (index, monitor) in monitors.iter().enumerate() {
            if let Some(name) = &monitor.target {
                self.known(name, || format!("spec.monitors[{index}].target"))?;
            }
        }
        Ok(())
    }

    /// The targets that a name may mean, of which there is one at least.
    fn known(&self, name: &str, path: impl FnOnce() -> String) -> Result<Vec<String>, PlanError> {
        let possible = self.possible(name);
        if possible.is_empty() {
            let targets = self.targets.iter().map(|target| target.name.as_str());
            let known: Vec<&str> = self.roles.keys().map(String::as_str).chain(targets).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(PlanError::new(path(), format!("there is no role or target {name} (known: {known})")));
        }
        Ok(possible)
    }

    /// Where the kubeconfig of a target is; none for the cluster that the operator runs in.
    pub fn secret(&self, target: &str) -> Option<&SecretKeyRef> {
        self.targets.iter().find(|it| it.name == target)?.secret.as_ref()
    }

    /// The targets that a role or target name may mean in the course of the run.
    pub fn possible(&self, name: &str) -> Vec<String> {
        match self.roles.get(name) {
            Some(first) if self.rotate == Rotate::Never => vec![first.clone()],
            Some(_) => self.roles.values().cloned().collect(),
            None => self.targets.iter().filter(|it| it.name == name).map(|it| it.name.clone()).collect(),
        }
    }

    /// As [`possible`](Self::possible), where a name may be missing: then it is the empty one, of the cluster that the operator runs in.
    pub fn possible_or_own(&self, name: Option<&str>) -> Vec<String> {
        name.map_or_else(|| vec![String::new()], |name| self.possible(name))
    }
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=40).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}
