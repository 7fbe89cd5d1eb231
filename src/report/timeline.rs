//! When what happened: all cycles on a strip, and the phases of some of them.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    api::status::{Outcome, OutputValue, Section},
    results::{CycleRecord, PhaseRecord, StepRecord},
};

use super::{
    records::{RunRecords, is_injection},
    svg::{Scale, Svg, shortened},
    words::span,
};

const WIDTH: f64 = 960.0;
/// Room for names on the left.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 12.0;
const ROW: f64 = 20.0;
/// Cycles whose phases are drawn.
pub(super) const MAX_ROWS: usize = 40;
/// Colours of phases; more phases begin again.
pub(super) const COLOURS: usize = 8;

/// The kinds of marks.
pub(super) const INJECTION: &str = "injection";
pub(super) const ALERT: &str = "alert";
/// Where each kind of mark is on the strip.
const LANES: [(&str, &str, f64); 2] = [(INJECTION, "faults", 62.0), (ALERT, "alerts", 78.0)];

/// Something that is drawn over the cycles: a fault that was injected, an alert that fired.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    /// What it is, for its place and colour: `injection` or `alert`.
    pub(super) kind: &'static str,
    /// Its name.
    pub(super) name: String,
    /// When it began.
    pub(super) from: DateTime<Utc>,
    /// When it ended.
    pub(super) to: DateTime<Utc>,
}

/// The injections and the alerts of a run. Injections are steps of the kind `inject`, whose outputs tell what was injected, when and
/// for how long. An alert that is not over lasts until the run's end.
pub(super) fn marks(run: &RunRecords) -> Vec<Mark> {
    let phases = run.passes().flat_map(|pass| &pass.phases);
    let injections =
        phases.flat_map(|phase| phase.steps.iter().filter(|step| is_injection(step)).map(move |step| (phase, step)));
    let injections = injections.filter_map(|(phase, step)| mark(phase, step));
    let end = run.passes().filter_map(|pass| pass.finished_at).max();
    let alerts = run.summary.iter().flat_map(|summary| &summary.alerts).map(|alert| Mark {
        kind: ALERT,
        name: [alert.alert.as_str(), &alert.subject].join(" ").trim_end().to_owned(),
        from: alert.fired_at,
        to: alert.resolved_at.or(end).unwrap_or(alert.fired_at).max(alert.fired_at),
    });
    injections.chain(alerts).collect()
}

