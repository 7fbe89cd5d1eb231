//! The fault campaign: the operator at work behind a proxy that misbehaves by script, and a checker of what came of it.
//!
//! A *session* runs the reference workload once in a namespace of its own. Two histories are kept, the operator's requests as
//! the proxy saw them and the objects as an independent watch saw them; the checker judges both afterwards, with no code of the
//! operator. A *campaign* is many sessions with scripts that follow from seeds (docs/reliability.md).

pub mod api;
pub mod campaign;
pub mod checker;
pub mod history;
pub mod injections;
pub mod names;
pub mod process;
pub mod proxy;
pub mod script;
pub mod session;
pub mod shared;
pub mod stream;
pub mod targets;
pub mod tls;
pub mod user;
pub mod watcher;
pub mod workload;
