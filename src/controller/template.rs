//! Runs that refer to a template: what one resolves to is written down once, before anything else is done, and used ever after.
//!
//! The ConfigMap is named after the run's uid and attempt and never changes, so that whoever comes first decides, a crash in
//! between included, and a template that is edited during a run changes nothing in it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Resource, ResourceExt, api::PostParams};
use serde_json::json;

use crate::{
    api::{
        SoakRun, SoakRunSpec, SoakTemplate,
        names::{OPERATOR_FIELD_MANAGER, label, reason},
    },
    engine::{Note, NoteType, PlanError, template},
    results::{self, RecordPart, RunRef},
};

use super::{Shell, memory::Memory};

/// How long a template is waited for that is not there: it may be applied after its runs.
const PATIENCE: TimeDelta = TimeDelta::minutes(5);
/// Pause between two looks for it.
pub const AGAIN: Duration = Duration::from_secs(3);
/// The key of the resolved spec.
pub const KEY: &str = "spec.json";

/// Why a run has no spec to work by.
pub enum Unresolved {
    /// It is looked at again after [`AGAIN`].
    NotYet,
    /// It can't be run as it is.
    Wrong(PlanError),
    /// The API server did not do what it was asked for.
    Api(kube::Error),
}

/// The run with the spec that its attempt was resolved to; unchanged where it refers to no template, or has ended.
///
/// `emptied` tells which lists the run sets to be empty, as [`template::emptied`] does.
pub async fn resolve(
    shell: &Shell,
    run: Arc<SoakRun>,
    memory: &Memory,
    emptied: impl FnOnce() -> BTreeSet<String>,
) -> Result<Arc<SoakRun>, Unresolved> {
    let Some(reference) = run.spec.template_ref.clone() else { return Ok(run) };
    let status = run.status.clone().unwrap_or_default();
    let again = status.rerun != run.spec.rerun;
    if status.phase.is_final() && !again {
        return Ok(run);
    }
    let begins = status.accepted_at.is_none() || (status.phase.is_final() && again);
    let attempt = status.attempt + u32::from(begins);
    let frozen = if let Some(spec) = memory.resolved(attempt) {
        spec
    } else {
        let spec = Arc::new(frozen(shell, &run, attempt, &reference.name, &emptied()).await?);
        memory.resolve(attempt, spec.clone());
        spec
    };
    let SoakRunSpec { suspend, abort, rerun, ttl_after_finished, .. } = run.spec.clone();
    let spec = SoakRunSpec { suspend, abort, rerun, ttl_after_finished, ..(*frozen).clone() };
    Ok(Arc::new(SoakRun { metadata: run.metadata.clone(), spec, status: run.status.clone() }))
}

async fn frozen(
    shell: &Shell,
    run: &SoakRun,
    attempt: u32,
    template: &str,
    emptied: &BTreeSet<String>,
) -> Result<SoakRunSpec, Unresolved> {
    let namespace = run.namespace().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(shell.client.clone(), &namespace);
    let name = record_name(run, attempt, "spec");
    if let Some(found) = maps.get_opt(&name).await.map_err(Unresolved::Api)? {
        return read(run, &found);
    }
    let templates: Api<SoakTemplate> = Api::namespaced(shell.client.clone(), &namespace);
    let Some(found) = templates.get_opt(template).await.map_err(Unresolved::Api)? else {
        let message = format!("there is no SoakTemplate {template} in namespace {namespace}");
        let since =
            run.metadata.creation_timestamp.as_ref().and_then(|at| DateTime::from_timestamp(at.0.as_second(), 0));
        if since.is_none_or(|since| Utc::now() - since >= PATIENCE) {
            return Err(Unresolved::Wrong(PlanError::new("spec.templateRef.name", message)));
        }
        let note = Note { type_: NoteType::Warning, reason: reason::NOT_FOUND.into(), message };
        shell.notes.tell(run.object_ref(&()), note);
        return Err(Unresolved::NotYet);
    };
    let spec = template::resolve(&found.spec, &run.spec, emptied).map_err(Unresolved::Wrong)?;
    let map = manifest(run, attempt, name.clone(), &found, &spec);
    let parameters = PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PostParams::default() };
    match maps.create(&parameters, &map).await {
        Ok(_) => Ok(spec),
        // Somebody was faster: an operator that crashed, or the call whose answer was lost.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            read(run, &maps.get(&name).await.map_err(Unresolved::Api)?)
        }
        Err(error) => Err(Unresolved::Api(error)),
    }
}

/// The name of a ConfigMap that is written before the first step of an attempt: a record's, with another part.
pub fn record_name(run: &SoakRun, attempt: u32, part: &str) -> String {
    let of = RunRef {
        name: run.name_any(),
        namespace: run.namespace().unwrap_or_default(),
        uid: run.uid().unwrap_or_default(),
        attempt,
    };
    format!("{}{part}", results::record_name(&of, RecordPart::Setup).trim_end_matches("setup"))
}

/// The metadata of such a ConfigMap. The label tells what it is, and that it is no record of a pass.
pub fn metadata(run: &SoakRun, attempt: u32, name: String, part: &str) -> ObjectMeta {
    let uid = run.uid().unwrap_or_default();
    let labels = [
        (label::RUN_UID, uid.clone()),
        (label::RUN_ATTEMPT, attempt.to_string()),
        (label::RECORD, part.to_owned()),
        (label::MANAGED_BY, OPERATOR_FIELD_MANAGER.to_owned()),
    ];
    let owner = OwnerReference {
        api_version: SoakRun::api_version(&()).into(),
        kind: SoakRun::kind(&()).into(),
        name: run.name_any(),
        uid,
        ..OwnerReference::default()
    };
    ObjectMeta {
        name: Some(name),
        namespace: run.namespace(),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value)).into()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

fn manifest(run: &SoakRun, attempt: u32, name: String, template: &SoakTemplate, spec: &SoakRunSpec) -> ConfigMap {
    let text = serde_json::to_string(spec).unwrap_or_default();
    let from = json!({"name": template.name_any(), "uid": template.uid(), "generation": template.metadata.generation});
    ConfigMap {
        metadata: ObjectMeta {
            annotations: Some([(label::DIGEST.to_owned(), results::digest(&text))].into()),
            ..metadata(run, attempt, name, "spec")
        },
        data: Some([(KEY.to_owned(), text), ("template.json".to_owned(), from.to_string())].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

fn read(run: &SoakRun, map: &ConfigMap) -> Result<SoakRunSpec, Unresolved> {
    let wrong = |problem: &str| {
        let problem = format!("ConfigMap {} {problem}: delete it, and rerun the run", map.name_any());
        Err(Unresolved::Wrong(PlanError::new("spec.templateRef", problem)))
    };
    let owned = map.owner_references().iter().any(|owner| Some(&owner.uid) == run.uid().as_ref());
    let Some(text) = map.data.as_ref().and_then(|data| data.get(KEY)).filter(|_| owned) else {
        return wrong("is not this run's resolved spec");
    };
    if map.annotations().get(label::DIGEST) != Some(&results::digest(text)) {
        return wrong("does not match its digest");
    }
    serde_json::from_str(text).or_else(|_| wrong("holds no spec"))
}
