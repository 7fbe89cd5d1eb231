//! Published numbers, numbers of scipy and numpy, and properties.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::Value as Json;

use super::{sketch::MAX_BUCKETS, *};

fn data() -> Json {
    serde_json::from_str(include_str!("../../tests/data/analysis.json")).unwrap()
}

fn rows(name: &str) -> Vec<Json> {
    data()[name].as_array().unwrap().clone()
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs().max(1e-12)
}

#[test]
fn wilson_intervals_are_those_of_newcombe() {
    // Newcombe 1998, table I, method 3.
    for (successes, trials, low, high) in
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
    {
        let found = wilson_interval(successes, trials, 0.95).unwrap();
        let rounded = |value: f64| (value * 1e4).round() / 1e4;
        assert_eq!((rounded(found.low), rounded(found.high)), (low, high), "{successes} of {trials}");
    }
}

#[test]
fn wilson_intervals_are_those_of_scipy() {
    for row in rows("wilson") {
        let (successes, trials) = (row["successes"].as_u64().unwrap(), row["trials"].as_u64().unwrap());
        let found = wilson_interval(successes, trials, row["confidence"].as_f64().unwrap()).unwrap();
        let fits = |found: f64, name: &str| (found - row[name].as_f64().unwrap()).abs() < 1e-13;
        assert!(fits(found.low, "low") && fits(found.high, "high"), "{row}: {found:?}");
    }
}

#[test]
fn intervals_need_trials() {
    for (successes, trials, confidence, why) in [
        (0, 0, 0.95, "no trials"),
        (2, 1, 0.95, "more successes than trials"),
        (1, 1, 0.0, "no confidence"),
        (1, 1, 1.0, "certainty"),
        (1, 1, f64::NAN, "no number"),
    ] {
        assert_eq!(wilson_interval(successes, trials, confidence), None, "{why}");
    }
}

#[test]
fn normal_quantiles_are_those_of_scipy() {
    for row in rows("normal") {
        let found = normal_quantile(row["p"].as_f64().unwrap()).unwrap();
        assert!((found - row["z"].as_f64().unwrap()).abs() <= 1e-14 * found.abs().max(1.0), "{row}: {found}");
    }
    // Wichura 1988 gives these to check an implementation by.
    for (p, z) in [(0.25, -0.674_489_750_196_081_7), (0.001, -3.090_232_306_167_814), (1e-20, -9.262_340_089_798_408)] {
        assert!(close(normal_quantile(p).unwrap(), z, 1e-15), "{p}");
    }
    assert_eq!([0.0, 1.0, -1.0, f64::NAN].map(normal_quantile), [None; 4]);
}

#[test]
fn percentiles_are_those_of_numpy() {
    for row in rows("percentile") {
        let sample: Vec<f64> = row["sample"].as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect();
        for value in row["values"].as_array().unwrap() {
            let found = percentile(&sample, value["q"].as_f64().unwrap()).unwrap();
            assert!(close(found, value["value"].as_f64().unwrap(), 1e-14), "{} of {sample:?}: {found}", value["q"]);
        }
    }
    assert_eq!(percentile(&[], 0.5), None, "an empty sample has none");
    assert_eq!(percentile(&[1.0], 1.1), None, "a quantile is between 0 and 1");
    assert_eq!(percentile(&[f64::MIN, f64::MAX], 0.5), Some(0.0), "extremes do not overflow");
}

#[test]
fn verdicts_follow_the_interval() {
    for (successes, trials, rate, expected, why) in [
        (0, 0, 0.5, Verdict::Inconclusive, "nothing was tried"),
        (0, 0, 0.0, Verdict::Inconclusive, "not even for a rate that everything passes"),
        (20, 20, 0.95, Verdict::Inconclusive, "twenty of twenty do not show 95 percent"),
        (72, 72, 0.95, Verdict::Inconclusive, "one too few"),
        (73, 73, 0.95, Verdict::Passed, "these do"),
        (35, 35, 0.9, Verdict::Passed, "fewer do for 90 percent"),
        (381, 381, 0.99, Verdict::Passed, "many are needed for 99 percent"),
        (380, 380, 0.99, Verdict::Inconclusive, "one too few"),
        (5, 20, 0.95, Verdict::Failed, "far too few"),
        (18, 20, 0.95, Verdict::Inconclusive, "the interval holds both"),
        (1_000_000, 1_000_000, 1.0, Verdict::Inconclusive, "certainty is never shown"),
        (999, 1_000, 1.0, Verdict::Failed, "but refuted by one failure"),
        (3, 2, 0.5, Verdict::Inconclusive, "more successes than trials"),
        (1, 1, f64::NAN, Verdict::Inconclusive, "no rate"),
        (20, 20, 1.5, Verdict::Inconclusive, "no rate either"),
    ] {
        assert_eq!(success_verdict(successes, trials, rate, 0.95), expected, "{successes} of {trials}: {why}");
    }
}

