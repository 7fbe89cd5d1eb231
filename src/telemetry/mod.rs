//! What the operator tells about itself: metrics, health and log lines. Nothing here knows the rest of the crate.

pub mod health;
pub mod logging;
pub mod metrics;
mod run_series;
mod schedule_series;
pub mod server;

pub use health::{Health, Report};
pub use logging::{LogFormat, LoggingError};
pub use metrics::{ErrorClass, Limits, Metrics, StatusWrite};
pub use schedule_series::ScheduleState;
pub use server::serve;
