//! Faults whose effect is not a field of an object: processes that stand still, networks that are cut, resources used up. Each is
//! seen by what the target does, and seen undone the same way.
#![allow(clippy::unwrap_used, clippy::panic)]

mod node;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod toxiproxy;
