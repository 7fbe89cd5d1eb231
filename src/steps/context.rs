//! What a step is performed with, and what is kept of it while it is live.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use kube::Client;
use serde_json::{Value, json};

use crate::{
    api::{
        names::{GROUP, VERSION, label},
        target::SecretKeyRef,
    },
    cluster::{
        Cluster, RunRef, Woken,
        client::Account,
        error::{ApiFailure, Class},
        watches::Lease,
    },
    engine::{
        expr::{Scope, render_json},
        names::attempt_name,
        plan::Leaf,
        seen::{StepEnd, StepKey, StepSeen},
    },
};

/// Pause before an attempt is begun again that the server could not be asked for.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Longest value of a label.
const MAX_LABEL: usize = 63;

/// The run that a step belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIdentity {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The service account in its namespace as which everything is done.
    pub service_account: String,
}

impl RunIdentity {
    /// The account as which everything is done.
    pub fn account(&self) -> Account {
        Account { namespace: self.namespace.clone(), name: self.service_account.clone() }
    }

    /// The run as watches name it.
    pub fn run_ref(&self) -> RunRef {
        RunRef { what: Woken::Run, namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }

    /// The owner reference to the run. It does not block the run's deletion: that would need the right to set
    /// finalizers on runs, which tenants do not have.
    pub(super) fn owner_reference(&self) -> Value {
        json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "SoakRun", "name": self.name, "uid": self.uid, "controller": true})
    }
}

/// What the operator's administrator decides about steps.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// HTTP steps may ask loopback and link-local addresses. They come from the operator's own network, so a tenant
    /// could otherwise reach what listens beside the operator, or the cloud's metadata service.
    pub http_local_addresses: bool,
    /// The operator's own image, for the program that reads a step's artifacts.
    pub helper_image: Option<String>,
}

/// One attempt of a step, and what it is performed with.
pub struct StepContext<'a> {
    /// The run.
    pub run: &'a RunIdentity,
    /// The attempt.
    pub key: &'a StepKey,
    /// The step as it was parsed.
    pub leaf: &'a Leaf,
    /// The variables that its expressions see.
    pub scope: &'a Scope,
    /// The cluster that it works on.
    pub cluster: &'a Cluster,
    /// The kubeconfig of its target, for a step that only hands it on; none: the cluster that the operator runs in.
    pub kubeconfig: Option<&'a SecretKeyRef>,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// When the intent was written.
    pub started_at: DateTime<Utc>,
    /// Since when it is asked to stop.
    pub stopping_since: Option<DateTime<Utc>>,
}

impl StepContext<'_> {
    /// A client that acts as the run's service account.
    pub(super) fn client(&self) -> Result<Client, ApiFailure> {
        self.cluster
            .tenants
            .client(&self.run.account())
            .map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))
    }

    /// The name of whatever this attempt makes.
    pub(super) fn attempt_name(&self) -> String {
        attempt_name(&self.run.name, &self.run.uid, self.key)
    }

    /// A JSON tree with its expressions replaced by their values.
    pub(super) fn render(&self, value: &Value) -> Result<Value, StepEnd> {
        render_json(value, self.scope)
            .map_err(|error| StepEnd::failed("InvalidExpression", format!("{}: {error}", self.leaf.field)))
    }

    /// The labels of what this attempt makes.
    pub(super) fn labels(&self) -> Vec<(&'static str, String)> {
        let StepKey { run_attempt, section: _, cycle, phase, step, attempt } = self.key;
        let mut labels = run_labels(self.run);
        labels.extend([
            (label::RUN_ATTEMPT, run_attempt.to_string()),
            (label::CYCLE, cycle.to_string()),
            (label::PHASE, phase.clone()),
            (label::STEP, label_value(&step.replace('/', "."))),
            (label::STEP_ATTEMPT, attempt.to_string()),
        ]);
        labels
    }

    /// The annotations of what this attempt makes.
    pub(super) fn annotations(&self) -> Vec<(&'static str, String)> {
        let mut annotations = vec![(label::CREATED_BY, self.run.uid.clone()), (label::STEP, self.key.step.clone())];
        if self.cluster.remote {
            annotations.push((label::RUN, self.run.name.clone()));
        }
        annotations
    }

    /// The owner reference to the run; none on another cluster, which does not know the run.
    pub(super) fn owner_reference(&self) -> Option<Value> {
        (!self.cluster.remote).then(|| self.run.owner_reference())
    }

    /// The account of pods that name none. On another cluster the run's account need not exist.
    pub(super) fn pod_account(&self) -> Option<&str> {
        (!self.cluster.remote).then_some(&*self.run.service_account)
    }
}

