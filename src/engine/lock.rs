//! The key that keeps runs from working at the same time: asked for before a run begins, given back at its end.
//!
//! A run has one key and holds nothing else while it waits, so no circle of runs can wait for each other.

use crate::api::status::{LockStatus, SoakRunStatus};

use super::{Context, Effect, LockSeen, NoteType, Plan};

/// Whether the run may begin: it needs no key, or holds it. Asks for the key if it does not.
pub(super) fn acquire(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) -> bool {
    let Some(key) = &plan.exclusive else { return true };
    let lock = status.lock.get_or_insert_with(|| LockStatus { key: key.clone(), ..LockStatus::default() });
    match &context.seen.lock {
        LockSeen::Held => {
            lock.held_since = lock.held_since.or(Some(context.now));
            lock.holder = None;
            return true;
        }
        LockSeen::HeldBy(holder) if lock.holder.as_ref() != Some(holder) => {
            lock.holder = Some(holder.clone());
            let message = format!("Waits for run {holder}, which holds the key {key}");
            context.note(NoteType::Normal, crate::api::names::reason::WAITING_FOR_KEY, message);
        }
        _ => {}
    }
    context.ask(Effect::AcquireLock(key.clone()));
    false
}

/// Asks for the key to be given back, until it is; true when there is nothing (more) to give back.
pub(super) fn release(status: &SoakRunStatus, context: &mut Context<'_>) -> bool {
    let Some(lock) = &status.lock else { return true };
    if context.seen.lock == LockSeen::Free {
        return true;
    }
    context.ask(Effect::ReleaseLock(lock.key.clone()));
    false
}
