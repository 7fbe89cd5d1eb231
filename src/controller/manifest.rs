//! The manifest of a run, written before its first step, and snapshots of chosen objects.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{SubsecRound, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    api::{
        SoakRun,
        monitor::ResourceMonitor,
        names::{GROUP, label},
    },
    cluster::kinds::group_version_kind,
    engine::{self, expr::render_json},
    results::{self, CrdVersion, Manifest, Moment, ObjectState, Once, RunRef, Snapshot, StoreError},
};

use super::{definitions::Definition, observe::identity, perform::Subject, redaction, template};

/// Objects of one selection.
const MAX_OBJECTS: u32 = 50;
/// Longest snapshot, in bytes.
const MAX_SNAPSHOT: usize = 65_536;
/// Longest status of an object that is kept whole, in bytes.
const MAX_STATUS: usize = 2_048;
/// Longest spec that is kept, in bytes.
const MAX_SPEC: usize = 65_536;
/// Custom kinds whose definition is looked at.
const MAX_CRDS: usize = 16;
/// Longest annotation that is kept, in bytes.
const MAX_TEXT: usize = 512;
/// The key of the ConfigMap.
const KEY: &str = "start.json";

/// Annotations that name a commit, the first one that is there counts.
const COMMITS: [&str; 4] = [
    label::GIT_COMMIT,
    "argocd.argoproj.io/commit",
    "app.kubernetes.io/commit",
    "kustomize.toolkit.fluxcd.io/revision",
];
/// Annotations and labels of GitOps tools that say where an object comes from.
const ORIGINS: [&str; 5] = [
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/instance",
    "kustomize.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/namespace",
    "helm.toolkit.fluxcd.io/name",
];
/// Marks of a definition that tell a version.
const MARKS: [&str; 3] = ["app.kubernetes.io/version", "helm.sh/chart", "controller-gen.kubebuilder.io/version"];

/// What is known when a run begins.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Start {
    /// The manifest.
    pub manifest: Manifest,
    /// What was there.
    pub snapshot: Option<Snapshot>,
}

/// Writes down what is known before the first step. Whoever comes first decides; writing it again changes nothing.
///
/// Errors: it can't be stored, or one of another spec stands: that was changed before the run's status knew of it.
pub async fn begin(subject: &Subject) -> Result<(), StoreError> {
    let start = Start { manifest: manifest(subject).await?, snapshot: snapshot(subject, Moment::Start).await };
    let text = serde_json::to_string(&start).map_err(|error| StoreError::Terminal(error.to_string()))?;
    let of = of(subject);
    let (once, digest) = (once(&of), results::digest(&text));
    let made = once.make(subject.shell.client.clone(), &once.manifest(text, digest)).await?;
    let stands: Start = serde_json::from_str(&made.text).unwrap_or_default();
    if stands.manifest.spec_digest == subject.plan.digest {
        return Ok(());
    }
    Err(StoreError::Terminal(
        "it stands already and is of another spec: change rerun, to begin a new attempt with this spec".into(),
    ))
}

/// Reads back what was known when the run began; nothing if that is gone or was changed.
pub async fn read(subject: &Subject) -> Option<Start> {
    let of = of(subject);
    let found = once(&of).get(subject.shell.client.clone()).await.ok()??;
    serde_json::from_str(&found.text).ok()
}

fn once(of: &RunRef) -> Once<'_> {
    Once::new(of, "start", KEY, "the run's manifest")
}

fn of(subject: &Subject) -> RunRef {
    template::run_ref(&subject.run, attempt(subject))
}

fn attempt(subject: &Subject) -> u32 {
    subject.run.status.as_ref().map_or(0, |status| status.attempt)
}

