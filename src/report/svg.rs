//! Drawings: a few shapes, axes with round numbers. Colours are the page's classes, so that they follow light and dark.

use std::fmt::Write;

/// A drawing under construction. Coordinates are in its own units, with the origin at the upper left.
pub(super) struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Svg {
    /// A drawing of that size. The title is what screen readers say.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        Self { width, height, title: title.to_owned(), body: String::new() }
    }

    /// A rectangle with a text that appears when it is pointed at. Too small ones are widened until they can be seen.
    pub(super) fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), hint: &str) {
        let width = width.max(0.75);
        self.push(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}""#
        ));
        if hint.is_empty() {
            self.push(format_args!("/>"));
        } else {
            self.push(format_args!("><title>{}</title></rect>", escaped(hint)));
        }
    }

    /// A line.
    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.push(format_args!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    /// A text. The class tells how it is aligned.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        self.push(format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escaped(text)));
    }

    /// Dots, as one shape: thousands of elements would make the page slow.
    pub(super) fn dots(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "M{x:.1} {y:.1}h0");
        }
        if !path.is_empty() {
            self.push(format_args!(r#"<path class="{class}" d="{path}"/>"#));
        }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.body.write_fmt(text);
    }

    /// The drawing as an element of a page.
    pub(super) fn finish(self) -> String {
        let Self { width, height, title, body } = self;
        let title = escaped(&title);
        format!(
            r#"<svg viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" role="img" aria-label="{title}">{body}</svg>"#
        )
    }
}

/// A text that is no markup, in elements and attributes. Characters that XML does not know are left out.
pub(super) fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '"' => result.push_str("&quot;"),
            '\'' => result.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => {}
            c => result.push(c),
        }
    }
    result
}

/// A text cut to so many characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{start}…")
}

/// Where values are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Draws `low` at `from` and `high` at `to`. A range without width is widened.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        if high > low {
            return Self { low, high, from, to };
        }
        let around = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        Self { low: low - around, high: low + around, from, to }
    }

    /// The place of a value; values outside of the range are at its ends.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value / (self.high - self.low) - self.low / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// About `count` round numbers in the range.
    pub(super) fn ticks(&self, count: u32) -> Vec<f64> {
        self.marks(count, &[1.0, 2.0, 5.0, 10.0])
    }

    /// About `count` round times in seconds in the range.
    pub(super) fn time_ticks(&self, count: u32) -> Vec<f64> {
        let span = self.high - self.low;
        let unit = match span / f64::from(count) {
            each if each > 43_200.0 => 86_400.0,
            each if each > 1_800.0 => 3_600.0,
            each if each > 30.0 => 60.0,
            _ => 1.0,
        };
        let inner = Self { low: self.low / unit, high: self.high / unit, ..*self };
        let steps: &[f64] = if unit > 1.0 { &[1.0, 2.0, 3.0, 6.0, 12.0, 30.0, 60.0] } else { &[1.0, 2.0, 5.0, 10.0] };
        inner.marks(count, steps).into_iter().map(|tick| tick * unit).collect()
    }

    #[expect(clippy::cast_possible_truncation, reason = "an exponent of a finite number")]
    fn marks(&self, count: u32, steps: &[f64]) -> Vec<f64> {
        let rough = (self.high - self.low) / f64::from(count.max(1));
        let power = if steps.len() > 4 && rough >= 1.0 { 1.0 } else { 10_f64.powi(rough.log10().floor() as i32) };
        let step = steps.iter().map(|step| step * power).find(|step| *step >= rough).unwrap_or(rough);
        if !step.is_finite() || step <= 0.0 {
            return Vec::new();
        }
        let mut ticks = Vec::new();
        let mut tick = (self.low / step).ceil() * step;
        while tick <= self.high + step * 1e-9 && ticks.len() < 50 {
            ticks.push(if tick.abs() < step * 1e-9 { 0.0 } else { tick });
            tick += step;
        }
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_can_not_leave_their_place() {
        let mut svg = Svg::new(10.0, 10.0, "<\"'&>\u{7}");
        svg.text("t", (1.0, 2.0), "</svg><script>");
        svg.rect("r", (0.0, 0.0), (0.0, 1.0), "\"><b>");
        let text = svg.finish();
        assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains('\u{7}'), "{text}");
    }

    #[test]
    fn ticks_are_round_and_few() {
        let scale = |low, high| Scale::new((low, high), (0.0, 100.0));
        assert_eq!(scale(0.0, 97.0).ticks(5), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(scale(-1.0, 1.0).ticks(4), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(scale(0.0, 86_400.0).time_ticks(5), [0.0, 21_600.0, 43_200.0, 64_800.0, 86_400.0]);
        assert_eq!(scale(0.0, 300.0).time_ticks(5), [0.0, 60.0, 120.0, 180.0, 240.0, 300.0]);
        for (low, high) in [(0.0, 0.0), (5.0, 5.0), (f64::MIN, f64::MAX), (0.0, 1e-300), (1e300, 1.1e300)] {
            let scale = scale(low, high);
            assert!(scale.ticks(5).len() <= 12 && scale.time_ticks(5).len() <= 50, "{low} to {high}");
            assert!((0.0..=100.0).contains(&scale.at(low)), "{low} to {high}");
        }
    }
}
