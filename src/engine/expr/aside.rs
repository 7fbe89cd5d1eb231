//! Work that may take long, done so that others need not wait for it.
//!
//! An expression may use all of [`MAX_COST`](super::MAX_COST), which takes tenths of a second, and a shell that drives all runs on a few
//! threads must go on meanwhile. How it does that is its own affair; the result is the same.

use std::sync::OnceLock;

/// Does a piece of work, exactly once, before it returns.
pub type Aside = fn(&mut dyn FnMut());

static ASIDE: OnceLock<Aside> = OnceLock::new();

/// From now on work that may take long is done by `aside`. The first that is named stays.
pub fn set(aside: Aside) {
    let _ = ASIDE.set(aside);
}

/// Does work that may take long.
pub(crate) fn run<T>(work: impl FnOnce() -> T) -> T {
    let Some(aside) = ASIDE.get() else { return work() };
    let (mut work, mut result) = (Some(work), None);
    aside(&mut || result = work.take().map(|work| work()));
    result.expect("an aside does the work before it returns")
}
