//! What a step can do: one file a kind, and the list of them.
//!
//! Text fields may hold CEL in `${...}`; conditions are bare CEL (see docs/expressions.md).

mod apply;
mod artifacts;
mod body;
mod delete;
mod http;
mod inject;
mod job;
mod patch;
mod pod;
mod resource;
mod scale;
pub(super) mod schema;
mod sleep;
mod wait;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use apply::ApplyStep;
pub use artifacts::{Artifacts, DEFAULT_DIRECTORY};
pub use body::{Action, StepBody};
pub use delete::DeleteStep;
pub use http::{Header, HttpStep};
pub use inject::InjectStep;
pub use job::JobStep;
pub use patch::{PatchStep, PatchType};
pub use pod::PodStep;
pub use resource::ResourceStep;
pub use scale::ScaleStep;
pub use sleep::SleepStep;
pub use wait::WaitStep;

/// The list of kinds: field of [`StepBody`], its name in a manifest, variant of [`Action`], struct.
///
/// It hands the list on to the macro in brackets, behind its arguments; whatever has to know every kind is made from it.
macro_rules! step_kinds {
    ([$($then:tt)+] $arguments:tt) => {
        $($then)+! { $arguments
            /// Runs a pod.
            pod "pod" Pod(PodStep);
            /// Runs a Job.
            job_template "jobTemplate" Job(JobStep);
            /// Waits for a condition on an object.
            wait "wait" Wait(WaitStep);
            /// Applies an object.
            apply "apply" Apply(ApplyStep);
            /// Patches an object.
            patch "patch" Patch(PatchStep);
            /// Sets the replicas of an object.
            scale "scale" Scale(ScaleStep);
            /// Deletes an object.
            delete "delete" Delete(DeleteStep);
            /// Creates an object and follows it to its end.
            resource "resource" Resource(ResourceStep);
            /// Makes an HTTP request.
            http "http" Http(HttpStep);
            /// Injects a failure, which is always undone.
            inject "inject" Inject(InjectStep);
            /// Waits for a length of time.
            sleep "sleep" Sleep(SleepStep);
        }
    };
}

/// Matches an [`Action`] of any kind: `each_kind!(&action, step => step.templates())`.
macro_rules! each_kind {
    ($action:expr, $step:ident => $what:expr) => {
        $crate::api::step::step_kinds!([$crate::api::step::match_kind] ($action, $step => $what))
    };
}

/// The match that [`each_kind`] makes from the list.
macro_rules! match_kind {
    (
        ($action:expr, $step:ident => $what:expr)
        $($(#[$doc:meta])* $field:ident $name:literal $variant:ident($type:ident);)+
    ) => {
        match $action {
            $($crate::api::step::Action::$variant($step) => $what,)+
        }
    };
}

pub(crate) use {each_kind, match_kind, step_kinds};

/// The longest expression that is accepted, in bytes.
pub const MAX_EXPRESSION_BYTES: u32 = 4_096;

/// What has to be known of a kind of step to plan it. How it is performed is in `src/steps`, in the file of its name.
pub trait StepSpec: Serialize {
    /// What beginning an attempt does.
    const BEGINNING: Beginning;

    /// The fields whose texts may hold `${...}`; all, unless some are conditions.
    fn templates(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Its conditions, and the variable that they and the outputs see.
    fn conditions(&self) -> Conditions<'_> {
        Conditions::default()
    }

    /// The target or role that it works on; none: the cluster that the operator runs in.
    fn target(&self) -> Option<&str> {
        None
    }

    /// Whether it works on the operator's own cluster even with a target: it only hands on which cluster is meant.
    fn works_here(&self) -> bool {
        false
    }

    /// The object that it makes and that is deleted later on.
    fn made(&self) -> Option<Made> {
        None
    }

    /// Sorts lists whose order means nothing.
    fn sort_lists(&mut self) {}
}

/// What beginning an attempt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It only looks. It can be done at any time, before its intent is stored too.
    Looks,
    /// It can be done twice without harm, so an attempt of which there is no trace is simply begun again.
    Repeatable,
    /// It must not be done twice, and is over when it was done.
    Once,
    /// It must not be done twice, and leaves something running in the cluster that has to be stopped there.
    Runs,
}

/// Conditions of a step, each with the name of its field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    /// What ends it well.
    pub success: Option<(&'static str, &'a str)>,
    /// What fails it.
    pub failure: Option<(&'static str, &'a str)>,
    /// The variable that conditions and outputs see beside the common ones.
    pub subject: Option<&'static str>,
}

impl Conditions<'_> {
    /// No condition; outputs see `subject`.
    pub const fn over(subject: &'static str) -> Self {
        Self { success: None, failure: None, subject: Some(subject) }
    }
}

/// An object that a step makes.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its `apiVersion`, `kind`, `name` and `namespace`, which may hold `${...}`.
    pub head: Value,
    /// When it is deleted again.
    pub until: DeleteAfter,
    /// Whether an object without a name gets the attempt's.
    pub named_by_attempt: bool,
}

impl Made {
    fn by_manifest(manifest: &Value, until: DeleteAfter, named_by_attempt: bool) -> Self {
        let head = json!({
            "apiVersion": manifest.get("apiVersion"),
            "kind": manifest.get("kind"),
            "name": manifest.pointer("/metadata/name"),
            "namespace": manifest.pointer("/metadata/namespace"),
        });
        Self { head, until, named_by_attempt }
    }
}

/// An object in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRef {
    /// `v1`, `apps/v1`, …
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// `ConfigMap`, `StatefulSet`, …
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The object's name.
    #[schemars(length(min = 1, max = 1024))]
    pub name: String,
    /// The object's namespace; the run's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace: Option<String>,
}

/// When something that a step made is deleted again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeleteAfter {
    /// When the phase ends.
    Phase,
    /// When the cycle ends.
    Cycle,
    /// When the run ends, after its cleanup.
    #[default]
    Run,
    /// Never.
    Never,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) const fn is_false(value: &bool) -> bool {
    !*value
}
