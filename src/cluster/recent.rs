//! What a server has said yes to lately: a fleet of runs from one template asks once, not once a run.

use std::{
    hash::Hash,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;

/// How long a yes is good for others. It may be taken back at any time after any answer; a step then tells it.
const FRESH: Duration = Duration::from_secs(10);
const CAPACITY: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// When which question was answered by a yes. A no is not kept: whoever mends what is missing wants to see it at once.
pub struct Recent<K: Hash + Eq>(Mutex<LruCache<K, Instant>>);

impl<K: Hash + Eq> Recent<K> {
    /// Notes that the answer was yes just now.
    pub fn note(&self, question: K) {
        self.0.lock().put(question, Instant::now());
    }

    /// Whether the answer was yes, so lately that it still holds.
    pub fn holds(&self, question: &K) -> bool {
        self.0.lock().get(question).is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Whoever asks next wants to know how it is now.
    pub fn forget(&self) {
        self.0.lock().clear();
    }
}

impl<K: Hash + Eq> Default for Recent<K> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_is_for_one_question_and_until_it_is_forgotten() {
        let recent = Recent::default();
        recent.note(("sha256:1", "soak"));
        assert!(recent.holds(&("sha256:1", "soak")));
        assert!(!recent.holds(&("sha256:2", "soak")));
        assert!(!recent.holds(&("sha256:1", "other")));
        recent.forget();
        assert!(!recent.holds(&("sha256:1", "soak")));
    }
}
