//! Numbers and verdicts in words.

use crate::{api::status::RunPhase, results::SuccessRate};

use super::document::{ChangeVerdict, ComparisonReport, DriftDirection, Estimate, MetricReport, Report};

/// A number with about three significant digits, thousands apart.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    if magnitude >= 1e15 || (magnitude > 0.0 && magnitude < 1e-4) {
        return format!("{value:.2e}");
    }
    let digits = match magnitude {
        _ if magnitude >= 100.0 || magnitude == 0.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 => 2,
        _ if magnitude >= 0.1 => 3,
        _ if magnitude >= 0.01 => 4,
        _ => 5,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { grouped(text) }
}

/// Puts thin spaces between thousands.
fn grouped(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("−", rest));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let mut result = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && whole.len() > 4 && (whole.len() - index).is_multiple_of(3) {
            result.push('\u{202f}');
        }
        result.push(digit);
    }
    if let Some(fraction) = fraction {
        result.push('.');
        result.push_str(fraction);
    }
    result
}

/// A span of seconds as people say it: `850 ms`, `12.3 s`, `4 min 05 s`, `3 h 20 min`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "spans that overflow are shown as numbers")]
pub fn span(seconds: f64) -> String {
    if seconds < 0.0 {
        return format!("−{}", span(-seconds));
    }
    if !seconds.is_finite() || seconds >= 1e9 {
        return format!("{} s", number(seconds));
    }
    if seconds == 0.0 {
        return "0 s".to_owned();
    }
    if seconds < 1.0 {
        return format!("{} ms", number(seconds * 1_000.0));
    }
    if seconds < 99.95 {
        return format!("{} s", number(seconds));
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3_600, whole / 60 % 60, whole % 60);
    match (hours, minutes, rest) {
        (0, _, 0) => format!("{minutes} min"),
        (0, ..) => format!("{minutes} min {rest:02} s"),
        (1..=47, 0, _) => format!("{hours} h"),
        (1..=47, ..) => format!("{hours} h {minutes:02} min"),
        _ => format!("{} d {:02} h", hours / 24, hours % 24),
    }
}

/// A value in its unit.
pub fn value(value: f64, unit: &str) -> String {
    if unit == "s" { span(value) } else { number(value) }
}

/// A share as a percentage: whole ones, but more digits next to 0 and 100.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let distance = percent.abs().min((100.0 - percent).abs());
    let digits = usize::from(distance > 0.0 && distance < 5.0);
    let text = format!("{percent:.digits$} %").replace('-', "−");
    if text == "−0.0 %" || text == "0.0 %" { "0 %".to_owned() } else { text }
}

/// A change as a signed percentage.
pub fn signed_percent(share: f64) -> String {
    format!("{}{}", if share > 0.0 { "+" } else { "" }, percent(share))
}

/// A change in its unit, with its sign.
pub fn signed(change: f64, unit: &str) -> String {
    format!("{}{}", if change > 0.0 { "+" } else { "" }, value(change, unit))
}

/// The interval of an estimate: `3 s to 5 s`, `at least 3 s`.
pub fn interval(estimate: &Estimate, unit: &str) -> String {
    match (estimate.low, estimate.high) {
        (Some(low), Some(high)) => format!("{} to {}", value(low, unit), value(high, unit)),
        (Some(low), None) => format!("at least {}", value(low, unit)),
        (None, Some(high)) => format!("at most {}", value(high, unit)),
        (None, None) => "too few values".to_owned(),
    }
}

/// A p-value.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// The verdict in a word and what it means for the reader.
pub fn verdict(phase: RunPhase) -> &'static str {
    match phase {
        RunPhase::Succeeded => "Passed",
        RunPhase::Failed => "Failed",
        RunPhase::Inconclusive => "Inconclusive",
        RunPhase::Aborted => "Aborted",
        _ => "Running",
    }
}

/// What the success rate says, with its interval.
pub fn success(report: &Report) -> String {
    let counts = &report.cycles;
    let ended = counts.passed + counts.failed;
    let mut text = match report.success_rate {
        _ if ended == 0 => "No cycle ended with a result, so nothing was shown".to_owned(),
        Some(SuccessRate { rate, lower, upper, confidence }) => format!(
            "{} of {ended} cycles passed ({}). With {} confidence, between {} and {} of such cycles pass",
            counts.passed,
            percent(rate),
            percent(confidence),
            percent(lower),
            percent(upper)
        ),
        None => format!("{} of {ended} cycles passed", counts.passed),
    };
    if counts.inconclusive > 0 {
        let word = if counts.inconclusive == 1 { "cycle" } else { "cycles" };
        text = format!("{text}; {} {word} could not tell", counts.inconclusive);
    }
    text.push('.');
    text
}

