//! `sleep`: a length of time, which the engine keeps itself.

use super::{
    StepKind,
    context::{Begun, StepContext},
};
use crate::{api::step::SleepStep, engine::seen::StepSeen};

impl StepKind for SleepStep {
    async fn begin(&self, _ctx: &StepContext<'_>) -> Begun {
        Begun::seen(StepSeen::Unknown)
    }
}
