//! Each injection alone, and against its neighbours: declared edges and a still end (S2), no field held twice (S8), no begin
//! after its time (S9), and an end that comes (L1, L3).

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    history::{History, Version},
    names::text,
    user::injection_has_ended,
};

use super::{
    Facts, Violation,
    journal::{Injection, entries, has_journal, is_deleting, is_final, phase},
    violated,
};

/// How much later than it should a journal may tell that it was written.
const SLACK: TimeDelta = TimeDelta::milliseconds(500);

pub(super) fn check(history: &History, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let all = Injection::all(history);
    for injection in &all {
        for pair in injection.0.windows(2) {
            if !history.gaps {
                edge(pair[0], pair[1], found);
            }
        }
        // Whoever is not told of an injection in time begins it when it hears of it.
        if !facts.loses_events {
            begins_in_time(injection, found);
        }
        ends(injection, facts, found);
    }
    for expected in facts.injections {
        if !all.iter().any(|injection| injection.name() == expected.name) {
            violated(found, "L1", format!("injection {} was never seen", expected.name));
        }
    }
    if !history.gaps {
        shared_fields(&all, found);
    }
}

fn edge(before: &Version, after: &Version, found: &mut Vec<Violation>) {
    let (from, to) = (phase(before), phase(after));
    let declared = from == to
        || match from {
            "Pending" => matches!(to, "Injecting" | "Failed" | "Skipped"),
            // Back to pending: somebody else came first, and nothing was touched.
            "Injecting" => matches!(to, "Injected" | "Reverting" | "Pending"),
            "Injected" => to == "Reverting",
            "Reverting" => matches!(to, "Recovering" | "Recovered" | "Failed"),
            "Recovering" => matches!(to, "Recovered" | "Failed"),
            _ => false,
        };
    // One write may go through several phases; each journal is stored before anything is touched.
    let passed = matches!((from, to), ("Injecting" | "Injected", "Recovering" | "Recovered" | "Failed"));
    if !declared && !passed {
        violated(found, "S2", format!("injection {} went from {from} to {to}", after.name()));
    }
    if is_final(from) && before.object["status"] != after.object["status"] {
        violated(found, "S2", format!("the ended injection {} changed at revision {}", after.name(), after.revision()));
    }
}

/// S9: the journal is written before the starting deadline, which counts from the creation of what was late already then.
fn begins_in_time(injection: &Injection<'_>, found: &mut Vec<Violation>) {
    let Some(version) = injection.first(has_journal) else { return };
    let (spec, status) = (&version.object["spec"], &version.object["status"]);
    let time = |value: &serde_json::Value| text(value).parse::<DateTime<Utc>>().ok();
    let (Some(start), Some(journaled)) = (time(&spec["startAt"]), time(&status["journaledAt"])) else { return };
    let start = time(&version.object["metadata"]["creationTimestamp"]).map_or(start, |created| start.max(created));
    let deadline = text(&spec["startingDeadline"]).trim_end_matches('s').parse().unwrap_or(300);
    if journaled < start || journaled > start + TimeDelta::seconds(deadline) + SLACK {
        violated(found, "S9", format!("injection {} began at {journaled} instead of {start}", injection.name()));
    }
}

fn ends(injection: &Injection<'_>, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let Some(last) = injection.0.last() else { return };
    let (name, status) = (injection.name(), &last.object["status"]);
    let told = format!("{}: {} {}", phase(last), text(&status["reason"]), text(&status["message"]));
    if !injection_has_ended(last) {
        let rule = if is_deleting(last) { "L3" } else { "L1" };
        return violated(found, rule, format!("injection {name} did not come to its end: {told}"));
    }
    let expected = facts.injections.iter().find(|it| it.name == name);
    if let Some(expected) = expected.filter(|_| facts.keeps_verdicts) {
        let good = if expected.expected.is_empty() { last.gone } else { expected.expected.contains(&phase(last)) };
        if !good {
            violated(
                found,
                "verdict",
                format!("injection {name} ended otherwise than as {:?}: {told}", expected.expected),
            );
        }
    }
}

