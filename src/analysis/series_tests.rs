//! Series: change points, slopes, drifts.

use fastrand::Rng;
use proptest::prelude::*;

use super::{
    change_points::{Changes, MAX_LENGTH, Search, change_points, divide},
    comparison_tests::{allowed, gaussian, near, numbers, rows, share},
    drift::{Direction, drift},
    mann_kendall::mann_kendall,
    theil_sen::theil_sen,
};

#[test]
fn slopes_are_those_of_scipy() {
    for row in rows("theil_sen") {
        let found =
            theil_sen(&numbers(&row["x"]), &numbers(&row["y"]), row["confidence"].as_f64().unwrap(), 1.0).unwrap();
        for (found, name) in
            [(found.estimate, "slope"), (found.low, "low"), (found.high, "high"), (found.intercept, "intercept")]
        {
            assert!(near(found, &row[name], 1e-9), "{name}: {found} {row}");
        }
    }
    assert_eq!(theil_sen(&[1.0], &[1.0], 0.9, 1.0), None, "one point has no slope");
    assert_eq!(theil_sen(&[1.0, 1.0], &[1.0, 2.0], 0.9, 1.0), None, "nor have two of one time");
    assert_eq!(theil_sen(&[1.0, 2.0], &[1.0], 0.9, 1.0), None, "a time without a value");
}

#[test]
fn trends_are_those_of_pymannkendall() {
    let mut corrected = 0;
    for row in rows("mann_kendall") {
        let found = mann_kendall(&numbers(&row["y"])).unwrap();
        assert!(near(found.s, &row["s"], 0.0) && near(found.tau, &row["tau"], 1e-12), "{found:?}");
        let inflation = row["inflation"].as_f64().unwrap();
        // Only here it is taken as 1 where it would be less.
        let p_value = if inflation < 1.0 { &row["plain_p"] } else { &row["p"] };
        assert!((found.inflation - inflation.max(1.0)).abs() < 1e-9, "{found:?} {inflation}");
        // There it is 1 less a chance near 1, which leaves no digits of small ones.
        assert!((found.p_value - p_value.as_f64().unwrap()).abs() < 1e-14, "{found:?} {row}");
        corrected += i32::from(inflation > 1.0);
    }
    assert!(corrected >= 4, "the data would not show a missing correction");
    assert_eq!(mann_kendall(&[1.0, 2.0]), None);
    assert!((mann_kendall(&[4.0; 20]).unwrap().p_value - 1.0).abs() < 1e-12, "what never moves has no trend");
}

#[test]
fn energy_distances_are_those_of_the_definition() {
    for row in rows("energy_distance") {
        let min_size = usize::try_from(row["min_size"].as_u64().unwrap()).unwrap();
        let found = divide(&numbers(&row["y"]), min_size).unwrap();
        assert_eq!(found.at as u64, row["at"].as_u64().unwrap(), "{row}");
        assert!(near(found.distance, &row["distance"], 1e-9), "{found:?} {row}");
    }
}

fn noise(rng: &mut Rng, count: usize, level: impl Fn(usize) -> f64) -> Vec<f64> {
    (0..count).map(|index| level(index) + gaussian(rng)).collect()
}

fn found(changes: &Changes) -> Vec<usize> {
    match changes {
        Changes::InsufficientData => panic!("there are enough values"),
        Changes::Found(changes) => changes.iter().map(|change| change.index).collect(),
    }
}

#[test]
fn steps_bumps_and_wider_spreads_are_found_where_they_are() {
    let mut rng = Rng::with_seed(5);
    let search = Search::default();
    let step = noise(&mut rng, 60, |index| if index < 35 { 100.0 } else { 104.0 });
    let changes = change_points(&step, &search);
    assert!(matches!(found(&changes)[..], [34..=36]), "{changes:?}");
    let bump = noise(&mut rng, 60, |index| if (20..40).contains(&index) { 104.0 } else { 100.0 });
    assert!(matches!(found(&change_points(&bump, &search))[..], [19..=21, 39..=41]));
    let wider: Vec<f64> = (0..120).map(|index| gaussian(&mut rng) * if index < 60 { 1.0 } else { 8.0 }).collect();
    assert!(matches!(found(&change_points(&wider, &search))[..], [50..=70, ..]));
    let steady = vec![3.0; 40];
    assert_eq!(found(&change_points(&steady, &search)), [0_usize; 0], "what never moves has not changed");
    assert_eq!(change_points(&step[..9], &search), Changes::InsufficientData);
    assert_eq!(change_points(&step, &search), changes, "the seed decides");
}

#[test]
fn only_the_newest_values_of_a_long_series_are_looked_at() {
    let mut rng = Rng::with_seed(6);
    let long = noise(&mut rng, MAX_LENGTH + 500, |index| if index < 1_000 { 0.0 } else { 20.0 });
    let search = Search { permutations: 19, significance: 0.05, ..Search::default() };
    assert_eq!(found(&change_points(&long[400..], &search))[0], 600);
    assert!(found(&change_points(&long[1_000..], &Search { permutations: 0, ..search })).is_empty());
    let changes = change_points(&long, &Search { permutations: 19, min_size: 400, ..search });
    assert_eq!(found(&changes), [1_000]);
}

