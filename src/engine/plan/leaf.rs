//! Steps and members of groups as the engine runs them: one flat list a phase.

use crate::api::{
    Duration, ParallelStep, Step, StepBody,
    step::{Action, Conditions},
};

use super::{
    super::{
        Rules,
        expr::{Condition, Expression, check_json},
        injection::draw,
    },
    PlanError, RetryPlan, Stage,
    references::{Names, roots, unique},
    retry_plan,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const DEFAULT_PENDING_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// When a step that is no part of the sequence begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Only in every so many cycles.
    pub every: u32,
    /// With this probability, from 0 to 1.
    pub probability: f64,
    /// So long after the phase's start.
    pub offset: Duration,
}

impl Gate {
    /// Whether the step of that path runs in a cycle. The run's seed decides what is left to chance.
    pub fn opens(&self, seed: u64, cycle: u32, path: &str) -> bool {
        const STEPS: usize = 1_000_000;
        #[expect(clippy::cast_precision_loss, reason = "a million is exact")]
        let drawn = draw(&seed.to_string(), &format!("{path} in cycle {cycle}"), STEPS) as f64 / STEPS as f64;
        cycle.is_multiple_of(self.every.max(1)) && drawn < self.probability
    }
}

/// A step, or a member of a group.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Its name, or `group/member`.
    pub path: String,
    /// Where it stands in the spec, for messages.
    pub field: String,
    /// Runs beside what follows.
    pub background: bool,
    /// In which cycles it runs, and how long after the phase's start; none: in all, in its turn.
    pub gate: Option<Gate>,
    /// What it does.
    pub action: Action,
    /// Longest time an attempt may run.
    pub timeout: Duration,
    /// Longest time its pod may be pending.
    pub pending_timeout: Duration,
    /// Whether it is tried again.
    pub retry: Option<RetryPlan>,
    /// What ends it well, over `object` or `response`.
    pub success: Option<Condition>,
    /// What fails it, over `object`.
    pub failure: Option<Condition>,
    /// Values taken from `object` or `response` at its end.
    pub outputs: Vec<(String, Expression)>,
    /// What its failures count as.
    pub rules: Rules,
}

/// Flattens steps into leaves and the stages that begin them.
pub(super) fn flatten(steps: &[Step], path: &str, names: &mut Names) -> Result<(Vec<Leaf>, Vec<Stage>), PlanError> {
    unique(path, steps.iter().map(|step| step.name.as_str()))?;
    let mut leaves = Vec::new();
    let mut stages = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let first = leaves.len();
        let Step { name, background, parallel, body } = step;
        if parallel.is_empty() {
            leaves.push(leaf(name.clone(), *background, body, &path, names)?);
        } else {
            unique(&format!("{path}.parallel"), parallel.iter().map(|member| member.name.as_str()))?;
            for (index, ParallelStep { name: member, body }) in parallel.iter().enumerate() {
                leaves.push(leaf(
                    format!("{name}/{member}"),
                    false,
                    body,
                    &format!("{path}.parallel[{index}]"),
                    names,
                )?);
            }
        }
        // Members of a group do not see each other, so names become known when the whole stage is parsed.
        for leaf in &leaves[first..] {
            names.end_step(&leaf.path);
        }
        stages.push(Stage { leaves: first..leaves.len(), background: *background, beside: false });
    }
    Ok((leaves, stages))
}

/// Without an object store there is no place for artifacts.
pub(super) fn check_no_artifacts<'a>(mut leaves: impl Iterator<Item = &'a Leaf>) -> Result<(), PlanError> {
    match leaves.find(|leaf| matches!(&leaf.action, Action::Pod(step) if step.artifacts.is_some())) {
        Some(leaf) => Err(PlanError::new(
            format!("{}.pod.artifacts", leaf.field),
            "they are kept in an object store: set spec.results.objectStore",
        )),
        None => Ok(()),
    }
}

pub(super) fn leaf(
    path: String,
    background: bool,
    body: &StepBody,
    field: &str,
    names: &Names,
) -> Result<Leaf, PlanError> {
    let action = body.action().ok_or_else(|| {
        let kinds = Action::KINDS.join(", ");
        PlanError::new(field, format!("a step does exactly one thing: set one of {kinds}, parallel"))
    })?;
    let kind = action.kind();
    let templates = action.templates();
    let Conditions { success, failure, subject } = action.conditions();
    check_json(&templates, &roots(&[])).map_err(|(place, error)| {
        PlanError::expression(
            format!("{field}.{kind}{}{place}", if place.is_empty() || place.starts_with('[') { "" } else { "." }),
            &error,
        )
    })?;
    names.check_json_references(&templates, &format!("{field}.{kind}"))?;
    let extra: Vec<&str> = subject.into_iter().collect();
    let roots = roots(&extra);
    let condition = |source: Option<(&str, &str)>| {
        source.map(|(name, text)| names.condition(text, &roots, &format!("{field}.{kind}.{name}"))).transpose()
    };
    let success = condition(success)?;
    let failure = condition(failure)?;
    let outputs = body
        .outputs
        .iter()
        .enumerate()
        .map(|(index, output)| {
            let field = format!("{field}.outputs[{index}].value");
            if subject.is_none() {
                return Err(PlanError::new(
                    field,
                    format!(
                        "a {kind} step has no object or response to take values from; a pod reports its outputs itself"
                    ),
                ));
            }
            Ok((output.name.clone(), names.expression(&output.value, &roots, &field)?))
        })
        .collect::<Result<_, _>>()?;
    Ok(Leaf {
        path,
        field: field.to_owned(),
        background,
        gate: None,
        action,
        timeout: body.timeout.unwrap_or(DEFAULT_TIMEOUT),
        pending_timeout: body.pending_timeout.unwrap_or(DEFAULT_PENDING_TIMEOUT),
        retry: body.retry.as_deref().map(|retry| retry_plan(retry, &format!("{field}.retry"), names)).transpose()?,
        success,
        failure,
        outputs,
        rules: names.rules.clone(),
    })
}