/// What one injection holds, from the revision of its journal to that at which it was over.
struct Hold<'a> {
    injection: &'a str,
    part: (String, String),
    from: u64,
    to: u64,
}

/// S8.
fn shared_fields(all: &[Injection<'_>], found: &mut Vec<Violation>) {
    let mut holds: Vec<Hold<'_>> = Vec::new();
    for injection in all {
        // A journal from which it stepped back before touching anything held nothing.
        let Some(from) = injection.last_journaled().map(Version::revision) else { continue };
        for (index, entry) in injection.journal().into_iter().enumerate() {
            let over = injection.first(|version| {
                version.revision() > from && (version.gone || entries(version).get(index).is_none_or(|it| it.is_over()))
            });
            let to = over.map_or(u64::MAX, Version::revision);
            holds.extend(entry.held().into_iter().map(|part| Hold { injection: injection.name(), part, from, to }));
        }
    }
    for (index, one) in holds.iter().enumerate() {
        for other in &holds[..index] {
            let meet = one.part.0 == other.part.0
                && (one.part.1 == other.part.1 || one.part.1.is_empty() || other.part.1.is_empty());
            if one.injection != other.injection && meet && one.from < other.to && other.from < one.to {
                let text = format!("{} and {} held {} at the same time", other.injection, one.injection, one.part.1);
                violated(found, "S8", text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::sample, *};

    fn judge(versions: Vec<Version>, keeps_verdicts: bool) -> Vec<&'static str> {
        let facts = Facts { keeps_verdicts, ..sample::facts() };
        let mut found = Vec::new();
        check(&History { versions, ..History::default() }, &facts, &mut found);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    fn ended(revision: u64, name: &str, more: &Value) -> Version {
        let mut version = sample::injection(revision, name, "Recovered", "Reverted");
        version.object["metadata"]["finalizers"] = json!([]);
        for (field, value) in more.as_object().into_iter().flatten() {
            version.object["status"][field] = value.clone();
        }
        version
    }

    #[test]
    fn an_injection_follows_declared_edges_and_stays_ended() {
        let at = |revision, phase, state| sample::injection(revision, "i", phase, state);
        let good = vec![
            at(1, "Injecting", "Planned"),
            at(2, "Injected", "Injected"),
            at(3, "Reverting", "Injected"),
            ended(4, "i", &json!({})),
        ];
        assert!(judge(good.clone(), true).is_empty());
        assert_eq!(
            judge(vec![at(1, "Injected", "Injected"), at(2, "Pending", "Planned"), ended(3, "i", &json!({}))], true),
            ["S2", "S2"]
        );
        assert_eq!(judge([good.clone(), vec![ended(5, "i", &json!({"message": "new"}))]].concat(), true), ["S2"]);
        assert_eq!(judge(good[..3].to_vec(), true), ["L1"]);
    }

    #[test]
    fn two_injections_hold_one_field_one_after_the_other() {
        let first = [sample::injection(1, "a", "Injecting", "Planned"), ended(5, "a", &json!({}))];
        let second = |from| [sample::injection(from, "b", "Injecting", "Planned"), ended(from + 4, "b", &json!({}))];
        assert!(judge([first.clone(), second(6)].concat(), true).is_empty());
        assert_eq!(judge([first, second(3)].concat(), true), ["S8"]);
    }

    #[test]
    fn a_begin_has_its_time() {
        let at = |journaled: &str| {
            let mut version = ended(1, "i", &json!({"journaledAt": journaled}));
            version.object["spec"] = json!({"startAt": "2026-01-01T00:00:10Z", "startingDeadline": "1s"});
            judge(vec![version], true)
        };
        assert!(at("2026-01-01T00:00:10.900Z").is_empty());
        assert_eq!(at("2026-01-01T00:00:09Z"), ["S9"]);
        assert_eq!(at("2026-01-01T00:00:13Z"), ["S9"]);
        let mut late = ended(1, "i", &json!({"journaledAt": "2026-01-01T00:00:13Z"}));
        late.object["spec"] = json!({"startAt": "2026-01-01T00:00:10Z", "startingDeadline": "1s"});
        late.object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:12Z");
        assert!(judge(vec![late], true).is_empty(), "it was made after its time");
    }
}
