//! Records that wait for the object store. A record is counted once it is stored (S4); while the store is out, a ConfigMap
//! holds it as safely, up to a bound, and a run ends with a good verdict only after the store has them all.

use crate::api::{
    Condition, ConditionStatus,
    names::{condition_type, reason},
    status::{Pass, RecordRef, SoakRunStatus},
};

use super::{Context, Effect, NoteType, Plan, RecordSeen, text};

/// How the record of an ended pass is stored next: in the store, or in a ConfigMap if the store is known to be out and there
/// is room. Those that wait go first, so that the store is not tried by two.
pub(super) fn storing(plan: &Plan, failing: bool, status: &SoakRunStatus) -> Effect {
    let waiting = status.records.waiting.len();
    let room = plan.max_waiting.is_some_and(|most| waiting < most);
    if room && (failing || waiting > 0) { Effect::KeepRecord } else { Effect::StoreRecord }
}

/// Notes that the record of a pass waits.
pub(super) fn waits(pass: &Pass, status: &mut SoakRunStatus) {
    let record = RecordRef { section: pass.section, cycle: pass.cycle };
    if !status.records.waiting.contains(&record) {
        status.records.waiting.push(record);
    }
}

/// Takes off the list what the store has by now.
pub(super) fn arrived(status: &mut SoakRunStatus, context: &Context<'_>) {
    let done = &context.seen.forwarding.done;
    status.records.waiting.retain(|record| !done.contains(record));
}

/// Asks for what still waits, and tells when the first began to and when the last no longer does.
pub(super) fn forward(before: usize, status: &SoakRunStatus, context: &mut Context<'_>) {
    let waiting = &status.records.waiting;
    if before == 0 && !waiting.is_empty() {
        context.note(
            NoteType::Warning,
            reason::STORE_UNAVAILABLE,
            "The object store does not take records; they wait in ConfigMaps",
        );
    } else if before > 0 && waiting.is_empty() {
        context.note(NoteType::Normal, reason::STORED, "The object store has all records again");
    }
    if !waiting.is_empty() && !status.phase.is_final() {
        context.ask(Effect::ForwardRecords(waiting.clone()));
    }
}

/// Why the run waits for the store, if it does: nothing more may wait.
pub(super) fn is_paused(plan: &Plan, status: &SoakRunStatus) -> bool {
    plan.max_waiting.is_some_and(|most| !status.records.waiting.is_empty() && status.records.waiting.len() >= most)
}

/// The condition that tells whether the store has all records; none for runs without one.
pub(super) fn condition(plan: &Plan, status: &SoakRunStatus, context: &Context<'_>) -> Option<Condition> {
    let most = plan.max_waiting?;
    let waiting = status.records.waiting.len();
    let seen = context.seen;
    let refused = [&seen.record, &seen.summary].into_iter().find_map(|record| match record {
        RecordSeen::Failing { message } => Some(message),
        _ => None,
    });
    let failing = refused.or(seen.forwarding.failure.as_ref());
    let (status_, word, message) = if waiting == 0 && failing.is_none() {
        (ConditionStatus::True, reason::STORED, "the object store has every record so far".to_owned())
    } else {
        let why = failing.map_or_else(String::new, |message| format!(": {message}"));
        let message = format!("{waiting} records wait in ConfigMaps, of {most} at most{why}");
        (ConditionStatus::False, reason::STORE_UNAVAILABLE, message)
    };
    Some(Condition {
        type_: condition_type::RECORDS_STORED.into(),
        status: status_,
        observed_generation: status.observed_generation,
        last_transition_time: context.now,
        reason: word.into(),
        message: text::cut(&message, 1_024),
    })
}
