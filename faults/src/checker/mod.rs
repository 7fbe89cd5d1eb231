//! The invariants of docs/architecture.md, judged over the two histories of a session. Nothing here uses the operator's code.

mod effects;
mod injections;
mod journal;
mod liveness;
mod pods;
mod records;
mod requests;
mod status;
mod undone;

use crate::{history::History, injections::Injection, workload::Run};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: &'static str,
    /// What was seen.
    pub text: String,
}

/// What the checker has to know of a session.
pub struct Facts<'a> {
    /// The scenario.
    pub scenario: &'static str,
    /// Whether each verdict must be the expected one.
    pub keeps_verdicts: bool,
    /// Whether watches may tell late or never what people do.
    pub loses_events: bool,
    /// The runs of the workload.
    pub expected: &'a [Run],
    /// The injections of the workload.
    pub injections: &'a [Injection],
}

/// Judges both histories.
pub fn check(history: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    requests::check(history, &mut found);
    pods::check(history, &mut found);
    status::check(history, &mut found);
    records::check(history, &mut found);
    liveness::check(history, facts, &mut found);
    injections::check(history, facts, &mut found);
    if !history.gaps {
        effects::check(history, &mut found);
        undone::check(history, facts, &mut found);
    }
    found
}

/// How many faults injections made.
pub fn injected(history: &History) -> usize {
    effects::all(history).iter().filter(|effect| effect.owner.is_some()).count()
}

fn violated(found: &mut Vec<Violation>, rule: &'static str, text: String) {
    found.push(Violation { rule, text });
}

#[cfg(test)]
mod sample;
