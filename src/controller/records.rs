//! Records and validation: the effects that look at a whole pass or the whole run.

use std::collections::BTreeMap;

use chrono::{SubsecRound, Utc};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tracing::warn;

use crate::{
    analysis::Sketch,
    api::{
        names::{label, reason},
        status::{self, Failure, Pass, SoakRunStatus},
    },
    cluster::Cluster,
    engine::{self, RecordSeen, Validation},
    results::{
        self, ConfigMapRecord, CycleRecord, Environment, LogTail, MetricSummary, Moment, RecordPart, RunRef,
        SectionSummary, StoreError, SuccessRate, SummaryRecord, Verdict,
    },
    steps::{self, RunIdentity},
};

use super::{
    manifest,
    memory::{Fact, Outcome},
    monitors,
    observe::identity,
    perform::Subject,
};

/// Logs that are read at the same time.
const LOG_READERS: usize = 8;

/// Longest annotation that a record tells, in bytes.
const MAX_ANNOTATION: usize = 256;

/// Tries the whole spec on the server as the tenant, unless it has just accepted the same spec of the same account.
///
/// Once it is accepted, what is known before the first step is written down.
pub async fn validate(subject: &Subject) -> Validation {
    let answer = tried(subject).await;
    if answer != Validation::Accepted || subject.run.spec.dry_run {
        return answer;
    }
    match manifest::begin(subject).await {
        Ok(()) => answer,
        Err(error) => Validation::NotYet {
            reason: reason::INFRA_ERROR.into(),
            message: format!("the run's manifest can't be stored: {error}"),
        },
    }
}

async fn tried(subject: &Subject) -> Validation {
    let Subject { shell, plan, run } = subject;
    let identity = identity(run);
    // Who asks for a dry run wants to know how it is now.
    if !run.spec.dry_run && shell.accepted.is_fresh(&plan.digest, &identity.account()) {
        return Validation::Accepted;
    }
    let status = run.status.clone().unwrap_or_default();
    let scope = engine::scope(plan, run, &status);
    let clusters = shell.memories.of(&identity.uid).clusters(&shell.clusters);
    let answer = steps::validate(plan, &identity, &scope, &clusters, &shell.step_settings).await;
    if answer == Validation::Accepted {
        shell.accepted.note(&plan.digest, &identity.account());
    }
    answer
}

/// Stores the record of the pass that has ended, with the last lines of each pod's log.
pub async fn store_record(subject: &Subject) -> Outcome {
    let status = subject.run.status.clone().unwrap_or_default();
    let Some(pass) = &status.current else { return Outcome::Done };
    let logs = logs(subject, pass).await;
    let seen = monitors_seen(subject);
    let failed = pass.outcome != Some(status::Outcome::Succeeded);
    let snapshot = if failed { manifest::snapshot(subject, Moment::Failure).await } else { None };
    let mut record = CycleRecord::from_pass(&run_ref(subject, &status), pass, &logs, &environment(subject, &status))
        .with_monitors(monitors::alerts_of(&status, pass), monitors::samples_of(&subject.plan, &status, pass, &seen))
        .with_kinds(|phase, step| Some(subject.plan.leaf(pass.section, phase, step)?.action.kind().to_owned()));
    record.snapshot = snapshot;
    let place = (pass.section, pass.cycle);
    let seen = store(subject, &(&record).into()).await;
    told(seen, |seen| Fact::Record(place, seen))
}

