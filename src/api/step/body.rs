//! What is made from the list of kinds: the fields of a step, and the one thing that it does.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ApplyStep, Beginning, Conditions, DeleteStep, HttpStep, InjectStep, JobStep, Made, PatchStep, PodStep,
    ResourceStep, ScaleStep, SleepStep, StepSpec, WaitStep, each_kind, step_kinds,
};
use crate::api::{
    Duration,
    phase::{Output, Retry},
};

macro_rules! declare {
    (() $($(#[$doc:meta])* $field:ident $name:literal $variant:ident($type:ident);)+) => {
        /// What a step does, and within which limits. Exactly one of the kinds is set.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct StepBody {
            /// Longest time that one attempt may run (default 30m).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[x_kube(validation = ("duration(self) > duration('0s')", "a timeout must be longer than 0s"))]
            pub timeout: Option<Duration>,
            /// Longest time that an attempt's pod may wait to be scheduled and started (default 5m); not counted as running.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[x_kube(validation = ("duration(self) > duration('0s')", "a timeout must be longer than 0s"))]
            pub pending_timeout: Option<Duration>,
            /// Whether and when the step is tried again.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub retry: Option<Box<Retry>>,
            /// Values taken from the object or the response that the step ended on.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(max = 16))]
            #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
            pub outputs: Vec<Output>,
            $(
                $(#[$doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<Box<$type>>,
            )+
        }

        impl StepBody {
            /// What it does; none unless exactly one kind is set.
            pub fn action(&self) -> Option<Action> {
                let mut set = [$(self.$field.clone().map(Action::$variant)),+].into_iter().flatten();
                set.next().filter(|_| set.next().is_none())
            }

            /// Sorts lists whose order means nothing; the API server takes a new order for no change.
            pub fn sort_lists(&mut self) {
                self.outputs.sort_by(|a, b| a.name.cmp(&b.name));
                $(
                    if let Some(step) = &mut self.$field {
                        step.sort_lists();
                    }
                )+
            }
        }

        /// The one thing that a step does.
        #[derive(Clone, Debug)]
        pub enum Action {
            $(
                $(#[$doc])*
                $variant(Box<$type>),
            )+
        }

        impl Action {
            /// Every kind's name in a manifest.
            pub const KINDS: &[&str] = &[$($name),+];

            /// The kind's name in a manifest.
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// What beginning an attempt does.
            pub const fn beginning(&self) -> Beginning {
                match self {
                    $(Self::$variant(_) => <$type>::BEGINNING,)+
                }
            }
        }
    };
}

step_kinds!([declare]());

impl Action {
    /// The fields whose texts may hold `${...}`.
    pub fn templates(&self) -> Value {
        each_kind!(self, step => step.templates())
    }

    /// Its conditions, and the variable that they and the outputs see.
    pub fn conditions(&self) -> Conditions<'_> {
        each_kind!(self, step => step.conditions())
    }

    /// The target or role that it works on; none: the cluster that the operator runs in.
    pub fn target(&self) -> Option<&str> {
        each_kind!(self, step => step.target())
    }

    /// Whether it works on the operator's own cluster even with a target.
    pub fn works_here(&self) -> bool {
        each_kind!(self, step => step.works_here())
    }

    /// The object that it makes and that is deleted later on.
    pub fn made(&self) -> Option<Made> {
        each_kind!(self, step => step.made())
    }
}
