//! soak-operator drives soak runs through Kubernetes custom resources.
//!
//! The modules depend downward only; `docs/architecture.md` has the table and `tests/architecture.rs` checks it.

pub mod api;
