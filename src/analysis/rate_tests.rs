//! Success rates under repeated looks, and what failures depend on.

use fastrand::Rng;
use proptest::prelude::*;

use super::{
    comparison_tests::{allowed, near, rows, share},
    fisher::{Failures, associations, fisher_exact},
    sequential::{anytime_interval, anytime_verdict},
    verdict::{Verdict, success_verdict},
};

#[test]
fn anytime_intervals_are_those_of_the_definition() {
    for row in rows("anytime") {
        let (successes, trials) = (row["successes"].as_u64().unwrap(), row["trials"].as_u64().unwrap());
        let found = anytime_interval(successes, trials, row["expected"].as_f64().unwrap(), 0.95).unwrap();
        assert!((found.low - row["low"].as_f64().unwrap()).abs() < 1e-9, "{found:?} {row}");
        assert!((found.high - row["high"].as_f64().unwrap()).abs() < 1e-9, "{found:?} {row}");
    }
    let nothing = anytime_interval(0, 0, 0.9, 0.95).unwrap();
    assert_eq!((nothing.low, nothing.high), (0.0, 1.0), "before the first trial every rate is possible");
    for (successes, trials, expected, confidence) in
        [(2, 1, 0.5, 0.9), (1, 1, 0.0, 0.9), (1, 1, 1.0, 0.9), (1, 1, 0.5, 1.0), (1, 1, f64::NAN, 0.9)]
    {
        assert_eq!(anytime_interval(successes, trials, expected, confidence), None);
    }
}

#[test]
fn verdicts_take_as_many_trials_as_documented() {
    for (rate, trials) in [(0.9, 40), (0.95, 81), (0.99, 410)] {
        let first = (1..1_000).find(|trials| anytime_verdict(*trials, *trials, rate, 0.95) == Verdict::Passed);
        assert_eq!(first, Some(trials), "for {rate}");
    }
    for (successes, trials, rate, expected, why) in [
        (0, 0, 0.5, Verdict::Inconclusive, "nothing was tried"),
        (0, 4, 0.95, Verdict::Failed, "four failures refute 95 percent"),
        (10, 10, 1.0, Verdict::Inconclusive, "certainty is never shown"),
        (9, 10, 1.0, Verdict::Failed, "but refuted"),
        (1, 2, 0.0, Verdict::Passed, "every rate is at least 0"),
        (3, 2, 0.5, Verdict::Inconclusive, "more successes than trials"),
        (3, 3, 1.5, Verdict::Inconclusive, "no rate"),
    ] {
        assert_eq!(anytime_verdict(successes, trials, rate, 0.95), expected, "{why}");
    }
}

/// The chance that a look after each of `trials` trials ever gives `wrong`, computed exactly over all courses.
fn ever(rate: f64, trials: usize, wrong: Verdict, verdict: impl Fn(u64, u64) -> Verdict) -> f64 {
    // chances[s]: to have s successes and no verdict yet.
    let mut chances = vec![1.0];
    let mut sum = 0.0;
    for trial in 1..=trials {
        let mut next = vec![0.0; trial + 1];
        for (successes, chance) in chances.iter().enumerate() {
            next[successes] += chance * (1.0 - rate);
            next[successes + 1] += chance * rate;
        }
        for (successes, chance) in next.iter_mut().enumerate().filter(|(_, chance)| **chance > 1e-15) {
            let told = verdict(successes as u64, trial as u64);
            if told != Verdict::Inconclusive {
                sum += if told == wrong { *chance } else { 0.0 };
                *chance = 0.0;
            }
        }
        chances = next;
    }
    sum
}

/// Not a simulation but the sum over all courses of 400 trials: the error that Ville's inequality bounds, and what plain
/// looks do instead.
#[test]
fn repeated_looks_keep_the_error_rate_and_plain_ones_do_not() {
    for wanted in [0.5, 0.9, 0.95] {
        let anytime = |successes, trials| anytime_verdict(successes, trials, wanted, 0.95);
        // Right at the border either verdict is possible; just below it `Passed` is wrong, at it `Failed` is.
        let passed = ever(wanted - 1e-9, 400, Verdict::Passed, anytime);
        let failed = ever(wanted, 400, Verdict::Failed, anytime);
        assert!(passed + failed <= 0.05, "{wanted}: {passed} and {failed}");
        assert!(passed + failed > 0.005, "{wanted}: {passed} and {failed} are so low that power is given away");
        let plain = |successes, trials| success_verdict(successes, trials, wanted, 0.95);
        let inflated = ever(wanted, 400, Verdict::Failed, plain) + ever(wanted - 1e-9, 400, Verdict::Passed, plain);
        assert!(inflated > 0.15, "{wanted}: {inflated}");
    }
}

