//! Runs that refer to a template: what one resolves to is written down once, before anything else is done, and used ever after.
//!
//! It is kept as [`Once`] says: a template that is edited during a run changes nothing in it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::{
    api::{SoakRun, SoakRunSpec, SoakTemplate, names::reason},
    engine::{self, Note, NoteType, PlanError, template},
    results::{self, Made, Once, RunRef, StoreError},
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
    /// What it resolves to could not be written down or read back.
    Store(StoreError),
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
    let attempt = engine::attempt(&run);
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
    let of = run_ref(run, attempt);
    let once = Once::new(&of, "spec", KEY, "the resolved spec");
    if let Some(found) = once.get(shell.client.clone()).await.map_err(stored)? {
        return read(&once, &found);
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
    // An operator that crashed, or a call whose answer was lost, may have been faster.
    let made = once.make(shell.client.clone(), &manifest(&once, &found, &spec)).await.map_err(stored)?;
    read(&once, &made)
}

/// What a run is called in what it writes down about that attempt.
pub fn run_ref(run: &SoakRun, attempt: u32) -> RunRef {
    RunRef {
        name: run.name_any(),
        namespace: run.namespace().unwrap_or_default(),
        uid: run.uid().unwrap_or_default(),
        attempt,
    }
}

fn manifest(once: &Once<'_>, template: &SoakTemplate, spec: &SoakRunSpec) -> ConfigMap {
    let text = serde_json::to_string(spec).unwrap_or_default();
    let from = json!({"name": template.name_any(), "uid": template.uid(), "generation": template.metadata.generation});
    let digest = results::digest(&text);
    let mut map = once.manifest(text, digest);
    map.data.get_or_insert_default().insert("template.json".to_owned(), from.to_string());
    map
}

fn read(once: &Once<'_>, found: &Made) -> Result<SoakRunSpec, Unresolved> {
    serde_json::from_str(&found.text).map_err(|_| wrong(&format!("ConfigMap {} holds no spec: delete it", once.name)))
}

/// What is there in the place of the resolved spec can't be worked by.
fn wrong(problem: &str) -> Unresolved {
    Unresolved::Wrong(PlanError::new("spec.templateRef", format!("{problem}, and rerun the run")))
}

fn stored(error: StoreError) -> Unresolved {
    match error {
        StoreError::Taken(problem) => wrong(&problem),
        other => Unresolved::Store(other),
    }
}
