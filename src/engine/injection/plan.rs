//! An injection's spec that was parsed, and the choice that chance makes in it.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::api::{
    Duration, FailureInjectionSpec,
    failureinjection::{Alternative, NoTarget, Probe, Recovery, Target},
    fault::{Fault, Lasting},
    step::ResourceRef,
};

use super::super::{
    expr::{Condition, Roots, Template},
    plan::PlanError,
};

const DEFAULT_STARTING_DEADLINE: Duration = Duration::from_secs(5 * 60);
const DEFAULT_RECOVERY_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How many of the objects that fit are hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many; all if there are fewer.
    Count(u32),
    /// So many percent, rounded up.
    Percent(u32),
}

impl Share {
    /// How many of `all` that is.
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => all.min(usize::try_from(count).unwrap_or(usize::MAX)),
            Self::Percent(percent) => (all * usize::try_from(percent).unwrap_or(100)).div_ceil(100).min(all),
        }
    }
}

/// A request and what its answer must show.
#[derive(Clone, Debug)]
pub struct ProbePlan {
    /// The request as it was written.
    pub probe: Probe,
    /// What the answer must show, over `response` and `object`.
    pub expect: Condition,
}

/// Which objects are hit.
#[derive(Clone, Debug)]
pub struct TargetPlan {
    /// `apiVersion` and `kind`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace; none: the injection's own.
    pub namespace: Option<String>,
    /// The one object.
    pub name: Option<String>,
    /// Labels.
    pub label_selector: Option<String>,
    /// Holds for the objects that fit.
    pub filter: Option<Condition>,
    /// Is answered well by the objects that fit.
    pub probe: Option<ProbePlan>,
    /// How many are hit.
    pub share: Share,
}

/// When the system is healthy again.
#[derive(Clone, Debug)]
pub struct RecoveryPlan {
    /// An object and what holds for it then.
    pub resource: Option<(ResourceRef, Condition)>,
    /// A request and what its answer shows then.
    pub probe: Option<ProbePlan>,
    /// Longest time from the end of the fault.
    pub timeout: Duration,
}

/// A spec that was parsed, chance included.
#[derive(Clone, Debug)]
pub struct InjectionPlan {
    /// What is done.
    pub fault: Fault,
    /// The chosen alternative's name, where there was a choice.
    pub alternative: Option<String>,
    /// What is hit; none for a fault that is about no object.
    pub target: Option<TargetPlan>,
    /// How long it lasts; zero if it is over at once.
    pub duration: Duration,
    /// How late it may begin.
    pub starting_deadline: Duration,
    /// What happens when nothing fits.
    pub on_no_target: NoTarget,
    /// When the system is healthy again.
    pub recovery: Option<RecoveryPlan>,
    /// For a `resource` fault: when it is there, and when it will never be.
    pub injected_when: Option<Condition>,
    /// See above.
    pub failed_when: Option<Condition>,
}

