//! The pod of a helper: how it is written, and what its state tells.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use serde_json::{Value, json};

use super::{InjectionIdentity, helper::HelperSettings};
use crate::{
    api::{
        failureinjection::HelperWork,
        names::{OPERATOR_FIELD_MANAGER, label},
    },
    helper::PROGRAM,
};

/// How long a helper may take to undo once it is told to end.
const GRACE_SECONDS: i64 = 30;
/// Longest life of a helper that only undoes.
const UNDO_SECONDS: i64 = 60;

/// What a helper is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// To make the effect, keep it and undo it.
    Make,
    /// To undo what another one left.
    Undo,
}

/// What a helper's pod is made from.
pub(super) struct Order<'a> {
    pub(super) work: &'a HelperWork,
    pub(super) act: Act,
    pub(super) pod_uid: &'a str,
    pub(super) injection: &'a InjectionIdentity,
    pub(super) now: DateTime<Utc>,
    pub(super) not_after: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
    pub(super) duration: Option<TimeDelta>,
}

/// The pod as it is created.
pub(super) fn manifest(settings: &HelperSettings, order: &Order<'_>) -> Value {
    let Order { work, act, injection, now, until, .. } = order;
    let name = &work.pod.name;
    let (name, lifetime) = match act {
        Act::Make => (name.clone(), (*until - *now).num_seconds().max(0) + GRACE_SECONDS),
        Act::Undo => (format!("{name}-undo"), UNDO_SECONDS),
    };
    let mut container = json!({
        "name": "helper",
        "image": settings.image,
        "command": command(order),
        "securityContext": {
            "privileged": true, "runAsUser": 0, "runAsNonRoot": false, "readOnlyRootFilesystem": true,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    });
    if *act == Act::Make && !work.at_once {
        // The pod is ready exactly while the effect is seen.
        container["readinessProbe"] = json!({
            "exec": {"command": check(order)},
            "periodSeconds": 1, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": 1,
        });
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": work.pod.namespace,
            "labels": {label::INJECTION_UID: injection.uid, label::MANAGED_BY: OPERATOR_FIELD_MANAGER},
            "annotations": {"soak.dev/injection": format!("{}/{}", injection.namespace, injection.name)},
        },
        "spec": {
            "nodeName": work.node,
            "serviceAccountName": settings.service_account,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "restartPolicy": "Never",
            // The processes of all pods are seen, and the node's network tells a pod's own from it.
            "hostPID": true,
            "hostNetwork": true,
            "activeDeadlineSeconds": lifetime.max(1),
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            // The target runs there, so whatever the node is tainted with does not matter.
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    })
}

fn place(order: &Order<'_>) -> Vec<String> {
    let Order { work, pod_uid, .. } = order;
    ["--pod", pod_uid, "--container", &work.container_id, "--key", &work.pod.name].map(str::to_owned).into()
}

fn command(order: &Order<'_>) -> Vec<String> {
    let mut words = vec![PROGRAM.to_owned(), "node-helper".to_owned()];
    words.extend(place(order));
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    match order.act {
        Act::Undo => words.extend(["--act".into(), "undo".into()]),
        Act::Make => {
            words.extend(["--not-after".into(), time(order.not_after), "--until".into(), time(order.until)]);
            if let Some(duration) = order.duration.filter(|_| !order.work.at_once) {
                words.extend(["--for-ms".into(), duration.num_milliseconds().max(1).to_string()]);
            }
        }
    }
    words.extend(order.work.arguments.iter().cloned());
    words
}

fn check(order: &Order<'_>) -> Vec<String> {
    let mut words = vec![PROGRAM.to_owned(), "node-helper".to_owned(), "--act".into(), "check".into()];
    words.extend(place(order));
    words.extend(order.work.arguments.iter().cloned());
    words
}

/// How a helper has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All is done, and nothing is left of it.
    Good,
    /// The container was gone.
    Gone,
    /// It did not begin.
    NeverBegan(String),
    /// Nobody knows what it left.
    Lost(String),
}

/// What a helper's pod tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is not so far.
    Coming {
        /// What is waited for.
        message: String,
    },
    /// The effect is there.
    There,
    /// It has ended.
    Ended(Ended),
}

/// Judges a helper's pod.
pub(super) fn look(pod: &Pod) -> Look {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.iter().flatten().next();
    let state = container.and_then(|it| it.state.clone()).unwrap_or_default();
    if let Some(end) = state.terminated {
        let said = end.message.as_deref().map(str::trim).filter(|it| !it.is_empty()).map(|it| format!(": {it}"));
        let said = said.unwrap_or_default();
        // The numbers are those of the helper's ends; 2 is that of words it does not know.
        return Look::Ended(match end.exit_code {
            0 => Ended::Good,
            3 => Ended::Gone,
            2 | 4 => Ended::NeverBegan(format!("the helper did not begin{said}")),
            code => Ended::Lost(format!("the helper ended with {code}{said}")),
        });
    }
    let phase = status.phase.unwrap_or_default();
    if matches!(phase.as_str(), "Failed" | "Succeeded") {
        let why = status.message.or(status.reason).unwrap_or_else(|| "its container did not report".into());
        return Look::Ended(Ended::Lost(format!("the helper's pod has ended: {why}")));
    }
    let ready = status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
    if ready && pod.meta().deletion_timestamp.is_none() && container.is_some_and(|it| it.ready) {
        return Look::There;
    }
    let name = pod.meta().name.clone().unwrap_or_default();
    let message = match state.waiting.and_then(|it| it.reason.map(|reason| (reason, it.message))) {
        Some((reason, Some(message))) => format!("helper pod {name}: {reason}: {message}"),
        Some((reason, None)) => format!("helper pod {name}: {reason}"),
        None if state.running.is_some() => format!("helper pod {name} runs; its effect is not there yet"),
        None => format!("helper pod {name} is {phase}"),
    };
    Look::Coming { message }
}

#[cfg(test)]
#[path = "helper_pod_tests.rs"]
mod tests;
