//! What a helper on a node does ([`Undo::Helper`](crate::api::failureinjection::Undo::Helper)): its pod is made, followed and ended
//! here.
//!
//! The pod is privileged, so it is made as an account that the administrator names for it and in its namespace, and only for
//! whoever may execute programs in the target anyway. The helper undoes what it did by itself. Where it was lost before that was seen, a second
//! pod undoes it.

use chrono::{TimeDelta, Utc};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Resource, ResourceExt, api::DynamicObject};
use serde_json::json;

use super::{
    FaultContext, Refusal,
    helper_pod::{self, Ended, Look, Order, look},
    injected, not_injected, object_ref, of, resource,
};
use crate::{
    api::{
        failureinjection::{HelperWork, JournalEntry, ObjectRef, Undo},
        names::reason,
    },
    cluster::{
        access::{Right, missing_rights},
        client::Account,
        error::{ApiFailure, Class},
        kinds::{group_version_kind, uid},
        object::{PatchKind, Target, WriteMode},
    },
    engine::injection::EntrySeen,
};

/// How long after it was ordered a helper may begin.
const BEGIN_LIMIT: TimeDelta = TimeDelta::seconds(45);
const TURNED_OFF: &str = "helpers on nodes are turned off here: an administrator turns them on with nodeHelper.enabled in the Helm chart, \
     or with --helper-image, --node-helper-namespace and --node-helper-service-account";

/// Where helpers run, and as whom their pods are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperSettings {
    /// The namespace; its Pod Security must allow privileged pods.
    pub namespace: String,
    /// The service account in it as which helper pods are made, followed and deleted.
    pub service_account: String,
    /// The operator's own image.
    pub image: String,
}

/// What a kind wants a helper to do.
pub(super) struct Wanted<'a> {
    /// The container; none: the pod's first.
    pub(super) container: Option<&'a str>,
    /// The helper's words.
    pub(super) arguments: Vec<String>,
    /// It leaves nothing behind.
    pub(super) at_once: bool,
    /// It changes the pod's network.
    pub(super) network: bool,
}

/// The entry of a pod that a helper acts on. Tried on the server, as far as that goes without a node.
pub(super) async fn entry(
    ctx: &FaultContext<'_>,
    pod: &DynamicObject,
    wanted: Wanted<'_>,
    index: usize,
) -> Result<JournalEntry, Refusal> {
    let settings = ctx.settings.helper.as_ref().ok_or_else(|| Refusal::never(reason::NOT_ALLOWED, TURNED_OFF))?;
    if ctx.cluster.remote {
        let message = "helpers run on nodes of the operator's own cluster only: choose a fault that needs none";
        return Err(Refusal::never(reason::NOT_ALLOWED, message));
    }
    let target = of(ctx, pod).await?;
    if target.kind.resource.kind != "Pod" || !target.kind.resource.group.is_empty() {
        return Err(Refusal::never(reason::INVALID_SPEC, "spec.target.kind: a helper acts on pods only"));
    }
    may_exec(ctx, &target).await?;
    let found: Pod = parse(pod).map_err(|error| Refusal::never(reason::INFRA_ERROR, error))?;
    let title = target.title();
    if wanted.network && found.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        let message = format!("{title} uses its node's network: cutting it off would cut off the node");
        return Err(Refusal::never(reason::NOT_ALLOWED, message));
    }
    let waiting = |message: String| Refusal::NotYet { reason: reason::NO_TARGET.into(), message };
    let node = found.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let node = node.ok_or_else(|| waiting(format!("{title} has no node yet")))?;
    let container = match wanted.container {
        Some(name) => name.to_owned(),
        None => {
            found.spec.iter().flat_map(|spec| &spec.containers).map(|it| it.name.clone()).next().unwrap_or_default()
        }
    };
    let is_there = found
        .spec
        .iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
        .any(|it| it.name == container);
    if !is_there {
        return Err(Refusal::never(reason::INVALID_SPEC, format!("{title} has no container {container}")));
    }
    let container_id = running(&found, |name, _| name == container)
        .ok_or_else(|| waiting(format!("container {container} of {title} does not run")))?;
    let own = ObjectRef {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: settings.namespace.clone(),
        name: resource::made_name(ctx, index).replace("soak-", "soak-helper-"),
        uid: String::new(),
    };
    let work = HelperWork { pod: own, node, container_id, arguments: wanted.arguments, at_once: wanted.at_once };
    let entry =
        JournalEntry { target: object_ref(&target, pod), undo: Undo::Helper(work.clone()), ..JournalEntry::default() };
    let order = order(ctx, &entry, &work, helper_pod::Act::Make);
    let manifest = helper_pod::manifest(settings, &order);
    match of_helpers(ctx, settings, &work.pod.name).await?.create(&manifest, WriteMode::DryRun).await {
        Ok(_) => Ok(entry),
        Err(failure) => Err(Refusal::NotYet {
            reason: failure.class.reason().into(),
            message: format!("no helper can be made in namespace {}: {}", settings.namespace, failure.message),
        }),
    }
}

