//! The versions that a custom kind's definition serves, remembered while the definition stays as it is: it is a large object,
//! and every run begins with a look at some.

use std::num::NonZeroUsize;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client};
use lru::LruCache;
use parking_lot::Mutex;

/// Definitions that are remembered.
const MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// One definition.
pub struct Definition {
    /// Its metadata as it is now.
    pub metadata: ObjectMeta,
    /// The versions that it serves.
    pub served: Vec<String>,
}

/// A definition at one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edition {
    uid: Option<String>,
    generation: Option<i64>,
}

impl Edition {
    fn of(metadata: &ObjectMeta) -> Self {
        Self { uid: metadata.uid.clone(), generation: metadata.generation }
    }
}

/// What is remembered.
pub struct Definitions(Mutex<LruCache<String, (Edition, Vec<String>)>>);

impl Definitions {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX)))
    }

    /// The definition `name`; none if it can't be read. Only one that has changed is read as a whole.
    pub async fn get(&self, client: &Client, name: &str) -> Option<Definition> {
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let metadata = api.get_metadata_opt(name).await.ok()??.metadata;
        let known = self.0.lock().get(name).filter(|(edition, _)| *edition == Edition::of(&metadata)).cloned();
        if let Some((_, served)) = known {
            return Some(Definition { metadata, served });
        }
        let CustomResourceDefinition { metadata, spec, .. } = api.get_opt(name).await.ok()??;
        let served: Vec<String> = spec.versions.into_iter().filter(|it| it.served).map(|it| it.name).collect();
        self.0.lock().put(name.to_owned(), (Edition::of(&metadata), served.clone()));
        Some(Definition { metadata, served })
    }
}
