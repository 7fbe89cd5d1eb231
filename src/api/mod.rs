//! The custom resources of the group `soak.dev`, one file a kind.
//!
//! These types are the schema: their doc comments become the field docs that `kubectl explain` shows, their
//! validation rules run in the API server. Nothing here depends on another module of the crate.

pub mod admission;
pub mod condition;
pub mod criteria;
pub mod duration;
pub mod failureinjection;
pub mod fault;
pub mod monitor;
pub mod names;
pub mod object_store;
pub mod phase;
pub mod soakrun;
pub mod soakschedule;
pub mod soaktemplate;
pub mod status;
pub mod step;
pub mod target;

pub use admission::admission;
pub use condition::{Condition, ConditionStatus};
pub use duration::Duration;
pub use failureinjection::{FailureInjection, FailureInjectionSpec, FailureInjectionStatus};
pub use object_store::ObjectStore;
pub use phase::{ParallelStep, Phase, Retry, Step};
pub use soakrun::{SoakRun, SoakRunSpec};
pub use soakschedule::{SoakSchedule, SoakScheduleStatus};
pub use soaktemplate::SoakTemplate;
pub use status::SoakRunStatus;
pub use step::StepBody;

/// The custom resource definitions as JSON documents, ready to be applied.
///
/// Formats such as `uint32` are Rust's, not Kubernetes'; the server warns about them, so they are left out.
pub fn crds() -> Vec<serde_json::Value> {
    use kube::CustomResourceExt;
    [SoakRun::crd(), FailureInjection::crd(), SoakSchedule::crd(), SoakTemplate::crd()]
        .into_iter()
        .filter_map(|crd| serde_json::to_value(crd).ok())
        .map(|mut crd| {
            drop_foreign_formats(&mut crd);
            say_once(&mut crd);
            crd
        })
        .collect()
}

/// A step's fields are described under `phases[].steps[]` only. The schema repeats them for setup, cleanup and the members
/// of groups, and so many copies of a text would make the CRD too large for client-side apply.
fn say_once(crd: &mut serde_json::Value) {
    let Some(spec) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties") else {
        return;
    };
    for copy in [
        "/setup/items/properties",
        "/cleanup/items/properties",
        "/phases/items/properties/steps/items/properties/parallel/items/properties",
    ] {
        if let Some(copy) = spec.pointer_mut(copy) {
            drop_descriptions(copy);
        }
    }
}

fn drop_descriptions(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            // A field may be called so as well; its schema is no text.
            if fields.get("description").is_some_and(Value::is_string) {
                fields.remove("description");
            }
            fields.values_mut().for_each(drop_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_descriptions),
        _ => {}
    }
}

fn drop_foreign_formats(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                fields.remove("format");
            }
            fields.values_mut().for_each(drop_foreign_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_foreign_formats),
        _ => {}
    }
}