/// The entries of pods whose networks a helper changes.
pub(super) async fn on_networks(
    ctx: &FaultContext<'_>,
    pods: &[DynamicObject],
    arguments: &[String],
) -> Result<Vec<JournalEntry>, Refusal> {
    let mut entries = Vec::new();
    for (index, pod) in pods.iter().enumerate() {
        let wanted = Wanted { container: None, arguments: arguments.to_vec(), at_once: false, network: true };
        entries.push(entry(ctx, pod, wanted, index).await?);
    }
    Ok(entries)
}

fn parse(object: &DynamicObject) -> Result<Pod, String> {
    let value = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Who may execute programs in a pod can do as much to it as a helper does; nobody else gets one.
async fn may_exec(ctx: &FaultContext<'_>, target: &Target) -> Result<(), Refusal> {
    let right = Right::new("create", "", "pods", Some(&target.namespace)).on("exec").named(&target.name);
    match missing_rights(&target.client, &[right]).await?.first() {
        None => Ok(()),
        Some(missing) => Err(Refusal::NotYet {
            reason: reason::PERMISSION_DENIED.into(),
            message: format!(
                "service account {} may not {missing}, which is what a helper on the node takes",
                ctx.injection.account()
            ),
        }),
    }
}

/// The id of the first running container that fits by name and id.
fn running(pod: &Pod, fits: impl Fn(&str, &str) -> bool) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|it| it.state.as_ref().is_some_and(|state| state.running.is_some()))
        .filter_map(|it| Some((it.name.as_str(), it.container_id.as_deref().filter(|id| !id.is_empty())?)))
        .find(|(name, id)| fits(name, id))
        .map(|(_, id)| id.to_owned())
}

/// Access to a helper's pod, as the account that helpers have.
async fn of_helpers(ctx: &FaultContext<'_>, settings: &HelperSettings, name: &str) -> Result<Target, ApiFailure> {
    let HelperSettings { namespace, service_account, image: _ } = settings;
    let account = Account { namespace: namespace.clone(), name: service_account.clone() };
    let client = ctx.cluster.tenants.client(&account);
    let client = client.map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
    let kind = ctx.cluster.kinds.get(&group_version_kind("v1", "Pod")).await?;
    Ok(Target { kind, namespace: namespace.clone(), name: name.to_owned(), client })
}

fn order<'a>(ctx: &FaultContext<'a>, entry: &'a JournalEntry, work: &'a HelperWork, act: helper_pod::Act) -> Order<'a> {
    let now = Utc::now();
    let duration = ctx.plan.map(|plan| plan.duration.as_chrono());
    Order {
        work,
        act,
        pod_uid: &entry.target.uid,
        injection: ctx.injection,
        now,
        not_after: now + BEGIN_LIMIT,
        until: ctx.deadline.unwrap_or(now + BEGIN_LIMIT + duration.unwrap_or_default()),
        duration,
    }
}

/// A helper's pod as it is now; none if there is none of this injection.
async fn found(ctx: &FaultContext<'_>, target: &Target) -> Result<Option<Pod>, EntrySeen> {
    let failing = |message: String| EntrySeen::Failing { message };
    match target.get().await {
        Ok(Some(object)) if resource::is_ours(ctx, &object) => parse(&object).map(Some).map_err(failing),
        Ok(Some(_)) => Err(EntrySeen::NeverBegan {
            reason: "NameTaken".into(),
            message: format!("{} is there already and is not this injection's", target.title()),
        }),
        Ok(None) => Ok(None),
        Err(failure) => Err(failing(failure.message)),
    }
}

