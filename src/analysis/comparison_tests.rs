//! Two samples: reference values, properties, error rates.

use std::sync::LazyLock;

use fastrand::Rng;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::{
    comparison::{Change, Thresholds, compare},
    false_discovery, normal,
    quantile_interval::interval,
    rank_sum::{rank_sum, smallest_p_value},
    shift::shift,
    spread::spread,
};

pub(super) static REFERENCE: LazyLock<Json> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../tests/data/statistics.json")).unwrap());

pub(super) fn rows(name: &str) -> &'static [Json] {
    REFERENCE[name].as_array().unwrap()
}

pub(super) fn numbers(value: &Json) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect()
}

pub(super) fn near(found: f64, expected: &Json, tolerance: f64) -> bool {
    let expected = expected.as_f64().unwrap();
    (found - expected).abs() <= tolerance * expected.abs().max(1e-9)
}

/// A standard normal number.
pub(super) fn gaussian(rng: &mut Rng) -> f64 {
    // Box and Muller 1958.
    let (u, v) = (1.0 - rng.f64(), rng.f64());
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

#[test]
fn rank_sums_and_shifts_are_those_of_scipy() {
    for row in rows("rank_sum") {
        let (first, second) = (numbers(&row["first"]), numbers(&row["second"]));
        let test = rank_sum(&first, &second).unwrap();
        assert!(near(test.u, &row["u"], 0.0) && near(test.p_value, &row["p"], 1e-10), "{test:?} {row}");
        assert_eq!(test.exact, row["exact"].as_bool().unwrap());
        for expected in row["shifts"].as_array().unwrap() {
            let found = shift(&first, &second, expected["confidence"].as_f64().unwrap()).unwrap();
            assert!(near(found.estimate, &expected["estimate"], 1e-12), "{found:?} {expected}");
            match (found.interval, expected["interval"].as_array()) {
                (None, None) => {}
                (Some((low, high)), Some(ends)) => {
                    assert!(near(low, &ends[0], 1e-12) && near(high, &ends[1], 1e-12), "{found:?} {expected}");
                }
                _ => panic!("{found:?} {expected}"),
            }
        }
    }
}

/// Hollander and Wolfe 1999, examples 4.1 and 4.3, and R's `wilcox.test` on them.
#[test]
fn the_textbook_example_comes_out() {
    let early = [1.15, 0.88, 0.90, 0.74, 1.21];
    let term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
    let test = rank_sum(&early, &term).unwrap();
    assert_eq!((test.u, (test.p_value * 1e4).round()), (35.0, 2544.0));
    let shift = shift(&early, &term, 0.95).unwrap();
    let rounded = |value: f64| (value * 1e3).round() / 1e3;
    let (low, high) = shift.interval.unwrap();
    assert_eq!((rounded(shift.estimate), rounded(low), rounded(high)), (0.305, -0.15, 0.76));
}

#[test]
fn intervals_of_percentiles_are_those_of_scipy() {
    for row in rows("quantile_interval") {
        let sample = numbers(&row["sample"]);
        let found = interval(&sample, row["q"].as_f64().unwrap(), 0.95);
        assert_eq!(
            (found.low, found.high),
            (row["low"].as_f64(), row["high"].as_f64()),
            "{} of {}",
            row["q"],
            sample.len()
        );
    }
}

#[test]
fn adjusted_p_values_are_those_of_scipy() {
    for row in rows("false_discovery") {
        let found = false_discovery::adjusted(&numbers(&row["p"]));
        assert!(
            found.iter().zip(row["adjusted"].as_array().unwrap()).all(|(a, b)| near(*a, b, 1e-12)),
            "{found:?} {row}"
        );
    }
    assert!(false_discovery::adjusted(&[]).is_empty());
}

#[test]
fn upper_tails_are_those_of_scipy() {
    for row in rows("upper_tail") {
        assert!(near(normal::upper_tail(row["z"].as_f64().unwrap()), &row["p"], 1e-13), "{row}");
    }
}

#[test]
fn a_box_plot_tells_its_outliers() {
    let found = spread(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 30.0]).unwrap();
    assert_eq!((found.q1, found.median, found.q3), (3.0, 5.0, 7.0));
    assert_eq!((found.whisker_low, found.whisker_high, found.max), (1.0, 8.0, 30.0));
    assert!(found.is_outlier(13.5) && !found.is_outlier(13.0) && found.is_outlier(-3.5));
    assert_eq!(spread(&[]), None);
}

