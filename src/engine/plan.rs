//! A spec that was parsed: what is left to decide at run time can no longer be malformed.

mod criteria;
mod injections;
mod leaf;
mod references;
mod targets;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::api::{
    Duration, Phase, SoakRunSpec, Step,
    object_store::DEFAULT_MAX_WAITING,
    phase::Retry,
    soakrun::{FailurePolicy, Retention},
    status::{MAX_STEPS, Section},
};

use super::{
    Rules,
    expr::{Condition, ExprError, Roots},
    monitor::{self, MonitorPlan},
};

pub use criteria::CriteriaPlan;
pub use leaf::{Gate, Leaf};
pub use targets::{TargetPlan, TargetsPlan};

/// Name of the only phase of the setup.
pub const SETUP: &str = "setup";
/// Name of the only phase of the cleanup.
pub const CLEANUP: &str = "cleanup";

const DEFAULT_CYCLE_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);
const DEFAULT_SETUP_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const DEFAULT_CLEANUP_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const DEFAULT_BACKOFF: Duration = Duration::from_secs(1);

/// The field that is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct PlanError {
    /// Such as `spec.phases[2].steps[0].wait.until`.
    pub path: String,
    /// What was expected and what to do.
    pub problem: String,
}

impl PlanError {
    pub(crate) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }

    pub(super) fn expression(path: impl Into<String>, error: &ExprError) -> Self {
        Self::new(path, error.to_string())
    }
}

/// A retry rule that was parsed.
#[derive(Clone, Debug)]
pub struct RetryPlan {
    /// Retries after the first attempt.
    pub limit: u32,
    /// Pause before the first of them.
    pub backoff: Duration,
    /// Retried only while this holds.
    pub when: Option<Condition>,
}

/// Steps that are begun together: one step, or the members of a group.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Indices into [`PhasePlan::leaves`].
    pub leaves: std::ops::Range<usize>,
    /// Whether what follows begins as soon as this runs.
    pub background: bool,
    /// It is no part of the sequence: what follows begins whatever becomes of it.
    pub beside: bool,
}

/// A phase that was parsed.
#[derive(Clone, Debug)]
pub struct PhasePlan {
    /// Its name.
    pub name: String,
    /// Longest time of an attempt, if it has a limit of its own.
    pub timeout: Option<Duration>,
    /// Whether it is tried again.
    pub retry: Option<RetryPlan>,
    /// Everything it runs, groups flattened.
    pub leaves: Vec<Leaf>,
    /// The order in which that is begun.
    pub stages: Vec<Stage>,
    /// A failed step does not keep the next from running (the cleanup).
    pub keep_going: bool,
    /// What failures count as.
    pub rules: Rules,
}

/// A whole spec that was parsed. It depends on nothing but the spec, so one plan serves all runs of equal spec.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Digest of everything that must not change during an attempt.
    pub digest: String,
    /// So many cycles.
    pub cycles: Option<u32>,
    /// No cycle begins later.
    pub duration: Option<Duration>,
    /// Pause between cycles.
    pub cooldown: Duration,
    /// The failure policy.
    pub failure_policy: FailurePolicy,
    /// Which records are kept in ConfigMaps.
    pub retention: Retention,
    /// With an object store: how many records may wait for it.
    pub max_waiting: Option<usize>,
    /// What the run must show.
    pub criteria: CriteriaPlan,
    /// The clusters that steps work on, and their roles.
    pub targets: TargetsPlan,
    /// The key that no other run may hold meanwhile.
    pub exclusive: Option<String>,
    /// What failures count as.
    pub rules: Rules,
    /// Parameters with their references resolved.
    pub parameters: BTreeMap<String, String>,
    /// The setup, if there is one.
    pub setup: Option<PhasePlan>,
    /// The phases of a cycle.
    pub phases: Vec<PhasePlan>,
    /// The cleanup, if there is one.
    pub cleanup: Option<PhasePlan>,
    /// What is watched beside the steps.
    pub monitors: Vec<MonitorPlan>,
    cycle_timeout: Duration,
    setup_timeout: Duration,
    cleanup_timeout: Duration,
}

