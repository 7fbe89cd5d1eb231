//! From what a source told to samples and held conditions: pure, so that the shell only fetches.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{MonitorPlan, text};
use crate::{analysis::Series, engine::expr::Scope};

/// Subjects (objects, pods, series) that a monitor judges at most.
pub const MAX_SUBJECTS: usize = 200;
/// Buckets that are kept between two records.
const BUCKETS: usize = 256;
/// Longest name of a subject, in bytes.
const SUBJECT: usize = 96;
/// Longest cause, in bytes.
const CAUSE: usize = 160;
/// Conditions that are told as held at a time; more are not told apart by anybody.
const MAX_HELD: usize = 64;

/// One thing that is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Its name, empty when there is only one.
    pub name: String,
    /// What the source gives as its sample where the spec says nothing.
    pub sample: Option<f64>,
    /// The value of the monitor's variable.
    pub value: Value,
}

impl Subject {
    /// The subject as one of that target: the same name on another cluster is another subject, whose alerts have their own times.
    #[must_use]
    pub fn on(mut self, target: &str) -> Self {
        if !target.is_empty() {
            self.name = format!("{target}/{}", self.name);
        }
        self
    }
}

/// A subject that was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// Its sample.
    pub sample: Option<f64>,
    /// Rules that hold, by their position, with what was seen.
    pub holds: Vec<(usize, String)>,
}

/// Why a monitor can't see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// Judges subjects by the rules of a monitor. `scope` has `run` and `params`.
///
/// A condition on what an object does not have (yet) does not hold. Errors: too many subjects, an expression that fails.
pub fn judge(plan: &MonitorPlan, scope: &Scope, subjects: Vec<Subject>) -> Result<Vec<Judged>, Broken> {
    if subjects.len() > MAX_SUBJECTS {
        return Err(Broken(format!(
            "{} subjects, at most {MAX_SUBJECTS} are judged: choose fewer by labels or the query",
            subjects.len()
        )));
    }
    subjects.into_iter().map(|subject| one(plan, scope, subject)).collect()
}

fn one(plan: &MonitorPlan, scope: &Scope, subject: Subject) -> Result<Judged, Broken> {
    let Subject { name, sample, value } = subject;
    let mut scope = scope.clone().with(plan.source.subject(), value);
    scope.set("value", sample.map_or(Value::Null, Value::from));
    let sample = match &plan.value {
        None => sample,
        Some(expression) => match expression.evaluate(&scope) {
            Ok(Value::Bool(holds)) => Some(f64::from(u8::from(holds))),
            Ok(Value::Null) => None,
            // Quantities come as text.
            Ok(value) => match value.as_f64().or_else(|| value.as_str()?.parse().ok()) {
                Some(number) => Some(number),
                None => {
                    return Err(Broken(format!("value: expected a number, got {}", text::cut(&value.to_string(), 64))));
                }
            },
            Err(error) if error.is_missing() => None,
            Err(error) => return Err(Broken(format!("value: {error}"))),
        },
    };
    scope.set("value", sample.map_or(Value::Null, Value::from));
    let mut holds = Vec::new();
    for (index, rule) in plan.rules.iter().enumerate() {
        let Some(when) = &rule.when else { continue };
        match when.evaluate(&scope) {
            Ok(true) => {
                let seen = sample.map_or_else(String::new, |sample| format!("value {sample}: "));
                holds.push((index, text::cut(&format!("{seen}{}", when.source()), CAUSE)));
            }
            Ok(false) => {}
            Err(error) if error.is_missing() => {}
            // Without a sample there is nothing to compare.
            Err(_) if sample.is_none() && when.references().any(|it| it.root == "value") => {}
            Err(error) => return Err(Broken(format!("alert {}: {error}", rule.name))),
        }
    }
    Ok(Judged { name: text::cut(&name, SUBJECT), sample, holds })
}

/// A condition that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Since when, as far as this process knows.
    pub since: DateTime<Utc>,
    /// What was seen.
    pub cause: String,
}

/// What is known of a monitor at present.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitorSeen {
    /// Since when this process watches it.
    pub watched_since: DateTime<Utc>,
    /// Since when it can't see, and why; what holds is then what was seen last.
    pub broken: Option<(DateTime<Utc>, String)>,
    /// Held conditions by position of the rule and name of the subject.
    pub holding: BTreeMap<(usize, String), Holding>,
    /// Samples that are not yet in the status.
    pub series: Series,
}

impl MonitorSeen {
    /// Nothing was seen yet. Samples are taken every `interval`.
    pub fn new(plan: &MonitorPlan, now: DateTime<Utc>) -> Self {
        let width = u64::try_from(plan.interval.as_chrono().num_milliseconds()).unwrap_or(1);
        Self { watched_since: now, broken: None, holding: BTreeMap::new(), series: Series::new(BUCKETS, width) }
    }

    /// Takes in a look. `sampled` says whether its samples belong into the series, as they were taken in step; what begins to hold
    /// belongs there too, so that the series shows what an alert was about. True when an alert may have changed.
    pub fn take_in(&mut self, now: DateTime<Utc>, look: Result<Vec<Judged>, Broken>, sampled: bool) -> bool {
        let judged = match look {
            Err(Broken(why)) => {
                let news = self.broken.is_none();
                let since = self.broken.as_ref().map_or(now, |(since, _)| *since);
                self.broken = Some((since, text::cut(&why, CAUSE)));
                return news;
            }
            Ok(judged) => judged,
        };
        let mut news = self.broken.take().is_some();
        let mut holding = BTreeMap::new();
        for Judged { name, sample, holds } in judged {
            let begins = holds.iter().any(|(rule, _)| !self.holding.contains_key(&(*rule, name.clone())));
            if let (Some(sample), true) = (sample, sampled || begins) {
                self.series.record(now.timestamp_millis(), sample);
            }
            for (rule, cause) in holds {
                let key = (rule, name.clone());
                let before = self.holding.get(&key);
                if before.is_none() && holding.len() >= MAX_HELD {
                    continue;
                }
                let since = before.map_or(now, |before| before.since);
                news |= before.is_none();
                holding.insert(key, Holding { since, cause });
            }
        }
        news |= holding.len() != self.holding.len();
        self.holding = holding;
        news
    }
}