async fn manifest(subject: &Subject) -> Result<Manifest, StoreError> {
    let Subject { shell, plan, run, .. } = subject;
    // The cache keeps neither annotations nor managed fields.
    let runs: Api<SoakRun> = Api::namespaced(shell.client.clone(), &run.namespace().unwrap_or_default());
    let metadata = runs.get_metadata(&run.name_any()).await;
    let metadata = metadata.map_err(|error| StoreError::Transient(format!("reading the run: {error}")))?.metadata;
    let spec = serde_json::to_value(&run.spec).unwrap_or_default();
    let marks: BTreeMap<String, String> = metadata
        .annotations
        .iter()
        .flatten()
        .chain(metadata.labels.iter().flatten())
        .filter(|(name, _)| COMMITS.contains(&name.as_str()) || ORIGINS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), cut(value)))
        .collect();
    Ok(Manifest {
        requested_by: requested_by(&metadata),
        commit: COMMITS.iter().find_map(|name| marks.get(*name).cloned()),
        annotations: marks,
        spec_digest: plan.digest.clone(),
        crds: crds(subject, &spec).await,
        spec: (spec.to_string().len() <= MAX_SPEC).then_some(spec),
        template: run.spec.template_ref.as_ref().map(|template| template.name.clone()),
        operator_version: env!("CARGO_PKG_VERSION").into(),
        kubernetes_version: shell.kubernetes_version.clone(),
        written_at: Utc::now().trunc_subsecs(3),
    })
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// The annotation, else the manager that wrote fields of the spec last, and when.
fn requested_by(metadata: &ObjectMeta) -> String {
    if let Some(by) = metadata.annotations.as_ref().and_then(|all| all.get(label::REQUESTED_BY)) {
        return cut(by);
    }
    let of_spec = |entry: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.subresource.is_none() && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some())
    };
    let entry =
        metadata.managed_fields.iter().flatten().filter(of_spec).max_by_key(|entry| entry.time.as_ref().map(|at| at.0));
    entry.and_then(|entry| entry.manager.clone()).map_or_else(|| "unknown".into(), |manager| cut(&manager))
}

/// The definitions of the custom kinds that a spec names.
async fn crds(subject: &Subject, spec: &Value) -> Vec<CrdVersion> {
    let mut named = BTreeSet::from([(format!("{GROUP}/v1alpha1"), "SoakRun".to_owned())]);
    kinds(spec, &mut named);
    let custom = |version: &str| {
        version.split_once('/').is_some_and(|(group, _)| group.contains('.') && !group.ends_with(".k8s.io"))
    };
    let shell = &subject.shell;
    let mut found = Vec::new();
    for (version, kind) in named.into_iter().filter(|(version, _)| custom(version)).take(MAX_CRDS) {
        let Ok(kind) = shell.clusters.own().kinds.get(&group_version_kind(&version, &kind)).await else {
            continue;
        };
        let name = kind.plural_and_group();
        let Some(Definition { metadata, served }) = shell.definitions.get(&shell.client, &name).await else { continue };
        let marks = metadata.labels.iter().chain(metadata.annotations.iter()).flatten();
        let marks = marks.filter(|(name, _)| MARKS.contains(&name.as_str()));
        found.push(CrdVersion {
            name,
            marks: marks.map(|(name, value)| (name.clone(), cut(value))).collect(),
            generation: metadata.generation.unwrap_or(0),
            served,
        });
    }
    found
}

/// Every pair of `apiVersion` and `kind` in a tree that is no expression.
fn kinds(value: &Value, found: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.contains("${"));
            if let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) {
                found.insert((version.to_owned(), kind.to_owned()));
            }
            fields.values().for_each(|field| kinds(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| kinds(item, found)),
        _ => {}
    }
}

/// The objects that `spec.snapshot` chooses, read as the run's service account. None: it chooses none.
pub async fn snapshot(subject: &Subject, moment: Moment) -> Option<Snapshot> {
    let chosen = &subject.run.spec.snapshot;
    if chosen.is_empty() {
        return None;
    }
    let redactor = redaction::load(&subject.shell, &subject.run).await;
    let mut snapshot = Snapshot { moment, at: Utc::now().trunc_subsecs(3), ..Snapshot::default() };
    let mut size = 0;
    for selection in chosen {
        match objects(subject, selection).await {
            Err(problem) => snapshot.problems.push(cut(&format!("{}: {problem}", selection.kind))),
            Ok((objects, all)) => {
                snapshot.truncated |= !all;
                for object in objects {
                    let mut state = state(selection, &object);
                    state.status.iter_mut().for_each(|status| redactor.json(status));
                    size += serde_json::to_string(&state).map_or(0, |text| text.len());
                    if size > MAX_SNAPSHOT {
                        snapshot.truncated = true;
                        break;
                    }
                    snapshot.objects.push(state);
                }
            }
        }
    }
    Some(snapshot)
}