/// Stores the record of the whole run.
pub async fn store_summary(subject: &Subject) -> Outcome {
    let status = subject.run.status.clone().unwrap_or_default();
    let figures = engine::summarize(&subject.plan, &status);
    let engine::End { phase, reason, message } = engine::ending(&status);
    let finished_at = Utc::now().trunc_subsecs(3);
    let start = manifest::read(subject).await.unwrap_or_default();
    let end = manifest::snapshot(subject, Moment::End).await;
    let section = |failure: Option<Failure>| SectionSummary {
        outcome: if failure.is_some() { status::Outcome::Failed } else { status::Outcome::Succeeded },
        failure,
    };
    let share = |(rate, lower, upper)| SuccessRate { rate, lower, upper, confidence: figures.confidence };
    let record = SummaryRecord {
        run: run_ref(subject, &status),
        verdict: Verdict { phase, reason, message },
        started_at: status.started_at,
        finished_at: Some(finished_at),
        seconds: status.started_at.map(|started| (finished_at - started).as_seconds_f64().max(0.0)),
        cycles: status.cycles.clone(),
        success_rate: figures.success_rate.zip(figures.interval).map(|(rate, (low, high))| share((rate, low, high))),
        success_rate_without_transient: figures.without_transient.map(share),
        role_swaps: status.role_swaps,
        metrics: figures.metrics.iter().filter_map(|(name, sketch)| metric(name, sketch)).collect(),
        recent: status.recent.clone(),
        setup: subject.plan.setup.as_ref().and_then(|_| setup(&status)),
        cleanup: subject
            .plan
            .cleanup
            .as_ref()
            .filter(|_| status.cleaned_up)
            .map(|_| section(status.cleanup_failure.clone())),
        manifest: Some(start.manifest).filter(|manifest| !manifest.spec_digest.is_empty()),
        snapshots: start.snapshot.into_iter().chain(end).collect(),
        alerts: monitors::newest_alerts(&status),
        monitors: monitors::samples_of_all(&subject.plan, &status, &monitors_seen(subject)),
        environment: environment(subject, &status),
        ..SummaryRecord::default()
    };
    let seen = store(subject, &(&record).into()).await;
    told(seen, Fact::Summary)
}

fn monitors_seen(subject: &Subject) -> BTreeMap<String, engine::monitor::MonitorSeen> {
    subject.shell.memories.of(subject.run.metadata.uid.as_deref().unwrap_or_default()).monitors_at_work()
}

/// How the setup ended, if it did.
fn setup(status: &SoakRunStatus) -> Option<SectionSummary> {
    if status.set_up {
        return Some(SectionSummary { outcome: status::Outcome::Succeeded, failure: None });
    }
    let ending = status.ending.as_ref().filter(|ending| ending.reason == reason::SETUP_FAILED)?;
    let failure = Failure { reason: ending.reason.clone(), message: ending.message.clone(), ..Failure::default() };
    Some(SectionSummary { outcome: status::Outcome::Failed, failure: Some(failure) })
}

/// Deletes records that the retention no longer keeps.
pub async fn prune(subject: &Subject, cycles: &[u32]) -> Outcome {
    let status = subject.run.status.clone().unwrap_or_default();
    let of = run_ref(subject, &status);
    match delete(subject, &of, cycles).await {
        Ok(()) => Outcome::Done,
        Err(error) if error.is_transient() => {
            warn!(%error, "old records could not be deleted yet");
            Outcome::TryAgain
        }
        Err(error) => {
            // They go with the run at the latest.
            warn!(%error, "old records can't be deleted");
            Outcome::Done
        }
    }
}

async fn delete(subject: &Subject, of: &RunRef, cycles: &[u32]) -> Result<(), StoreError> {
    let client = &subject.shell.client;
    let mut others = Vec::new();
    for cycle in cycles {
        let name = results::record_name(of, RecordPart::Cycle(*cycle));
        let known = subject.shell.stored.lock().pop(&name);
        match known {
            Some(uid) => results::delete_stored(client.clone(), &of.namespace, &name, &uid).await?,
            None => others.push(name),
        }
    }
    if !others.is_empty() {
        results::prune(client.clone(), &of.namespace, &of.uid, &others).await?;
    }
    Ok(())
}