#[test]
fn a_verdict_is_settled_once_nothing_can_change_it() {
    for (successes, trials, remaining, expected, why) in [
        (73, 73, 0, Some(Verdict::Passed), "nothing remains"),
        (73, 73, 50, None, "fifty failures would change it"),
        (0, 20, 10, Some(Verdict::Failed), "ten successes would not help"),
        (10, 10, 10, None, "all may fail yet"),
        (20, 20, 1, Some(Verdict::Inconclusive), "one more tells nothing either way"),
        (1, 1, u64::MAX, None, "absurd numbers settle nothing"),
    ] {
        assert_eq!(settled_verdict(successes, trials, remaining, 0.95, 0.95), expected, "{why}");
    }
}

fn sketch_of(values: &[f64]) -> Sketch {
    let mut sketch = Sketch::new();
    for value in values {
        sketch.record(*value);
    }
    sketch
}

#[test]
fn a_sketch_keeps_counts_and_extremes() {
    let mut sketch = Sketch::new();
    assert_eq!((sketch.count(), sketch.min(), sketch.mean(), sketch.quantile(0.5)), (0, None, None, None));
    for refused in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(!sketch.record(refused), "{refused} is refused");
    }
    for value in [3.0, -1.0, 0.0, -0.0, 8.0] {
        assert!(sketch.record(value));
    }
    assert_eq!((sketch.count(), sketch.sum(), sketch.mean()), (5, 10.0, Some(2.0)));
    assert_eq!((sketch.min(), sketch.max()), (Some(-1.0), Some(8.0)));
    assert_eq!((sketch.quantile(0.0), sketch.quantile(0.5), sketch.quantile(1.0)), (Some(-1.0), Some(0.0), Some(8.0)));
    assert_eq!((sketch.quantile(-0.1), sketch.quantile(f64::NAN)), (None, None));
}

#[test]
fn the_error_is_as_documented() {
    for (ratio, error) in [(3.5, 0.01), (12.0, 0.02), (150.0, 0.04)] {
        let steps = 5_000;
        let values: Vec<f64> = (0..=steps).map(|step| f64::powf(ratio, f64::from(step) / f64::from(steps))).collect();
        let found = sketch_of(&values).relative_error();
        assert!(found <= error && found > error * 0.95, "numbers within {ratio} times: {found}");
    }
    let extremes = sketch_of(&[f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -5e-324]);
    assert!(extremes.relative_error() < 0.011, "few numbers need few buckets, however far apart");
}

#[test]
fn the_text_is_short() {
    assert_eq!(Sketch::new().to_string(), "AQ");
    let values: Vec<f64> = (0..10_000).map(|n| 20.0 + f64::from(n) * 0.005).collect();
    let sketch = sketch_of(&values);
    assert!(sketch.buckets() > 40 && sketch.to_string().len() <= 250, "{}", sketch.to_string().len());
    assert_eq!(serde_json::to_string(&sketch).unwrap(), format!("\"{sketch}\""));
    assert_eq!(serde_json::from_str::<Sketch>(&format!("\"{sketch}\"")).unwrap(), sketch);
}

#[test]
fn garbage_is_refused() {
    let good = sketch_of(&[1.0, 2.0, -3.0]).to_string();
    for (text, why) in [
        ("", "nothing"),
        ("!", "no base64"),
        ("A", "half a byte"),
        ("AA", "another version"),
        ("AP8", "a version and rubbish"),
        (&good[..good.len() - 4], "a part of a sketch"),
        (&format!("{good}AAAA"), "a sketch and more"),
        (&good.replacen("AQ", "Ag", 1), "a version to come"),
        (&"A".repeat(5_000), "too long"),
    ] {
        assert!(text.parse::<Sketch>().is_err(), "{why}");
    }
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        -1e3..1e3,
        (0.0..5.0_f64).prop_map(|log| 10_f64.powf(log)),
        any::<f64>().prop_filter("finite", |it| it.is_finite()),
    ]
}

