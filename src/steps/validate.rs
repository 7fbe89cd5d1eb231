//! Trying a whole spec on the server as the tenant, before anything is done.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;

use super::{
    apply,
    context::{RunIdentity, Settings, StepContext},
    job,
    object::{PatchKind, Target, Unresolved},
    patch, pod, resource,
    rights::{Reference, needed, reference},
};
use crate::{
    api::{names::reason, status::Section},
    cluster::{
        Cluster,
        access::{Right, missing_rights},
        error::{ApiFailure, Class},
    },
    engine::{
        expr::Scope,
        plan::{Action, Leaf, Plan},
        seen::{StepEnd, StepKey, Validation},
    },
};

/// Steps that are tried at the same time.
const CONCURRENCY: usize = 4;
/// Missing rights that a message names.
const NAMED_RIGHTS: usize = 5;

/// Asks the server as the tenant whether everything that `plan` does would be accepted: namespaces, account, kinds,
/// rights, and a dry run of each object whose expressions have values in `scope` (a sample of a cycle's variables).
///
/// What depends on values that only the run itself will give is not tried. Nothing is changed in the cluster.
pub async fn validate(
    plan: &Plan,
    run: &RunIdentity,
    scope: &Scope,
    cluster: &Cluster,
    settings: &Settings,
) -> Validation {
    match checks(plan, run, scope, cluster, settings).await {
        Ok(()) => Validation::Accepted,
        Err(refusal) => refusal,
    }
}

async fn checks(
    plan: &Plan,
    run: &RunIdentity,
    scope: &Scope,
    cluster: &Cluster,
    settings: &Settings,
) -> Result<(), Validation> {
    account_exists(cluster, run).await?;
    let steps: Vec<(StepKey, &Leaf)> = [Section::Setup, Section::Cycle, Section::Cleanup]
        .into_iter()
        .flat_map(|section| {
            plan.section(section)
                .iter()
                .flat_map(move |phase| phase.leaves.iter().map(move |leaf| (key(section, &phase.name, leaf), leaf)))
        })
        .collect();
    let contexts: Vec<StepContext<'_>> = steps
        .iter()
        .map(|(key, leaf)| StepContext {
            run,
            key,
            leaf,
            scope,
            cluster,
            settings,
            started_at: Utc::now(),
            stopping_since: None,
        })
        .collect();
    let made = Promised::of(&contexts);
    namespaces_exist(&contexts, &made).await?;
    rights_are_there(&contexts, &made).await?;
    // Boxed, because the compiler can't prove a stream of borrowing closures to be Send.
    let tries: Vec<BoxFuture<'_, Result<(), Validation>>> =
        contexts.iter().map(|ctx| try_step(ctx, &made).boxed()).collect();
    let mut tries = stream::iter(tries).buffered(CONCURRENCY);
    while let Some(answer) = tries.next().await {
        answer?;
    }
    Ok(())
}

fn key(section: Section, phase: &str, leaf: &Leaf) -> StepKey {
    StepKey {
        run_attempt: 0,
        section,
        cycle: u32::from(section == Section::Cycle),
        phase: phase.to_owned(),
        step: leaf.path.clone(),
        attempt: 1,
    }
}

/// What the run's own steps will make, so that it need not be there before.
#[derive(Default)]
struct Promised {
    namespaces: BTreeSet<String>,
    kinds: bool,
}