async fn store(subject: &Subject, record: &ConfigMapRecord) -> RecordSeen {
    let namespace = subject.run.metadata.namespace.as_deref().unwrap_or_default();
    if crate::switches::without("record-before-count") {
        let (client, namespace, record) = (subject.shell.client.clone(), namespace.to_owned(), record.clone());
        let digest = record.text().digest().to_owned();
        tokio::spawn(async move { results::store(client, &namespace, &record).await });
        return RecordSeen::Stored { digest };
    }
    match results::store(subject.shell.client.clone(), namespace, record).await {
        Ok(stored) => {
            subject.shell.stored.lock().put(record.name(), stored.uid);
            RecordSeen::Stored { digest: stored.digest }
        }
        Err(error) => {
            warn!(%error, "a record could not be stored yet");
            RecordSeen::Failing { message: error.to_string() }
        }
    }
}

fn told(seen: RecordSeen, fact: impl FnOnce(RecordSeen) -> Fact) -> Outcome {
    match seen {
        RecordSeen::Stored { .. } => Outcome::Told(fact(seen)),
        failing => Outcome::Failed(fact(failing)),
    }
}

async fn logs(subject: &Subject, pass: &Pass) -> BTreeMap<String, LogTail> {
    let identity = identity(&subject.run);
    let clusters = subject.shell.memories.of(&identity.uid).clusters(&subject.shell.clusters);
    let steps = pass.phases.iter().flat_map(|phase| &phase.steps);
    let pods: Vec<(String, &Cluster)> = steps
        .filter_map(|step| Some((step.pod.clone()?, clusters.get(step.target.as_deref().unwrap_or_default()).ok()?)))
        .collect();
    // Boxed, because the compiler can't prove a stream of borrowing closures to be Send.
    let reads: Vec<BoxFuture<'_, _>> =
        pods.into_iter().map(|(pod, cluster)| log(cluster, &identity, pod).boxed()).collect();
    stream::iter(reads).buffer_unordered(LOG_READERS).filter_map(std::future::ready).collect().await
}

async fn log(cluster: &Cluster, identity: &RunIdentity, pod: String) -> Option<(String, LogTail)> {
    match steps::tail(cluster, identity, &pod, None, steps::MAX_LOG_LINES, steps::MAX_LOG_BYTES).await {
        Ok(tail) => {
            let bytes = tail.text.len() as u64;
            Some((pod, LogTail { text: tail.text, truncated: tail.truncated, bytes }))
        }
        Err(failure) => {
            warn!(pod, %failure, "a log could not be read");
            None
        }
    }
}

fn metric(name: &str, sketch: &Sketch) -> Option<MetricSummary> {
    Some(MetricSummary {
        name: name.to_owned(),
        count: sketch.count(),
        mean: sketch.mean()?,
        min: sketch.min()?,
        max: sketch.max()?,
        p50: sketch.quantile(0.5)?,
        p90: sketch.quantile(0.9)?,
        p95: sketch.quantile(0.95)?,
        p99: sketch.quantile(0.99)?,
        relative_error: sketch.relative_error(),
    })
}

fn run_ref(subject: &Subject, status: &SoakRunStatus) -> RunRef {
    let identity = identity(&subject.run);
    RunRef { name: identity.name, namespace: identity.namespace, uid: identity.uid, attempt: status.attempt }
}

fn environment(subject: &Subject, status: &SoakRunStatus) -> Environment {
    let Subject { shell, plan, run } = subject;
    let annotation = |key: &str| {
        let value = run.metadata.annotations.as_ref()?.get(key)?;
        Some(value[..value.floor_char_boundary(MAX_ANNOTATION)].to_owned())
    };
    Environment {
        kubernetes_version: shell.kubernetes_version.clone(),
        operator_version: env!("CARGO_PKG_VERSION").into(),
        parameters: plan.parameters.clone(),
        spec_digest: status.spec_digest.clone(),
        spec_generation: run.metadata.generation.unwrap_or(0),
        git_commit: annotation(label::GIT_COMMIT),
        requested_by: annotation(label::REQUESTED_BY),
        roles: status.roles.clone(),
        targets: status
            .targets
            .iter()
            .filter_map(|target| Some((target.name.clone(), target.version.clone()?)))
            .collect(),
        seed: Some(engine::seed(run)),
    }
}
