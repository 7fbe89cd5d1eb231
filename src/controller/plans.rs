//! Parsed specs, shared by all runs of equal spec.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    api::SoakRun,
    engine::{Plan, PlanError},
};

/// Plans that are kept. A fleet of runs from a few schedules needs a few.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// A plan, or why there is none.
pub type Parsed = Result<Arc<Plan>, Arc<PlanError>>;

/// A bounded cache of plans by digest of the spec.
///
/// Parsing CEL costs more than a reconcile; the digest costs a serialisation, so it is kept by (uid, generation).
pub struct Plans {
    by_generation: Mutex<LruCache<(String, i64), Parsed>>,
    by_digest: Mutex<LruCache<String, Parsed>>,
}

impl Plans {
    /// An empty cache.
    pub fn new() -> Self {
        Self { by_generation: Mutex::new(LruCache::new(CAPACITY)), by_digest: Mutex::new(LruCache::new(CAPACITY)) }
    }

    /// The plan of a run's spec as it is now.
    pub fn get(&self, run: &SoakRun) -> Parsed {
        let generation = (run.metadata.uid.clone().unwrap_or_default(), run.metadata.generation.unwrap_or(0));
        if let Some(parsed) = self.by_generation.lock().get(&generation) {
            return parsed.clone();
        }
        let digest = crate::engine::plan::digest(&run.spec);
        let known = self.by_digest.lock().get(&digest).cloned();
        let parsed = known.unwrap_or_else(|| {
            let parsed = Plan::parse(&run.spec).map(Arc::new).map_err(Arc::new);
            self.by_digest.lock().put(digest, parsed.clone());
            parsed
        });
        self.by_generation.lock().put(generation, parsed.clone());
        parsed
    }
}
