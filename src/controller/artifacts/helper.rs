//! Whether something can still come of the helper that reads what a step leaves behind.

use std::time::Duration;

use crate::cluster::pods::{ContainerState, PodSummary};

use super::RECORD_PATIENCE;

/// How long a helper may take beyond the pod's grace period once the step's container has ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Why files are lost of which nothing else is known.
pub(super) const GONE: &str = "their pod was gone before they were read";

/// What a helper is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    /// It may still print.
    Runs,
    /// It may still print, and its log goes with its pod soon after.
    Leaves,
    /// It has printed all that it will.
    Ended,
    /// Nothing will come of it.
    Lost(String),
}

/// Judges a helper whose pod's first container has ended that long ago, as far as this process has seen.
pub(super) fn judge(pod: Option<&PodSummary>, waited: Duration) -> Helper {
    let Some(pod) = pod else { return Helper::Lost(GONE.into()) };
    let told = [pod.reason.as_str(), pod.message.as_str()].into_iter().filter(|it| !it.is_empty());
    let told = told.fold(String::new(), |told, it| told + ": " + it);
    if pod.gone {
        return Helper::Lost(format!("their pod was deleted before they were read{told}"));
    }
    let state = pod.artifacts().map(|helper| &helper.state);
    if matches!(state, Some(ContainerState::Terminated { .. })) {
        return Helper::Ended;
    }
    // At a deadline the pod's phase comes first, and the ends of its containers follow.
    let runs = matches!(state, Some(ContainerState::Running { .. }));
    if matches!(pod.phase.as_str(), "Succeeded" | "Failed") && !runs {
        return Helper::Lost(format!("their pod ended without the helper that reads them{told}"));
    }
    if waited > patience(pod) {
        let node = pod.node.as_deref().unwrap_or("its node");
        return Helper::Lost(format!(
            "the helper that reads them had not ended {} s after the step's container: {node} does not answer, or other containers of the pod go on (make them native sidecars)",
            waited.as_secs()
        ));
    }
    if pod.deleting_at.is_some() && runs { Helper::Leaves } else { Helper::Runs }
}

/// How long a helper may take from the moment in which its pod begins to end.
pub(super) fn patience(pod: &PodSummary) -> Duration {
    let grace = pod.grace_seconds.max(pod.deletion_grace_seconds.unwrap_or(0));
    (PATIENCE + Duration::from_secs(u64::try_from(grace).unwrap_or(0))).min(RECORD_PATIENCE / 2)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    /// A pod of a step with a helper in that state.
    fn pod(phase: &str, helper: &Value) -> PodSummary {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "1", "labels": {"soak.dev/run-uid": "u"},
                "ownerReferences": [{"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "name": "r", "uid": "u", "controller": true}]},
            "spec": {"containers": [{"name": "main"}], "nodeName": "node-1", "terminationGracePeriodSeconds": 5,
                "initContainers": [{"name": "soak-artifacts", "restartPolicy": "Always"}]},
            "status": {"phase": phase, "initContainerStatuses": [
                {"name": "soak-artifacts", "state": helper, "ready": false, "restartCount": 0, "image": "", "imageID": ""}]},
        }))
        .unwrap();
        PodSummary::of(pod, false).unwrap()
    }

    fn why(helper: Helper) -> String {
        match helper {
            Helper::Lost(why) => why,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_helper_is_waited_for_as_long_as_something_can_come_of_it() {
        let second = Duration::from_secs(1);
        let (runs, ended) = (json!({"running": {}}), json!({"terminated": {"exitCode": 0}}));
        assert_eq!(judge(Some(&pod("Running", &runs)), second * 35), Helper::Runs);
        assert_eq!(judge(Some(&pod("Running", &ended)), second), Helper::Ended);
        assert_eq!(judge(Some(&pod("Failed", &ended)), second * 999), Helper::Ended, "the log stays with the pod");
        assert!(why(judge(Some(&pod("Running", &runs)), second * 36)).contains("36 s after"), "the node is gone");
        assert!(why(judge(Some(&pod("Failed", &json!({"waiting": {}}))), second)).contains("without the helper"));
        assert_eq!(judge(Some(&pod("Failed", &runs)), second), Helper::Runs, "its deadline has come, its end has not");
        let mut leaving = pod("Running", &runs);
        (leaving.deleting_at, leaving.deletion_grace_seconds) = (Some(chrono::Utc::now()), Some(60));
        assert_eq!(judge(Some(&leaving), second * 89), Helper::Leaves, "its log goes with it");
        assert!(why(judge(Some(&leaving), second * 91)).contains("does not answer"), "not for ever");
        let mut evicted = pod("Failed", &runs);
        (evicted.reason, evicted.gone) = ("Evicted".into(), true);
        assert_eq!(why(judge(Some(&evicted), second)), "their pod was deleted before they were read: Evicted");
        assert!(why(judge(None, second)).contains("gone"));
    }
}
