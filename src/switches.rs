//! Guards that a test may take away, to show that the fault campaign notices. A build without the feature
//! `test-switches` has nothing of this.

/// Whether this guard was taken away: it is named in `SOAK_TEST_WITHOUT`.
#[cfg(feature = "test-switches")]
pub fn without(guard: &str) -> bool {
    use std::sync::LazyLock;
    static GUARDS: LazyLock<String> = LazyLock::new(|| std::env::var("SOAK_TEST_WITHOUT").unwrap_or_default());
    GUARDS.split(',').any(|it| it == guard)
}

/// No guard can be taken away.
#[cfg(not(feature = "test-switches"))]
pub const fn without(_guard: &str) -> bool {
    false
}
