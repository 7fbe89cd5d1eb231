//! Parsed specs, shared by all runs of equal spec.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    api::SoakRun,
    engine::{Plan, PlanError, expr::aside},
};

/// Plans that are kept. A fleet of runs from a few schedules needs a few; of thousands that differ, those at work.
const PLANS: NonZeroUsize = NonZeroUsize::new(2_048).unwrap();
/// Runs whose spec's digest is remembered.
const DIGESTS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// A plan, or why there is none.
pub type Parsed = Result<Arc<Plan>, Arc<PlanError>>;

/// A bounded cache of plans by digest of the spec.
///
/// Parsing CEL costs more than a reconcile; the digest costs a serialisation, so it is kept by (uid, generation).
pub struct Plans {
    digests: Mutex<LruCache<(String, i64), Arc<str>>>,
    plans: Mutex<LruCache<Arc<str>, Parsed>>,
}

impl Plans {
    /// An empty cache.
    pub fn new() -> Self {
        Self { digests: Mutex::new(LruCache::new(DIGESTS)), plans: Mutex::new(LruCache::new(PLANS)) }
    }

    /// The plan of a run's spec as it is now.
    pub fn get(&self, run: &SoakRun) -> Parsed {
        let digest = self.digest(run);
        let known = self.plans.lock().get(&digest).cloned();
        known.unwrap_or_else(|| {
            let parsed = aside::run(|| Plan::parse(&run.spec)).map(Arc::new).map_err(Arc::new);
            self.plans.lock().put(digest, parsed.clone());
            parsed
        })
    }

    fn digest(&self, run: &SoakRun) -> Arc<str> {
        let generation = (run.metadata.uid.clone().unwrap_or_default(), run.metadata.generation.unwrap_or(0));
        if let Some(digest) = self.digests.lock().get(&generation) {
            return digest.clone();
        }
        let digest: Arc<str> = crate::engine::plan::digest(&run.spec).into();
        self.digests.lock().put(generation, digest.clone());
        digest
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(uid: &str, cycles: u32) -> SoakRun {
        serde_json::from_value(json!({
            "metadata": {"name": "x", "uid": uid, "generation": 1},
            "spec": {"serviceAccountName": "soak", "cycles": cycles, "phases": [{"name": "p", "steps": [{"name": "s", "sleep": {"duration": "1s"}}]}]},
        }))
        .unwrap()
    }

    #[test]
    fn runs_of_equal_spec_share_a_plan_and_a_changed_spec_has_another() {
        let plans = Plans::new();
        let (one, two) = (plans.get(&run("a", 1)).unwrap(), plans.get(&run("b", 1)).unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        let mut changed = run("a", 2);
        changed.metadata.generation = Some(2);
        assert_eq!(plans.get(&changed).unwrap().cycles, Some(2));
    }

    #[test]
    fn a_thousand_runs_that_differ_are_parsed_once_each() {
        let plans = Plans::new();
        let get = || -> Vec<Arc<Plan>> {
            (0..1_000).map(|number| plans.get(&run(&number.to_string(), number + 1)).unwrap()).collect()
        };
        assert!(get().iter().zip(get()).all(|(first, again)| Arc::ptr_eq(first, &again)));
    }
}
