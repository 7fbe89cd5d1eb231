//! What a run must show to pass.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the run must show to pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Criteria {
    /// Smallest share of cycles that must pass, as a decimal such as `"0.95"`. Absent: every cycle must pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub min_success_rate: Option<String>,
    /// Confidence of the Wilson interval that the rate is judged by, such as `"0.95"`. Absent: the rate itself is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12), regex(pattern = r"^0\.[0-9]*[1-9][0-9]*$"))]
    pub confidence: Option<String>,
    /// Whether the run ends as soon as its verdict is known (default `Never`).
    #[serde(default, skip_serializing_if = "EarlyStop::is_never")]
    pub early_stop: EarlyStop,
}

/// Whether a run ends as soon as its verdict is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EarlyStop {
    /// All cycles and the whole time are used.
    #[default]
    Never,
    /// It ends when the cycles that are left can't change the verdict. A `minSuccessRate` needs `cycles` for it.
    WhenSettled,
    /// The rate is judged after each cycle by an interval that holds at every look, and the first answer ends the run. Needs
    /// `minSuccessRate` and `confidence`.
    Sequential,
}

impl EarlyStop {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    const fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}
