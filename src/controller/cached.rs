//! A run as the cache keeps it: spec and status as texts. Thousands of runs rest while a few move, and a text is a tenth
//! of the tree that is made of it.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    api::{SoakRun, status::RunPhase},
    engine::template,
};

/// What the operator reads of a run's metadata. Managed fields alone would be longer than the rest of the object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
}

/// The metadata of an object that a write returned; the rest of the answer is not read.
#[derive(Debug, Deserialize)]
pub struct Stamp {
    /// Without managed fields, labels and annotations.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
}

/// A run that has not been parsed. It may hold what no [`SoakRun`] is, so that one such object does not end the watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Received")]
pub struct CachedRun {
    metadata: ObjectMeta,
    spec: Arc<str>,
    status: Arc<str>,
    phase: RunPhase,
}

/// A run as the server sends it.
#[derive(Deserialize)]
struct Received {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl From<Received> for CachedRun {
    fn from(Received { metadata, spec, status }: Received) -> Self {
        let phase = RunPhase::deserialize(&status["phase"]).unwrap_or_default();
        Self { metadata, spec: spec.to_string().into(), status: status.to_string().into(), phase }
    }
}

impl CachedRun {
    /// The run.
    ///
    /// Errors: it is none; the schema refuses such objects, so this one is older than the schema.
    pub fn read(&self) -> serde_json::Result<SoakRun> {
        Ok(SoakRun {
            metadata: self.metadata.clone(),
            spec: serde_json::from_str(&self.spec)?,
            status: serde_json::from_str(&self.status)?,
        })
    }

    /// Lists that the spec sets to be empty, see [`template::emptied`]: [`read`](Self::read) can't tell.
    pub fn emptied(&self) -> BTreeSet<String> {
        serde_json::from_str(&self.spec).map(|spec| template::emptied(&spec)).unwrap_or_default()
    }

    /// Where the run is.
    pub const fn phase(&self) -> RunPhase {
        self.phase
    }
}

impl Resource for CachedRun {
    type DynamicType = ();
    type Scope = <SoakRun as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        SoakRun::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        SoakRun::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        SoakRun::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        SoakRun::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Texts of specs, each kept once: a fleet of runs is made from a few templates.
#[derive(Default)]
pub struct Specs(Mutex<HashSet<Arc<str>>>);

impl Specs {
    /// Lets a run have its spec's text in common with others.
    pub fn share(&self, run: &mut CachedRun) {
        let mut specs = self.0.lock();
        if let Some(known) = specs.get(&run.spec) {
            run.spec = known.clone();
            return;
        }
        // Before the set grows, what no run has any more goes.
        if specs.len() == specs.capacity() {
            specs.retain(|spec| Arc::strong_count(spec) > 1);
        }
        specs.insert(run.spec.clone());
    }
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let read = ReadMetadata::deserialize(deserializer)?;
    let ReadMetadata {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        finalizers,
    } = read;
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        finalizers,
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cached(version: &str, spec: &Value) -> CachedRun {
        serde_json::from_value(json!({
            "apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun",
            "metadata": {"name": "x", "namespace": "n", "uid": "u", "resourceVersion": version, "generation": 3,
                "annotations": {"soak.dev/git-commit": "4f2a"},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
            "spec": spec,
            "status": {"phase": "Running", "attempt": 2},
        }))
        .unwrap()
    }

    fn spec() -> Value {
        json!({"serviceAccountName": "soak", "cycles": 2, "phases": [{"name": "p", "steps": [{"name": "s", "sleep": {"duration": "1s"}}]}]})
    }

    #[test]
    fn a_cached_run_is_the_run_without_managed_fields_and_annotations() {
        let cached = cached("7", &spec());
        let run = cached.read().unwrap();
        assert_eq!(run.metadata.generation, Some(3));
        assert_eq!(run.metadata.managed_fields, None);
        assert_eq!(run.metadata.annotations, None);
        assert_eq!(serde_json::to_value(&run.spec.phases).unwrap()[0]["name"], "p");
        assert_eq!(run.status.map(|status| status.attempt), Some(2));
        assert_eq!(cached.phase(), RunPhase::Running);
    }

    #[test]
    fn a_list_that_is_empty_is_told_from_one_that_is_not_there() {
        let mut spec = spec();
        spec["monitors"] = json!([]);
        let cached = cached("7", &spec);
        assert_eq!(Vec::from_iter(cached.emptied()), ["monitors"]);
        assert!(cached.read().unwrap().spec.monitors.is_empty());
    }

    #[test]
    fn a_run_that_can_not_be_read_is_still_cached() {
        let cached = cached("7", &json!({"phases": "none"}));
        assert_eq!(cached.metadata.name.as_deref(), Some("x"));
        assert!(cached.read().is_err());
    }

    #[test]
    fn a_run_without_a_status_is_pending() {
        let cached: CachedRun = serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec()})).unwrap();
        assert_eq!(cached.phase(), RunPhase::Pending);
        assert_eq!(cached.read().unwrap().status, None);
    }

    #[test]
    fn equal_specs_are_kept_once_and_go_with_the_last_run() {
        let specs = Specs::default();
        let (mut one, mut two) = (cached("1", &spec()), cached("2", &spec()));
        specs.share(&mut one);
        specs.share(&mut two);
        assert!(Arc::ptr_eq(&one.spec, &two.spec));
        drop((one, two));
        for number in 0..1_000 {
            specs.share(&mut cached("1", &json!({"cycles": number})));
        }
        assert!(specs.0.lock().len() < 100, "specs of runs that are gone go as well");
    }
}