fn ramp(from: i32, to: i32) -> Vec<f64> {
    (from..to).map(f64::from).collect()
}

#[test]
fn changes_need_evidence_and_must_matter() {
    let thresholds = Thresholds::default();
    for (before, after, expected, why) in [
        (ramp(100, 120), ramp(130, 150), Change::Higher, "all are larger"),
        (ramp(130, 150), ramp(100, 120), Change::Lower, "all are smaller"),
        (ramp(100, 103), ramp(200, 203), Change::InsufficientData, "three against three can't be significant"),
        (ramp(100, 104), ramp(200, 204), Change::Higher, "four against four can"),
        (ramp(1_000, 1_020), ramp(1_021, 1_041), Change::Same, "two percent do not matter"),
        (ramp(100, 140), ramp(103, 143), Change::Unclear, "three percent among as much noise"),
        (Vec::new(), ramp(0, 50), Change::InsufficientData, "a metric that was not there"),
        (vec![5.0; 20], vec![5.0; 20], Change::Same, "nothing moved"),
        (vec![0.0; 20], vec![0.0; 20], Change::Same, "zero stays zero"),
        (vec![0.0; 20], ramp(1, 21), Change::Higher, "any shift from zero matters"),
        (vec![f64::NAN; 20], ramp(1, 21), Change::InsufficientData, "no numbers"),
    ] {
        let found = compare(&[(&before, &after)], &thresholds);
        assert_eq!(found[0].change, expected, "{why}: {:?}", found[0]);
    }
    assert!((smallest_p_value(3, 3) - 0.1).abs() < 1e-12 && (smallest_p_value(4, 4) - 2.0 / 70.0).abs() < 1e-12);
}

/// Cases of a simulation in which `event` came, as a share.
#[allow(clippy::cast_precision_loss)]
pub(super) fn share(runs: usize, mut event: impl FnMut(usize) -> bool) -> f64 {
    (0..runs).filter(|run| event(*run)).count() as f64 / runs as f64
}

/// Highest share that chance explains, by four standard errors, where `rate` is promised.
#[allow(clippy::cast_precision_loss)]
pub(super) fn allowed(rate: f64, runs: usize) -> f64 {
    rate + 4.0 * (rate * (1.0 - rate) / runs as f64).sqrt()
}

#[test]
fn the_rank_sum_test_keeps_its_level_and_the_shift_its_confidence() {
    let mut rng = Rng::with_seed(7);
    for (n, m, whole) in [(5, 6, false), (12, 9, true), (40, 30, false), (40, 30, true)] {
        let runs = 1_000;
        let mut missed = 0.0;
        let alarms = share(runs, |_| {
            let mut draw = |count: usize| -> Vec<f64> {
                let value = |rng: &mut Rng| gaussian(rng).exp() * 3.0;
                (0..count).map(|_| value(&mut rng)).map(|value| if whole { value.round() } else { value }).collect()
            };
            let (first, second) = (draw(n), draw(m));
            let shift = shift(&first, &second, 0.95).unwrap();
            missed += shift.interval.map_or(0.0, |(low, high)| f64::from(low > 0.0 || high < 0.0));
            rank_sum(&first, &second).unwrap().p_value <= 0.05
        });
        assert!(alarms <= allowed(0.05, runs), "{n} and {m}: {alarms}");
        assert!(missed / 1_000.0 <= allowed(0.05, runs), "{n} and {m}: {missed}");
        assert!(alarms > 0.02, "{n} and {m}: {alarms} is so low that the test does not work");
    }
}