impl Promised {
    fn of(contexts: &[StepContext<'_>]) -> Self {
        let mut made = Self::default();
        for ctx in contexts {
            if !matches!(ctx.leaf.action, Action::Apply(_) | Action::Resource(_)) {
                continue;
            }
            let Reference::Known(it) = reference(ctx) else { continue };
            match it.kind.as_str() {
                "Namespace" => {
                    made.namespaces.insert(it.name);
                }
                "CustomResourceDefinition" => made.kinds = true,
                _ => {}
            }
        }
        made
    }
}

async fn account_exists(cluster: &Cluster, run: &RunIdentity) -> Result<(), Validation> {
    // Whether the account is there is the operator's own question: the account itself need not have the right to ask.
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.tenants.operator().clone(), &run.namespace);
    match accounts.get_metadata_opt(&run.service_account).await.map_err(ApiFailure::from) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(not_yet(
            reason::NOT_FOUND,
            format!(
                "service account {} is not there: create it, or set spec.serviceAccountName to one that is",
                run.account()
            ),
        )),
        // Not being allowed to look is no reason to refuse the run: a missing account will show by its missing rights.
        Err(failure) if failure.class == Class::Forbidden => Ok(()),
        Err(failure) => Err(not_yet(failure.class.reason(), failure.message)),
    }
}

async fn namespaces_exist(contexts: &[StepContext<'_>], made: &Promised) -> Result<(), Validation> {
    let mut wanted: BTreeMap<String, &str> = BTreeMap::new();
    for ctx in contexts {
        if let Reference::Known(it) = reference(ctx)
            && let Some(namespace) =
                it.namespace.filter(|namespace| !namespace.is_empty() && *namespace != ctx.run.namespace)
        {
            wanted.entry(namespace).or_insert(&ctx.leaf.field);
        }
    }
    let Some(first) = contexts.first() else { return Ok(()) };
    let namespaces: Api<Namespace> = Api::all(first.cluster.tenants.operator().clone());
    for (namespace, field) in wanted {
        if made.namespaces.contains(&namespace) {
            continue;
        }
        match namespaces.get_metadata_opt(&namespace).await.map_err(ApiFailure::from) {
            Ok(None) => return Err(not_yet(reason::NOT_FOUND, format!("{field}: namespace {namespace} is not there"))),
            Ok(Some(_)) => {}
            Err(failure) if failure.class == Class::Forbidden => {}
            Err(failure) => return Err(not_yet(failure.class.reason(), failure.message)),
        }
    }
    Ok(())
}

async fn rights_are_there(contexts: &[StepContext<'_>], made: &Promised) -> Result<(), Validation> {
    let mut rights: BTreeMap<Right, &str> = BTreeMap::new();
    for ctx in contexts {
        let Reference::Known(it) = reference(ctx) else { continue };
        match needed(ctx, &it).await {
            Ok(all) => all.into_iter().for_each(|right| {
                rights.entry(right).or_insert(&ctx.leaf.field);
            }),
            Err(failure) if failure.is_not_found() && made.kinds => {}
            Err(failure) if failure.class == Class::Invalid => {
                return Err(invalid(ctx, reason::INVALID_SPEC, &failure.message));
            }
            Err(failure) => {
                return Err(not_yet(failure.class.reason(), format!("{}: {}", ctx.leaf.field, failure.message)));
            }
        }
    }
    let Some(first) = contexts.first() else { return Ok(()) };
    let client = first.client().map_err(|failure| Validation::Invalid {
        reason: reason::INVALID_SPEC.into(),
        message: format!("spec.serviceAccountName: {}", failure.message),
    })?;
    let asked: Vec<Right> = rights.keys().cloned().collect();
    let missing =
        missing_rights(&client, &asked).await.map_err(|failure| not_yet(failure.class.reason(), failure.message))?;
    let Some(one) = missing.first() else { return Ok(()) };
    let named: Vec<String> = missing.iter().take(NAMED_RIGHTS).map(Right::to_string).collect();
    let more = missing.len().saturating_sub(NAMED_RIGHTS);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let field = rights.get(one).copied().unwrap_or_default();
    Err(not_yet(
        reason::PERMISSION_DENIED,
        format!("service account {} may not {}{more}; first needed by {field}", first.run.account(), named.join(", ")),
    ))
}

/// What keeps an object from being tried.
enum Untried {
    /// It depends on values or objects that only the run gives.
    Later,
    Refused(ApiFailure),
    Wrong(StepEnd),
}

impl From<Unresolved> for Untried {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::Wrong(end) => Self::Wrong(end),
            Unresolved::Failed(failure) => Self::Refused(failure),
        }
    }
}

