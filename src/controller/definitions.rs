//! The versions that a custom kind's definition serves, remembered while the definition stays as it is: it is a large object,
//! and every run begins with a look at some.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client};
use lru::LruCache;
use parking_lot::Mutex;

/// Definitions that are remembered.
const MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// A fleet of runs that begins within this time looks once.
const FRESH: Duration = Duration::from_secs(10);

/// One definition.
pub struct Definition {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The versions that it serves.
    pub served: Vec<String>,
}

/// A definition as it was when it was looked at.
struct Known {
    at: Instant,
    metadata: ObjectMeta,
    served: Vec<String>,
}

impl Known {
    /// Whether that is the same definition at the same generation.
    fn is(&self, other: &ObjectMeta) -> bool {
        (&self.metadata.uid, self.metadata.generation) == (&other.uid, other.generation)
    }

    fn told(&self) -> Definition {
        Definition { metadata: self.metadata.clone(), served: self.served.clone() }
    }
}

/// What is remembered.
pub struct Definitions(Mutex<LruCache<String, Known>>);

impl Definitions {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX)))
    }

    /// The definition `name` as it was at most [`FRESH`] ago; none if it can't be read. Only one that has changed is read as a whole.
    pub async fn get(&self, client: &Client, name: &str) -> Option<Definition> {
        if let Some(known) = self.0.lock().get(name).filter(|known| known.at.elapsed() < FRESH) {
            return Some(known.told());
        }
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let at = Instant::now();
        let metadata = api.get_metadata_opt(name).await.ok()??.metadata;
        if let Some(known) = self.0.lock().get_mut(name).filter(|known| known.is(&metadata)) {
            known.at = at;
            known.metadata = metadata;
            return Some(known.told());
        }
        let CustomResourceDefinition { metadata, spec, .. } = api.get_opt(name).await.ok()??;
        let served: Vec<String> = spec.versions.into_iter().filter(|it| it.served).map(|it| it.name).collect();
        let known = Known { at, metadata, served };
        let told = known.told();
        self.0.lock().put(name.to_owned(), known);
        Some(told)
    }
}