/// The chosen objects, and whether these are all.
async fn objects(subject: &Subject, selection: &ResourceMonitor) -> Result<(Vec<DynamicObject>, bool), String> {
    let Subject { shell, plan, run, .. } = subject;
    let scope = engine::monitor::scope(plan, run, attempt(subject));
    let rendered = render_json(&json!(selection), &scope).map_err(|error| error.to_string())?;
    let it: ResourceMonitor = serde_json::from_value(rendered).map_err(|error| error.to_string())?;
    let identity = identity(run);
    let kind = shell
        .clusters
        .own()
        .kinds
        .get(&group_version_kind(&it.api_version, &it.kind))
        .await
        .map_err(|failure| failure.message)?;
    let client = shell.clusters.own().tenants.client(&identity.account()).map_err(|error| error.to_string())?;
    let namespace = it.namespace.filter(|namespace| !namespace.is_empty()).unwrap_or(identity.namespace);
    let api = kind.api(client, &namespace);
    if let Some(name) = it.name.filter(|name| !name.is_empty()) {
        let found = api.get_opt(&name).await.map_err(|error| error.to_string())?;
        return Ok((found.into_iter().collect(), true));
    }
    let labels: Vec<String> = it.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let page = api.list(&ListParams::default().labels(&labels.join(",")).limit(MAX_OBJECTS)).await;
    let page = page.map_err(|error| error.to_string())?;
    let all = page.metadata.continue_.is_none_or(|token| token.is_empty());
    Ok((page.items, all))
}

fn state(selection: &ResourceMonitor, object: &DynamicObject) -> ObjectState {
    let metadata = &object.metadata;
    let status = object.data.get("status").filter(|status| status.as_object().is_some_and(|it| !it.is_empty()));
    let status = status.map(|status| {
        if status.to_string().len() <= MAX_STATUS {
            return status.clone();
        }
        let conditions = status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .take(16)
            .map(|it| json!({"type": it["type"], "status": it["status"], "reason": it["reason"]}));
        json!({"phase": status["phase"], "conditions": conditions.collect::<Vec<_>>()})
    });
    ObjectState {
        kind: format!("{} {}", selection.api_version, selection.kind),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        generation: metadata.generation,
        deleting: metadata.deletion_timestamp.is_some(),
        images: ["/spec/containers", "/spec/template/spec/containers"]
            .iter()
            .filter_map(|path| object.data.pointer(path)?.as_array())
            .flatten()
            .filter_map(|container| container["image"].as_str())
            .take(16)
            .map(cut)
            .collect(),
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_how_an_object_is_and_never_what_it_holds() {
        let selection =
            ResourceMonitor { api_version: "v1".into(), kind: "Secret".into(), ..ResourceMonitor::default() };
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "uid": "u", "resourceVersion": "7"},
            "data": {"password": "aHVudGVyMg=="}, "status": {"phase": "x", "long": "y".repeat(MAX_STATUS)}});
        let state = state(&selection, &serde_json::from_value(secret).unwrap());
        let text = serde_json::to_string(&state).unwrap();
        assert!(!text.contains("aHVudGVyMg") && text.len() < 400, "{text}");
        assert_eq!((state.resource_version.as_str(), state.status.unwrap()["phase"].clone()), ("7", json!("x")));
    }

    #[test]
    fn who_asked_is_the_annotation_or_who_wrote_the_spec() {
        let metadata = |annotations: Value| -> ObjectMeta {
            serde_json::from_value(json!({"annotations": annotations, "managedFields": [
                {"manager": "soak-operator", "operation": "Update", "time": "2026-01-01T00:00:09Z", "fieldsV1": {"f:metadata": {}}},
                {"manager": "argocd-controller", "operation": "Apply", "time": "2026-01-01T00:00:01Z", "fieldsV1": {"f:spec": {}}},
            ]}))
            .unwrap()
        };
        assert_eq!(requested_by(&metadata(json!({}))), "argocd-controller");
        assert_eq!(requested_by(&metadata(json!({"soak.dev/requested-by": "ana"}))), "ana");
    }

    #[test]
    fn kinds_are_found_wherever_they_are_named() {
        let mut found = BTreeSet::new();
        kinds(
            &json!({"a": [{"apiVersion": "x.io/v1", "kind": "K"}, {"apiVersion": "${params.v}", "kind": "L"}]}),
            &mut found,
        );
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("x.io/v1".to_owned(), "K".to_owned())]);
    }
}
