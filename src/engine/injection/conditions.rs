//! The conditions of an injection: `Ready`, `Injected`, `Recovered`.

use crate::api::{
    Condition, ConditionStatus, condition,
    failureinjection::InjectionPhase,
    names::{condition_type, reason},
};

use super::Machine;

/// Sets all conditions, the generation, and reason and message where the phase itself says enough.
pub(super) fn describe(machine: &mut Machine<'_>) {
    use ConditionStatus::{False, True, Unknown};
    let generation = machine.injection.metadata.generation.unwrap_or(0);
    machine.status.observed_generation = generation;
    let phase = machine.status.phase;
    match phase {
        InjectionPhase::Pending if machine.status.reason.is_empty() => {
            machine.wait(reason::PENDING, "what it hits is looked for");
        }
        InjectionPhase::Injecting => machine.wait(reason::INJECTING, &last_word(machine)),
        InjectionPhase::Injected => {
            let until = machine.status.deadline.map_or_else(String::new, |at| format!("until {}", at.to_rfc3339()));
            machine.wait(reason::INJECTED, &until);
        }
        InjectionPhase::Reverting => machine.wait(reason::REVERTING, &last_word(machine)),
        _ => {}
    }
    let failed = phase == InjectionPhase::Failed;
    let began = machine.status.injected_at.is_some();
    let injected = match phase {
        InjectionPhase::Pending | InjectionPhase::Injecting => Unknown,
        // A wait for it must see that it was there, however short that was.
        _ if began => True,
        _ => False,
    };
    let recovered = match phase {
        InjectionPhase::Failed if machine.status.ending.is_empty() && began => False,
        // Nothing was touched, or all of it is undone: nothing has to recover.
        InjectionPhase::Recovered | InjectionPhase::Failed | InjectionPhase::Skipped => True,
        InjectionPhase::Pending => Unknown,
        _ => False,
    };
    let (reason, message) = (machine.status.reason.clone(), machine.status.message.clone());
    for (type_, status) in [
        (condition_type::READY, if failed { False } else { True }),
        (condition_type::INJECTED, injected),
        (condition_type::RECOVERED, recovered),
    ] {
        let new = Condition {
            type_: type_.into(),
            status,
            observed_generation: generation,
            last_transition_time: machine.now,
            reason: reason.clone(),
            message: message.clone(),
        };
        condition::set(&mut machine.status.conditions, new);
    }
}

/// What was seen last of the entries that are still open.
fn last_word(machine: &Machine<'_>) -> String {
    let open = machine.status.journal.iter().filter(|entry| !entry.state.is_final() && !entry.message.is_empty());
    open.map(|entry| format!("{}: {}", entry.target.title(), entry.message)).next().unwrap_or_default()
}
