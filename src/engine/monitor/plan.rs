//! Monitors that were parsed.

use serde_json::{Value, json};

use crate::{
    api::{
        Duration,
        monitor::{
            AlertPolicy, AlertRule, HttpMonitor, Monitor, PodHealthMonitor, PromqlMonitor, ResourceMonitor, Severity,
        },
        names::reason,
    },
    engine::{
        expr::{Condition, Expression, Roots, check_json},
        plan::PlanError,
    },
};

/// Pause between two samples where the spec says nothing.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

/// Where samples come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Objects of a kind.
    Resource(ResourceMonitor),
    /// Pods.
    PodHealth(PodHealthMonitor),
    /// A Prometheus.
    Promql(PromqlMonitor),
    /// A request.
    Http(HttpMonitor),
}

impl Source {
    /// Its name in a manifest.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Resource(_) => "resource",
            Self::PodHealth(_) => "podHealth",
            Self::Promql(_) => "promql",
            Self::Http(_) => "http",
        }
    }

    /// The variable that holds what is judged.
    pub const fn subject(&self) -> &'static str {
        match self {
            Self::Resource(_) => "object",
            Self::PodHealth(_) => "pod",
            Self::Promql(_) => "labels",
            Self::Http(_) => "response",
        }
    }

    /// The fields whose texts may hold `${...}`.
    pub fn fields(&self) -> Value {
        match self {
            Self::Resource(it) => json!(it),
            Self::PodHealth(it) => json!(it),
            Self::Promql(it) => json!(it),
            Self::Http(it) => json!(it),
        }
    }
}

/// A rule that was parsed.
#[derive(Clone, Debug)]
pub struct RulePlan {
    /// Its name.
    pub name: String,
    /// What must hold; none for the rule that a broken monitor stands for.
    pub when: Option<Condition>,
    /// For so long, before it fires.
    pub hold: Duration,
    /// It goes on firing for so long.
    pub keep: Duration,
    /// How much it matters.
    pub severity: Severity,
    /// What it does to the run.
    pub policy: AlertPolicy,
}

/// A monitor that was parsed.
#[derive(Clone, Debug)]
pub struct MonitorPlan {
    /// Its name.
    pub name: String,
    /// The role or target that it looks at; none: the cluster that the operator runs in.
    pub target: Option<String>,
    /// Pause between two samples.
    pub interval: Duration,
    /// Where they come from.
    pub source: Source,
    /// What the sample is; none: the default of the source.
    pub value: Option<Expression>,
    /// Its rules; the last is that of the monitor itself being broken.
    pub rules: Vec<RulePlan>,
}

/// Parses the monitors of a spec.
///
/// Errors: the first field that is wrong, by path.
pub fn parse(monitors: &[Monitor]) -> Result<Vec<MonitorPlan>, PlanError> {
    let mut names = std::collections::BTreeSet::new();
    monitors
        .iter()
        .enumerate()
        .map(|(index, monitor)| {
            let path = format!("spec.monitors[{index}]");
            if !names.insert(&monitor.name) {
                return Err(PlanError::new(format!("{path}.name"), format!("the name {} comes twice", monitor.name)));
            }
            one(monitor, &path)
        })
        .collect()
}

fn one(monitor: &Monitor, path: &str) -> Result<MonitorPlan, PlanError> {
    let Monitor { name, target, interval, resource, pod_health, promql, http, value, alerts } = monitor;
    let sources: Vec<Source> = [
        resource.clone().map(Source::Resource),
        pod_health.clone().map(Source::PodHealth),
        promql.clone().map(Source::Promql),
        http.clone().map(Source::Http),
    ]
    .into_iter()
    .flatten()
    .collect();
    let Ok([source]) = <[Source; 1]>::try_from(sources) else {
        return Err(PlanError::new(path, "exactly one of resource, podHealth, promql and http is wanted"));
    };
    if target.is_some() && !matches!(source, Source::Resource(_) | Source::PodHealth(_)) {
        let problem = format!("{} goes to an address and not to a cluster: remove it", source.kind());
        return Err(PlanError::new(format!("{path}.target"), problem));
    }
    let base = Roots::new(["run", "params"]);
    check_json(&source.fields(), &base)
        .map_err(|(field, error)| PlanError::expression(format!("{path}.{}.{field}", source.kind()), &error))?;
    let with_subject = base.with(source.subject());
    // What promql gives has a value already, which `value` may change.
    let value_roots =
        if matches!(source, Source::Promql(_)) { with_subject.clone().with("value") } else { with_subject.clone() };
    let value = value
        .as_deref()
        .map(|text| {
            Expression::parse(text, &value_roots)
                .map_err(|error| PlanError::expression(format!("{path}.value"), &error))
        })
        .transpose()?;
    let interval = interval.unwrap_or(DEFAULT_INTERVAL).max(Duration::from_secs(1));
    let rule_roots = with_subject.with("value");
    let given = if alerts.is_empty() { default_rules(&source) } else { alerts.clone() };
    let mut rules = given
        .iter()
        .enumerate()
        .map(|(index, rule)| self::rule(rule, &rule_roots, &format!("{path}.alerts[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(twice) =
        rules.iter().enumerate().find(|(at, rule)| rules[..*at].iter().any(|other| other.name == rule.name))
    {
        return Err(PlanError::new(format!("{path}.alerts"), format!("the name {} comes twice", twice.1.name)));
    }
    rules.push(RulePlan {
        name: reason::MONITOR_BROKEN.into(),
        when: None,
        // One failed look is a stumble; the next one in a row is not.
        hold: interval,
        keep: Duration::ZERO,
        severity: Severity::Warning,
        policy: AlertPolicy::Record,
    });
    Ok(MonitorPlan { name: name.clone(), target: target.clone(), interval, source, value, rules })
}

fn rule(rule: &AlertRule, roots: &Roots, path: &str) -> Result<RulePlan, PlanError> {
    let AlertRule { name, when, hold, keep_firing_for, severity, policy } = rule;
    if name == reason::MONITOR_BROKEN {
        return Err(PlanError::new(
            format!("{path}.name"),
            "MonitorBroken is the alert of a monitor that can't see: choose another name",
        ));
    }
    Ok(RulePlan {
        name: name.clone(),
        when: Some(
            Condition::parse(when, roots).map_err(|error| PlanError::expression(format!("{path}.when"), &error))?,
        ),
        hold: hold.unwrap_or(Duration::ZERO),
        keep: keep_firing_for.unwrap_or(Duration::ZERO),
        severity: *severity,
        policy: *policy,
    })
}

/// The alerts of a monitor that declares none.
fn default_rules(source: &Source) -> Vec<AlertRule> {
    let rule = |name: &str, when: &str, hold: u64, severity, policy| AlertRule {
        name: name.into(),
        when: when.into(),
        hold: Some(Duration::from_secs(hold)),
        severity,
        policy,
        ..AlertRule::default()
    };
    match source {
        Source::PodHealth(PodHealthMonitor { policy, .. }) => vec![
            rule("OOMKilled", "pod.oomKilled", 0, Severity::Critical, *policy),
            rule("CrashLoop", "pod.crashLoop", 0, Severity::Critical, *policy),
            rule("Restarted", "pod.restarted", 0, Severity::Warning, *policy),
            rule("NotReady", "!pod.ready && !pod.ended", 60, Severity::Warning, *policy),
        ],
        Source::Http(_) => vec![rule(
            "Unavailable",
            "response.status == 0 || response.status >= 400",
            0,
            Severity::Warning,
            AlertPolicy::Record,
        )],
        Source::Resource(_) | Source::Promql(_) => Vec::new(),
    }
}
