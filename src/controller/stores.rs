//! The store of each run's records: ConfigMaps, or the object store that its spec names.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    api::SoakRun,
    cluster::{Cluster, error::ApiFailure},
    results::{self, ConfigMaps, Objects, StoreError, StoreSettings},
};

use super::observe::identity;

/// After so long a Secret is read anew, so that new credentials are taken.
const TRUSTED: Duration = Duration::from_mins(1);
/// Runs whose connection is kept.
const CONNECTED: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Every store of this operator.
pub struct Stores {
    /// The default, and where records wait for an object store.
    pub config_maps: ConfigMaps,
    settings: StoreSettings,
    connected: Mutex<LruCache<String, (Instant, Arc<Objects>)>>,
}

impl Stores {
    pub fn new(client: kube::Client, settings: StoreSettings) -> Self {
        Self { config_maps: ConfigMaps::new(client), settings, connected: Mutex::new(LruCache::new(CONNECTED)) }
    }

    /// The object store of a run; none if its records are ConfigMaps. Its Secret is read as the run's account (S12).
    pub async fn objects(&self, cluster: &Cluster, run: &SoakRun) -> Result<Option<Arc<Objects>>, StoreError> {
        let Some(spec) = &run.spec.results.object_store else { return Ok(None) };
        let identity = identity(run);
        // The spec can't change but with a new attempt.
        let attempt = run.status.as_ref().map_or(0, |status| status.attempt);
        let key = format!("{}/{attempt}/{:?}", identity.uid, run.metadata.generation);
        if let Some((since, objects)) = self.connected.lock().get(&key)
            && since.elapsed() < TRUSTED
        {
            return Ok(Some(objects.clone()));
        }
        let secret = match &spec.secret_name {
            None => None,
            Some(name) => {
                let client = cluster
                    .tenants
                    .client(&identity.account())
                    .map_err(|error| StoreError::Terminal(error.to_string()))?;
                let secrets: Api<Secret> = Api::namespaced(client, &identity.namespace);
                let secret = secrets.get(name).await.map_err(|error| unreadable(name, error))?;
                Some(texts(secret))
            }
        };
        let objects = Arc::new(results::connect(spec, secret.as_ref(), &self.settings)?);
        self.connected.lock().put(key, (Instant::now(), objects.clone()));
        Ok(Some(objects))
    }

    /// Connects anew next time, with the Secrets as they are then.
    pub fn doubt(&self) {
        self.connected.lock().clear();
    }
}

/// The entries of a Secret that are texts.
fn texts(secret: Secret) -> BTreeMap<String, String> {
    let data = secret.data.unwrap_or_default();
    data.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?))).collect()
}

fn unreadable(name: &str, error: kube::Error) -> StoreError {
    let failure = ApiFailure::from(error);
    let message = format!("results.objectStore: the Secret {name} can't be read: {}", failure.message);
    if failure.class.is_transient() { StoreError::Transient(message) } else { StoreError::Terminal(message) }
}