impl InjectionPlan {
    /// Parses a spec. `seed` decides what is left to chance.
    ///
    /// Errors: the first field that is wrong, by path.
    pub fn parse(spec: &FailureInjectionSpec, seed: &str) -> Result<Self, PlanError> {
        // Destructured in full: a new field of the spec does not compile until it is handled here.
        let FailureInjectionSpec {
            service_account_name: _,
            kubeconfig_secret_ref: _,
            target,
            body,
            one_of,
            duration,
            start_at: _,
            starting_deadline,
            on_no_target,
            recovery,
            seed: _,
            abort: _,
            dry_run: _,
            ttl_after_finished: _,
        } = spec;
        for (index, Alternative { name: _, target: own, body }) in one_of.iter().enumerate() {
            // All of them are checked: a mistake must not wait for the night in which it is chosen.
            let path = format!("spec.oneOf[{index}]");
            let fault = body.fault().ok_or_else(|| one_kind(&path))?;
            parse_fault(&fault, own.as_deref().or(target.as_deref()), *duration, &path)?;
        }
        let (fault, alternative, target, path) = if one_of.is_empty() {
            let fault = body.fault().ok_or_else(|| one_kind("spec"))?;
            (fault, None, target.as_deref(), "spec".to_owned())
        } else {
            let index = draw(seed, "oneOf", one_of.len());
            let Alternative { name, target: own, body } = &one_of[index];
            let path = format!("spec.oneOf[{index}]");
            let fault = body.fault().ok_or_else(|| one_kind(&path))?;
            (fault, Some(name.clone()), own.as_deref().or(target.as_deref()), path)
        };
        let target = parse_fault(&fault, target, *duration, &path)?;
        let (injected_when, failed_when) = match &fault {
            Fault::Resource(resource) => {
                let condition = |text: Option<&str>, field: &str| {
                    text.map(|text| parse_condition(text, &["object"], &format!("{path}.resource.{field}"))).transpose()
                };
                (
                    condition(resource.injected_when.as_deref(), "injectedWhen")?,
                    condition(resource.failed_when.as_deref(), "failedWhen")?,
                )
            }
            _ => (None, None),
        };
        Ok(Self {
            duration: duration.filter(|_| fault.lasting() == Lasting::UntilUndone).unwrap_or(Duration::ZERO),
            fault,
            alternative,
            target,
            starting_deadline: starting_deadline.unwrap_or(DEFAULT_STARTING_DEADLINE),
            on_no_target: *on_no_target,
            recovery: recovery.as_deref().map(parse_recovery).transpose()?,
            injected_when,
            failed_when,
        })
    }

    /// The fault's kind, with the alternative's name where there was a choice.
    pub fn title(&self) -> String {
        let kind = self.fault.kind();
        self.alternative.as_ref().map_or_else(|| kind.to_owned(), |name| format!("{kind} ({name})"))
    }
}

fn one_kind(path: &str) -> PlanError {
    PlanError::new(path, format!("set exactly one of {}", Fault::KINDS.join(", ")))
}

fn parse_fault(
    fault: &Fault,
    target: Option<&Target>,
    duration: Option<Duration>,
    path: &str,
) -> Result<Option<TargetPlan>, PlanError> {
    let kind = fault.kind();
    if let Some((field, problem)) = fault.problem() {
        return Err(PlanError::new(format!("{path}.{kind}.{field}"), problem));
    }
    if fault.lasting() == Lasting::UntilUndone && duration.is_none() {
        return Err(PlanError::new(
            "spec.duration",
            format!("a {kind} fault lasts until it is undone: say how long that is, such as 30s"),
        ));
    }
    if !fault.selects() {
        return match target {
            Some(_) => Err(PlanError::new(
                "spec.target",
                format!("a {kind} fault names what it is about itself: leave the target out"),
            )),
            None => Ok(None),
        };
    }
    let target = target.ok_or_else(|| PlanError::new("spec.target", format!("say what the {kind} fault hits")))?;
    parse_target(target, fault).map(Some)
}

fn parse_target(target: &Target, fault: &Fault) -> Result<TargetPlan, PlanError> {
    let Target { api_version, kind, namespace, name, label_selector, filter, probe, count, percent } = target;
    let default = fault.hits();
    let named = |given: Option<&String>, default: Option<&str>, field: &str| {
        given.cloned().or(default.map(str::to_owned)).ok_or_else(|| {
            PlanError::new(
                format!("spec.target.{field}"),
                format!("a {} fault may hit any kind: say which", fault.kind()),
            )
        })
    };
    let api_version = named(api_version.as_ref(), default.map(|it| it.0), "apiVersion")?;
    let kind = named(kind.as_ref(), default.map(|it| it.1), "kind")?;
    if let Some(default) = default
        && default != (api_version.as_str(), kind.as_str())
    {
        return Err(PlanError::new(
            "spec.target.kind",
            format!("a {} fault hits {} of {}, not {kind} of {api_version}", fault.kind(), default.1, default.0),
        ));
    }
    if name.is_none() && label_selector.is_none() && filter.is_none() && probe.is_none() {
        return Err(PlanError::new(
            "spec.target",
            "set name, labelSelector, filter or probe: everything there is can't be meant",
        ));
    }
    Ok(TargetPlan {
        api_version,
        kind,
        namespace: namespace.clone(),
        name: name.clone(),
        label_selector: label_selector.clone(),
        filter: filter.as_deref().map(|text| parse_condition(text, &["object"], "spec.target.filter")).transpose()?,
        probe: probe.as_deref().map(|probe| parse_probe(probe, "spec.target.probe")).transpose()?,
        share: match (count, percent) {
            (_, Some(percent)) => Share::Percent(*percent),
            (Some(count), None) => Share::Count(*count),
            (None, None) => Share::Count(1),
        },
    })
}

