//! Injections as the independent watch saw them: what each said at which revision.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    history::{History, Version},
    names::text,
};

/// The operator's finalizer.
pub(super) const FINALIZER: &str = "soak.dev/cleanup";

/// All versions of one injection, in order.
pub(super) struct Injection<'a>(pub(super) Vec<&'a Version>);

/// An entry of a journal.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a>(pub(super) &'a Value);

impl<'a> Entry<'a> {
    pub(super) fn uid(self) -> &'a str {
        text(&self.0["target"]["uid"])
    }

    pub(super) fn undo(self) -> &'a str {
        text(&self.0["undo"]["type"])
    }

    pub(super) fn state(self) -> &'a str {
        text(&self.0["state"])
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self.state(), "Reverted" | "Superseded" | "Gone" | "NeverBegan")
    }

    /// The fields that it changes.
    pub(super) fn changes(self) -> impl Iterator<Item = (&'a str, Option<&'a Value>, Option<&'a Value>)> {
        self.fields().filter(|(_, before, after)| before != after)
    }

    /// The fields that it holds: path, value before, value of the fault.
    pub(super) fn fields(self) -> impl Iterator<Item = (&'a str, Option<&'a Value>, Option<&'a Value>)> {
        let fields = self.0["undo"]["fields"].as_array().into_iter().flatten();
        fields.map(|field| (text(&field["path"]), field.get("before"), field.get("after")))
    }

    /// Which part of the world it holds while it is not over.
    pub(super) fn held(self) -> Vec<(String, String)> {
        let undo = &self.0["undo"];
        match self.undo() {
            "Fields" => self.fields().map(|(path, ..)| (self.uid().to_owned(), path.to_owned())).collect(),
            "Toxic" => vec![(text(&undo["proxy"]).to_owned(), undo["toxic"]["type"].to_string())],
            "Restore" => vec![(self.uid().to_owned(), String::new())],
            _ => Vec::new(),
        }
    }
}

impl<'a> Injection<'a> {
    /// Every injection that was there.
    pub(super) fn all(history: &'a History) -> Vec<Self> {
        history.objects("failureinjections").into_iter().map(Self).collect()
    }

    pub(super) fn name(&self) -> &'a str {
        self.0.first().map_or("", |version| version.name())
    }

    pub(super) fn uid(&self) -> &'a str {
        self.0.first().map_or("", |version| version.uid())
    }

    /// What was stored right before a revision.
    pub(super) fn before(&self, revision: u64) -> Option<&'a Version> {
        self.0.iter().rev().find(|version| version.revision() < revision).copied()
    }

    /// The first version for which something holds.
    pub(super) fn first(&self, holds: impl Fn(&Version) -> bool) -> Option<&'a Version> {
        self.0.iter().find(|version| holds(version)).copied()
    }

    /// The version with which its journal was stored, for the last time if it stepped back before.
    pub(super) fn last_journaled(&self) -> Option<&'a Version> {
        let stored = |index: &usize| {
            let before = index.checked_sub(1).and_then(|before| self.0.get(before));
            self.0.get(*index).is_some_and(|it| has_journal(it)) && before.is_none_or(|it| !has_journal(it))
        };
        (0..self.0.len()).rev().find(stored).and_then(|index| self.0.get(index).copied())
    }

    /// The journal as it was stored then, whatever became of it.
    pub(super) fn journal(&self) -> Vec<Entry<'a>> {
        self.last_journaled().map(entries).unwrap_or_default()
    }
}

/// The entries of a version's journal.
pub(super) fn entries(version: &Version) -> Vec<Entry<'_>> {
    version.object["status"]["journal"].as_array().into_iter().flatten().map(Entry).collect()
}

pub(super) fn has_journal(version: &Version) -> bool {
    version.object["status"]["journal"].as_array().is_some_and(|entries| !entries.is_empty())
}

pub(super) fn phase(version: &Version) -> &str {
    match text(&version.object["status"]["phase"]) {
        "" => "Pending",
        phase => phase,
    }
}

pub(super) fn is_final(phase: &str) -> bool {
    matches!(phase, "Recovered" | "Failed" | "Skipped")
}

pub(super) fn has_finalizer(version: &Version) -> bool {
    version.object["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|it| it == FINALIZER))
}

pub(super) fn is_deleting(version: &Version) -> bool {
    version.object["metadata"]["deletionTimestamp"].is_string()
}

/// A time in a status, in milliseconds since the session began.
pub(super) fn time(history: &History, value: &Value) -> Option<u128> {
    let at: DateTime<Utc> = text(value).parse().ok()?;
    Some(u128::try_from((at - history.began?).num_milliseconds()).unwrap_or(0))
}
