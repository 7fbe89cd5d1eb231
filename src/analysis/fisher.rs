//! Whether failures depend on something.

use std::collections::BTreeMap;

use super::{binomial::ln_choose, false_discovery};

/// Chances that differ by less than this share are equal but for rounding.
const ROUNDING: f64 = 1e-7;

/// How often something failed, of how many trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Trials that failed.
    pub failed: u64,
    /// All trials.
    pub trials: u64,
}

/// Fisher's exact test, two-sided (Fisher 1935, J. Royal Statistical Society 98, 39-82): the chance of a table at most as
/// likely as this one, with the same margins, if failures do not depend on the group.
///
/// None: more failures than trials, or a group without trials.
pub fn fisher_exact(one: Failures, other: Failures) -> Option<f64> {
    if one.failed > one.trials || other.failed > other.trials || one.trials == 0 || other.trials == 0 {
        return None;
    }
    let failed = one.failed + other.failed;
    let chance = |in_one: u64| ln_choose(one.trials, in_one) + ln_choose(other.trials, failed - in_one);
    let all = ln_choose(one.trials + other.trials, failed);
    let observed = chance(one.failed);
    let (least, most) = (failed.saturating_sub(other.trials), failed.min(one.trials));
    let p: f64 = (least..=most)
        .map(chance)
        .filter(|chance| *chance <= observed + ROUNDING)
        .map(|chance| (chance - all).exp())
        .sum();
    Some(p.min(1.0))
}

/// A group of trials against all others.
#[derive(Clone, Debug, PartialEq)]
pub struct Association<K> {
    /// What the trials of the group have in common.
    pub group: K,
    /// Failures in the group.
    pub inside: Failures,
    /// Failures in all others.
    pub outside: Failures,
    /// The p-value of Fisher's exact test.
    pub p_value: f64,
    /// The p-value, adjusted for the number of groups.
    pub adjusted: f64,
}

/// Tests each group of trials against all others, such as those of one hour of the day, one assignment of roles, or with
/// an injection. A trial is a group and whether it failed. Adjusted by Benjamini-Hochberg, most significant first.
///
/// Empty: there are fewer than two groups, so nothing can be told apart.
pub fn associations<K: Ord + Clone>(trials: &[(K, bool)]) -> Vec<Association<K>> {
    let mut groups: BTreeMap<&K, Failures> = BTreeMap::new();
    let mut all = Failures::default();
    for (group, failed) in trials {
        for count in [groups.entry(group).or_default(), &mut all] {
            count.trials += 1;
            count.failed += u64::from(*failed);
        }
    }
    let mut found: Vec<Association<K>> = groups
        .into_iter()
        .filter_map(|(group, inside)| {
            let outside = Failures { failed: all.failed - inside.failed, trials: all.trials - inside.trials };
            let p_value = fisher_exact(inside, outside)?;
            Some(Association { group: group.clone(), inside, outside, p_value, adjusted: 1.0 })
        })
        .collect();
    let p_values: Vec<f64> = found.iter().map(|association| association.p_value).collect();
    for (association, adjusted) in found.iter_mut().zip(false_discovery::adjusted(&p_values)) {
        association.adjusted = adjusted;
    }
    found.sort_by(|a, b| a.p_value.total_cmp(&b.p_value));
    found
}
