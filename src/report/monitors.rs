//! What monitors saw beside the cycles: their alerts and their series.

use minijinja::{Value, context};

use crate::{
    analysis::{self, Direction},
    api::monitor::Severity,
    results::{AlertRecord, MonitorRecord},
};

use super::{
    document::Estimate,
    plots::{SMALL, SMALL_X, grid, upward},
    statistics::CONFIDENCE,
    svg::{Scale, Svg},
    words,
};

/// Alerts that are listed; the summary has them all.
const MAX_ALERTS: usize = 100;

/// The newest alerts for a table, newest first.
pub(super) fn alerts(alerts: &[AlertRecord]) -> Vec<Value> {
    alerts.iter().rev().take(MAX_ALERTS).map(alert).collect()
}

fn alert(alert: &AlertRecord) -> Value {
    let lasted = alert
        .resolved_at
        .map_or_else(|| "not over".to_owned(), |end| words::span((end - alert.fired_at).as_seconds_f64().max(0.0)));
    context! {
        alert => &alert.alert,
        monitor => &alert.monitor,
        subject => &alert.subject,
        severity => format!("{:?}", alert.severity).to_lowercase(),
        class => match alert.severity {
            Severity::Critical => "bad",
            Severity::Warning => "warning",
            Severity::Info => "",
        },
        fired_at => alert.fired_at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        lasted => lasted,
        cause => &alert.cause,
    }
}

/// The series of monitors, each with the words for its drift.
pub(super) fn series(monitors: &[MonitorRecord]) -> Vec<Value> {
    monitors
        .iter()
        .filter(|monitor| monitor.buckets.len() > 1)
        .map(|monitor| {
            context! {
                name => &monitor.name,
                kind => &monitor.kind,
                samples => monitor.samples,
                plot => Value::from_safe_string(plot(monitor)),
                drift => drift(monitor),
            }
        })
        .collect()
}

/// A drift of the stretches' means, in words; none where none was shown.
fn drift(monitor: &MonitorRecord) -> Option<String> {
    let hours: Vec<f64> = monitor.buckets.iter().map(|bucket| hours(bucket.0)).collect();
    let means: Vec<f64> = monitor.buckets.iter().map(|bucket| f64::from(bucket.3)).collect();
    let found = analysis::drift(&hours, &means, CONFIDENCE);
    let slope = found.slope.filter(|_| matches!(found.direction, Direction::Rising | Direction::Falling))?;
    let interval = Estimate { value: slope.estimate, low: Some(slope.low), high: Some(slope.high) };
    let way = if found.direction == Direction::Rising { "rises" } else { "falls" };
    let interval = words::interval(&interval, "");
    Some(format!("{way} by {} an hour ({interval})", words::number(slope.estimate.abs())))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
fn hours(millis: i64) -> f64 {
    millis as f64 / 3_600_000.0
}

/// The mean of each stretch of time, from its smallest to its largest sample.
fn plot(monitor: &MonitorRecord) -> String {
    let buckets = &monitor.buckets;
    let first = buckets.first().map_or(0, |bucket| bucket.0);
    let seconds = |millis: i64| hours(millis - first) * 3_600.0;
    let last = buckets.last().map_or(0, |bucket| bucket.0);
    let low = buckets.iter().map(|bucket| f64::from(bucket.2)).fold(f64::INFINITY, f64::min);
    let high = buckets.iter().map(|bucket| f64::from(bucket.4)).fold(f64::NEG_INFINITY, f64::max);
    let (x, y) = (Scale::new((0.0, seconds(last)), SMALL_X), upward(low, high));
    let title = format!("{}: {} samples over {}", monitor.name, monitor.samples, words::span(seconds(last)));
    let mut svg = Svg::new(SMALL.0, SMALL.1, &title);
    grid(&mut svg, &y, "");
    for tick in x.time_ticks(5) {
        svg.text("tick", (x.at(tick), SMALL.1 - 8.0), &words::span(tick));
    }
    for (from, _, least, _, most) in buckets {
        let at = x.at(seconds(*from));
        svg.line("range", (at, y.at(f64::from(*least))), (at, y.at(f64::from(*most))));
    }
    svg.dots("dot", buckets.iter().map(|bucket| (x.at(seconds(bucket.0)), y.at(f64::from(bucket.3)))));
    svg.finish()
}
