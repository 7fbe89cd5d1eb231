//! What commands print.

use crate::{
    api::status::Outcome,
    report::{ChangeVerdict, ComparisonReport, RunRecords, TrendChange, TrendReport, words},
};

use super::table::table;

/// A comparison as a table, and what follows from it in a sentence.
pub(super) fn comparison(rows: &[ComparisonReport]) -> String {
    if rows.is_empty() {
        return "No metrics to compare.\n".to_owned();
    }
    let none = || "-".to_owned();
    let cells = |row: &ComparisonReport| {
        let value = |value: Option<f64>| value.map_or_else(none, |value| words::value(value, &row.unit));
        let relative = row.relative.map(|share| format!(" ({})", words::signed_percent(share))).unwrap_or_default();
        vec![
            row.name.clone(),
            value(row.before),
            value(row.after),
            row.shift.map_or_else(none, |shift| format!("{}{relative}", words::signed(shift.value, &row.unit))),
            row.shift.map_or_else(none, |shift| words::interval(&shift, &row.unit)),
            row.superiority.map_or_else(none, |it| format!("{it:.2}")),
            row.adjusted.map_or_else(none, words::p_value),
            words::change(row).to_owned(),
        ]
    };
    let body: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let header = ["METRIC", "BEFORE", "AFTER", "SHIFT", "INTERVAL (95 %)", "A12", "ADJUSTED P", "VERDICT"];
    let count = |verdicts: &[ChangeVerdict]| rows.iter().filter(|row| verdicts.contains(&row.verdict)).count();
    format!(
        "{}\n{} of {} metrics changed, {} did not, {} can't be told.\n",
        table(&header, &body),
        count(&[ChangeVerdict::Higher, ChangeVerdict::Lower]),
        rows.len(),
        count(&[ChangeVerdict::Same]),
        count(&[ChangeVerdict::Unclear, ChangeVerdict::InsufficientData]),
    )
}

/// Since when what is different, and what follows from it in a sentence.
pub(super) fn trend(rows: &[TrendReport], runs: usize) -> String {
    let cells = |row: &TrendReport, change: &TrendChange| {
        let relative = (change.before != 0.0).then(|| (change.after - change.before) / change.before.abs());
        vec![
            row.name.clone(),
            change.run.clone(),
            change.started_at.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string()),
            words::value(change.before, &row.unit),
            words::value(change.after, &row.unit),
            relative.map_or_else(|| "-".to_owned(), words::signed_percent),
            words::p_value(change.p_value),
        ]
    };
    let body: Vec<Vec<String>> =
        rows.iter().flat_map(|row| row.changes.iter().map(move |change| cells(row, change))).collect();
    let untold = rows.iter().filter(|row| row.insufficient_data).count();
    let told = rows.len() - untold;
    let changed = rows.iter().filter(|row| !row.changes.is_empty()).count();
    let too_few = if untold == 0 { String::new() } else { format!(" For {untold} more there are too few runs.") };
    let sentence = format!("{changed} of {told} metrics changed over {runs} runs.{too_few}\n");
    if body.is_empty() {
        return sentence;
    }
    let header = ["METRIC", "SINCE RUN", "STARTED", "BEFORE", "AFTER", "CHANGE", "P"];
    format!("{}\n{sentence}", table(&header, &body))
}

/// The cycles of a run, oldest first.
pub(super) fn cycles(run: &RunRecords) -> String {
    let rows: Vec<Vec<String>> = run
        .cycles
        .iter()
        .map(|cycle| {
            let slowest = cycle.phases.iter().max_by(|a, b| {
                let seconds = |phase: &crate::results::PhaseRecord| phase.seconds.unwrap_or(0.0);
                seconds(a).total_cmp(&seconds(b))
            });
            let slowest = slowest.and_then(|phase| Some((&phase.name, phase.seconds?)));
            let reason = cycle.failure.as_ref().map(|failure| format!("{}: {}", failure.reason, failure.message));
            vec![
                cycle.cycle.to_string(),
                cycle.outcome.as_str().to_owned(),
                cycle.started_at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
                cycle.seconds.map_or_else(|| "-".to_owned(), words::span),
                slowest.map_or_else(|| "-".to_owned(), |(name, seconds)| format!("{name} {}", words::span(seconds))),
                // One line a cycle, whatever a step has written.
                reason.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "),
            ]
        })
        .collect();
    let missing = usize::try_from(run.completed()).unwrap_or(usize::MAX).saturating_sub(run.cycles.len());
    let mut text = table(&["CYCLE", "OUTCOME", "STARTED", "TOOK", "LONGEST PHASE", "REASON"], &rows);
    if missing > 0 {
        text = format!("{text}\n{missing} more ended; the retention has removed their records.\n");
    }
    if run.cycles.iter().all(|cycle| cycle.outcome == Outcome::Succeeded) && missing == 0 && !rows.is_empty() {
        text = format!("{text}\nAll passed.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_ends_with_what_follows() {
        let slower = ComparisonReport {
            name: "cycle".into(),
            unit: "s".into(),
            before: Some(10.0),
            after: Some(12.0),
            relative: Some(0.2),
            adjusted: Some(0.01),
            verdict: ChangeVerdict::Higher,
            ..ComparisonReport::default()
        };
        let unknown = ComparisonReport { name: "x".into(), ..ComparisonReport::default() };
        let text = comparison(&[slower, unknown]);
        assert!(
            text.lines().nth(1).is_some_and(|line| line.starts_with("cycle") && line.ends_with("slower")),
            "{text}"
        );
        assert!(text.ends_with("1 of 2 metrics changed, 0 did not, 1 can't be told.\n"), "{text}");
        assert_eq!(comparison(&[]), "No metrics to compare.\n");
    }
}
