//! Whose a failure is: built-in classes by reason, and the spec's own rules before them.

use std::sync::Arc;

use crate::api::{
    names::reason,
    soakrun::FailureRule,
    status::{Failure, FailureClass},
};

use super::{
    PlanError,
    expr::{Condition, Roots, Scope},
};

/// Reasons that tell of the harness, or of what it was not given.
const INFRASTRUCTURE: &[&str] = &[
    reason::INFRA_ERROR,
    reason::PERMISSION_DENIED,
    reason::TARGET_UNREACHABLE,
    "ImpersonationDenied",
    "ServiceAccountNotFound",
    "NamespaceTerminating",
    "PodSecurity",
    "StopTimeout",
    "NameTaken",
    "TooManyObjects",
    "InvalidExpression",
    "Lost",
];

/// Reasons of what was stopped by somebody: it tells nothing.
const STOPPED: [&str; 3] = [reason::ABORTED, reason::DELETED, reason::SPEC_CHANGED];

/// The spec's rules, in their order; the first that is true decides.
#[derive(Clone, Debug, Default)]
pub struct Rules(Arc<[(Condition, FailureClass)]>);

impl Rules {
    /// Parses the rules of a spec.
    pub(super) fn parse(rules: &[FailureRule]) -> Result<Self, PlanError> {
        let roots = Roots::new(["failure"]);
        let parsed: Result<Vec<_>, _> = rules
            .iter()
            .enumerate()
            .map(|(index, FailureRule { when, class })| {
                let condition = Condition::parse(when, &roots)
                    .map_err(|error| PlanError::expression(format!("spec.failureRules[{index}].when"), &error))?;
                Ok((condition, *class))
            })
            .collect();
        Ok(Self(parsed?.into()))
    }

    /// As [`classify`](Self::classify), unless the step that failed has said what its failure counts as.
    pub(super) fn classify_new(&self, failure: Option<&mut Failure>) {
        if let Some(failure) = failure.filter(|failure| failure.class.is_none()) {
            self.classify(failure);
        }
    }

    /// Sets what a failure counts as, and whether trying again may help: that is what a transient failure is.
    ///
    /// A rule that can't be evaluated does not hold. A built-in class other than `Transient` leaves
    /// [`Failure::transient`] as whoever saw the failure has set it.
    pub(super) fn classify(&self, failure: &mut Failure) {
        if STOPPED.contains(&failure.reason.as_str()) {
            return;
        }
        let mut scope = Scope::new();
        scope.set("failure", serde_json::to_value(&*failure).unwrap_or_default());
        let ruled = self.0.iter().find(|(when, _)| when.evaluate(&scope).unwrap_or(false));
        if let Some((_, class)) = ruled {
            failure.class = Some(*class);
            failure.transient = *class == FailureClass::Transient;
        } else {
            failure.class = Some(built_in(failure));
        }
    }
}

fn built_in(failure: &Failure) -> FailureClass {
    let word = failure.reason.as_str();
    if INFRASTRUCTURE.contains(&word) {
        FailureClass::Infrastructure
    } else if failure.transient {
        FailureClass::Transient
    } else if word == reason::TIMEOUT {
        FailureClass::Timeout
    } else {
        FailureClass::Assertion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(rules: &[(&str, FailureClass)], reason: &str, transient: bool) -> (Option<FailureClass>, bool) {
        let rules: Vec<FailureRule> =
            rules.iter().map(|(when, class)| FailureRule { when: (*when).into(), class: *class }).collect();
        let mut failure = Failure { reason: reason.into(), transient, exit_code: Some(3), ..Failure::default() };
        Rules::parse(&rules).unwrap().classify(&mut failure);
        (failure.class, failure.transient)
    }

    #[test]
    fn reasons_have_classes_of_their_own() {
        for (reason, transient, class) in [
            ("ServerUnavailable", true, FailureClass::Transient),
            ("Timeout", false, FailureClass::Timeout),
            ("NonZeroExit", false, FailureClass::Assertion),
            ("InfraError", false, FailureClass::Infrastructure),
            ("TargetUnreachable", true, FailureClass::Infrastructure),
        ] {
            assert_eq!(classified(&[], reason, transient), (Some(class), transient), "{reason}");
        }
    }

    #[test]
    fn the_first_rule_that_holds_decides_and_says_whether_trying_again_may_help() {
        let rules: &[(&str, FailureClass)] = &[
            ("failure.reason == 'Nothing'", FailureClass::Timeout),
            ("failure.exitCode == 3 && failure.reason == 'NonZeroExit'", FailureClass::Transient),
            ("failure.exitCode == 3", FailureClass::Assertion),
        ];
        assert_eq!(classified(rules, "NonZeroExit", false), (Some(FailureClass::Transient), true));
        assert_eq!(classified(rules, "ServerUnavailable", true), (Some(FailureClass::Assertion), false));
        assert_eq!(
            classified(&[("failure.missing == 1", FailureClass::Timeout)], "NonZeroExit", false),
            (Some(FailureClass::Assertion), false),
            "a rule that can't be evaluated does not hold"
        );
    }

    #[test]
    fn a_rule_that_is_no_condition_is_named() {
        let rules = [FailureRule { when: "1 + 1".into(), class: FailureClass::Timeout }];
        assert_eq!(Rules::parse(&rules).unwrap_err().path, "spec.failureRules[0].when");
    }
}
