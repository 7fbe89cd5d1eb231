//! Conditions as Kubernetes defines them, with a generation each.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It can't be told yet.
    Unknown,
}

/// One aspect of an object's state, in the shape of `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The aspect, for example `Succeeded`.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub type_: String,
    /// Whether it holds: `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// The generation of the spec that this was found for; -1 before any.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,
    /// When the status last changed.
    pub last_transition_time: DateTime<Utc>,
    /// One stable word for programs.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// One sentence for people.
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// The generation of a status that has seen no spec yet.
pub const fn unobserved() -> i64 {
    -1
}

/// Sets the condition of that type; the transition time moves only when the status does.
pub fn set(conditions: &mut Vec<Condition>, new: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) if old.status == new.status => {
            *old = Condition { last_transition_time: old.last_transition_time, ..new };
        }
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// Finds the condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: ConditionStatus, seconds: i64) -> Condition {
        Condition {
            type_: "Succeeded".into(),
            status,
            observed_generation: 1,
            last_transition_time: DateTime::from_timestamp(seconds, 0).unwrap(),
            reason: "Running".into(),
            message: format!("at {seconds}"),
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, condition(ConditionStatus::Unknown, 1));
        set(&mut conditions, condition(ConditionStatus::Unknown, 2));
        assert_eq!(conditions[0].last_transition_time.timestamp(), 1);
        assert_eq!(conditions[0].message, "at 2");
        set(&mut conditions, condition(ConditionStatus::True, 3));
        assert_eq!(conditions[0].last_transition_time.timestamp(), 3);
        assert_eq!(conditions.len(), 1);
    }
}