fn parse_recovery(recovery: &Recovery) -> Result<RecoveryPlan, PlanError> {
    let Recovery { resource, until, probe, timeout } = recovery;
    let resource = match (resource, until) {
        (Some(resource), Some(until)) => {
            Some((resource.clone(), parse_condition(until, &["object"], "spec.recovery.until")?))
        }
        (None, None) => None,
        _ => return Err(PlanError::new("spec.recovery", "resource and until belong together")),
    };
    Ok(RecoveryPlan {
        resource,
        probe: probe.as_deref().map(|probe| parse_probe(probe, "spec.recovery.probe")).transpose()?,
        timeout: timeout.unwrap_or(DEFAULT_RECOVERY_TIMEOUT),
    })
}

fn parse_probe(probe: &Probe, path: &str) -> Result<ProbePlan, PlanError> {
    let roots = Roots::new(["object"]);
    let texts = [("url", Some(&probe.url)), ("body", probe.body.as_ref())];
    for (field, text) in texts.into_iter().filter_map(|(field, text)| Some((field, text?))) {
        Template::parse(text, &roots).map_err(|error| PlanError::expression(format!("{path}.{field}"), &error))?;
    }
    let expect = parse_condition(&probe.expect, &["object", "response"], &format!("{path}.expect"))?;
    Ok(ProbePlan { probe: probe.clone(), expect })
}

fn parse_condition(text: &str, roots: &[&str], path: &str) -> Result<Condition, PlanError> {
    Condition::parse(text, &Roots::new(roots)).map_err(|error| PlanError::expression(path, &error))
}

/// A number below `choices` that depends on nothing but the seed and what it is for.
pub fn draw(seed: &str, what: &str, choices: usize) -> usize {
    if choices == 0 {
        return 0;
    }
    let hash = Sha256::digest(format!("{seed}\n{what}").as_bytes());
    let mut number = [0; 8];
    number.copy_from_slice(&hash[..8]);
    // The bias of the remainder is below 1 in 2^57 for the few choices that there are.
    usize::try_from(u64::from_be_bytes(number) % choices as u64).unwrap_or(0)
}

/// Chooses `count` of the names by chance: those whose hash with the seed is smallest. A name keeps its rank when others come
/// and go, and the answer is sorted.
pub fn choose(seed: &str, mut names: Vec<String>, count: usize) -> Vec<String> {
    names.sort_by_cached_key(|name| {
        let hash = Sha256::digest(format!("{seed}\n{name}").as_bytes());
        hash.iter().take(8).fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    });
    names.truncate(count);
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_more_than_there_is() {
        for (share, all, expected) in [
            (Share::Count(1), 3, 1),
            (Share::Count(5), 3, 3),
            (Share::Count(1), 0, 0),
            (Share::Percent(50), 3, 2),
            (Share::Percent(1), 3, 1),
            (Share::Percent(100), 3, 3),
            (Share::Percent(50), 0, 0),
        ] {
            assert_eq!(share.of(all), expected, "{share:?} of {all}");
        }
    }

    #[test]
    fn a_choice_depends_on_the_seed_alone() {
        let names = || ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut reversed = names();
        reversed.reverse();
        assert_eq!(choose("1", names(), 2), choose("1", reversed, 2));
        let different: std::collections::BTreeSet<_> =
            (0..20).map(|seed| choose(&seed.to_string(), names(), 2)).collect();
        assert!(different.len() > 3, "{different:?}");
        let counts = (0..300).fold([0; 3], |mut counts, seed| {
            counts[draw(&seed.to_string(), "oneOf", 3)] += 1;
            counts
        });
        assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
    }
}
