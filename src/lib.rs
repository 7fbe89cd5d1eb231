//! soak-operator drives soak runs through Kubernetes custom resources.
//!
//! The modules depend downward only; `docs/architecture.md` has the table and `tests/architecture.rs` checks it.

pub mod analysis;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod engine;
pub mod faults;
pub mod helper;
pub mod monitors;
pub mod operator;
pub mod report;
pub mod request;
pub mod results;
pub mod steps;
pub mod telemetry;

mod switches;
