//! Monitors: which alerts are pending, fire and end, and what that means for cycles and the run.
//!
//! The shell looks ([`judge`], [`MonitorSeen`]); here is decided. An alert of a rule and a subject exists at most once at a
//! time. As in Prometheus it is pending until its condition has held for `for`, and goes on firing for `keepFiringFor`.
//! While a monitor can't see, its alerts stay as they are: missing data neither fires nor ends an alert.

mod look;
mod plan;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::{
    analysis::Series,
    api::{
        ConditionStatus, SoakRun,
        monitor::AlertPolicy,
        names::reason,
        status::{
            Alert, AlertState, Alerts, Failure, MAX_ALERTS, MonitorStatus, Pass, RECENT_ALERTS, Section, SoakRunStatus,
        },
    },
};

use super::{Context, NoteType, Plan, expr::Scope, run, targets, text};

pub use look::{Broken, Holding, Judged, MAX_SUBJECTS, MonitorSeen, Subject, judge};
pub use plan::{MonitorPlan, RulePlan, Source, parse};

/// Buckets of a monitor's samples over the whole run.
pub const STATUS_BUCKETS: usize = 24;

/// What the expressions of monitors see beside their subject.
pub fn scope(plan: &Plan, run: &SoakRun, attempt: u32) -> Scope {
    let metadata = &run.metadata;
    let run = json!({"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid, "attempt": attempt});
    Scope::new().with("run", run).with("params", json!(plan.parameters))
}

/// The target that a monitor looks at under an assignment of roles; none for the cluster that the operator runs in.
pub fn target(monitor: &MonitorPlan, roles: &BTreeMap<String, String>) -> Option<String> {
    monitor.target.as_deref().map(|name| targets::named(name, roles))
}

/// Whether a subject is where the monitor looks under an assignment of roles.
fn is_here(monitor: &MonitorPlan, roles: &BTreeMap<String, String>, subject: &str) -> bool {
    target(monitor, roles).is_none_or(|target| subject.strip_prefix(&target).is_some_and(|it| it.starts_with('/')))
}

/// After the roles have swapped: alerts about a cluster that their monitor no longer looks at end, so that they count for no
/// later cycle.
pub(super) fn leave(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    let (roles, Some(alerts)) = (&status.roles, &mut status.alerts) else { return };
    alerts.list.retain_mut(|alert| {
        let monitor = plan.monitors.iter().find(|monitor| monitor.name == alert.monitor);
        let left = !alert.subject.is_empty() && monitor.is_some_and(|it| !is_here(it, roles, &alert.subject));
        if left && alert.state == AlertState::Firing {
            resolve(alert, context);
        }
        !left || alert.state == AlertState::Resolved
    });
    describe(alerts);
}

/// Moves all alerts on by what is seen. An ended run does not come here.
pub(super) fn advance(plan: &Plan, status: &mut SoakRunStatus, context: &mut Context<'_>) {
    if plan.monitors.is_empty() || status.started_at.is_none() {
        return;
    }
    let mut alerts = status.alerts.take().unwrap_or_default();
    let seen = context.seen;
    for monitor in &plan.monitors {
        if let Some(seen) = seen.monitors.get(&monitor.name) {
            monitor_alerts(monitor, seen, &status.roles, &mut alerts, context);
        }
    }
    let worst =
        alerts.list.iter().find(|alert| alert.state == AlertState::Firing && alert.policy == AlertPolicy::Abort);
    if let Some(alert) = worst
        && status.ending.is_none()
    {
        run::end_run(status, reason::ABORTED, &told(alert), context);
    }
    describe(&mut alerts);
    status.alerts = Some(alerts);
}

fn monitor_alerts(
    monitor: &MonitorPlan,
    seen: &MonitorSeen,
    roles: &BTreeMap<String, String>,
    alerts: &mut Alerts,
    context: &mut Context<'_>,
) {
    let broken = monitor.rules.len() - 1;
    let mut holding: Vec<(usize, String, Holding)> = Vec::new();
    if let Some((since, cause)) = &seen.broken {
        holding.push((broken, String::new(), Holding { since: *since, cause: cause.clone() }));
    } else {
        // Between a swap of roles and the next look what is seen is about the other cluster.
        let here = seen.holding.iter().filter(|((_, subject), _)| is_here(monitor, roles, subject));
        holding.extend(here.map(|((rule, subject), it)| (*rule, subject.clone(), it.clone())));
    }
    let mut list = std::mem::take(&mut alerts.list);
    for alert in list.iter_mut().filter(|alert| alert.monitor == monitor.name && alert.state != AlertState::Resolved) {
        let Some(index) = monitor.rules.iter().position(|rule| rule.name == alert.alert) else { continue };
        let at = holding.iter().position(|(rule, subject, _)| *rule == index && *subject == alert.subject);
        let holds = at.map(|at| holding.swap_remove(at).2);
        if index != broken && seen.broken.is_some() {
            continue;
        }
        follow(alert, &monitor.rules[index], holds.as_ref(), seen.watched_since, alerts, context);
    }
    // A pending alert whose condition no longer holds was none.
    list.retain(|alert| alert.state != AlertState::Pending || alert.resolved_at.is_none());
    holding.sort_by(|a, b| (a.2.since, a.0, &a.1).cmp(&(b.2.since, b.0, &b.1)));
    for (index, subject, it) in holding {
        if !make_room(&mut list) {
            alerts.truncated = true;
            break;
        }
        let rule = &monitor.rules[index];
        let mut alert = Alert {
            monitor: monitor.name.clone(),
            alert: rule.name.clone(),
            subject,
            severity: rule.severity,
            policy: rule.policy,
            state: AlertState::Pending,
            since: it.since,
            fired_at: None,
            clear_since: None,
            resolved_at: None,
            cause: it.cause.clone(),
        };
        follow(&mut alert, rule, Some(&it), seen.watched_since, alerts, context);
        list.push(alert);
    }
    alerts.list = list;
}

/// Moves one alert on.
fn follow(
    alert: &mut Alert,
    rule: &RulePlan,
    holds: Option<&Holding>,
    watched_since: DateTime<Utc>,
    alerts: &mut Alerts,
    context: &mut Context<'_>,
) {
    match (alert.state, holds) {
        (AlertState::Pending, Some(it)) => {
            // What held at the first look of this process may have held before: the older time counts. What began
            // later began anew.
            if it.since > watched_since {
                alert.since = alert.since.max(it.since);
            }
            if context.reached(alert.since + rule.hold.as_chrono()) {
                alert.state = AlertState::Firing;
                alert.fired_at = Some(context.now);
                alert.cause.clone_from(&it.cause);
                fired(alert, alerts, context);
            }
        }
        // Marked for removal.
        (AlertState::Pending, None) => alert.resolved_at = Some(context.now),
        (AlertState::Firing, Some(_)) => alert.clear_since = None,
        (AlertState::Firing, None) => {
            let since = *alert.clear_since.get_or_insert(context.now);
            if context.reached(since + rule.keep.as_chrono()) {
                resolve(alert, context);
            }
        }
        (AlertState::Resolved, _) => {}
    }
}

fn resolve(alert: &mut Alert, context: &mut Context<'_>) {
    alert.state = AlertState::Resolved;
    alert.clear_since = None;
    alert.resolved_at = Some(context.now);
    context.note(NoteType::Normal, reason::ALERT_RESOLVED, format!("{} has ended", named(alert)));
}

fn fired(alert: &Alert, alerts: &mut Alerts, context: &mut Context<'_>) {
    context.note(NoteType::Warning, reason::ALERT_FIRING, told(alert));
    if alert.policy == AlertPolicy::FailRun && alerts.failure.is_none() {
        alerts.failure = Some(told(alert));
    }
    let monitor = entry(alerts, &alert.monitor);
    monitor.fired = monitor.fired.saturating_add(1);
}

fn entry<'a>(alerts: &'a mut Alerts, name: &str) -> &'a mut MonitorStatus {
    let at = alerts.monitors.iter().position(|monitor| monitor.name == name).unwrap_or_else(|| {
        alerts.monitors.push(MonitorStatus { name: name.to_owned(), ..MonitorStatus::default() });
        alerts.monitors.len() - 1
    });
    &mut alerts.monitors[at]
}

