//! `report.md`: for a pull request or `$GITHUB_STEP_SUMMARY`.

use std::fmt::Write;

use crate::api::status::RunPhase;

use super::{
    document::{ComparisonReport, FailureGroup, MetricReport, Report},
    words,
};

/// Rows of a table; more are counted.
const MAX_ROWS: usize = 25;

/// The report. GitHub takes at most 1 MiB; with its limits on rows this has a few dozen KiB.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let sign = match report.verdict.phase {
        RunPhase::Succeeded => "✅",
        RunPhase::Failed => "❌",
        RunPhase::Inconclusive => "❔",
        RunPhase::Aborted => "⏹️",
        _ => "⏳",
    };
    let word = words::verdict(report.verdict.phase);
    line(&mut out, format_args!("## {sign} {word}: {}/{}\n", plain(&report.run.namespace), plain(&report.run.name)));
    line(&mut out, format_args!("{}\n", plain(&report.words)));
    line(&mut out, format_args!("`{}` {}\n", code(&report.verdict.reason), plain(&report.verdict.message)));
    for finding in words::findings(report) {
        line(&mut out, format_args!("- {}", plain(&finding)));
    }
    counts(&mut out, report);
    comparison(&mut out, report);
    failures(&mut out, &report.failures);
    alerts(&mut out, report);
    metrics(&mut out, &report.metrics);
    environment(&mut out, report);
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

fn counts(out: &mut String, report: &Report) {
    let counts = &report.cycles;
    let took = report.seconds.map_or_else(|| "–".to_owned(), words::span);
    line(
        out,
        format_args!("\n| cycles | passed | failed | inconclusive | took |\n| ---: | ---: | ---: | ---: | ---: |"),
    );
    line(
        out,
        format_args!(
            "| {} | {} | {} | {} | {took} |",
            counts.completed, counts.passed, counts.failed, counts.inconclusive
        ),
    );
    if usize::try_from(counts.completed).is_ok_and(|completed| completed > report.stored) {
        line(
            out,
            format_args!(
                "\nWhat follows rests on the {} records that are stored of {}.",
                report.stored, counts.completed
            ),
        );
    }
}

fn comparison(out: &mut String, report: &Report) {
    let Some(baseline) = &report.baseline else { return };
    line(out, format_args!("\n### Against {}\n", plain(&baseline.run.name)));
    line(
        out,
        format_args!(
            "| metric | before | after | shift | interval (95 %) | A12 | adjusted p | verdict |\n| --- | ---: | ---: | ---: | --- | ---: | ---: | --- |"
        ),
    );
    for row in baseline.metrics.iter().take(MAX_ROWS) {
        line(out, format_args!("{}", comparison_row(row)));
    }
    more(out, baseline.metrics.len());
    for (what, before, after) in &baseline.differences {
        line(out, format_args!("\n{} was `{}`, now `{}`.", plain(what), code(before), code(after)));
    }
}

fn comparison_row(row: &ComparisonReport) -> String {
    let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| words::value(value, &row.unit));
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        plain(&row.name),
        value(row.before),
        value(row.after),
        row.shift.map_or_else(|| "–".to_owned(), |shift| words::signed(shift.value, &row.unit)),
        row.shift.map_or_else(String::new, |shift| words::interval(&shift, &row.unit)),
        row.superiority.map_or_else(|| "–".to_owned(), |it| format!("{it:.2}")),
        row.adjusted.map_or_else(|| "–".to_owned(), words::p_value),
        words::change(row)
    )
}

fn failures(out: &mut String, groups: &[FailureGroup]) {
    if groups.is_empty() {
        return;
    }
    line(
        out,
        format_args!("\n### Failures\n\n| | where | reason | message | cycles |\n| ---: | --- | --- | --- | --- |"),
    );
    for group in groups.iter().take(MAX_ROWS) {
        let place = [group.phase.as_str(), group.step.as_str()];
        let place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
        let newest: Vec<String> = group.cycles.iter().rev().take(5).map(u32::to_string).collect();
        line(
            out,
            format_args!(
                "| {} | {} | {} | {} | {} |",
                group.count,
                plain(&place.join("/")),
                plain(&group.reason),
                plain(&group.message),
                newest.join(", ")
            ),
        );
    }
    more(out, groups.len());
}

fn alerts(out: &mut String, report: &Report) {
    if report.alerts.is_empty() {
        return;
    }
    line(
        out,
        format_args!(
            "\n### Alerts\n\n| alert | about | severity | from | to | cause |\n| --- | --- | --- | --- | --- | --- |"
        ),
    );
    for alert in report.alerts.iter().take(MAX_ROWS) {
        let time = |at: chrono::DateTime<chrono::Utc>| at.format("%F %T").to_string();
        line(
            out,
            format_args!(
                "| {}/{} | {} | {} | {} | {} | {} |",
                plain(&alert.monitor),
                plain(&alert.alert),
                plain(&alert.subject),
                alert.severity.as_str(),
                time(alert.fired_at),
                alert.resolved_at.map_or_else(|| "still fires".to_owned(), time),
                plain(&alert.cause)
            ),
        );
    }
    more(out, report.alerts.len());
}

fn metrics(out: &mut String, metrics: &[MetricReport]) {
    if metrics.is_empty() {
        return;
    }
    line(
        out,
        format_args!(
            "\n<details><summary>Metrics</summary>\n\n| metric | n | median | P90 | P95 | P99 | max | drift |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
        ),
    );
    for metric in metrics.iter().take(2 * MAX_ROWS) {
        let value = |value: f64| words::value(value, &metric.unit);
        line(
            out,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                plain(&metric.name),
                metric.count,
                value(metric.p50.value),
                value(metric.p90.value),
                value(metric.p95.value),
                value(metric.p99.value),
                value(metric.max),
                words::drift(metric)
            ),
        );
    }
    line(out, format_args!("\n</details>"));
}

fn environment(out: &mut String, report: &Report) {
    let environment = &report.environment;
    line(
        out,
        format_args!(
            "\nAttempt {} on Kubernetes `{}`, operator `{}`, spec `{}`.",
            report.run.attempt,
            code(&environment.kubernetes_version),
            code(&environment.operator_version),
            code(&environment.spec_digest)
        ),
    );
    if let Some(manifest) = &report.manifest {
        let commit = manifest.commit.as_ref().map_or_else(String::new, |commit| format!(", commit `{}`", code(commit)));
        line(out, format_args!("Asked for by {}{commit}.", plain(&manifest.requested_by)));
    }
}

fn more(out: &mut String, rows: usize) {
    if rows > MAX_ROWS {
        line(out, format_args!("\n{} more are in summary.json.", rows - MAX_ROWS));
    }
}

/// A text that stays on its line and in its cell, and is no markup.
fn plain(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => result.push(' '),
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            // An @ would notify people.
            '@' => result.push_str("&#64;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '!' => {
                result.push('\\');
                result.push(c);
            }
            c if c.is_control() => {}
            c => result.push(c),
        }
    }
    result
}

/// A text between backticks.
fn code(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control() && *c != '`' && *c != '|');
    // Some renderers take markup even from here, and none decodes entities.
    shown.map(|c| if c == '<' { '‹' } else { c }).collect()
}
