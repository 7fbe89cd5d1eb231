//! Steps and members of groups as the engine runs them: one flat list a phase.

use serde_json::Value;

use crate::api::{
    Duration, ParallelStep, Step, StepBody,
    step::{
        ApplyStep, DeleteStep, HttpStep, JobStep, PatchStep, PodStep, ResourceStep, ScaleStep, SleepStep, WaitStep,
    },
};

use super::{
    super::expr::{Condition, Expression, check_json},
    PlanError, RetryPlan, Stage,
    references::{Names, roots, unique},
    retry_plan,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const DEFAULT_PENDING_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The one thing that a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Runs a pod.
    Pod(Box<PodStep>),
    /// Runs a Job.
    Job(Box<JobStep>),
    /// Waits for a condition on an object.
    Wait(Box<WaitStep>),
    /// Applies an object.
    Apply(Box<ApplyStep>),
    /// Patches an object.
    Patch(Box<PatchStep>),
    /// Sets replicas.
    Scale(Box<ScaleStep>),
    /// Deletes an object.
    Delete(Box<DeleteStep>),
    /// Creates an object and follows it to its end.
    Resource(Box<ResourceStep>),
    /// Makes an HTTP request.
    Http(Box<HttpStep>),
    /// Waits for a length of time; the engine does that itself.
    Sleep(Box<SleepStep>),
}

impl Action {
    /// The kind's name as it stands in the spec.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Pod(_) => "pod",
            Self::Job(_) => "jobTemplate",
            Self::Wait(_) => "wait",
            Self::Apply(_) => "apply",
            Self::Patch(_) => "patch",
            Self::Scale(_) => "scale",
            Self::Delete(_) => "delete",
            Self::Resource(_) => "resource",
            Self::Http(_) => "http",
            Self::Sleep(_) => "sleep",
        }
    }

    /// Whether beginning the same attempt twice does no harm, so that a lost one is simply begun again.
    ///
    /// What is created under a name of its own is not: it may have run already.
    pub const fn is_repeatable(&self) -> bool {
        match self {
            Self::Wait(_) | Self::Apply(_) | Self::Patch(_) | Self::Scale(_) | Self::Delete(_) | Self::Sleep(_) => true,
            Self::Pod(_) | Self::Job(_) | Self::Resource(_) | Self::Http(_) => false,
        }
    }

    /// Whether it only looks, so that it needs no intent to be written before it begins.
    pub const fn only_observes(&self) -> bool {
        matches!(self, Self::Wait(_) | Self::Sleep(_))
    }

    /// Whether an attempt leaves something running in a cluster, which has to be stopped there.
    pub const fn runs_in_cluster(&self) -> bool {
        matches!(self, Self::Pod(_) | Self::Job(_) | Self::Resource(_))
    }

    fn new(body: &StepBody) -> Option<Self> {
        let StepBody {
            timeout: _,
            pending_timeout: _,
            retry: _,
            outputs: _,
            pod,
            job_template,
            wait,
            apply,
            patch,
            scale,
            delete,
            resource,
            http,
            sleep,
        } = body;
        let mut found = [
            pod.clone().map(Self::Pod),
            job_template.clone().map(Self::Job),
            wait.clone().map(Self::Wait),
            apply.clone().map(Self::Apply),
            patch.clone().map(Self::Patch),
            scale.clone().map(Self::Scale),
            delete.clone().map(Self::Delete),
            resource.clone().map(Self::Resource),
            http.clone().map(Self::Http),
            sleep.clone().map(Self::Sleep),
        ]
        .into_iter()
        .flatten();
        match (found.next(), found.next()) {
            (Some(action), None) => Some(action),
            _ => None,
        }
    }

    /// The action as JSON, for the check of its templates, and the variables that its conditions see beside the common ones.
    fn parts(&self) -> (Value, Sources<'_>) {
        fn json<T: serde::Serialize>(value: &T) -> Value {
            serde_json::to_value(value).unwrap_or_default()
        }
        let none = Sources::default();
        match self {
            Self::Pod(pod) => (json(pod), none),
            Self::Job(job) => (json(job), none),
            Self::Wait(wait) => {
                let WaitStep { resource, until, fail_when } = &**wait;
                let success = Some(("until", until.as_str()));
                (
                    json(&serde_json::json!({ "resource": resource })),
                    Sources { success, failure: fail_when.as_deref().map(|it| ("failWhen", it)), root: Some("object") },
                )
            }
            Self::Apply(apply) => (json(apply), Sources { root: Some("object"), ..none }),
            Self::Patch(patch) => (json(patch), Sources { root: Some("object"), ..none }),
            Self::Scale(scale) => (json(scale), Sources { root: Some("object"), ..none }),
            Self::Delete(delete) => (json(delete), none),
            Self::Resource(resource) => {
                let ResourceStep { manifest, success_condition, failure_condition, delete_after: _ } = &**resource;
                let success = Some(("successCondition", success_condition.as_str()));
                (
                    json(&serde_json::json!({ "manifest": manifest })),
                    Sources {
                        success,
                        failure: failure_condition.as_deref().map(|it| ("failureCondition", it)),
                        root: Some("object"),
                    },
                )
            }
            Self::Http(http) => {
                let HttpStep { url, method: _, headers, body, expect, ca_bundle } = &**http;
                let success = Some(("expect", expect.as_deref().unwrap_or("response.status < 400")));
                (
                    json(&serde_json::json!({ "url": url, "headers": headers, "body": body, "caBundle": ca_bundle })),
                    Sources { success, failure: None, root: Some("response") },
                )
            }
            Self::Sleep(_) => (Value::Null, none),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Sources<'a> {
    success: Option<(&'static str, &'a str)>,
    failure: Option<(&'static str, &'a str)>,
    root: Option<&'static str>,
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
        stages.push(Stage { leaves: first..leaves.len(), background: *background });
    }
    Ok((leaves, stages))
}

fn leaf(path: String, background: bool, body: &StepBody, field: &str, names: &Names) -> Result<Leaf, PlanError> {
    let action = Action::new(body).ok_or_else(|| PlanError::new(field, "a step does exactly one thing: set one of pod, jobTemplate, wait, apply, patch, scale, delete, resource, http, sleep, parallel"))?;
    let kind = action.kind();
    let (templates, sources) = action.parts();
    check_json(&templates, &roots(&[])).map_err(|(place, error)| {
        PlanError::expression(
            format!("{field}.{kind}{}{place}", if place.is_empty() || place.starts_with('[') { "" } else { "." }),
            &error,
        )
    })?;
    names.check_json_references(&templates, &format!("{field}.{kind}"))?;
    let extra: Vec<&str> = sources.root.into_iter().collect();
    let roots = roots(&extra);
    let condition = |source: Option<(&str, &str)>| {
        source.map(|(name, text)| names.condition(text, &roots, &format!("{field}.{kind}.{name}"))).transpose()
    };
    let success = condition(sources.success)?;
    let failure = condition(sources.failure)?;
    let outputs = body
        .outputs
        .iter()
        .enumerate()
        .map(|(index, output)| {
            let field = format!("{field}.outputs[{index}].value");
            if sources.root.is_none() {
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
        action,
        timeout: body.timeout.unwrap_or(DEFAULT_TIMEOUT),
        pending_timeout: body.pending_timeout.unwrap_or(DEFAULT_PENDING_TIMEOUT),
        retry: body.retry.as_deref().map(|retry| retry_plan(retry, &format!("{field}.retry"), names)).transpose()?,
        success,
        failure,
        outputs,
    })
}
