//! What the shell tells about an injection's outside, and what it is asked to do.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{api::failureinjection::JournalEntry, engine::Note};

/// The answer to [`InjectionEffect::Find`].
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// What is hit and how it is undone. The server would accept it, and no guard rail is against it.
    Targets {
        /// An entry for each target, in a stable order.
        journal: Vec<JournalEntry>,
        /// How many objects fitted, where they were chosen.
        candidates: Option<u32>,
    },
    /// Nothing fits the target.
    Nothing {
        /// What was looked for.
        message: String,
    },
    /// It can't begin now, but may later: the server is away, another injection holds a field, too many are active.
    NotYet {
        /// A reason word.
        reason: String,
        /// What is waited for.
        message: String,
    },
    /// It can't begin as it is: a guard rail, a missing right, a patch that the server refuses.
    Refused {
        /// A reason word.
        reason: String,
        /// What is wrong and what to do.
        message: String,
    },
}

/// What is known of one journal entry.
#[derive(Clone, Debug, PartialEq)]
pub enum EntrySeen {
    /// The effect is there.
    Injected {
        /// Since when.
        at: DateTime<Utc>,
        /// For people.
        message: String,
    },
    /// It is certain that the effect never began and never will.
    NeverBegan {
        /// A reason word.
        reason: String,
        /// What stood against it.
        message: String,
    },
    /// Something of it is there, but it will never work: it has to be undone.
    Broken {
        /// A reason word.
        reason: String,
        /// What was seen.
        message: String,
    },
    /// Read back: the target is as it was.
    Reverted {
        /// For people.
        message: String,
    },
    /// Somebody else has changed it since; what they made of it stays.
    Superseded {
        /// What they changed.
        message: String,
    },
    /// The target is gone.
    Gone {
        /// What was looked for.
        message: String,
    },
    /// The last try failed; it is made again.
    Failing {
        /// What the server said.
        message: String,
    },
}

/// Whether the system is healthy again.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Health {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// It is.
    Healthy {
        /// When that was seen.
        at: DateTime<Utc>,
    },
    /// It is not.
    NotYet {
        /// What is waited for.
        message: String,
    },
}

/// Everything that the shell knows about the outside of an injection.
#[derive(Clone, Debug, Default)]
pub struct InjectionSeen {
    /// What would be hit, if it was looked for.
    pub found: Option<Found>,
    /// What is known of journal entries, by their index.
    pub entries: BTreeMap<usize, EntrySeen>,
    /// Whether the system is healthy again.
    pub health: Health,
    /// Why it lets another injection go first although its own journal is stored: that one's was stored before, and both want
    /// the same field. Told only while nothing of this journal was ever tried.
    pub yields: Option<String>,
    /// Why nothing may begin and everything is undone: the kill switch.
    pub halted: Option<String>,
}

/// Something to be done, after the status that asks for it is stored.
///
/// Each is asked for again with every decision until the observations show it done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionEffect {
    /// Put the finalizer on.
    AddFinalizer,
    /// Take the finalizer off.
    RemoveFinalizer,
    /// Find out what would be hit and how it is undone, without touching anything.
    Find,
    /// Make the fault on the target of this journal entry, unless it is there already or must not be made any more.
    Inject(usize),
    /// Undo it, and read back.
    Revert(usize),
    /// Find out whether the system is healthy.
    Look,
    /// Tell people.
    Notify(Note),
    /// Delete the injection: its time to live is over.
    Delete,
}
