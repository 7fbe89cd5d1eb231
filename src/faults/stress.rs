//! `stress`: CPU, memory or disk that is used up beside a pod.

use std::collections::BTreeSet;

use chrono::{SecondsFormat, TimeDelta, Utc};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{FaultContext, FaultKind, Refusal, object_ref, of, resource};
use crate::{
    api::{failureinjection::JournalEntry, fault::StressFault, names::reason},
    helper::PROGRAM,
};

/// How long the pod may take to start.
const START: TimeDelta = TimeDelta::seconds(60);

impl FaultKind for StressFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        let image = ctx.settings.image.as_deref().ok_or_else(|| {
            let message = "the operator does not know the image for it: an administrator names it with --helper-image";
            Refusal::never(reason::NOT_ALLOWED, message)
        })?;
        let until = Utc::now() + START + ctx.plan.map(|plan| plan.duration.as_chrono()).unwrap_or_default();
        let mut entries = Vec::new();
        for (index, pod) in targets.iter().enumerate() {
            let target = of(ctx, pod).await?;
            let Some(node) = pod.data["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else {
                let message = format!("{} has no node yet", target.title());
                return Err(Refusal::NotYet { reason: reason::NO_TARGET.into(), message });
            };
            let mut manifest = pod_manifest(self, image, node, &until.to_rfc3339_opts(SecondsFormat::Millis, true));
            manifest["metadata"] = json!({"namespace": target.namespace});
            manifest["spec"]["activeDeadlineSeconds"] = json!((until - Utc::now() + START).num_seconds());
            entries.push(resource::entry(ctx, manifest, index, Some(object_ref(&target, pod))).await?);
        }
        // One pod on a node stresses all that is there.
        let mut nodes = BTreeSet::new();
        entries.retain(|entry| match &entry.undo {
            crate::api::failureinjection::Undo::Made(made) => {
                nodes.insert(made.manifest["spec"]["nodeName"].as_str().unwrap_or_default().to_owned())
            }
            _ => true,
        });
        Ok(entries)
    }
}

fn pod_manifest(fault: &StressFault, image: &str, node: &str, until: &str) -> Value {
    let StressFault { cpu_workers, memory_megabytes, disk_megabytes } = fault;
    let mut command = vec![PROGRAM.to_owned(), "stress".into(), "--until".into(), until.to_owned()];
    for (option, value) in
        [("--cpu-workers", cpu_workers), ("--memory-megabytes", memory_megabytes), ("--disk-megabytes", disk_megabytes)]
    {
        if let Some(value) = value {
            command.extend([option.to_owned(), value.to_string()]);
        }
    }
    command.extend(["--folder".into(), "/work".into()]);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 5,
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65_532, "runAsGroup": 65_532, "fsGroup": 65_532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "stress",
                "image": image,
                "command": command,
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            }],
            "volumes": [{"name": "work", "emptyDir": {}}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper;

    #[test]
    fn the_program_understands_what_its_pod_tells_it() {
        let fault = StressFault { cpu_workers: Some(2), memory_megabytes: Some(64), disk_megabytes: Some(10) };
        let pod = pod_manifest(&fault, "i", "n", "2026-01-01T00:00:00.000Z");
        let helper::Command::Stress(stress) = helper::parsed(&pod["spec"]["containers"][0]["command"]).unwrap() else {
            panic!("not a stress program");
        };
        assert_eq!((stress.cpu_workers, stress.memory_megabytes, stress.disk_megabytes), (2, 64, 10));
        assert_eq!(stress.until.unwrap().to_rfc3339(), "2026-01-01T00:00:00+00:00");
    }
}
