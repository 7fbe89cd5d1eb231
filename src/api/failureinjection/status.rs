//! The status of a `FailureInjection`: its journal, durable before the first effect, from which alone a fault can be undone.

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{Condition, condition::unobserved};

/// Most objects that one injection may hit.
pub const MAX_TARGETS: usize = 64;

/// The state machine of an injection as people read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum InjectionPhase {
    /// Not begun: its time has not come, or what it hits is looked for.
    #[default]
    Pending,
    /// The journal is written; the fault is being made.
    Injecting,
    /// The fault is there.
    Injected,
    /// The fault is being undone.
    Reverting,
    /// It is undone; the system is not healthy yet.
    Recovering,
    /// Undone and healthy.
    Recovered,
    /// It could not be made, or the system did not recover. Nothing of it is left.
    Failed,
    /// Nothing was to be done: a dry run, no target, or it was called off before it began.
    Skipped,
}

impl InjectionPhase {
    /// Every phase.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Injecting,
        Self::Injected,
        Self::Reverting,
        Self::Recovering,
        Self::Recovered,
        Self::Failed,
        Self::Skipped,
    ];

    /// Whether it has ended; it then never changes again.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Recovered | Self::Failed | Self::Skipped)
    }

    /// Whether something of the fault may be there.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Injecting | Self::Injected | Self::Reverting)
    }

    /// The declared edges.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Injecting | Self::Failed | Self::Skipped),
            // Back to pending: another one came first to the same field, and nothing was touched yet.
            Self::Injecting => matches!(next, Self::Injected | Self::Reverting | Self::Pending),
            Self::Injected => matches!(next, Self::Reverting),
            Self::Reverting => matches!(next, Self::Recovering | Self::Recovered | Self::Failed),
            Self::Recovering => matches!(next, Self::Recovered | Self::Failed),
            Self::Recovered | Self::Failed | Self::Skipped => false,
        }
    }

    /// The word that is written into the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Injecting => "Injecting",
            Self::Injected => "Injected",
            Self::Reverting => "Reverting",
            Self::Recovering => "Recovering",
            Self::Recovered => "Recovered",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
        }
    }
}

/// An object as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// The object's API version.
    #[serde(default)]
    pub api_version: String,
    /// The object's kind.
    #[serde(default)]
    pub kind: String,
    /// The object's namespace; empty for cluster-scoped ones.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The object's name.
    #[serde(default)]
    pub name: String,
    /// The object's uid; empty for what has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl ObjectRef {
    /// `Pod db/etcd-0`, for messages.
    pub fn title(&self) -> String {
        let Self { api_version: _, kind, namespace, name, uid: _ } = self;
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
    }
}

/// A field that a fault changes; or only holds, where it is as the fault wants it already: then `before` and `after` are equal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// Where it is, as a JSON pointer (RFC 6901).
    pub path: String,
    /// What it was; absent: there was no such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What the fault makes of it; absent: the fault removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// An object that a fault makes. It carries the injection's uid in a label, by which it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeObject {
    /// What it is called. Its uid is not known beforehand.
    pub object: ObjectRef,
    /// The whole object as JSON, so that making it needs nothing else.
    pub manifest: Value,
}

/// A toxic of Toxiproxy, or a proxy that is switched off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToxicRef {
    /// The server's API.
    pub url: String,
    /// The proxy.
    pub proxy: String,
    /// The toxic as it is sent to the server; absent: the proxy is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toxic: Option<Value>,
}

/// What a helper does on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelperWork {
    /// The helper's pod: namespace and name.
    pub pod: ObjectRef,
    /// The node that it runs on.
    pub node: String,
    /// The container that it is about, as the runtime calls it (`containerd://…`).
    pub container_id: String,
    /// What it is told: words of its command line after the container and before the times.
    pub arguments: Vec<String>,
    /// It leaves nothing behind that would have to be undone.
    #[serde(default)]
    pub at_once: bool,
}

