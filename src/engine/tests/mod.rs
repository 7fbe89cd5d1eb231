//! Tests of the engine: time is moved by hand, the outside is a small simulated world.

mod endings;
mod explore;
mod gates;
mod identity;
mod limits;
mod lock;
mod plans;
mod properties;
mod steps;
mod store;
mod suspension;
mod targets;
mod told;
mod verdicts;
mod world;
