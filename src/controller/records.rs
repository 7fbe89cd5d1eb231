//! Records and validation: the effects that look at a whole pass or the whole run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{SubsecRound, Utc};
use tracing::{info, warn};

use crate::{
    analysis::Sketch,
    api::{
        names::reason,
        status::{self, Failure, RecordRef, SoakRunStatus},
    },
    engine::{self, RecordSeen, Validation},
    results::{
        ConfigMapRecord, CycleRecord, Environment, MetricSummary, Moment, Objects, RecordPart, Records, RunRef,
        SectionSummary, StoreError, Stored, SuccessRate, SummaryRecord, Verdict,
    },
    steps,
};

use super::{
    artifacts, logs, manifest,
    memory::{Fact, Outcome},
    monitors,
    observe::identity,
    perform::Subject,
    redaction, template,
};

/// How long a record that is brought to the store waits for the logs and the files that it names, before it is tried again.
const FILES_PATIENCE: Duration = Duration::from_secs(10);

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
    let Subject { shell, plan, run, .. } = subject;
    let identity = identity(run);
    // Before anything is seen of the run, so that no value of a Secret is.
    redaction::load(shell, run).await;
    let status = run.status.clone().unwrap_or_default();
    let scope = engine::scope(plan, run, &status);
    let clusters = shell.memories.of(&identity.uid).connections().clusters(&shell.clusters);
    let question = (plan.digest.clone(), identity.account());
    if run.spec.dry_run {
        // Who asks for a dry run wants to know how it is now.
        clusters.all().for_each(|(_, cluster)| cluster.forget_answers());
    } else if shell.accepted.holds(&question) {
        return Validation::Accepted;
    }
    let mut answer = steps::validate(plan, &identity, &scope, &clusters, &shell.step_settings).await;
    if answer == Validation::Accepted {
        let scope = engine::monitor::scope(plan, run, status.attempt);
        answer = crate::monitors::validate(plan, &identity.account(), &scope, &clusters).await;
    }
    if answer == Validation::Accepted
        && let Err(error) = look_into_store(subject, &status).await
    {
        shell.stores.doubt();
        return Validation::NotYet { reason: reason::STORE_UNAVAILABLE.into(), message: error.to_string() };
    }
    if answer == Validation::Accepted {
        shell.accepted.note(question);
    }
    answer
}

/// Whether the object store of the run, if it has one, answers and takes its credentials.
async fn look_into_store(subject: &Subject, status: &SoakRunStatus) -> Result<(), StoreError> {
    match objects(subject).await? {
        Some(objects) => objects.probe(&run_ref(subject, status)).await,
        None => Ok(()),
    }
}

async fn objects(subject: &Subject) -> Result<Option<Arc<Objects>>, StoreError> {
    subject.shell.stores.objects(subject.shell.clusters.own(), &subject.run).await
}

/// Stores the record of the pass that has ended, with the last lines of each pod's log.
pub async fn store_record(subject: &Subject) -> Outcome {
    let objects = objects(subject).await;
    let objects = match objects {
        Ok(objects) => objects,
        Err(error) => {
            let status = subject.run.status.as_ref().and_then(|status| status.current.as_ref());
            let Some(place) = status.map(|pass| (pass.section, pass.cycle)) else { return Outcome::Done };
            return told(failing(&error), |seen| Fact::Record(place, seen));
        }
    };
    let Some((place, record)) = pass_record(subject, objects.as_deref()).await else { return Outcome::Done };
    let seen = match record {
        Ok(record) => store(subject, objects.as_deref(), &record).await,
        Err(error) => failing(&error),
    };
    told(seen, |seen| Fact::Record(place, seen))
}

/// Stores the record of the pass that has ended in a ConfigMap, because the object store does not take it.
pub async fn keep_record(subject: &Subject) -> Outcome {
    let Some((place, record)) = pass_record(subject, None).await else { return Outcome::Done };
    let kept = match record {
        Ok(record) => subject.shell.stores.config_maps.put(&record).await,
        Err(error) => Err(error),
    };
    let seen = match kept {
        Ok(stored) => RecordSeen::Kept { digest: stored.digest },
        Err(error) => failing(&error),
    };
    told(seen, |seen| Fact::Record(place, seen))
}

/// Brings records from their ConfigMaps to the object store, until one is refused.
pub async fn forward(subject: &Subject, records: &[RecordRef]) -> Outcome {
    let mut done = Vec::new();
    for record in records {
        match forward_one(subject, *record).await {
            Ok(()) => done.push(*record),
            Err(error) => {
                subject.shell.stores.doubt();
                return Outcome::Failed(Fact::Forwarded(done, Some(error.to_string())));
            }
        }
    }
    Outcome::Told(Fact::Forwarded(done, None))
}

async fn forward_one(subject: &Subject, record: RecordRef) -> Result<(), StoreError> {
    let status = subject.run.status.clone().unwrap_or_default();
    let (of, part) = (run_ref(subject, &status), RecordPart::from((record.section, record.cycle)));
    let Some(objects) = objects(subject).await? else { return Ok(()) };
    let config_maps = &subject.shell.stores.config_maps;
    match config_maps.get(&of, part).await? {
        Some(kept) => {
            objects.forward(&of, &kept).await?;
            // It names logs and files that only this process has by now: it waits until they are there as well.
            let memory = subject.shell.memories.of(of.uid.as_str());
            memory.streams().stored(of.attempt, record, FILES_PATIENCE).await?;
            memory.artifacts().stored(of.attempt, record, FILES_PATIENCE).await?;
            config_maps.remove(&of, part).await
        }
        // An earlier process has done both, and ended before it could say so.
        None if objects.has(&of, part).await? => Ok(()),
        None => Err(StoreError::Terminal(format!(
            "the record {part} that waited in a ConfigMap is gone and not in the store: somebody has deleted it"
        ))),
    }
}

