//! What is made from the list of kinds: the fields of a fault, and the one thing that it does.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    DeleteFault, DnsFault, FaultSpec, Lasting, NetworkFault, NodeFault, PatchFault, PodKillFault, ProcessFault,
    ResourceFault, ScaleFault, StressFault, ToxiproxyFault, each_fault, fault_kinds,
};

macro_rules! declare {
    (() $($(#[$doc:meta])* $field:ident $name:literal $variant:ident($type:ident);)+) => {
        /// What is done. Exactly one of the kinds is set.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct FaultBody {
            $(
                $(#[$doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<Box<$type>>,
            )+
        }

        impl FaultBody {
            /// What it does; none unless exactly one kind is set.
            pub fn fault(&self) -> Option<Fault> {
                let mut set = [$(self.$field.clone().map(Fault::$variant)),+].into_iter().flatten();
                set.next().filter(|_| set.next().is_none())
            }
        }

        /// The one thing that a failure injection does.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Fault {
            $(
                $(#[$doc])*
                $variant(Box<$type>),
            )+
        }

        impl Fault {
            /// Every kind's name in a manifest.
            pub const KINDS: &[&str] = &[$($name),+];

            /// The kind's name in a manifest.
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// The kind of object that it hits where the target names none.
            pub const fn hits(&self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(Self::$variant(_) => <$type as FaultSpec>::HITS,)+
                }
            }
        }
    };
}

fault_kinds!([declare]());

impl Fault {
    /// Whether it lasts until it is undone.
    pub fn lasting(&self) -> Lasting {
        each_fault!(self, it => it.lasting())
    }

    /// Whether it is about an object that the target selects.
    pub fn selects(&self) -> bool {
        each_fault!(self, it => it.selects())
    }

    /// What the schema can't check.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        each_fault!(self, it => it.problem())
    }
}
