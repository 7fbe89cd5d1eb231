//! Statistics on plain numbers. No module of this crate is used here; each routine names its paper and is tested against
//! published numbers or scipy's, which are kept in `tests/data` with the scripts that made them. `docs/results.md` lists them.

mod binomial;
pub mod change_points;
mod codec;
pub mod comparison;
pub mod drift;
pub mod false_discovery;
pub mod fisher;
pub mod mann_kendall;
pub mod normal;
pub mod percentile;
pub mod quantile_interval;
pub mod rank_sum;
pub mod sequential;
pub mod series;
pub mod shift;
pub mod sketch;
pub mod spread;
pub mod theil_sen;
pub mod verdict;
pub mod wilson;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod comparison_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod rate_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod series_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use change_points::{ChangePoint, Changes, Search, change_points};
pub use comparison::{Change, Comparison, Thresholds, compare};
pub use drift::{Direction, Drift, drift};
pub use fisher::{Association, Failures, associations, fisher_exact};
pub use mann_kendall::{Trend, mann_kendall};
pub use normal::quantile as normal_quantile;
pub use percentile::percentile;
pub use quantile_interval::{QuantileInterval, interval as quantile_interval};
pub use rank_sum::{RankSum, rank_sum};
pub use sequential::{anytime_interval, anytime_verdict};
pub use series::{Bucket, Series};
pub use shift::{Shift, shift};
pub use sketch::{ParseSketchError, Sketch};
pub use spread::{Spread, spread};
pub use theil_sen::{Slope, theil_sen};
pub use verdict::{Verdict, settled_verdict, success_verdict};
pub use wilson::{Interval, interval as wilson_interval};