/// What the pass that has ended has to say, and its place. With an object store, the logs of its pods go there first.
async fn pass_record(
    subject: &Subject,
    objects: Option<&Objects>,
) -> Option<((status::Section, u32), Result<ConfigMapRecord, StoreError>)> {
    let status = subject.run.status.clone().unwrap_or_default();
    let pass = status.current.as_ref()?;
    let place = (pass.section, pass.cycle);
    let of = run_ref(subject, &status);
    let logs = match logs::collect(subject, pass, objects.map(|objects| (objects, &of))).await {
        Ok(logs) => logs,
        Err(error) => return Some((place, Err(error))),
    };
    let artifacts = match artifacts::collect(subject, pass, objects.is_some()).await {
        Ok(artifacts) => artifacts,
        Err(error) => return Some((place, Err(error))),
    };
    let seen = monitors_seen(subject);
    let failed = pass.outcome != Some(status::Outcome::Succeeded);
    let snapshot = if failed { manifest::snapshot(subject, Moment::Failure).await } else { None };
    let mut record = CycleRecord::from_pass(&of, pass, &logs, &environment(subject, &status))
        .with_artifacts(artifacts)
        .with_monitors(monitors::alerts_of(&status, pass), monitors::samples_of(&subject.plan, &status, pass, &seen))
        .with_kinds(|phase, step| Some(subject.plan.leaf(pass.section, phase, step)?.action.kind().to_owned()));
    record.snapshot = snapshot;
    Some((place, Ok((&record).into())))
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
    let seen = match finish(subject, &record).await {
        Ok(stored) => RecordSeen::Stored { digest: stored.digest },
        Err(error) => failing(&error),
    };
    told(seen, Fact::Summary)
}

fn monitors_seen(subject: &Subject) -> BTreeMap<String, engine::monitor::MonitorSeen> {
    subject.shell.memories.of(subject.run.metadata.uid.as_deref().unwrap_or_default()).monitors_at_work()
}

/// Stores the summary. In an object store the index follows, and then what the retention no longer keeps goes.
async fn finish(subject: &Subject, summary: &SummaryRecord) -> Result<Stored, StoreError> {
    let Some(objects) = objects(subject).await? else {
        return subject.shell.stores.config_maps.put(&summary.into()).await;
    };
    let of = &summary.run;
    // A process that ended between keeping a record and saying so has left it behind.
    for left in subject.shell.stores.config_maps.read(of).await? {
        if left.attempt == of.attempt && left.part != RecordPart::Summary {
            if !objects.has(of, left.part).await? {
                objects.forward(of, &left).await?;
            }
            subject.shell.stores.config_maps.remove(of, left.part).await?;
        }
    }
    let stored = objects.put(&summary.into()).await?;
    objects.write_series(of).await?;
    objects.write_index(of, Utc::now()).await?;
    let retention = subject.run.spec.results.object_store.as_ref().and_then(|store| store.retention.as_ref());
    if let Some(retention) = retention {
        match objects.retire(of, retention, Utc::now()).await {
            Ok(0) => {}
            Ok(count) => info!(count, "ended runs beyond the retention were deleted from the store"),
            // The next run that ends tries again.
            Err(error) => warn!(%error, "ended runs beyond the retention could not be deleted"),
        }
    }
    Ok(stored)
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
    match subject.shell.stores.config_maps.delete(&of, cycles).await {
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

async fn store(subject: &Subject, objects: Option<&Objects>, record: &ConfigMapRecord) -> RecordSeen {
    if crate::switches::without("record-before-count") {
        let (shell, record) = (subject.shell.clone(), record.clone());
        let digest = record.text().digest().to_owned();
        tokio::spawn(async move { shell.stores.config_maps.put(&record).await });
        return RecordSeen::Stored { digest };
    }
    let stored = match objects {
        Some(objects) => objects.put(record).await,
        None => subject.shell.stores.config_maps.put(record).await,
    };
    match stored {
        Ok(stored) => RecordSeen::Stored { digest: stored.digest },
        Err(error) => failing(&error),
    }
}

fn failing(error: &StoreError) -> RecordSeen {
    warn!(%error, "a record could not be stored yet");
    RecordSeen::Failing { message: error.to_string() }
}

fn told(seen: RecordSeen, fact: impl FnOnce(RecordSeen) -> Fact) -> Outcome {
    if seen.digest().is_some() { Outcome::Told(fact(seen)) } else { Outcome::Failed(fact(seen)) }
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
    template::run_ref(&subject.run, status.attempt)
}

fn environment(subject: &Subject, status: &SoakRunStatus) -> Environment {
    let Subject { shell, plan, run, .. } = subject;
    Environment {
        kubernetes_version: shell.kubernetes_version.clone(),
        operator_version: env!("CARGO_PKG_VERSION").into(),
        parameters: plan.parameters.clone(),
        spec_digest: status.spec_digest.clone(),
        spec_generation: run.metadata.generation.unwrap_or(0),
        roles: status.roles.clone(),
        targets: status
            .targets
            .iter()
            .filter_map(|target| Some((target.name.clone(), target.version.clone()?)))
            .collect(),
        seed: Some(engine::seed(run)),
    }
}