/// Makes the helper's pod and tells how far it is.
pub(super) async fn inject(ctx: &FaultContext<'_>, entry: &JournalEntry, work: &HelperWork) -> EntrySeen {
    let not = |reason: &str, message: String| EntrySeen::NeverBegan { reason: reason.into(), message };
    let Some(settings) = ctx.settings.helper.as_ref().filter(|it| it.namespace == work.pod.namespace) else {
        return not(reason::NOT_ALLOWED, TURNED_OFF.into());
    };
    let target = match of_helpers(ctx, settings, &work.pod.name).await {
        Ok(target) => target,
        Err(failure) => return not_injected(&failure),
    };
    match found(ctx, &target).await {
        Ok(None) => {}
        Ok(Some(pod)) => return begun(&look(&pod), work.at_once),
        Err(seen) => return seen,
    }
    if ctx.is_stale() {
        return EntrySeen::Failing { message: "the decision is too old to act on".into() };
    }
    // The journal is read anew from the status: what it names must still be the tenant's own.
    if let Err(seen) = still_there(ctx, entry, work).await {
        return seen;
    }
    let manifest = helper_pod::manifest(settings, &order(ctx, entry, work, helper_pod::Act::Make));
    match target.create(&manifest, WriteMode::Brief).await {
        Ok(_) => EntrySeen::Failing { message: format!("{} is starting", target.title()) },
        Err(failure) if failure.class == Class::AlreadyExists => EntrySeen::Failing { message: failure.message },
        Err(failure) => not_injected(&failure),
    }
}

async fn still_there(ctx: &FaultContext<'_>, entry: &JournalEntry, work: &HelperWork) -> Result<(), EntrySeen> {
    let target = ctx.target(&entry.target).await.map_err(|failure| not_injected(&failure))?;
    match may_exec(ctx, &target).await {
        Ok(()) => {}
        Err(Refusal::NotYet { reason, message } | Refusal::Never { reason, message }) => {
            return Err(EntrySeen::NeverBegan { reason, message });
        }
    }
    let object = target.get().await.map_err(|failure| not_injected(&failure))?;
    let pod = object.filter(|object| uid(object) == entry.target.uid).and_then(|object| parse(&object).ok());
    let is_it = |pod: &Pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&work.node)
            && running(pod, |_, id| id == work.container_id).is_some()
    };
    if pod.as_ref().is_some_and(is_it) {
        return Ok(());
    }
    let message = format!("the container of {} that was found does not run any more", target.title());
    Err(EntrySeen::NeverBegan { reason: reason::NO_TARGET.into(), message })
}

/// What a helper's pod means for an effect.
fn begun(look: &Look, at_once: bool) -> EntrySeen {
    let not = |reason: &str, message: &str| EntrySeen::NeverBegan { reason: reason.into(), message: message.into() };
    match look {
        Look::There => injected(String::new()),
        Look::Coming { message } => EntrySeen::Failing { message: message.clone() },
        Look::Ended(Ended::Good) if at_once => injected(String::new()),
        Look::Ended(Ended::Good) => {
            EntrySeen::Broken { reason: reason::TIMEOUT.into(), message: "the helper has ended already".into() }
        }
        Look::Ended(Ended::Gone) => not(reason::NO_TARGET, "the container has no process any more"),
        Look::Ended(Ended::NeverBegan(message)) => not(reason::INFRA_ERROR, message),
        Look::Ended(Ended::Lost(message)) => {
            EntrySeen::Broken { reason: reason::INFRA_ERROR.into(), message: message.clone() }
        }
    }
}

/// Ends the helper, and sees that nothing of its work is left.
pub(super) async fn revert(ctx: &FaultContext<'_>, entry: &JournalEntry, work: &HelperWork) -> EntrySeen {
    match reverted(ctx, entry, work).await {
        Ok(seen) => seen,
        Err(failure) => EntrySeen::Failing { message: failure.message },
    }
}

async fn reverted(ctx: &FaultContext<'_>, entry: &JournalEntry, work: &HelperWork) -> Result<EntrySeen, ApiFailure> {
    let settings = ctx.settings.helper.as_ref().filter(|it| it.namespace == work.pod.namespace);
    let Some(settings) = settings else {
        if let Some(message) = target_is_gone(ctx, entry).await {
            return Ok(EntrySeen::Gone { message });
        }
        let message = format!("{TURNED_OFF}; this fault needs them in namespace {} to be undone", work.pod.namespace);
        return Ok(EntrySeen::Failing { message });
    };
    let first = of_helpers(ctx, settings, &work.pod.name).await?;
    let second = of_helpers(ctx, settings, &format!("{}-undo", work.pod.name)).await?;
    let pod = match found(ctx, &first).await {
        Ok(pod) => pod,
        // Whoever's pod it is, it is not the helper.
        Err(EntrySeen::NeverBegan { .. }) => None,
        Err(seen) => return Ok(seen),
    };
    let seen = match pod.as_ref().map(|pod| (pod, look(pod))) {
        None if ctx.is_open() => {
            return Ok(EntrySeen::Failing { message: "a call that would make a helper may still be under way".into() });
        }
        None | Some((_, Look::Ended(Ended::Lost(_)))) if work.at_once => EntrySeen::Reverted { message: String::new() },
        None | Some((_, Look::Ended(Ended::Lost(_)))) => undone_by_another(ctx, entry, work, settings, &second).await?,
        Some((_, Look::Ended(Ended::Good))) => EntrySeen::Reverted { message: String::new() },
        Some((_, Look::Ended(Ended::Gone))) => EntrySeen::Gone { message: "its processes are gone".into() },
        Some((_, Look::Ended(Ended::NeverBegan(message)))) => {
            EntrySeen::NeverBegan { reason: reason::INFRA_ERROR.into(), message }
        }
        Some((pod, Look::There | Look::Coming { .. })) => ended(ctx, entry, &first, pod).await?,
    };
    if !matches!(seen, EntrySeen::Failing { .. }) {
        // What is left of the pods is of no use to anybody. A call that fails is made again with the next try.
        for target in [&first, &second] {
            if let Ok(Some(pod)) = found(ctx, target).await {
                target.delete_exactly(uid(&pod), Some(0)).await?;
            }
        }
    }
    Ok(seen)
}