/// How a fault is undone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "PascalCase", rename_all_fields = "camelCase")]
pub enum Undo {
    /// There is nothing to undo: the target is deleted, and what owns it makes a new one.
    #[default]
    Nothing,
    /// Fields of the target get their old values back.
    Fields {
        /// The subresource that is written; empty for the object itself.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        subresource: String,
        /// The fields.
        fields: Vec<FieldChange>,
    },
    /// The target was deleted and is created again.
    Restore {
        /// As it is created, without what the server sets.
        manifest: Value,
    },
    /// An object that the fault makes is deleted.
    Made(MadeObject),
    /// A toxic is removed, or a proxy switched on again.
    Toxic(ToxicRef),
    /// A helper on the node undoes what it did.
    Helper(HelperWork),
}

/// How far one target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EntryState {
    /// Journaled: the effect may or may not be there.
    #[default]
    Planned,
    /// The effect was seen.
    Injected,
    /// Read back: the target is as it was.
    Reverted,
    /// Somebody else has changed the target since; what they made of it stays.
    Superseded,
    /// The target is gone, or another object has its name.
    Gone,
    /// It is certain that the effect never began.
    NeverBegan,
}

impl EntryState {
    /// Whether nothing of the fault is left on this target.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Reverted | Self::Superseded | Self::Gone | Self::NeverBegan)
    }
}

/// One target, and how it is undone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// What is hit.
    pub target: ObjectRef,
    /// How that is undone.
    #[schemars(schema_with = "anything")]
    pub undo: Undo,
    /// How far it is.
    #[serde(default)]
    pub state: EntryState,
    /// When the effect was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected_at: Option<DateTime<Utc>>,
    /// When it was seen undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted_at: Option<DateTime<Utc>>,
    /// What was seen last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The state of an injection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureInjectionStatus {
    /// The generation of the spec that the status speaks of; -1 before any.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,
    /// Where the injection is.
    #[serde(default)]
    pub phase: InjectionPhase,
    /// One stable word for why.
    #[serde(default)]
    pub reason: String,
    /// One sentence for people.
    #[serde(default)]
    pub message: String,
    /// `Ready`, `Injected`, `Recovered`.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The kind of fault, with the alternative's name where there was a choice, as in `scale (velero-down)`.
    #[serde(default)]
    pub fault: String,
    /// What is hit, in one line.
    #[serde(default)]
    pub target: String,
    /// What would be hit, found before anything is touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preview: Vec<ObjectRef>,
    /// Of so many that fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<u32>,
    /// What is hit and how it is undone; written before the first effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub journal: Vec<JournalEntry>,
    /// When the injection was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<DateTime<Utc>>,
    /// When the journal was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journaled_at: Option<DateTime<Utc>>,
    /// When the fault was there on all targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected_at: Option<DateTime<Utc>>,
    /// When undoing it begins at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// Since when it is being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverting_at: Option<DateTime<Utc>>,
    /// When it was seen undone on all targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted_at: Option<DateTime<Utc>>,
    /// When the system was healthy again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<DateTime<Utc>>,
    /// When the injection ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Seconds from the fault to the system's health, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_recover_seconds: Option<f64>,
    /// The same for people, such as `3.2s`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub time_to_recover: String,
    /// Why it ended otherwise than by its duration, as a reason word; decided once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ending: String,
    /// What made it fail, if something did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
}

impl Default for FailureInjectionStatus {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            phase: InjectionPhase::default(),
            reason: String::new(),
            message: String::new(),
            conditions: Vec::new(),
            fault: String::new(),
            target: String::new(),
            preview: Vec::new(),
            candidates: None,
            journal: Vec::new(),
            accepted_at: None,
            journaled_at: None,
            injected_at: None,
            deadline: None,
            reverting_at: None,
            reverted_at: None,
            recovered_at: None,
            finished_at: None,
            time_to_recover_seconds: None,
            time_to_recover: String::new(),
            ending: String::new(),
            failure: String::new(),
        }
    }
}
