//! What a failure injection can do: one file a kind, and the list of them.

mod body;
mod delete;
mod dns;
mod network;
mod node;
mod patch;
mod pod_kill;
mod process;
mod resource;
mod scale;
mod stress;
mod toxiproxy;

pub use body::{Fault, FaultBody};
pub use delete::DeleteFault;
pub use dns::DnsFault;
pub use network::{NetworkFault, PartitionMeans};
pub use node::NodeFault;
pub use patch::PatchFault;
pub use pod_kill::PodKillFault;
pub use process::{ProcessFault, Signal};
pub use resource::ResourceFault;
pub use scale::ScaleFault;
pub use stress::StressFault;
pub use toxiproxy::{ToxicDirection, ToxiproxyFault};

/// The list of kinds: field of [`FaultBody`], its name in a manifest, variant of [`Fault`], struct.
///
/// It hands the list on to the macro in brackets, behind its arguments; whatever has to know every kind is made from it.
macro_rules! fault_kinds {
    ([$($then:tt)+] $arguments:tt) => {
        $($then)+! { $arguments
            /// Deletes pods; whatever owns them makes new ones.
            pod_kill "podKill" PodKill(PodKillFault);
            /// Deletes an object, and puts it back when that is asked for.
            delete "delete" Delete(DeleteFault);
            /// Sets the replicas of an object.
            scale "scale" Scale(ScaleFault);
            /// Changes fields of an object.
            patch "patch" Patch(PatchFault);
            /// Stops or kills the processes of a container, from its node.
            process "process" Process(ProcessFault);
            /// Cuts a pod off from others, or from everybody.
            network "network" Network(NetworkFault);
            /// Lets a pod's name lookups time out.
            dns "dns" Dns(DnsFault);
            /// Adds a toxic to a proxy of Toxiproxy.
            toxiproxy "toxiproxy" Toxiproxy(ToxiproxyFault);
            /// Uses up CPU, memory or disk on the node of a pod.
            stress "stress" Stress(StressFault);
            /// Cordons a node, and drains it when that is asked for.
            node "node" Node(NodeFault);
            /// Creates an object that another controller turns into a fault, and deletes it again.
            resource "resource" Resource(ResourceFault);
        }
    };
}

/// Matches a [`Fault`] of any kind: `each_fault!(&fault, it => it.needs())`.
macro_rules! each_fault {
    ($fault:expr, $it:ident => $what:expr) => {
        $crate::api::fault::fault_kinds!([$crate::api::fault::match_fault] ($fault, $it => $what))
    };
}

/// The match that [`each_fault`] makes from the list.
macro_rules! match_fault {
    (
        ($fault:expr, $it:ident => $what:expr)
        $($(#[$doc:meta])* $field:ident $name:literal $variant:ident($type:ident);)+
    ) => {
        match $fault {
            $($crate::api::fault::Fault::$variant($it) => $what,)+
        }
    };
}

pub(crate) use {each_fault, fault_kinds, match_fault};

/// Whether a fault lasts, and so has to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// It is over at once: there is nothing to undo, and a duration means nothing.
    AtOnce,
    /// It lasts until it is undone, so it needs a duration.
    UntilUndone,
}

/// What has to be known of a kind of fault to plan it. How it is made and undone is in `src/faults`, in the file of its name.
pub trait FaultSpec {
    /// The kind of object that it hits, as `(apiVersion, kind)`, where the target names none.
    const HITS: Option<(&'static str, &'static str)>;

    /// Whether it lasts.
    fn lasting(&self) -> Lasting;

    /// Whether it is about an object that the target selects. A fault that is not has no target.
    fn selects(&self) -> bool {
        true
    }

    /// What the schema can't check: the field that is wrong, relative to the fault, and what to do.
    fn problem(&self) -> Option<(&'static str, String)> {
        None
    }
}