#[test]
fn a_simulated_interval_never_loses_the_rate_too_often() {
    let mut rng = Rng::with_seed(31);
    let runs = 400;
    let lost = share(runs, |_| {
        let mut successes = 0;
        (1..=150).any(|trials| {
            successes += u64::from(rng.f64() < 0.85);
            let found = anytime_interval(successes, trials, 0.9, 0.9).unwrap();
            found.low > 0.85 || found.high < 0.85
        })
    });
    assert!(lost <= allowed(0.1, runs), "{lost}");
}

fn failures(value: &serde_json::Value) -> Failures {
    Failures { failed: value[0].as_u64().unwrap(), trials: value[1].as_u64().unwrap() }
}

#[test]
fn exact_tests_are_those_of_scipy() {
    for row in rows("fisher") {
        let found = fisher_exact(failures(&row["one"]), failures(&row["other"])).unwrap();
        assert!(near(found, &row["p"], 1e-9), "{found} {row}");
    }
    let (some, none) = (Failures { failed: 1, trials: 2 }, Failures::default());
    assert_eq!(fisher_exact(some, none), None, "a group without trials");
    assert_eq!(fisher_exact(Failures { failed: 3, trials: 2 }, some), None, "more failures than trials");
}

/// Fisher 1935: the lady who tells how tea was made, three of four right.
#[test]
fn the_lady_tasting_tea_comes_out() {
    let found = fisher_exact(Failures { failed: 3, trials: 4 }, Failures { failed: 1, trials: 4 }).unwrap();
    assert!((found - 0.485_714).abs() < 1e-6);
}

#[test]
fn an_hour_that_fails_stands_out_and_chance_does_not() {
    let trials: Vec<(u8, bool)> =
        (0..240_u32).map(|index| ((index % 24) as u8, index % 24 == 3 && index % 5 != 0)).collect();
    let found = associations(&trials);
    assert_eq!((found[0].group, found[0].inside.failed), (3, 8));
    assert!(found[0].adjusted < 1e-6 && found[1].adjusted > 0.5, "{:?}", &found[..2]);
    assert!(associations(&[("a", true), ("a", false)]).is_empty(), "one group has no other");

    let mut rng = Rng::with_seed(37);
    let runs = 300;
    let alarms = share(runs, |_| {
        let trials: Vec<(u8, bool)> = (0..240_u32).map(|index| ((index % 24) as u8, rng.f64() < 0.1)).collect();
        associations(&trials)[0].adjusted <= 0.05
    });
    assert!(alarms <= allowed(0.05, runs), "{alarms}");
}

/// Which of two assignments a cycle has then depends on the outcomes before it.
#[test]
fn roles_that_swap_after_each_success_are_not_blamed_for_chance() {
    let mut rng = Rng::with_seed(41);
    let runs = 300;
    let alarms = share(runs, |_| {
        let mut swapped = false;
        let trials: Vec<(bool, bool)> = (0..240)
            .map(|_| {
                let trial = (swapped, rng.f64() < 0.3);
                swapped ^= !trial.1;
                trial
            })
            .collect();
        associations(&trials)[0].adjusted <= 0.05
    });
    assert!(alarms <= allowed(0.05, runs), "{alarms}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn anytime_intervals_hold_the_share_and_grow_with_confidence(successes in 0_u64..500, failed in 0_u64..500, expected in 0.05..0.99_f64) {
        let trials = successes + failed + 1;
        let found = anytime_interval(successes, trials, expected, 0.9).unwrap();
        #[allow(clippy::cast_precision_loss)]
        let share = successes as f64 / trials as f64;
        prop_assert!(found.low <= share && share <= found.high);
        let surer = anytime_interval(successes, trials, expected, 0.99).unwrap();
        prop_assert!(surer.low <= found.low && found.high <= surer.high);
    }

    #[test]
    fn the_exact_test_does_not_mind_which_group_comes_first(a in 0_u64..40, b in 1_u64..40, c in 0_u64..40, d in 1_u64..40) {
        let (one, other) = (Failures { failed: a, trials: a + b }, Failures { failed: c, trials: c + d });
        let p = fisher_exact(one, other).unwrap();
        prop_assert!((p - fisher_exact(other, one).unwrap()).abs() < 1e-9);
        prop_assert!(p > 0.0 && p <= 1.0);
    }
}
