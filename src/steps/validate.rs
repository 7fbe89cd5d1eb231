//! Trying a whole spec on the server as the tenant, before anything is done.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;

use super::{
    StepKind,
    context::{RunIdentity, Settings, StepContext},
    rights::{Reference, needed, reference},
    trial::Untried,
};
use crate::{
    api::{names::reason, status::Section, step::each_kind},
    cluster::{
        Cluster,
        access::{Right, lack},
        error::{ApiFailure, Class},
        targets::RunClusters,
    },
    engine::{
        expr::Scope,
        plan::{Leaf, Plan},
        seen::{StepKey, Validation},
    },
};

/// Steps that are tried at the same time.
const CONCURRENCY: usize = 4;

/// Asks the server as the tenant whether everything that `plan` does would be accepted: namespaces, account, kinds,
/// rights, and a dry run of each object whose expressions have values in `scope` (a sample of a cycle's variables).
///
/// What depends on values that only the run itself will give is not tried. Nothing is changed in the cluster.
pub async fn validate(
    plan: &Plan,
    run: &RunIdentity,
    scope: &Scope,
    clusters: &RunClusters,
    settings: &Settings,
) -> Validation {
    match checks(plan, run, scope, clusters, settings).await {
        Ok(()) => Validation::Accepted,
        Err(refusal) => refusal,
    }
}

async fn checks(
    plan: &Plan,
    run: &RunIdentity,
    scope: &Scope,
    clusters: &RunClusters,
    settings: &Settings,
) -> Result<(), Validation> {
    account_exists(&clusters.own, run).await?;
    for (target, (_, health)) in &clusters.remotes {
        if !health.reachable {
            return Err(not_yet(reason::TARGET_UNREACHABLE, format!("target {target}: {}", health.message)));
        }
    }
    let steps: Vec<(StepKey, &Leaf)> = [Section::Setup, Section::Cycle, Section::Cleanup]
        .into_iter()
        .flat_map(|section| {
            plan.section(section)
                .iter()
                .flat_map(move |phase| phase.leaves.iter().map(move |leaf| (key(section, &phase.name, leaf), leaf)))
        })
        .collect();
    // A step that a role sends to one cluster and then to the other is tried on both.
    let mut contexts: Vec<StepContext<'_>> = Vec::new();
    for (key, leaf) in &steps {
        for target in plan.targets.possible_or_own(leaf.action.target()) {
            let place = if leaf.action.works_here() { "" } else { &*target };
            let cluster =
                clusters.get(place).map_err(|failure| not_yet(reason::TARGET_UNREACHABLE, failure.message))?;
            contexts.push(StepContext {
                run,
                key,
                leaf,
                scope,
                cluster,
                kubeconfig: plan.targets.secret(&target),
                settings,
                started_at: Utc::now(),
                stopping_since: None,
            });
        }
    }
    let made = Promised::of(&contexts);
    for (target, cluster) in clusters.all() {
        let there = || contexts.iter().filter(|ctx| ctx.cluster.watches.is_same(&cluster.watches));
        namespaces_exist(there(), cluster, &made).await?;
        rights_are_there(there(), target, &made).await?;
    }
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
            if ctx.leaf.action.made().is_none() {
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
    if cluster.accounts.holds(&run.account()) {
        return Ok(());
    }
    // Whether the account is there is the operator's own question: the account itself need not have the right to ask.
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.tenants.operator().clone(), &run.namespace);
    match accounts.get_metadata_opt(&run.service_account).await.map_err(ApiFailure::from) {
        Ok(Some(_)) => {
            cluster.accounts.note(run.account());
            Ok(())
        }
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

async fn namespaces_exist<'a>(
    contexts: impl Iterator<Item = &'a StepContext<'a>>,
    cluster: &Cluster,
    made: &Promised,
) -> Result<(), Validation> {
    let mut wanted: BTreeMap<String, &str> = BTreeMap::new();
    for ctx in contexts {
        if let Reference::Known(it) = reference(ctx)
            && let Some(namespace) =
                it.namespace.filter(|namespace| !namespace.is_empty() && *namespace != ctx.run.namespace)
        {
            wanted.entry(namespace).or_insert(&ctx.leaf.field);
        }
    }
    let namespaces: Api<Namespace> = Api::all(cluster.tenants.operator().clone());
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

async fn rights_are_there<'a>(
    contexts: impl Iterator<Item = &'a StepContext<'a>>,
    target: &str,
    made: &Promised,
) -> Result<(), Validation> {
    let mut rights: BTreeMap<Right, String> = BTreeMap::new();
    let mut first = None;
    for ctx in contexts {
        first = first.or(Some(ctx));
        let Reference::Known(it) = reference(ctx) else { continue };
        match needed(ctx, &it).await {
            Ok(all) => all.into_iter().for_each(|right| {
                rights.entry(right).or_insert_with(|| ctx.leaf.field.clone());
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
    let Some(first) = first else { return Ok(()) };
    match lack(first.cluster, target, &first.run.account(), &rights).await {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(not_yet(reason::PERMISSION_DENIED, what)),
        Err(failure) if failure.class == Class::Invalid => {
            Err(Validation::Invalid { reason: reason::INVALID_SPEC.into(), message: failure.message })
        }
        Err(failure) => Err(not_yet(failure.class.reason(), failure.message)),
    }
}

async fn try_step(ctx: &StepContext<'_>, made: &Promised) -> Result<(), Validation> {
    let tried = each_kind!(&ctx.leaf.action, step => step.dry_run(ctx).await);
    let failure = match tried {
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

fn invalid(ctx: &StepContext<'_>, reason: &str, message: &str) -> Validation {
    let field = &ctx.leaf.field;
    // A problem of a field below the step comes with its path.
    let message = if message.starts_with('.') { format!("{field}{message}") } else { format!("{field}: {message}") };
    Validation::Invalid { reason: reason.into(), message }
}

fn not_yet(reason: &str, message: String) -> Validation {
    Validation::NotYet { reason: reason.into(), message }
}
