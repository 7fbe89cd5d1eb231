//! Which target a step works on, when roles swap, and what the status tells of each target.

use std::collections::BTreeMap;

use crate::api::{
    names::reason,
    status::{Outcome, SoakRunStatus, TargetStatus},
    target::Rotate,
};

use super::{Context, NoteType, Plan, monitor, plan::Leaf, text};

/// The target of a step under an assignment of roles; none for the cluster that the operator runs in.
pub(super) fn resolve(leaf: &Leaf, roles: &BTreeMap<String, String>) -> Option<String> {
    leaf.action.target().map(|name| named(name, roles))
}

/// The target that a name, of a role or of the target itself, means under an assignment of roles.
pub(super) fn named(name: &str, roles: &BTreeMap<String, String>) -> String {
    roles.get(name).cloned().unwrap_or_else(|| name.to_owned())
}

/// Swaps the roles for a cycle that is being counted.
///
/// It is part of the very write that counts the cycle, so it happens once for each, whatever crashes.
pub(super) fn rotate(plan: &Plan, outcome: Outcome, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let swaps = match plan.targets.rotate {
        Rotate::Never => false,
        Rotate::AfterSuccess => outcome == Outcome::Succeeded,
        Rotate::AfterEveryCycle => outcome != Outcome::Inconclusive,
    };
    if !swaps {
        return;
    }
    swap(&mut status.roles);
    status.role_swaps += 1;
    monitor::leave(plan, status, context);
    // Said in the same words each time, so that a long run's events are one series.
    context.note(NoteType::Normal, "RolesSwapped", "The roles of the two targets have swapped");
}

/// Swaps the targets of two roles; any other number of roles stays as it is.
fn swap(roles: &mut BTreeMap<String, String>) {
    let mut players = roles.values_mut();
    if let (Some(one), Some(two), None) = (players.next(), players.next(), players.next()) {
        std::mem::swap(one, two);
    }
}

/// Takes in what is known of the targets. A latency alone is no news: it would cost a write with each look.
pub(super) fn observe(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let known = |name: &str| plan.targets.targets.iter().any(|target| target.name == name);
    status.targets.retain(|target| known(&target.name));
    for target in &plan.targets.targets {
        let Some(seen) = context.seen.targets.get(&target.name) else { continue };
        // After a restart what the status says stays until more is known.
        if seen.reason == reason::CONNECTING && status.targets.iter().any(|old| old.name == target.name) {
            continue;
        }
        let new = TargetStatus {
            name: target.name.clone(),
            reachable: seen.reachable,
            reason: text::cut(&seen.reason, text::REASON),
            message: text::cut(&seen.message, text::MESSAGE),
            version: seen.version.clone().map(|version| text::cut(&version, text::REASON)),
            latency_millis: seen.latency_millis,
            last_transition_time: Some(context.now),
        };
        let Some(old) = status.targets.iter_mut().find(|old| old.name == target.name) else {
            status.targets.push(new);
            continue;
        };
        let same = (old.reachable, &old.reason) == (new.reachable, &new.reason)
            && (new.version.is_none() || old.version == new.version);
        if same {
            continue;
        }
        let turned = old.reachable != new.reachable;
        *old = TargetStatus {
            last_transition_time: if turned { new.last_transition_time } else { old.last_transition_time },
            version: new.version.or(old.version.take()),
            ..new
        };
        if turned && old.reachable {
            context.note(NoteType::Normal, "TargetReachable", format!("target {} answers", target.name));
        } else if turned {
            let message = format!("target {} can't be used: {}", target.name, seen.message);
            context.note(NoteType::Warning, "TargetUnreachable", message);
        }
    }
}
