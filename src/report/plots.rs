//! Drawings of metrics: box plots, and values over the cycles.

use crate::analysis::{Spread, percentile, spread};

use super::{
    document::{DriftDirection, MetricReport},
    series::Series,
    svg::{Scale, Svg, shortened},
    words,
};

const WIDTH: f64 = 960.0;
/// Room for names on the left of box plots.
const LEFT: f64 = 190.0;
const RIGHT: f64 = 14.0;
const ROW: f64 = 44.0;
/// Outliers that are drawn.
const MAX_OUTLIERS: usize = 200;
/// Values that are drawn of a metric; of more, some of each stretch.
const MAX_POINTS: usize = 600;
/// Up to so many points have room to be large.
const FEW: usize = 60;

/// Box plots of metrics of one unit on one scale, each above that of the baseline. Empty: there are no values.
pub(super) fn boxes(metrics: &[&Series], before: &[Series]) -> String {
    let rows: Vec<(&Series, Vec<f64>, Vec<f64>)> = metrics
        .iter()
        .map(|series| {
            let old = before.iter().find(|old| old.name == series.name).map(Series::sorted).unwrap_or_default();
            (*series, series.sorted(), old)
        })
        .filter(|(_, values, _)| !values.is_empty())
        .collect();
    let highest = rows.iter().flat_map(|(_, new, old)| [new.last(), old.last()]).flatten();
    let highest = highest.copied().fold(0.0, f64::max);
    if rows.is_empty() {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "a spec has at most 32 phases")]
    let height = rows.len() as f64 * ROW + 30.0;
    let scale = Scale::new((0.0, highest), (LEFT, WIDTH - RIGHT));
    let mut svg = Svg::new(WIDTH, height, &format!("Durations of {} phases as box plots", rows.len()));
    for tick in scale.ticks(8) {
        svg.line("grid", (scale.at(tick), 4.0), (scale.at(tick), height - 24.0));
        svg.text("tick", (scale.at(tick), height - 8.0), &words::span(tick));
    }
    let mut y = 6.0;
    for (series, new, old) in &rows {
        svg.text("label", (LEFT - 10.0, y + 21.0), &shortened(&series.name, 28));
        let (class, offset) = if old.is_empty() { ("box", 8.0) } else { ("box", 2.0) };
        draw_box(&mut svg, &scale, class, y + offset, new);
        draw_box(&mut svg, &scale, "box before", y + 20.0, old);
        y += ROW;
    }
    svg.finish()
}

/// One box with whiskers and outliers, 16 high.
fn draw_box(svg: &mut Svg, scale: &Scale, class: &str, y: f64, sorted: &[f64]) {
    let Some(figures) = spread(sorted) else { return };
    let Spread { q1, median, q3, whisker_low, whisker_high, .. } = figures;
    let hint = format!(
        "{} values: quartiles {}, {}, {}; whiskers {} and {}; largest {}",
        figures.count,
        words::span(q1),
        words::span(median),
        words::span(q3),
        words::span(whisker_low),
        words::span(whisker_high),
        words::span(figures.max)
    );
    let middle = y + 8.0;
    svg.line("whisker", (scale.at(whisker_low), middle), (scale.at(q1), middle));
    svg.line("whisker", (scale.at(q3), middle), (scale.at(whisker_high), middle));
    for end in [whisker_low, whisker_high] {
        svg.line("whisker", (scale.at(end), y + 4.0), (scale.at(end), y + 12.0));
    }
    svg.rect(class, (scale.at(q1), y), ((scale.at(q3) - scale.at(q1)).max(2.0), 16.0), &hint);
    svg.line("median", (scale.at(median), y), (scale.at(median), y + 16.0));
    let outliers = sorted.iter().rev().filter(|value| figures.is_outlier(**value)).take(MAX_OUTLIERS);
    svg.dots("dot outlier", outliers.map(|value| (scale.at(*value), middle)));
}

/// The size of a small drawing, and where its values are.
pub(super) const SMALL: (f64, f64) = (460.0, 176.0);
pub(super) const SMALL_X: (f64, f64) = (78.0, 450.0);
const SMALL_Y: (f64, f64) = (150.0, 10.0);

/// The upward scale of a small drawing. Zero is shown unless that would squeeze what is to be seen.
pub(super) fn upward(low: f64, high: f64) -> Scale {
    let low = if low > 0.0 && low < high * 0.6 { 0.0 } else { low };
    Scale::new((low, high), SMALL_Y)
}

