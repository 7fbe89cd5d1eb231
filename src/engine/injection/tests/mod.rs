//! The machine of an injection in a simulated world.