/// None: the fault was never in place, as far as the record tells.
fn mark(phase: &PhaseRecord, step: &StepRecord) -> Option<Mark> {
    let text = |name: &str| match step.outputs.get(name) {
        Some(OutputValue::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let from = text("injectedAt").and_then(|at| at.parse().ok()).or(step.running_at).or(step.started_at)?;
    let active = step.outputs.get("activeSeconds").and_then(OutputValue::as_number);
    #[expect(clippy::cast_possible_truncation, reason = "seconds that overflow are cut to the longest span")]
    let active = active.and_then(|seconds| TimeDelta::try_milliseconds((seconds * 1_000.0) as i64));
    let to = active.and_then(|active| from.checked_add_signed(active)).or(step.finished_at).or(phase.finished_at)?;
    let what = [text("fault"), text("targets")];
    let what: Vec<&str> = what.into_iter().flatten().collect();
    let name = if what.is_empty() { step.name.clone() } else { format!("{} ({})", step.name, what.join(" on ")) };
    Some(Mark { kind: INJECTION, name, from, to: to.max(from) })
}

/// One bar a pass over the time of the run, with marks over them. Empty: nothing is stored.
pub(super) fn strip(run: &RunRecords, marks: &[Mark]) -> String {
    let Some(first) = run.passes().map(|pass| pass.started_at).min() else { return String::new() };
    let ends = run.passes().filter_map(|pass| pass.finished_at).chain(marks.iter().map(|mark| mark.to));
    let since = |at: DateTime<Utc>| (at - first).as_seconds_f64();
    let last = ends.map(since).fold(0.0, f64::max);
    let scale = Scale::new((0.0, last.max(1.0)), (LEFT, WIDTH - RIGHT));
    let count = run.cycles.len();
    let mut svg = Svg::new(WIDTH, 118.0, &format!("Timeline of {count} cycles over {}", span(last)));
    time_axis(&mut svg, &scale, (18.0, 92.0));
    svg.text("label", (LEFT - 8.0, 46.0), "cycles");
    for pass in run.passes() {
        let end = pass.finished_at.map_or(last, since);
        let (x, width) = (scale.at(since(pass.started_at)), scale.at(end) - scale.at(since(pass.started_at)));
        let took = pass.seconds.map(|seconds| format!(", {}", span(seconds))).unwrap_or_default();
        let hint = format!(
            "{}: {}{took}, {}",
            pass_title(pass),
            pass.outcome.as_str(),
            pass.started_at.format("%Y-%m-%d %H:%M:%S UTC")
        );
        // A gap of half a unit tells neighbours apart; failures stand out by height as well as by colour.
        let (y, height) = if pass.outcome == Outcome::Failed { (22.0, 36.0) } else { (30.0, 24.0) };
        svg.rect(pass_class(pass), (x, y), ((width - 0.5).max(1.0), height), &hint);
    }
    for (kind, label, y) in LANES {
        svg.text("label", (LEFT - 8.0, y + 9.0), label);
        let mut marks = marks.iter().filter(|mark| mark.kind == kind).peekable();
        if marks.peek().is_none() {
            svg.text("faint", (LEFT, y + 9.0), "none");
        }
        for mark in marks {
            let (x, end) = (scale.at(since(mark.from)), scale.at(since(mark.to)));
            let hint = format!("{} {}: {}", mark.kind, mark.name, span((mark.to - mark.from).as_seconds_f64()));
            svg.rect(&format!("mark {}", mark.kind), (x, y), ((end - x).max(2.0), 10.0), &hint);
        }
    }
    svg.finish()
}

fn pass_title(pass: &CycleRecord) -> String {
    match pass.section {
        Section::Setup => "setup".to_owned(),
        Section::Cycle => format!("cycle {}", pass.cycle),
        Section::Cleanup => "cleanup".to_owned(),
    }
}

fn pass_class(pass: &CycleRecord) -> &'static str {
    match (pass.section, pass.outcome) {
        (_, Outcome::Failed) => "bad",
        (_, Outcome::Inconclusive) => "unknown",
        (Section::Cycle, Outcome::Succeeded) => "good",
        (_, Outcome::Succeeded) => "other",
    }
}

fn time_axis(svg: &mut Svg, scale: &Scale, (top, bottom): (f64, f64)) {
    for tick in scale.time_ticks(8) {
        let x = scale.at(tick);
        svg.line("grid", (x, top), (x, bottom));
        svg.text("tick", (x, bottom + 16.0), &span(tick));
    }
}

/// The cycles whose phases are drawn: the failed ones, the newest first, and then the newest of the others.
pub(super) fn chosen(run: &RunRecords) -> Vec<&CycleRecord> {
    let mut cycles: Vec<&CycleRecord> = run.cycles.iter().collect();
    cycles.sort_by_key(|cycle| (cycle.outcome == Outcome::Succeeded, std::cmp::Reverse(cycle.cycle)));
    // Half of the rows stay for cycles that passed, to compare with.
    let failed = cycles.iter().take_while(|cycle| cycle.outcome != Outcome::Succeeded).count();
    let passed = cycles.len() - failed;
    let rows_failed = failed.min(MAX_ROWS - passed.min(MAX_ROWS / 2));
    let mut rows: Vec<&CycleRecord> = cycles[..rows_failed].to_vec();
    rows.extend(cycles[failed..].iter().take(MAX_ROWS - rows_failed));
    rows.sort_by_key(|cycle| cycle.cycle);
    rows
}

/// The phases of cycles, each from the beginning of its cycle, a row a cycle. Names of phases decide colours.
pub(super) fn phases(cycles: &[&CycleRecord], names: &[&str], marks: &[Mark]) -> String {
    let longest = cycles.iter().filter_map(|cycle| cycle.seconds).fold(0.0, f64::max);
    if cycles.is_empty() || longest <= 0.0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "at most forty rows")]
    let height = cycles.len() as f64 * ROW + 34.0;
    let scale = Scale::new((0.0, longest), (LEFT, WIDTH - RIGHT));
    let mut svg = Svg::new(WIDTH, height, &format!("Phases of {} cycles, up to {}", cycles.len(), span(longest)));
    time_axis(&mut svg, &scale, (4.0, height - 26.0));
    for (row, cycle) in cycles.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "at most forty rows")]
        let y = row as f64 * ROW + 6.0;
        let class = if cycle.outcome == Outcome::Succeeded { "label" } else { "label strong" };
        svg.text(class, (LEFT - 8.0, y + 12.0), &cycle_label(cycle));
        for phase in &cycle.phases {
            bar(&mut svg, &scale, y, cycle, phase, names);
        }
        let end = cycle.finished_at.unwrap_or(cycle.started_at);
        for mark in marks.iter().filter(|mark| mark.from <= end && mark.to >= cycle.started_at) {
            let at = |time: DateTime<Utc>| scale.at((time - cycle.started_at).as_seconds_f64());
            // What goes on after the cycle is drawn in the rows of the next ones.
            let (x, to) = (at(mark.from), at(mark.to.min(end)));
            svg.rect(&format!("mark {}", mark.kind), (x, y + 11.0), ((to - x).max(2.0), 4.0), &mark.name);
        }
    }
    svg.finish()
}

fn cycle_label(cycle: &CycleRecord) -> String {
    let sign = match cycle.outcome {
        Outcome::Succeeded => "",
        Outcome::Failed => "✗ ",
        Outcome::Inconclusive => "? ",
    };
    format!("{sign}{}", cycle.cycle)
}

fn bar(svg: &mut Svg, scale: &Scale, y: f64, cycle: &CycleRecord, phase: &PhaseRecord, names: &[&str]) {
    let from = (phase.started_at - cycle.started_at).as_seconds_f64();
    let until = phase.finished_at.or(cycle.finished_at).unwrap_or(phase.started_at);
    let to = (until - cycle.started_at).as_seconds_f64();
    let colour = names.iter().position(|name| *name == phase.name).unwrap_or(0) % COLOURS;
    let hint = format!("{}: {}, {}", phase.name, span(to - from), phase.outcome.as_str());
    let width = (scale.at(to) - scale.at(from) - 1.0).max(1.0);
    svg.rect(&format!("phase c{colour}"), (scale.at(from), y), (width, 15.0), &hint);
    if phase.outcome != Outcome::Succeeded {
        svg.rect("failed", (scale.at(from) + 0.75, y + 0.75), ((width - 1.5).max(1.0), 13.5), &hint);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "letters that fit a bar")]
        let letters = (width / 6.5) as usize;
        if letters >= 5 {
            svg.text("inside", (scale.at(from) + 5.0, y + 11.5), &shortened(&phase.name, letters - 1));
        }
    }
}
