//! What a fault is made and undone with, and the administrator's guard rails.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

use super::{Refusal, helper::HelperSettings};
use crate::{
    api::{
        failureinjection::{JournalEntry, MAX_TARGETS, ObjectRef},
        names::reason,
    },
    cluster::{
        Cluster, RunRef, Woken,
        client::Account,
        error::{ApiFailure, Class},
        kinds::group_version_kind,
        object::{Target, is_path_segment},
    },
    engine::injection::InjectionPlan,
};

/// How long after a decision its effect may begin. What comes later acts on a state that may be superseded (S9): a process
/// that stood still meanwhile must not go on as if nothing had happened.
const FRESH: Duration = Duration::from_secs(3);
/// Largest journal of one injection, in bytes of JSON: it is part of a status (S11).
const MAX_JOURNAL_BYTES: usize = 256 * 1_024;

/// The injection that a fault belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectionIdentity {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The service account in its namespace as which everything is done.
    pub service_account: String,
}

impl InjectionIdentity {
    /// The account as which everything is done.
    pub fn account(&self) -> Account {
        Account { namespace: self.namespace.clone(), name: self.service_account.clone() }
    }

    /// The injection as watches name it.
    pub fn run_ref(&self) -> RunRef {
        RunRef {
            what: Woken::Injection,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// What the administrator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRails {
    /// The label `KEY=VALUE` that a namespace must have before anything in it is touched; none: no namespace needs one.
    pub opt_in: Option<(String, String)>,
    /// Namespaces in which nothing is ever touched.
    pub protected: BTreeSet<String>,
    /// Objects outside of namespaces (nodes, for example) may be touched.
    pub cluster_scoped: bool,
    /// Most objects that one injection may hit.
    pub max_targets: usize,
    /// Most of the objects that fit one injection's target that it may hit, in percent.
    pub max_percent: usize,
    /// Most injections that may be active at the same time.
    pub max_active: usize,
}

impl Default for GuardRails {
    fn default() -> Self {
        Self {
            opt_in: Some(("soak.dev/injection".into(), "allowed".into())),
            protected: BTreeSet::from(["kube-system".to_owned()]),
            cluster_scoped: false,
            max_targets: MAX_TARGETS,
            max_percent: 100,
            max_active: 64,
        }
    }
}

impl GuardRails {
    /// Whether that many of those that fitted may be hit.
    pub(crate) fn check_share(&self, chosen: usize, candidates: usize) -> Result<(), Refusal> {
        if chosen > self.max_targets.min(MAX_TARGETS) {
            let most = self.max_targets.min(MAX_TARGETS);
            return Err(Refusal::never(
                reason::NOT_ALLOWED,
                format!("it would hit {chosen} objects, and {most} is the limit: lower count or percent"),
            ));
        }
        if candidates > 1 && chosen * 100 > self.max_percent * candidates {
            return Err(Refusal::never(
                reason::NOT_ALLOWED,
                format!(
                    "it would hit {chosen} of {candidates} objects, and {} percent is the limit: lower count or percent",
                    self.max_percent
                ),
            ));
        }
        Ok(())
    }

    /// Whether a journal fits into a status.
    pub(crate) fn check_size(journal: &[JournalEntry]) -> Result<(), Refusal> {
        if journal.len() > MAX_TARGETS {
            return Err(Refusal::never(
                reason::NOT_ALLOWED,
                format!("it would touch {} objects, and {MAX_TARGETS} is the limit", journal.len()),
            ));
        }
        let bytes = serde_json::to_vec(journal).map_or(0, |text| text.len());
        if bytes > MAX_JOURNAL_BYTES {
            return Err(Refusal::never(
                reason::NOT_ALLOWED,
                format!(
                    "undoing it would take {bytes} bytes of journal, and {MAX_JOURNAL_BYTES} is the limit: hit fewer objects, or smaller fields"
                ),
            ));
        }
        Ok(())
    }
}

/// What the operator's administrator decides about faults.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What may be touched.
    pub guard_rails: GuardRails,
    /// Probes and Toxiproxy may be at loopback and link-local addresses.
    pub local_addresses: bool,
    /// The operator's own image, for pods that use up resources; none: there are no such faults.
    pub image: Option<String>,
    /// Where helpers run on nodes; none: they are turned off.
    pub helper: Option<HelperSettings>,
    /// Whether the cluster's network enforces NetworkPolicies; none: it is found out.
    pub network_policy_enforced: Option<bool>,
}

/// One injection, and what it is performed with.
pub struct FaultContext<'a> {
    /// The injection.
    pub injection: &'a InjectionIdentity,
    /// Its parsed spec; none if it can't be parsed (any more).
    pub plan: Option<&'a InjectionPlan>,
    /// What chance depends on.
    pub seed: &'a str,
    /// The cluster that is hit.
    pub cluster: &'a Cluster,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// When this effect was decided.
    pub decided_at: Instant,
    /// When undoing begins at the latest, once there is a journal.
    pub deadline: Option<DateTime<Utc>>,
    /// Before this, a call of an earlier try may still have an effect, though its answer was lost.
    pub open_until: Option<Instant>,
}