fn numbers() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![prop::collection::vec(number(), 0..40), prop::collection::vec(number(), 40..400)]
}

/// All that a sketch answers but the sum, which may round differently.
fn answers(sketch: &Sketch) -> (u64, Option<f64>, Option<f64>, Vec<Option<f64>>) {
    let quantiles = (0..=20).map(|at| sketch.quantile(f64::from(at) / 20.0)).collect();
    (sketch.count(), sketch.min(), sketch.max(), quantiles)
}

fn merged(parts: &[&Sketch]) -> Sketch {
    parts.iter().fold(Sketch::new(), |mut all, part| {
        all.merge(part);
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn quantiles_are_within_the_error(values in numbers(), q in 0.0..=1.0_f64) {
        let sketch = sketch_of(&values);
        prop_assert!(sketch.buckets() <= MAX_BUCKETS);
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return Ok(()) };
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let exact = sorted[((q * (last + 1) as f64).ceil() as usize).saturating_sub(1)];
        let found = sketch.quantile(q).unwrap();
        let bound = sketch.relative_error() * exact.abs() * (1.0 + 1e-9) + f64::MIN_POSITIVE;
        prop_assert!((found - exact).abs() <= bound, "{} for {}, error {}", found, exact, sketch.relative_error());
    }

    #[test]
    fn quantiles_ascend(values in numbers()) {
        let sketch = sketch_of(&values);
        let (_, _, _, quantiles) = answers(&sketch);
        prop_assert!(quantiles.is_sorted());
    }

    #[test]
    fn merging_is_recording(a in numbers(), b in numbers(), c in numbers()) {
        let all = sketch_of(&[a.clone(), b.clone(), c.clone()].concat());
        let [a, b, c] = [sketch_of(&a), sketch_of(&b), sketch_of(&c)];
        let left = merged(&[&merged(&[&a, &b]), &c]);
        let right = merged(&[&a, &merged(&[&b, &c])]);
        let back = merged(&[&c, &b, &a]);
        prop_assert_eq!(answers(&left), answers(&all));
        prop_assert_eq!(answers(&right), answers(&all));
        prop_assert_eq!(answers(&back), answers(&all));
    }

    #[test]
    fn the_text_holds_it_all(values in numbers()) {
        let sketch = sketch_of(&values);
        let text = sketch.to_string();
        prop_assert!(text.len() <= 400, "{}", text.len());
        prop_assert_eq!(text.parse::<Sketch>(), Ok(sketch));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[A-Za-z0-9_-]{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        drop(text.parse::<Sketch>());
        drop(URL_SAFE_NO_PAD.encode(&bytes).parse::<Sketch>());
    }

    /// A text that was damaged is refused, or is another sketch that keeps all bounds.
    #[test]
    fn damage_does_no_harm(values in numbers(), at in any::<prop::sample::Index>(), byte in any::<u8>(), more in number()) {
        let mut bytes = URL_SAFE_NO_PAD.decode(sketch_of(&values).to_string()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(mut sketch) = URL_SAFE_NO_PAD.encode(&bytes).parse::<Sketch>() {
            sketch.record(more);
            let copy = sketch.clone();
            sketch.merge(&copy);
            prop_assert!(sketch.buckets() <= MAX_BUCKETS);
            prop_assert!(sketch.quantile(0.5).is_some_and(f64::is_finite));
            prop_assert!(sketch.to_string().parse::<Sketch>().is_ok());
        }
    }

    #[test]
    fn intervals_hold_the_rate_and_shrink(successes in 0_u64..1_000, more in 0_u64..1_000, confidence in 0.01..0.999) {
        let trials = successes + more + 1;
        let interval = wilson_interval(successes, trials, confidence).unwrap();
        #[allow(clippy::cast_precision_loss)]
        let rate = successes as f64 / trials as f64;
        prop_assert!(0.0 <= interval.low && interval.low <= rate && rate <= interval.high && interval.high <= 1.0);
        let tenfold = wilson_interval(successes * 10, trials * 10, confidence).unwrap();
        prop_assert!(tenfold.high - tenfold.low < interval.high - interval.low);
    }
}