/// The labels that tell which run made an object.
pub(super) fn run_labels(run: &RunIdentity) -> Vec<(&'static str, String)> {
    vec![(label::RUN, label_value(&run.name)), (label::RUN_UID, run.uid.clone())]
}

/// Cuts a text to what a label can hold.
fn label_value(text: &str) -> String {
    let mut value = text.to_owned();
    value.truncate(value.floor_char_boundary(MAX_LABEL));
    value.truncate(value.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
    value
}

/// What is kept of a live attempt: dropping it ends the interest in what tells about it.
#[derive(Default)]
pub struct Follow {
    pub(super) lease: Option<Lease>,
    /// The uid of the object that the attempt is about, where another object may get the same name.
    pub(super) uid: Option<String>,
    /// The replicas that are waited for.
    pub(super) replicas: Option<i64>,
    /// Before this a call whose answer was lost may still have an effect.
    pub(super) open_until: Option<Instant>,
    pub(super) existed: AtomicBool,
}

impl Follow {
    /// Whether what it watches is still watched: the cluster may have been connected to anew.
    pub fn is_alive(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_alive)
    }

    /// Remembers that what the attempt made was there.
    pub(super) fn mark_existing(&self) {
        self.existed.store(true, Ordering::Relaxed);
    }

    /// Whether what the attempt made was there once.
    pub(super) fn existed(&self) -> bool {
        self.existed.load(Ordering::Relaxed)
    }

    /// Whether a call whose answer was lost may still have an effect.
    pub(super) fn is_open(&self) -> bool {
        self.open_until.is_some_and(|until| Instant::now() < until)
    }
}

/// What came of beginning or resuming an attempt.
pub struct Begun {
    /// What is known of it.
    pub seen: StepSeen,
    /// To be kept while the attempt is live, for [`observe`](super::observe).
    pub follow: Option<Follow>,
}

impl Begun {
    pub(super) const fn seen(seen: StepSeen) -> Self {
        Self { seen, follow: None }
    }

    pub(super) const fn ended(end: StepEnd) -> Self {
        Self::seen(StepSeen::Ended(end))
    }

    pub(super) const fn following(seen: StepSeen, follow: Follow) -> Self {
        Self { seen, follow: Some(follow) }
    }
}

/// It runs, and waits for something.
pub(super) fn running(message: impl Into<String>) -> StepSeen {
    StepSeen::Running { since: None, message: message.into() }
}

/// A call that was refused for certain, as the end of the attempt.
pub(super) fn refused(failure: &ApiFailure) -> StepEnd {
    if failure.class.is_transient() {
        StepEnd::transient(failure.class.reason(), failure.message.clone())
    } else {
        StepEnd::failed(failure.class.reason(), failure.message.clone())
    }
}

/// What a failed call means for an attempt that may be begun again, or that has made nothing yet.
///
/// While the server can't be asked, nobody's step has failed: the attempt is as good as not begun, and the engine begins
/// it again after a pause that is made here.
pub(super) async fn refused_or_again(failure: &ApiFailure) -> Begun {
    if failure.class == Class::Transient {
        tracing::info!(error = %failure, "the API server could not be asked; the step is begun again");
        tokio::time::sleep(AGAIN_AFTER).await;
        return Begun::seen(StepSeen::Absent);
    }
    Begun::ended(refused(failure))
}

#[cfg(test)]
mod tests {
    use super::label_value;

    #[test]
    fn a_label_is_cut_to_63_characters_that_end_well() {
        assert_eq!(label_value(&format!("{}.{}", "a".repeat(62), "b")), "a".repeat(62));
        assert_eq!(label_value("group.member"), "group.member");
    }
}
