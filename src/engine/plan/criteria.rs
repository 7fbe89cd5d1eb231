//! What the run must show, parsed.

use crate::api::criteria::{Criteria, EarlyStop};

use super::{PlanError, decimal};

/// What the run must show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CriteriaPlan {
    /// Smallest share of passed cycles; none: all.
    pub min_success_rate: Option<f64>,
    /// Confidence of the interval; none: the rate is compared as it is.
    pub confidence: Option<f64>,
    /// Whether the run ends once its verdict is known.
    pub early_stop: EarlyStop,
}

impl CriteriaPlan {
    pub(super) fn parse(criteria: &Criteria, cycles: Option<u32>) -> Result<Self, PlanError> {
        let Criteria { min_success_rate, confidence, early_stop } = criteria;
        let parsed = Self {
            min_success_rate: decimal(min_success_rate.as_deref(), "spec.criteria.minSuccessRate")?,
            confidence: decimal(confidence.as_deref(), "spec.criteria.confidence")?,
            early_stop: *early_stop,
        };
        let rate = parsed.min_success_rate.is_some();
        let missing = match early_stop {
            EarlyStop::Sequential if !rate => Some("spec.criteria.minSuccessRate, the rate that is looked for"),
            EarlyStop::Sequential if parsed.confidence.is_none() => Some("spec.criteria.confidence"),
            EarlyStop::WhenSettled if rate && cycles.is_none() => {
                Some("spec.cycles: without it nothing tells how many are left")
            }
            _ => None,
        };
        match missing {
            Some(missing) => Err(PlanError::new("spec.criteria.earlyStop", format!("{early_stop:?} needs {missing}"))),
            None => Ok(parsed),
        }
    }
}