/// Whether one more fits, after the oldest resolved one has gone if need be.
fn make_room(list: &mut Vec<Alert>) -> bool {
    if list.len() < MAX_ALERTS {
        return true;
    }
    // One that fails a cycle is needed until that has ended.
    let ended = |alert: &Alert| alert.state == AlertState::Resolved;
    let harmless = list.iter().position(|alert| ended(alert) && alert.policy == AlertPolicy::Record);
    harmless.or_else(|| list.iter().position(ended)).inspect(|at| drop(list.remove(*at))).is_some()
}

fn named(alert: &Alert) -> String {
    let subject = if alert.subject.is_empty() { String::new() } else { format!(" ({})", alert.subject) };
    format!("alert {}/{}{subject}", alert.monitor, alert.alert)
}

fn told(alert: &Alert) -> String {
    format!("{} fired: {}", named(alert), alert.cause)
}

fn describe(alerts: &mut Alerts) {
    let firing = firing(alerts);
    let all: u32 = alerts.monitors.iter().map(|monitor| monitor.fired).sum();
    alerts.shown = format!("{firing} firing, {all} in all");
}

/// The condition `Alerting`: whether it holds, its reason and its message.
pub(super) fn condition(alerts: &Alerts) -> (ConditionStatus, &'static str, String) {
    let first = alerts.list.iter().find(|alert| alert.state == AlertState::Firing);
    let message = first.map_or_else(|| alerts.shown.clone(), |alert| format!("{}; {}", alerts.shown, told(alert)));
    match first {
        Some(_) => (ConditionStatus::True, reason::ALERT_FIRING, message),
        None => (ConditionStatus::False, reason::NO_ALERT, message),
    }
}

