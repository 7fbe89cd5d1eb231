//! `sleep`: a length of time.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Beginning, StepSpec};
use crate::api::Duration;

/// Waits for a length of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct SleepStep {
    /// How long.
    pub duration: Duration,
}

impl StepSpec for SleepStep {
    const BEGINNING: Beginning = Beginning::Looks;

    fn templates(&self) -> Value {
        Value::Null
    }
}