impl Plan {
    /// Parses a spec.
    ///
    /// Errors: the first field that is wrong, by path. What only the server can tell (kinds, rights, images) is
    /// not looked at here.
    pub fn parse(spec: &SoakRunSpec) -> Result<Self, PlanError> {
        // Destructured in full: a new field of the spec does not compile until it is handled here.
        let SoakRunSpec {
            service_account_name: _,
            // Resolved before, by engine::template.
            template_ref: _,
            cycles,
            duration,
            cooldown,
            cycle_timeout,
            setup_timeout,
            cleanup_timeout,
            failure_policy,
            failure_rules,
            targets: _,
            roles: _,
            exclusive,
            parameters,
            setup,
            phases,
            injections,
            monitors,
            // Read by the shell alone.
            snapshot: _,
            seed: _,
            cleanup,
            criteria,
            results,
            suspend: _,
            suspended_time: _,
            abort: _,
            dry_run: _,
            rerun: _,
            ttl_after_finished: _,
        } = spec;
        is_complete(spec)?;
        let count = injections.len()
            + setup.iter().chain(phases.iter().flat_map(|phase| &phase.steps)).chain(cleanup).map(width).sum::<usize>();
        if count > MAX_STEPS {
            return Err(PlanError::new(
                "spec.phases",
                format!(
                    "{count} steps in all, members of groups included; at most {MAX_STEPS} fit into the status: split the run"
                ),
            ));
        }
        let parameters = references::resolve_parameters(parameters)?;
        let mut targets = TargetsPlan::parse(spec)?;
        let rules = Rules::parse(failure_rules)?;
        let mut names = references::Names::new(&parameters, &targets, &rules);
        let setup = section(SETUP, setup, "spec.setup", false, &mut names)?;
        let phases = phases
            .iter()
            .enumerate()
            .map(|(index, phase)| {
                let path = format!("spec.phases[{index}]");
                if [SETUP, CLEANUP].contains(&phase.name.as_str()) {
                    return Err(PlanError::new(
                        format!("{path}.name"),
                        "setup and cleanup are taken by spec.setup and spec.cleanup: choose another name",
                    ));
                }
                phase_plan(phase, &path, &mut names)
            })
            .collect::<Result<Vec<_>, _>>()?;
        references::unique("spec.phases", phases.iter().map(|phase| phase.name.as_str()))?;
        let mut phases = phases;
        injections::add(injections, &mut phases, &names)?;
        let cleanup = section(CLEANUP, cleanup, "spec.cleanup", true, &mut names)?;
        let monitors = monitor::parse(monitors)?;
        for (index, MonitorPlan { source, .. }) in monitors.iter().enumerate() {
            names.check_json_references(&source.fields(), &format!("spec.monitors[{index}].{}", source.kind()))?;
        }
        targets.check(setup.iter().chain(&phases).chain(&cleanup))?;
        if results.object_store.is_none() {
            leaf::check_no_artifacts(setup.iter().chain(&phases).chain(&cleanup).flat_map(|phase| &phase.leaves))?;
        }
        targets.check_monitors(&monitors)?;
        Ok(Self {
            digest: digest(spec),
            cycles: *cycles,
            duration: *duration,
            cooldown: cooldown.unwrap_or(Duration::ZERO),
            failure_policy: failure_policy.clone(),
            retention: results.retention.clone(),
            max_waiting: results
                .object_store
                .as_ref()
                .map(|store| usize::try_from(store.max_waiting.unwrap_or(DEFAULT_MAX_WAITING)).unwrap_or(usize::MAX)),
            criteria: CriteriaPlan::parse(criteria, *cycles)?,
            targets,
            exclusive: exclusive.as_ref().map(|exclusive| exclusive.key.clone()),
            rules,
            parameters,
            setup,
            phases,
            cleanup,
            monitors,
            cycle_timeout: cycle_timeout.unwrap_or(DEFAULT_CYCLE_TIMEOUT),
            setup_timeout: setup_timeout.unwrap_or(DEFAULT_SETUP_TIMEOUT),
            cleanup_timeout: cleanup_timeout.unwrap_or(DEFAULT_CLEANUP_TIMEOUT),
        })
    }

    /// The phases of a section, in order.
    pub fn section(&self, section: Section) -> &[PhasePlan] {
        match section {
            Section::Setup => self.setup.as_slice(),
            Section::Cycle => &self.phases,
            Section::Cleanup => self.cleanup.as_slice(),
        }
    }

