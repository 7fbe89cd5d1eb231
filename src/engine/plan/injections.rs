//! Injections of a run: steps beside the sequence of the phase that they name.

use crate::api::{Duration, StepBody, soakrun::RunInjection, step::InjectStep};

use super::{Gate, PhasePlan, PlanError, Stage, decimal, leaf, references::Names};

/// Adds each injection to its phase. It sees what the whole run has handed on so far, as far as it may be missing.
///
/// Errors: there is no such phase, or a step of it has the injection's name.
pub(super) fn add(injections: &[RunInjection], phases: &mut [PhasePlan], names: &Names<'_>) -> Result<(), PlanError> {
    for (index, injection) in injections.iter().enumerate() {
        let RunInjection { name, at_phase, offset, every, probability, target, template } = injection;
        let path = format!("spec.injections[{index}]");
        let known = phases.iter().map(|phase| phase.name.as_str()).collect::<Vec<_>>().join(", ");
        let phase = phases.iter_mut().find(|phase| phase.name == *at_phase).ok_or_else(|| {
            PlanError::new(format!("{path}.atPhase"), format!("there is no phase {at_phase} (there are {known})"))
        })?;
        if phase.leaves.iter().any(|leaf| leaf.path == *name) {
            return Err(PlanError::new(
                format!("{path}.name"),
                format!("a step of phase {at_phase} is called {name} already"),
            ));
        }
        let inject = InjectStep { target: target.clone(), template: template.clone() };
        let body = StepBody { inject: Some(Box::new(inject)), ..StepBody::default() };
        let probability = decimal(probability.as_deref(), &format!("{path}.probability"))?.unwrap_or(1.0);
        let gate = Gate { every: every.unwrap_or(1), probability, offset: offset.unwrap_or(Duration::ZERO) };
        let mut leaf = leaf::leaf(name.clone(), true, &body, &path, names)?;
        leaf.gate = Some(gate);
        let at = phase.leaves.len();
        phase.leaves.push(leaf);
        phase.stages.insert(0, Stage { leaves: at..at + 1, background: true, beside: true });
    }
    Ok(())
}