impl FaultContext<'_> {
    /// A client that acts as the injection's service account; on another cluster, as its kubeconfig's user.
    pub(crate) fn client(&self) -> Result<Client, ApiFailure> {
        self.cluster
            .tenants
            .client(&self.injection.account())
            .map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))
    }

    /// Access to the object of that name as the injection's account.
    pub(crate) async fn target(&self, object: &ObjectRef) -> Result<Target, ApiFailure> {
        let ObjectRef { api_version, kind, namespace, name, uid: _ } = object;
        let namespace = if namespace.is_empty() { &self.injection.namespace } else { namespace };
        for text in [name, namespace] {
            if !is_path_segment(text) {
                return Err(ApiFailure::definite(Class::Invalid, format!("`{text}` is not a name")));
            }
        }
        let kind = self.cluster.kinds.get(&group_version_kind(api_version, kind)).await?;
        Ok(Target { kind, namespace: namespace.clone(), name: name.clone(), client: self.client()? })
    }

    /// Whether the decision that asked for an effect is too old to act on.
    pub(crate) fn is_stale(&self) -> bool {
        self.decided_at.elapsed() > FRESH || self.deadline.is_some_and(|deadline| Utc::now() >= deadline)
    }

    /// Whether a call of an earlier try may still have an effect.
    pub(crate) fn is_open(&self) -> bool {
        self.open_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether the guard rails let anything in that namespace be touched; an empty name stands for what is in none.
    pub(crate) async fn may_touch(&self, namespace: &str) -> Result<(), Refusal> {
        let rails = &self.settings.guard_rails;
        if namespace.is_empty() {
            if rails.cluster_scoped {
                return Ok(());
            }
            return Err(Refusal::never(
                reason::NOT_ALLOWED,
                "objects outside of namespaces may not be hit; the administrator allows it with --injection-cluster-scoped",
            ));
        }
        if rails.protected.contains(namespace) {
            return Err(Refusal::never(reason::NOT_ALLOWED, format!("namespace {namespace} is protected")));
        }
        let Some((key, value)) = &rails.opt_in else { return Ok(()) };
        let namespaces: Api<Namespace> = Api::all(self.cluster.tenants.operator().clone());
        let found = namespaces.get_opt(namespace).await.map_err(ApiFailure::from)?;
        let labels = found.and_then(|it| it.metadata.labels).unwrap_or_default();
        if labels.get(key) == Some(value) {
            return Ok(());
        }
        Err(Refusal::never(
            reason::NOT_ALLOWED,
            format!("namespace {namespace} has not agreed to injections: label it {key}={value}"),
        ))
    }
}
