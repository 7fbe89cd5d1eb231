//! A run as the cache keeps it: spec and status as texts. Thousands of runs rest while a few move, and a text is a tenth
//! of the tree that is made of it.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;
use serde_transcode::Transcoder;

use crate::{
    api::{SoakRun, SoakSchedule, status::RunPhase},
    engine::{schedule::RunSeen, template},
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
    owner_references: Vec<OwnerReference>,
    annotations: ReadAnnotations,
}

#[derive(Debug, Default, Deserialize)]
struct ReadAnnotations {
    #[serde(rename = "soak.dev/scheduled-at")]
    scheduled_at: Option<String>,
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
    schedule: Option<Box<Scheduled>>,
}

/// What a schedule has to know of a run that it has made.
#[derive(Clone, Debug)]
struct Scheduled {
    name: String,
    uid: String,
    tick: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    aborting: bool,
}

/// A run as the server sends it.
#[derive(Deserialize)]
struct Received {
    metadata: ReadMetadata,
    #[serde(default)]
    spec: Text,
    #[serde(default)]
    status: Text,
}

/// A value as its JSON, whatever it is. No tree is made of it in between: each write of a status comes back by the watch.
struct Text(Arc<str>);

impl Default for Text {
    fn default() -> Self {
        Self("null".into())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = serde_json::to_string(&Transcoder::new(deserializer)).map_err(D::Error::custom)?;
        Ok(Self(text.into()))
    }
}

/// What is read of a spec or a status at once. What has another form counts as absent.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Peek {
    phase: Value,
    finished_at: Value,
    abort: Value,
}

impl Text {
    fn peek(&self) -> Peek {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<Received> for CachedRun {
    fn from(Received { metadata, spec, status }: Received) -> Self {
        let peek = status.peek();
        let phase = RunPhase::deserialize(&peek.phase).unwrap_or_default();
        let schedule = Scheduled::of(&metadata, &spec, &peek).map(Box::new);
        Self { metadata: metadata.into(), spec: spec.0, status: status.0, phase, schedule }
    }
}

impl Scheduled {
    fn of(metadata: &ReadMetadata, spec: &Text, status: &Peek) -> Option<Self> {
        let kind = SoakSchedule::kind(&());
        let group = |it: &&OwnerReference| it.api_version.split('/').next() == Some(&*SoakSchedule::group(&()));
        let mut owners = metadata.owner_references.iter().filter(|it| it.controller == Some(true) && it.kind == kind);
        let owner = owners.find(group)?;
        Some(Self {
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            tick: metadata.annotations.scheduled_at.as_ref().and_then(|at| at.parse().ok()),
            finished_at: status.finished_at.as_str().and_then(|at| at.parse().ok()),
            aborting: spec.peek().abort == true,
        })
    }
}

impl CachedRun {
    /// Name and uid of the schedule that controls the run.
    pub fn schedule(&self) -> Option<(&str, &str)> {
        self.schedule.as_ref().map(|it| (it.name.as_str(), it.uid.as_str()))
    }

    /// What the run's schedule has to know of it; none if it has no schedule.
    pub fn seen(&self) -> Option<RunSeen> {
        let schedule = self.schedule.as_ref()?;
        let created = self.metadata.creation_timestamp.as_ref();
        Some(RunSeen {
            name: self.metadata.name.clone().unwrap_or_default(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            phase: self.phase,
            created_at: created.and_then(|at| DateTime::from_timestamp(at.0.as_second(), 0)).unwrap_or_default(),
            finished_at: schedule.finished_at,
            tick: schedule.tick,
            aborting: schedule.aborting,
            deleting: self.metadata.deletion_timestamp.is_some(),
        })
    }

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

impl From<ReadMetadata> for ObjectMeta {
    fn from(read: ReadMetadata) -> Self {
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            generation: read.generation,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            finalizers: read.finalizers,
            ..Self::default()
        }
    }
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    ReadMetadata::deserialize(deserializer).map(ObjectMeta::from)
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
    fn a_run_of_a_schedule_says_what_the_schedule_has_to_know() {
        let owner = |kind: &str, controller: bool| json!({"apiVersion": "soak.dev/v1alpha1", "kind": kind, "name": "nightly", "uid": "s", "controller": controller});
        let run = |owner: Value| -> CachedRun {
            serde_json::from_value(json!({
                "metadata": {"name": "x", "uid": "u", "creationTimestamp": "2026-11-26T02:00:01Z", "ownerReferences": [owner],
                    "annotations": {"soak.dev/scheduled-at": "2026-11-26T02:00:00Z", "a": "b"}},
                "spec": {"abort": true},
                "status": {"phase": "Aborted", "finishedAt": "2026-11-26T03:00:00Z"},
            }))
            .unwrap()
        };
        let seen = run(owner("SoakSchedule", true)).seen().unwrap();
        assert_eq!(seen.tick.unwrap().to_rfc3339(), "2026-11-26T02:00:00+00:00");
        assert_eq!((seen.phase, seen.aborting, seen.deleting), (RunPhase::Aborted, true, false));
        assert!(seen.finished_at.unwrap() > seen.created_at);
        assert_eq!(run(owner("SoakSchedule", true)).schedule(), Some(("nightly", "s")));
        assert_eq!(run(owner("SoakSchedule", false)).seen(), None);
        assert_eq!(run(owner("CronJob", true)).seen(), None);
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
