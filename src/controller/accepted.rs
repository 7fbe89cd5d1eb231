//! Specs that the server has accepted lately: a fleet of runs from one template is tried once, not once a run.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;

use crate::cluster::client::Account;

/// How long an answer is good for other runs. Rights may change at any time after any answer; a step then tells it.
const FRESH: Duration = Duration::from_secs(10);
const CAPACITY: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// When which spec was accepted as whose. Refusals are not kept: whoever mends what is missing wants to see it at once.
pub struct Accepted(Mutex<LruCache<(String, Account), Instant>>);

impl Accepted {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }

    /// Notes that everything was accepted just now.
    pub fn note(&self, spec_digest: &str, account: &Account) {
        self.0.lock().put((spec_digest.to_owned(), account.clone()), Instant::now());
    }

    /// Whether the answer for a spec of that digest still holds.
    pub fn is_fresh(&self, spec_digest: &str, account: &Account) -> bool {
        let mut accepted = self.0.lock();
        accepted.get(&(spec_digest.to_owned(), account.clone())).is_some_and(|at| at.elapsed() < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_for_one_spec_of_one_account() {
        let account = |name: &str| Account { namespace: "n".into(), name: name.into() };
        let accepted = Accepted::new();
        accepted.note("sha256:1", &account("soak"));
        assert!(accepted.is_fresh("sha256:1", &account("soak")));
        assert!(!accepted.is_fresh("sha256:2", &account("soak")));
        assert!(!accepted.is_fresh("sha256:1", &account("other")));
    }
}