    /// Longest time of a pass through a section.
    pub const fn section_timeout(&self, section: Section) -> Duration {
        match section {
            Section::Setup => self.setup_timeout,
            Section::Cycle => self.cycle_timeout,
            Section::Cleanup => self.cleanup_timeout,
        }
    }

    /// Finds a step by the coordinates that its pod carries.
    pub fn leaf(&self, section: Section, phase: &str, step: &str) -> Option<&Leaf> {
        self.section(section).iter().find(|plan| plan.name == phase)?.leaves.iter().find(|leaf| leaf.path == step)
    }
}

/// Digest of the parts of a spec that an attempt of the run is bound to.
///
/// Lists whose order means nothing (outputs, headers) are sorted first: a new order of them is no change.
pub fn digest(spec: &SoakRunSpec) -> String {
    let mut bound = SoakRunSpec { suspend: false, abort: false, rerun: None, ttl_after_finished: None, ..spec.clone() };
    let steps = bound
        .setup
        .iter_mut()
        .chain(bound.phases.iter_mut().flat_map(|phase| &mut phase.steps))
        .chain(&mut bound.cleanup);
    for step in steps {
        let Step { name: _, background: _, parallel, body } = step;
        for body in parallel.iter_mut().map(|member| &mut member.body).chain([body]) {
            body.sort_lists();
        }
    }
    let text = serde_json::to_vec(&bound).unwrap_or_default();
    let mut digest = String::from("sha256:");
    for byte in &Sha256::digest(&text)[..16] {
        use std::fmt::Write;
        // Writing to a string does not fail.
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}

/// What the schema can't ask for, because a template may give it.
fn is_complete(spec: &SoakRunSpec) -> Result<(), PlanError> {
    if spec.phases.is_empty() {
        return Err(PlanError::new("spec.phases", "there is none: a run, or its template, needs one at least"));
    }
    if spec.cycles.is_none() && spec.duration.is_none() {
        return Err(PlanError::new(
            "spec.cycles",
            "set cycles, duration or both: the first that is reached ends the run",
        ));
    }
    Ok(())
}

fn width(step: &Step) -> usize {
    step.parallel.len().max(1)
}

fn section(
    name: &str,
    steps: &[Step],
    path: &str,
    keep_going: bool,
    names: &mut references::Names,
) -> Result<Option<PhasePlan>, PlanError> {
    if steps.is_empty() {
        return Ok(None);
    }
    let (leaves, stages) = leaf::flatten(steps, path, names)?;
    Ok(Some(PhasePlan {
        name: name.into(),
        timeout: None,
        retry: None,
        leaves,
        stages,
        keep_going,
        rules: names.rules.clone(),
    }))
}

fn phase_plan(phase: &Phase, path: &str, names: &mut references::Names) -> Result<PhasePlan, PlanError> {
    let Phase { name, timeout, retry, steps } = phase;
    let (leaves, stages) = leaf::flatten(steps, &format!("{path}.steps"), names)?;
    names.end_phase(name);
    Ok(PhasePlan {
        name: name.clone(),
        timeout: *timeout,
        retry: retry.as_deref().map(|retry| retry_plan(retry, &format!("{path}.retry"), names)).transpose()?,
        leaves,
        stages,
        keep_going: false,
        rules: names.rules.clone(),
    })
}

fn retry_plan(retry: &Retry, path: &str, names: &references::Names) -> Result<RetryPlan, PlanError> {
    let Retry { limit, backoff, when } = retry;
    let when = when
        .as_deref()
        .map(|source| names.condition(source, &references::roots(&["failure"]), &format!("{path}.when")))
        .transpose()?;
    Ok(RetryPlan { limit: *limit, backoff: backoff.unwrap_or(DEFAULT_BACKOFF), when })
}

fn decimal(text: Option<&str>, path: &str) -> Result<Option<f64>, PlanError> {
    text.map(|text| {
        text.parse::<f64>()
            .ok()
            .filter(|value| (0.0..=1.0).contains(value))
            .ok_or_else(|| PlanError::new(path, format!("`{text}` is not a decimal from 0 to 1, such as \"0.95\"")))
    })
    .transpose()
}

/// The variables that every expression of a run can use.
pub(super) fn base_roots() -> Roots {
    Roots::new(["run", "cycle", "params", "roles", "targets", "steps", "phases"])
}
