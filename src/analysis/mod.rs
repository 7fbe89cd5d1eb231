//! Statistics on plain numbers. No module of this crate is used here; each routine names its paper and is tested against
//! published numbers or scipy's, which are kept in `tests/data/analysis.json` with the script that made them.

mod base64;
mod codec;
pub mod normal;
pub mod percentile;
pub mod sketch;
pub mod verdict;
pub mod wilson;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use normal::quantile as normal_quantile;
pub use percentile::percentile;
pub use sketch::{ParseSketchError, Sketch};
pub use verdict::{Verdict, settled_verdict, success_verdict};
pub use wilson::{Interval, interval as wilson_interval};
