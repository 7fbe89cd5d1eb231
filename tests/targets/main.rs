//! Runs on several clusters: connecting, losing and finding one again, and where things are done.
//!
//! The other cluster is the test's own API server, reached by a kubeconfig of an account that the run's own is not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod faults;
mod monitors;
mod runs;
#[path = "../support/mod.rs"]
mod support;
mod world;