/// The lines and numbers of a small drawing's upward scale.
pub(super) fn grid(svg: &mut Svg, y: &Scale, unit: &str) {
    for tick in y.ticks(6) {
        svg.line("grid", (SMALL_X.0, y.at(tick)), (SMALL_X.1, y.at(tick)));
        svg.text("label", (SMALL_X.0 - 6.0, y.at(tick) + 4.0), &words::value(tick, unit));
    }
}

/// The values of a metric over the cycles, with the median, the 95th percentile, the middle 90 % of the baseline as a band,
/// and the slope where it drifts.
pub(super) fn over_time(series: &Series, metric: &MetricReport, before: Option<&Series>) -> String {
    let old = before.map(Series::sorted).unwrap_or_default();
    let band = percentile(&old, 0.05).zip(percentile(&old, 0.95));
    let (first, last) = (series.cycles.first().copied().unwrap_or(0), series.cycles.last().copied().unwrap_or(1));
    let low = band.map_or(metric.min, |(low, _)| low.min(metric.min));
    let high = band.map_or(metric.max, |(_, high)| high.max(metric.max));
    let x = Scale::new((f64::from(first), f64::from(last)), SMALL_X);
    let y = upward(low, high);
    let title = format!(
        "{} over {} cycles: median {}, 95th percentile {}",
        series.name,
        metric.count,
        words::value(metric.p50.value, &metric.unit),
        words::value(metric.p95.value, &metric.unit)
    );
    let mut svg = Svg::new(SMALL.0, SMALL.1, &title);
    if let Some((low, high)) = band {
        let (top, bottom) = (y.at(high), y.at(low));
        svg.rect(
            "band",
            (SMALL_X.0, top),
            (SMALL_X.1 - SMALL_X.0, (bottom - top).max(1.0)),
            "the middle 90 % of the baseline",
        );
    }
    grid(&mut svg, &y, &metric.unit);
    for tick in x.ticks(5).into_iter().filter(|tick| tick.fract() == 0.0) {
        svg.text("tick", (x.at(tick), SMALL.1 - 8.0), &words::number(tick));
    }
    let outliers: std::collections::BTreeSet<u32> = metric.outliers.iter().copied().collect();
    let points = || thinned(series).map(|index| (series.cycles[index], series.values[index]));
    let place = |(cycle, value): (u32, f64)| (x.at(f64::from(cycle)), y.at(value));
    let (usual, outlying) =
        if series.values.len() <= FEW { ("dot few", "dot few outlier") } else { ("dot", "dot outlier") };
    svg.dots(usual, points().filter(|(cycle, _)| !outliers.contains(cycle)).map(place));
    svg.dots(outlying, points().filter(|(cycle, _)| outliers.contains(cycle)).map(place));
    svg.line("median", (SMALL_X.0, y.at(metric.p50.value)), (SMALL_X.1, y.at(metric.p50.value)));
    svg.line("p95", (SMALL_X.0, y.at(metric.p95.value)), (SMALL_X.1, y.at(metric.p95.value)));
    slope(&mut svg, series, metric, &y);
    svg.finish()
}

/// The line of the drift, from the first cycle to the last.
fn slope(svg: &mut Svg, series: &Series, metric: &MetricReport, y: &Scale) {
    if !matches!(metric.drift.direction, DriftDirection::Rising | DriftDirection::Falling) {
        return;
    }
    let hours = series.hours.first().copied().zip(series.hours.last().copied());
    let Some(((from, to), slope)) = hours.zip(metric.drift.per_hour) else { return };
    let middle = f64::midpoint(from, to);
    let at = |hour: f64| y.at(metric.p50.value + slope.value * (hour - middle));
    svg.line("slope", (SMALL_X.0, at(from)), (SMALL_X.1, at(to)));
}

/// The places of values that are drawn: all, or the smallest and the largest of each of equal stretches.
fn thinned(series: &Series) -> impl Iterator<Item = usize> {
    let count = series.values.len();
    let stretches = if count <= MAX_POINTS { count } else { MAX_POINTS / 2 };
    (0..stretches).flat_map(move |stretch| {
        let places = stretch * count / stretches..(stretch + 1) * count / stretches;
        let least = places.clone().min_by(|a, b| series.values[*a].total_cmp(&series.values[*b]));
        let most = places.max_by(|a, b| series.values[*a].total_cmp(&series.values[*b]));
        let most = most.filter(|most| Some(*most) != least);
        least.into_iter().chain(most)
    })
}