/// Of the changes that are told, few are none; without the adjustment many would be.
#[test]
fn false_discoveries_stay_within_the_rate() {
    let mut rng = Rng::with_seed(11);
    let runs: u32 = 100;
    let mut share_of_false = 0.0;
    let mut plain_runs = 0;
    let thresholds = Thresholds { smallest_share: 0.0, ..Thresholds::default() };
    for _ in 0..runs {
        // Of twenty metrics the first four have moved.
        let samples: Vec<(Vec<f64>, Vec<f64>)> = (0..20)
            .map(|metric| {
                let moved = if metric < 4 { 1.8 } else { 0.0 };
                let mut draw = |by: f64| (0..22).map(|_| 20.0 + gaussian(&mut rng) + by).collect::<Vec<f64>>();
                (draw(0.0), draw(moved))
            })
            .collect();
        let metrics: Vec<(&[f64], &[f64])> = samples.iter().map(|(a, b)| (a.as_slice(), b.as_slice())).collect();
        let found = compare(&metrics, &thresholds);
        let told = |change: Change| matches!(change, Change::Higher | Change::Lower);
        let all = found.iter().filter(|it| told(it.change)).count();
        let wrong = found[4..].iter().filter(|it| told(it.change)).count();
        assert!(all - wrong >= 3, "shifts of two standard deviations are found");
        #[allow(clippy::cast_precision_loss)]
        let rate = wrong as f64 / all.max(1) as f64;
        share_of_false += rate;
        plain_runs += u32::from(found[4..].iter().any(|it| it.p_value.unwrap() <= 0.05));
    }
    assert!(share_of_false / f64::from(runs) <= 0.05 + 0.03, "{share_of_false}");
    assert!(f64::from(plain_runs) / f64::from(runs) > 0.4, "unadjusted, most runs have a false alarm: {plain_runs}");
}

#[test]
fn intervals_of_percentiles_hold_them() {
    let mut rng = Rng::with_seed(3);
    for (n, q) in [(20, 0.5), (60, 0.9), (400, 0.99)] {
        let runs = 1_500;
        let missed = share(runs, |_| {
            let mut sample: Vec<f64> = (0..n).map(|_| rng.f64()).collect();
            sample.sort_unstable_by(f64::total_cmp);
            // Of uniform numbers the q quantile is q.
            let found = interval(&sample, q, 0.95);
            found.low.is_some_and(|low| low > q) || found.high.is_some_and(|high| high < q)
        });
        assert!(missed <= allowed(0.05, runs), "{q} of {n}: {missed}");
    }
}

fn sample() -> impl Strategy<Value = Vec<f64>> {
    let number = prop_oneof![-1e3..1e3, (-5_i32..5).prop_map(f64::from), Just(0.0), Just(-0.0)];
    prop::collection::vec(number, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn exchanging_the_samples_mirrors_the_result(a in sample(), b in sample()) {
        let (one, other) = (rank_sum(&a, &b).unwrap(), rank_sum(&b, &a).unwrap());
        prop_assert!((one.superiority + other.superiority - 1.0).abs() < 1e-12);
        prop_assert!((one.p_value - other.p_value).abs() < 1e-9);
        let (one, other) = (shift(&a, &b, 0.9).unwrap(), shift(&b, &a, 0.9).unwrap());
        prop_assert!((one.estimate + other.estimate).abs() < 1e-9);
        prop_assert_eq!(one.interval.map(|(low, high)| (-high + 0.0, -low + 0.0)), other.interval);
    }

    #[test]
    fn the_shift_lies_in_its_interval_and_follows_the_data(a in sample(), b in sample(), by in -50_i32..50) {
        let found = shift(&a, &b, 0.8).unwrap();
        if let Some((low, high)) = found.interval {
            prop_assert!(low <= found.estimate && found.estimate <= high);
        }
        let moved: Vec<f64> = b.iter().map(|value| value + f64::from(by)).collect();
        prop_assert!((shift(&a, &moved, 0.8).unwrap().estimate - found.estimate - f64::from(by)).abs() < 1e-9);
    }

    #[test]
    fn differences_are_found_in_order(a in sample(), b in sample()) {
        let mut all: Vec<f64> = a.iter().flat_map(|x| b.iter().map(move |y| y - x)).collect();
        all.sort_unstable_by(f64::total_cmp);
        let middle = if all.len() % 2 == 1 { all[all.len() / 2] } else { f64::midpoint(all[all.len() / 2 - 1], all[all.len() / 2]) };
        prop_assert!((shift(&a, &b, 0.9).unwrap().estimate - middle).abs() <= 1e-12 * middle.abs());
    }

    #[test]
    fn adjusting_keeps_the_order_and_never_lowers(p in prop::collection::vec(0.0..=1.0_f64, 0..30)) {
        let adjusted = false_discovery::adjusted(&p);
        for (i, a) in p.iter().enumerate() {
            prop_assert!(adjusted[i] >= a - 1e-15 && adjusted[i] <= 1.0);
            prop_assert!(p.iter().zip(&adjusted).all(|(b, other)| a > b || adjusted[i] <= *other));
        }
    }
}
