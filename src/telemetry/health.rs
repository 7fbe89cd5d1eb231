//! Whether the operator is alive and ready.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The state that `/healthz` and `/readyz` report. Clones share it.
///
/// Alive: the last [`Health::tick`] is younger than the bound. The tick belongs into the loop whose standstill a restart
/// would cure (the work queue's, not a timer of its own, which would go on ticking beside a deadlock).
///
/// Ready: every registered check is set. A replica that waits to become the leader is ready: readiness is about being able to
/// serve, and a rollout would hang on a check that only one replica can pass.
#[derive(Clone)]
pub struct Health {
    clock: Arc<dyn Fn() -> Instant + Send + Sync>,
    max_age: Duration,
    state: Arc<Mutex<State>>,
}

struct State {
    last_tick: Instant,
    checks: BTreeMap<&'static str, bool>,
}

/// What a probe is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether every check passed.
    pub passed: bool,
    /// A line a check, in the form of the Kubernetes API server's `?verbose`.
    pub body: String,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("max_age", &self.max_age).finish_non_exhaustive()
    }
}

impl Health {
    /// Alive for `max_age` from now without a tick, and ready as nothing is registered.
    pub fn new(max_age: Duration) -> Self {
        Self::with_clock(max_age, Instant::now)
    }

    /// As [`Health::new`], with the clock that tells the present.
    pub fn with_clock(max_age: Duration, clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        let state = State { last_tick: clock(), checks: BTreeMap::new() };
        Self { clock: Arc::new(clock), max_age, state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Two plain values: a panic elsewhere can't leave them half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main loop still turns.
    pub fn tick(&self) {
        let now = (self.clock)();
        self.lock().last_tick = now;
    }

    /// Adds a check that fails until [`Health::set_ready`] says otherwise; one that exists keeps its value.
    pub fn register(&self, check: &'static str) {
        self.lock().checks.entry(check).or_insert(false);
    }

    /// Sets a check, and registers it if need be.
    pub fn set_ready(&self, check: &'static str, ready: bool) {
        self.lock().checks.insert(check, ready);
    }

    /// Whether the main loop has turned lately.
    pub fn liveness(&self) -> Report {
        let age = (self.clock)().saturating_duration_since(self.lock().last_tick);
        let detail = format!("last tick {:.1}s ago, at most {:.1}s", age.as_secs_f64(), self.max_age.as_secs_f64());
        report("healthz", [("heartbeat", age <= self.max_age, Some(detail))])
    }

    /// Whether every check passes.
    pub fn readiness(&self) -> Report {
        report("readyz", self.lock().checks.iter().map(|(check, ready)| (*check, *ready, None)))
    }
}

fn report<'a>(probe: &str, checks: impl IntoIterator<Item = (&'a str, bool, Option<String>)>) -> Report {
    let (mut passed, mut body) = (true, String::new());
    for (check, ok, detail) in checks {
        passed &= ok;
        let (mark, word) = if ok { ('+', "ok") } else { ('-', "failed") };
        let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        // Writing to a String can't fail.
        let _ = writeln!(body, "[{mark}]{check} {word}{detail}");
    }
    let _ = writeln!(body, "{probe} check {}", if passed { "passed" } else { "failed" });
    Report { passed, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manual(max_age: Duration) -> (Health, Arc<Mutex<Instant>>) {
        let now = Arc::new(Mutex::new(Instant::now()));
        let clock = now.clone();
        (Health::with_clock(max_age, move || *clock.lock().expect("clock")), now)
    }

    fn pass(now: &Arc<Mutex<Instant>>, seconds: u64) {
        *now.lock().expect("clock") += Duration::from_secs(seconds);
    }

    #[test]
    fn alive_while_ticks_come_within_the_bound() {
        let (health, now) = manual(Duration::from_secs(30));
        pass(&now, 30);
        assert!(health.liveness().passed, "the bound itself is still good, and the start counts as a tick");
        pass(&now, 1);
        assert_eq!(
            health.liveness(),
            Report {
                passed: false,
                body: "[-]heartbeat failed: last tick 31.0s ago, at most 30.0s\nhealthz check failed\n".into()
            }
        );
        health.tick();
        assert!(health.liveness().passed);
    }

    #[test]
    fn ready_when_every_check_is_and_says_which_is_not() {
        let (health, _) = manual(Duration::from_secs(30));
        assert!(health.readiness().passed);
        health.register("watches");
        health.set_ready("api-server", true);
        let report = health.readiness();
        assert!(!report.passed);
        assert_eq!(report.body, "[+]api-server ok\n[-]watches failed\nreadyz check failed\n");
        health.set_ready("watches", true);
        health.register("watches");
        assert!(health.readiness().passed, "registering again does not unset");
        health.set_ready("api-server", false);
        assert!(!health.readiness().passed, "readiness can be lost");
    }
}