/// What is worth knowing of the metrics and the baseline, a sentence each.
pub fn findings(report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(baseline) = &report.baseline {
        let changed = baseline.metrics.iter().filter(|row| changed(row)).collect::<Vec<_>>();
        found.extend(changed.iter().take(5).map(|row| {
            let by = row.relative.map(|share| format!(" ({})", signed_percent(share))).unwrap_or_default();
            format!(
                "{} is {} than in {}: {} against {}{by}.",
                row.name,
                change(row),
                baseline.run.name,
                value(row.after.unwrap_or_default(), &row.unit),
                value(row.before.unwrap_or_default(), &row.unit),
            )
        }));
        if changed.is_empty() {
            let count = |verdict| baseline.metrics.iter().filter(|row| row.verdict == verdict).count();
            let parts = [
                (ChangeVerdict::Same, "did not move by as much as matters"),
                (ChangeVerdict::Unclear, "can't be told"),
                (ChangeVerdict::InsufficientData, "had too few values"),
            ];
            let parts = parts.map(|(verdict, what)| (count(verdict), what));
            let parts: Vec<String> =
                parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
            let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
            found.push(format!("No metric was shown to differ from {}{parts}.", baseline.run.name));
        }
    }
    let drifting = report.metrics.iter().filter_map(drifting);
    found.extend(drifting.take(5));
    found.extend(report.dependences.iter().take(3).map(|it| {
        format!(
            "Failures depend on the {}: {} of {} with {}, {} of {} else.",
            it.on, it.failed, it.trials, it.group, it.failed_else, it.trials_else
        )
    }));
    found
}

fn changed(row: &ComparisonReport) -> bool {
    matches!(row.verdict, ChangeVerdict::Higher | ChangeVerdict::Lower)
}

/// What a comparison says, in a word or two.
pub fn change(row: &ComparisonReport) -> &'static str {
    match (row.verdict, row.unit.as_str()) {
        (ChangeVerdict::Higher, "s") => "slower",
        (ChangeVerdict::Lower, "s") => "faster",
        (ChangeVerdict::Higher, _) => "higher",
        (ChangeVerdict::Lower, _) => "lower",
        (ChangeVerdict::Same, _) => "same",
        (ChangeVerdict::Unclear, _) => "unclear",
        (ChangeVerdict::InsufficientData, _) => "insufficient data",
    }
}

/// The drift of a metric in a sentence, if there is one.
fn drifting(metric: &MetricReport) -> Option<String> {
    Some(format!("{} {}.", metric.name, drift_words(metric)?))
}

/// What a metric does over the run, if it drifts: `rises by 3 s an hour (1 s to 5 s), +9 % over the run`.
pub fn drift_words(metric: &MetricReport) -> Option<String> {
    let way = match metric.drift.direction {
        DriftDirection::Rising => "rises",
        DriftDirection::Falling => "falls",
        DriftDirection::Steady | DriftDirection::InsufficientData => return None,
    };
    let slope = metric.drift.per_hour?;
    let over = metric.drift.growth.map(|share| format!(", {} over the run", signed_percent(share)));
    Some(format!(
        "{way} by {} an hour ({}){}",
        value(slope.value.abs(), &metric.unit),
        interval(&slope, &metric.unit),
        over.unwrap_or_default()
    ))
}

/// The drift of a metric for a column.
pub fn drift(metric: &MetricReport) -> String {
    match (metric.drift.direction, metric.drift.per_hour) {
        (DriftDirection::Rising | DriftDirection::Falling, Some(slope)) => {
            format!("{} an hour", signed(slope.value, &metric.unit))
        }
        (DriftDirection::InsufficientData, _) => "insufficient data".to_owned(),
        _ => "steady".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_readable() {
        for (given, expected) in [
            (0.0, "0"),
            (-0.001, "−0.001"),
            (0.25, "0.25"),
            (3.0, "3"),
            (3.456, "3.46"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234.5, "1234"),
            (1_234_567.0, "1\u{202f}234\u{202f}567"),
            (-45_678.0, "−45\u{202f}678"),
            (0.000_000_5, "5.00e-7"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(given), expected);
        }
        for (given, expected) in [
            (0.0, "0 s"),
            (0.85, "850 ms"),
            (12.34, "12.3 s"),
            (245.2, "4 min 05 s"),
            (12_000.0, "3 h 20 min"),
            (7_200.0, "2 h"),
            (300.0, "5 min"),
            (400_000.0, "4 d 15 h"),
            (-2.0, "−2 s"),
        ] {
            assert_eq!(span(given), expected);
        }
        for (given, expected) in [
            (1.0, "100 %"),
            (0.95, "95 %"),
            (0.987, "98.7 %"),
            (0.5, "50 %"),
            (0.001, "0.1 %"),
            (-0.2, "−20 %"),
            (-0.0001, "0 %"),
        ] {
            assert_eq!(percent(given), expected);
        }
    }
}