/// How many fire.
fn firing(alerts: &Alerts) -> usize {
    alerts.list.iter().filter(|alert| alert.state == AlertState::Firing).count()
}

/// Whether an alert fired at some time from `from` to `until`. One that ended at `from` did not.
pub fn fired_during(alert: &Alert, from: DateTime<Utc>, until: DateTime<Utc>) -> bool {
    alert.fired_at.is_some_and(|at| at <= until) && alert.resolved_at.is_none_or(|at| at > from)
}

/// Why a cycle whose steps have all succeeded has failed nevertheless.
pub(super) fn cycle_failure(pass: &Pass, status: &SoakRunStatus, now: DateTime<Utc>) -> Option<Failure> {
    let alerts = status.alerts.as_ref().filter(|_| pass.section == Section::Cycle)?;
    let alert = alerts
        .list
        .iter()
        .find(|alert| alert.policy != AlertPolicy::Record && fired_during(alert, pass.started_at, now))?;
    Some(Failure {
        reason: reason::ALERT_FIRING.into(),
        message: text::cut(&told(alert), text::MESSAGE),
        ..Failure::default()
    })
}

/// After the record of a pass is stored: its samples become part of the run's, its ended alerts of the past.
pub(super) fn retire(plan: &Plan, until: DateTime<Utc>, status: &mut SoakRunStatus, context: &Context<'_>) {
    let Some(alerts) = &mut status.alerts else { return };
    for monitor in &plan.monitors {
        let Some(seen) = context.seen.monitors.get(&monitor.name) else { continue };
        let kept = entry(alerts, &monitor.name);
        let mut series = whole(kept, monitor);
        let from = kept.until.map_or(i64::MIN, |at| at.timestamp_millis());
        series.take_in(&seen.series, from, until.timestamp_millis());
        kept.series = if series.is_empty() { String::new() } else { series.to_text() };
        kept.until = Some(until);
    }
    let ended = alerts.list.iter().filter(|alert| alert.state == AlertState::Resolved).count();
    let mut excess = ended.saturating_sub(RECENT_ALERTS);
    alerts.list.retain(|alert| {
        let goes = excess > 0 && alert.state == AlertState::Resolved;
        excess -= usize::from(goes);
        !goes
    });
}

/// The samples of the whole run, as far as they are in the status. A damaged text begins anew.
pub fn whole(kept: &MonitorStatus, monitor: &MonitorPlan) -> Series {
    let width = u64::try_from(monitor.interval.as_chrono().num_milliseconds()).unwrap_or(1);
    Series::from_text(&kept.series, STATUS_BUCKETS)
        .filter(|series| !series.is_empty())
        .unwrap_or_else(|| Series::new(STATUS_BUCKETS, width))
}

/// At the end of a run nothing is pending any more.
pub(super) fn close(status: &mut SoakRunStatus) {
    if let Some(alerts) = &mut status.alerts {
        alerts.list.retain(|alert| alert.state != AlertState::Pending);
        describe(alerts);
    }
}