async fn try_step(ctx: &StepContext<'_>, made: &Promised) -> Result<(), Validation> {
    let failure = match dry_run(ctx).await {
        Ok(()) | Err(Untried::Later) => return Ok(()),
        Err(Untried::Wrong(end)) => {
            let failure = end.failure.unwrap_or_default();
            // The sample has no value for it; the run may have one.
            if failure.reason == "InvalidExpression" {
                return Ok(());
            }
            let message = failure
                .message
                .strip_prefix(&ctx.leaf.field)
                .map_or(failure.message.as_str(), |rest| rest.trim_start_matches([':', ' ']));
            return Err(invalid(ctx, reason::INVALID_SPEC, message));
        }
        Err(Untried::Refused(failure)) => failure,
    };
    let promised = made.kinds || !made.namespaces.is_empty();
    match failure.class {
        Class::NotFound if promised => Ok(()),
        Class::AlreadyExists | Class::Conflict => Ok(()),
        Class::PodSecurity | Class::AdmissionDenied | Class::Invalid => {
            Err(invalid(ctx, failure.class.reason(), &failure.message))
        }
        Class::AccountMissing | Class::NotFound => {
            Err(not_yet(reason::NOT_FOUND, format!("{}: {}", ctx.leaf.field, failure.message)))
        }
        class => Err(not_yet(class.reason(), format!("{}: {}", ctx.leaf.field, failure.message))),
    }
}

async fn dry_run(ctx: &StepContext<'_>) -> Result<(), Untried> {
    let (target, manifest) = match &ctx.leaf.action {
        Action::Pod(step) => (pod::target(ctx).await?, pod::manifest(ctx, step).map_err(Untried::Wrong)?),
        Action::Job(step) => (job::target(ctx).await?, job::manifest(ctx, step).map_err(Untried::Wrong)?),
        Action::Resource(step) => resource::manifest(ctx, step).await?,
        Action::Apply(step) => {
            let (target, manifest) = apply::prepare(ctx, &step.manifest, None).await?;
            return tried(target.patch(PatchKind::Apply { force: step.force }, None, &manifest, true).await);
        }
        Action::Patch(step) => {
            let (target, patch) = patch::prepare(ctx, step).await?;
            if !exists(&target).await? {
                return Err(Untried::Later);
            }
            return tried(target.patch(step.type_.into(), step.subresource.as_deref(), &patch, true).await);
        }
        // They name an object and change nothing in it that could be tried.
        Action::Wait(_) | Action::Scale(_) | Action::Delete(_) | Action::Http(_) | Action::Sleep(_) => return Ok(()),
    };
    tried(target.create(&manifest, true).await)
}

fn tried<T>(answer: Result<T, ApiFailure>) -> Result<(), Untried> {
    answer.map(|_| ()).map_err(Untried::Refused)
}

/// Whether an object that is patched is there. Patching needs no right to read, so without it nothing is tried.
async fn exists(target: &Target) -> Result<bool, Untried> {
    match target.get().await {
        Ok(object) => Ok(object.is_some()),
        Err(failure) if failure.class == Class::Forbidden => Err(Untried::Later),
        Err(failure) => Err(Untried::Refused(failure)),
    }
}

fn invalid(ctx: &StepContext<'_>, reason: &str, message: &str) -> Validation {
    let field = &ctx.leaf.field;
    // A problem of a field below the step comes with its path.
    let message = if message.starts_with('.') { format!("{field}{message}") } else { format!("{field}: {message}") };
    Validation::Invalid { reason: reason.into(), message }
}

fn not_yet(reason: &str, message: String) -> Validation {
    Validation::NotYet { reason: reason.into(), message }
}
