//! What a bench has found: named figures, and the goals that were missed.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Figures in the order in which they were found.
#[derive(Debug, Default)]
pub struct Figures {
    values: Map<String, Value>,
    missed: Vec<String>,
}

impl Figures {
    /// Figures of a bench.
    pub fn of(bench: &str) -> Self {
        let mut this = Self::default();
        this.values.insert("bench".into(), bench.into());
        this
    }

    /// Notes a figure that has no goal.
    pub fn tell(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        eprintln!("  {name}: {value}");
        self.values.insert(name.into(), value);
    }

    /// Notes a figure that should be at most `goal`.
    pub fn at_most(&mut self, name: &str, value: f64, goal: f64) {
        self.judged(name, value, value <= goal, &format!("at most {goal}"));
    }

    /// Notes a figure that should be at least `goal`.
    pub fn at_least(&mut self, name: &str, value: f64, goal: f64) {
        self.judged(name, value, value >= goal, &format!("at least {goal}"));
    }

    fn judged(&mut self, name: &str, value: f64, good: bool, goal: &str) {
        let value = rounded(value);
        eprintln!("  {name}: {value} (goal: {goal}){}", if good { "" } else { " MISSED" });
        self.values.insert(name.into(), json!(value));
        if !good {
            self.missed.push(format!("{name} is {value}, the goal is {goal}"));
        }
    }

    /// The line for stdout.
    pub fn into_line(self) -> String {
        let mut values = self.values;
        values.insert("missed".into(), json!(self.missed));
        Value::Object(values).to_string()
    }
}

/// Three significant decimals are more than a measurement holds.
pub fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// The value below which the share `p` of the durations lies.
pub fn percentile(durations: &mut [Duration], p: f64) -> Duration {
    durations.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((durations.len() as f64 * p).ceil() as usize).clamp(1, durations.len().max(1)) - 1;
    durations.get(index).copied().unwrap_or_default()
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
pub fn number(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_told_and_a_met_one_is_not() {
        let mut figures = Figures::of("x");
        figures.at_most("ratio", 1.2, 1.05);
        figures.at_least("rate", 2.0, 1.0);
        let line: Value = serde_json::from_str(&figures.into_line()).unwrap();
        assert_eq!(line["ratio"], 1.2);
        assert_eq!(line["missed"], json!(["ratio is 1.2, the goal is at most 1.05"]));
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut durations: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut durations, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&mut durations, 1.0), Duration::from_millis(100));
        assert_eq!(percentile(&mut [], 0.5), Duration::ZERO);
    }
}