/// The +1 of the permutation test and the search over all divisions are both part of this.
#[test]
fn a_series_without_a_change_seldom_has_one() {
    let mut rng = Rng::with_seed(17);
    let runs = 400;
    for whole in [false, true] {
        let alarms = share(runs, |run| {
            let series = noise(&mut rng, 24, |_| 10.0);
            let series: Vec<f64> = series.iter().map(|value| if whole { value.round() } else { value.exp() }).collect();
            let search = Search { permutations: 39, seed: run as u64, significance: 0.1, ..Search::default() };
            !found(&change_points(&series, &search)).is_empty()
        });
        assert!(alarms <= allowed(0.1, runs), "{alarms}");
        assert!(whole || alarms > 0.04, "{alarms} is so low that the test does not work");
    }
}

/// First-order autoregressive noise.
fn sluggish(rng: &mut Rng, count: usize, phi: f64) -> Vec<f64> {
    let mut value = 0.0;
    (0..count)
        .map(|_| {
            value = phi * value + gaussian(rng);
            value
        })
        .collect()
}

/// The rates that docs/results.md states: independent values keep the level, sluggish ones come far closer to it than
/// without the correction.
#[test]
fn noise_is_seldom_taken_for_a_drift() {
    let mut rng = Rng::with_seed(23);
    let runs = 300;
    for (phi, promised) in [(0.0, 0.05), (0.3, 0.12), (0.6, 0.20)] {
        let mut plain = 0.0;
        let times: Vec<f64> = (0..60).map(f64::from).collect();
        let alarms = share(runs, |_| {
            let series = sluggish(&mut rng, 60, phi);
            let trend = mann_kendall(&series).unwrap();
            let uncorrected = theil_sen(&times, &series, 0.95, 1.0).unwrap();
            plain += f64::from(uncorrected.low > 0.0 || uncorrected.high < 0.0);
            assert!(trend.inflation >= 1.0);
            drift(&times, &series, 0.95).direction != Direction::Steady
        });
        assert!(alarms <= allowed(promised, runs), "phi {phi}: {alarms}");
        assert!(phi < 0.5 || plain / 300.0 > alarms * 1.5, "phi {phi}: {alarms} against {plain} of 300 uncorrected");
    }
}

#[test]
fn a_leak_is_found_with_its_slope() {
    let mut rng = Rng::with_seed(29);
    for count in [40, 400, 5_000] {
        let times: Vec<f64> = (0..count).map(|index| f64::from(index) * 24.0 / f64::from(count)).collect();
        let values: Vec<f64> = times.iter().map(|hours| 500.0 + 3.0 * hours + 10.0 * gaussian(&mut rng)).collect();
        let found = drift(&times, &values, 0.95);
        assert_eq!(found.direction, Direction::Rising, "{found:?}");
        let slope = found.slope.unwrap();
        assert!(slope.low <= 3.0 && 3.0 <= slope.high && slope.high - slope.low < 3.0, "{slope:?}");
        assert!((found.growth.unwrap() - 72.0 / 536.0).abs() < 0.05, "{found:?}");
        let falling: Vec<f64> = values.iter().map(|value| -value).collect();
        assert_eq!(drift(&times, &falling, 0.95).direction, Direction::Falling);
    }
    assert_eq!(drift(&[1.0; 9], &[1.0; 9], 0.95).direction, Direction::InsufficientData);
    let hole = [f64::NAN; 12];
    assert_eq!(drift(&hole, &hole, 0.95).direction, Direction::InsufficientData, "what is no number counts as missing");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn slopes_scale_and_mirror(values in prop::collection::vec(-100.0..100.0_f64, 4..40)) {
        let times: Vec<f64> = (0_u32..).map(f64::from).take(values.len()).collect();
        let plain = theil_sen(&times, &values, 0.9, 1.0).unwrap();
        prop_assert!(plain.low <= plain.estimate && plain.estimate <= plain.high);
        let scaled: Vec<f64> = values.iter().map(|value| -value * 2.0).collect();
        let mirrored = theil_sen(&times, &scaled, 0.9, 1.0).unwrap();
        prop_assert!((mirrored.estimate + plain.estimate * 2.0).abs() < 1e-9);
        let (one, other) = (mann_kendall(&values).unwrap(), mann_kendall(&scaled).unwrap());
        prop_assert!((one.s + other.s).abs() < 1e-9 && (one.p_value - other.p_value).abs() < 1e-9);
        let wide = theil_sen(&times, &values, 0.9, 4.0).unwrap();
        prop_assert!(wide.low <= plain.low && plain.high <= wide.high);
    }

    #[test]
    fn change_points_do_not_depend_on_unit_and_offset(values in prop::collection::vec((-8_i32..8).prop_map(f64::from), 0..40), seed in any::<u64>()) {
        let search = Search { permutations: 19, seed, ..Search::default() };
        let moved: Vec<f64> = values.iter().map(|value| value * 4.0 + 1_024.0).collect();
        prop_assert_eq!(change_points(&values, &search), change_points(&moved, &search));
    }
}