/// Asks a running helper to end.
async fn ended(
    ctx: &FaultContext<'_>,
    entry: &JournalEntry,
    target: &Target,
    pod: &Pod,
) -> Result<EntrySeen, ApiFailure> {
    let asked = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds) == Some(1);
    if asked || pod.meta().deletion_timestamp.is_some() {
        // A node that is gone ends nothing; its pods go with it.
        if let Some(message) = target_is_gone(ctx, entry).await {
            return Ok(EntrySeen::Gone { message });
        }
        return Ok(EntrySeen::Failing { message: format!("{} is ending", target.title()) });
    }
    // A deadline in the past makes the kubelet end the container; unlike a deletion it leaves the exit code to be read.
    let patch = json!({"metadata": {"uid": uid(pod)}, "spec": {"activeDeadlineSeconds": 1}});
    match target.patch(PatchKind::Merge, None, &patch, WriteMode::Plain).await {
        Err(failure) if !matches!(failure.class, Class::NotFound | Class::Conflict) => Err(failure),
        _ => Ok(EntrySeen::Failing { message: format!("{} was asked to end", target.title()) }),
    }
}

/// Why there is nothing left to undo, if the target is known to be gone.
async fn target_is_gone(ctx: &FaultContext<'_>, entry: &JournalEntry) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(ctx.client().ok()?, &entry.target.namespace);
    match pods.get_metadata_opt(&entry.target.name).await {
        Ok(Some(pod)) if pod.uid().as_deref() == Some(&entry.target.uid) => None,
        Ok(_) => Some(format!("{} is gone", entry.target.title())),
        // The account's rights go with the namespace.
        Err(_) if ctx.cluster.namespace_is_going(&entry.target.namespace).await => {
            Some(format!("namespace {} is being deleted", entry.target.namespace))
        }
        Err(_) => None,
    }
}

/// Has a second helper undo what the first one left, or may have left.
async fn undone_by_another(
    ctx: &FaultContext<'_>,
    entry: &JournalEntry,
    work: &HelperWork,
    settings: &HelperSettings,
    target: &Target,
) -> Result<EntrySeen, ApiFailure> {
    if let Some(message) = target_is_gone(ctx, entry).await {
        return Ok(EntrySeen::Gone { message });
    }
    let failing = |message: String| Ok(EntrySeen::Failing { message });
    let pod = match found(ctx, target).await {
        Ok(pod) => pod,
        Err(EntrySeen::NeverBegan { message, .. } | EntrySeen::Failing { message }) => return failing(message),
        Err(seen) => return Ok(seen),
    };
    let Some(pod) = pod else {
        let manifest = helper_pod::manifest(settings, &order(ctx, entry, work, helper_pod::Act::Undo));
        target.create(&manifest, WriteMode::Brief).await?;
        return failing("the helper was lost: another one undoes its work".into());
    };
    match look(&pod) {
        Look::Ended(Ended::Good) => {
            Ok(EntrySeen::Reverted { message: "undone by a second helper, as the first was lost".into() })
        }
        Look::Ended(Ended::Gone) => Ok(EntrySeen::Gone { message: "its processes are gone".into() }),
        Look::Ended(Ended::NeverBegan(message) | Ended::Lost(message)) => {
            target.delete_exactly(uid(&pod), None).await?;
            failing(message)
        }
        Look::There => failing("another helper undoes its work".into()),
        Look::Coming { message } => failing(message),
    }
}
