//! Performs what the engine asked for. Each effect is a task beside the reconcile, so a slow one delays nobody.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::reflector::ObjectRef,
};
use tokio::{task::JoinHandle, time::timeout};
use tracing::{Instrument, info_span, warn};

use crate::{
    api::{SoakRun, status::HeldObject, step::Beginning},
    cluster::Cluster,
    engine::{self, Effect, Plan, StepKey, StepSeen, held_name},
    steps,
};

use super::{
    Shell, lock,
    memory::{Basis, DOUBT, Fact, Memory, Outcome, Task},
    observe::{context, identity},
    plans::Parsed,
    records, redaction,
};

/// For how long after its write a stored intent may be begun. Whoever has taken over meanwhile gives the intent
/// up when nothing has come of it after [`DOUBT`]; a process that stood still in between must not begin it then.
const INTENT_HOLDS: Duration = Duration::from_secs(3);

/// How long a round waits for what it began. What takes longer wakes the run when it is done.
const PATIENCE: Duration = Duration::from_millis(100);

/// A run at one version, as a task needs it.
#[derive(Clone)]
pub struct Subject {
    /// Shared by all.
    pub shell: Arc<Shell>,
    /// The parsed spec.
    pub plan: Arc<Plan>,
    /// The run with the status that asked for the effect.
    pub run: Arc<SoakRun>,
    /// When the last write of that run was sent; none if this visit has not written it.
    pub as_of: Option<Instant>,
}

/// Starts what was asked for and is not under way, and waits a moment for it. True if something has been done by then.
pub async fn perform(
    shell: &Arc<Shell>,
    plan: &Parsed,
    run: &Arc<SoakRun>,
    as_of: Option<Instant>,
    memory: &Arc<Memory>,
    effects: Vec<Effect>,
) -> bool {
    let mut started: Vec<JoinHandle<()>> = Vec::new();
    for effect in effects {
        let Some(task) = task(&effect, run, memory) else { continue };
        if !memory.take_on(&task) {
            continue;
        }
        let subject = plan.as_ref().ok().map(|plan| Subject {
            shell: shell.clone(),
            plan: plan.clone(),
            run: run.clone(),
            as_of,
        });
        let (shell, run, memory) = (shell.clone(), run.clone(), memory.clone());
        let span = span(&run, &effect);
        let work = async move {
            let outcome = match subject {
                Some(subject) => carry_out(&subject, &memory, &task, effect).await,
                None => carry_out_without_plan(&shell, &memory, &run, effect).await,
            };
            memory.note(&task, outcome);
            // The receiver goes only with the process.
            let _ = shell.wake.send(ObjectRef::from_obj(&*run));
        };
        started.push(tokio::spawn(work.instrument(span)));
    }
    if started.is_empty() {
        return false;
    }
    // What takes longer wakes the run when it is done.
    timeout(PATIENCE, join_all(started)).await.is_ok()
}

/// The task that an effect is; none when it needs no task of its own.
fn task(effect: &Effect, run: &SoakRun, memory: &Memory) -> Option<Task> {
    Some(match effect {
        Effect::AddFinalizer | Effect::RemoveFinalizer | Effect::Notify(_) => return None,
        Effect::Validate => Task::Validate,
        Effect::Begin(key) => Task::Begin(key.clone()),
        Effect::Observe(key) => return look_closer(key, memory),
        Effect::Stop(key) => Task::Stop(key.clone()),
        Effect::DeletePod { uid, .. } => Task::DeletePod(uid.clone()),
        Effect::Release(object) => Task::Release(held_name(object)),
        Effect::StoreRecord => {
            let pass = run.status.as_ref()?.current.as_ref()?;
            Task::Record(pass.section, pass.cycle)
        }
        Effect::KeepRecord => {
            let pass = run.status.as_ref()?.current.as_ref()?;
            Task::Keep(pass.section, pass.cycle)
        }
        Effect::ForwardRecords(_) => Task::Forward,
        Effect::PruneRecords(cycles) => Task::Prune(cycles.clone()),
        Effect::AcquireLock(_) => Task::AcquireLock,
        Effect::ReleaseLock(_) => Task::ReleaseLock,
        Effect::StoreSummary => Task::Summary,
        Effect::DeleteRun => Task::DeleteRun,
    })
}

/// A live step of which nothing is known for sure: taken up if this process has not begun it, doubted if it stays silent.
fn look_closer(key: &StepKey, memory: &Memory) -> Option<Task> {
    let known = memory.step(key);
    if known.certain.is_some() || memory.is_busy(key) {
        return None;
    }
    if known.follow.is_none() {
        return Some(Task::Resume(key.clone()));
    }
    known.unknown_since.filter(|since| since.elapsed() >= DOUBT).map(|_| Task::Confirm(key.clone()))
}

async fn carry_out(subject: &Subject, memory: &Memory, task: &Task, effect: Effect) -> Outcome {
    let Subject { shell, plan, run, .. } = subject;
    match effect {
        Effect::Validate => {
            let attempt = run.status.as_ref().map_or(0, |status| status.attempt);
            let basis = Basis { attempt, digest: plan.digest.clone() };
            Outcome::Told(Fact::Validation(basis, records::validate(subject).await))
        }
        Effect::Begin(key) | Effect::Observe(key) => step(subject, memory, task, key).await,
        Effect::Stop(key) => {
            let (identity, status) = (identity(run), run.status.clone().unwrap_or_default());
            let scope = engine::scope(plan, run, &status);
            let clusters = memory.connections().clusters(&shell.clusters);
            let Some(context) = context(shell, plan, &status, &identity, &clusters, &key, &scope) else {
                return Outcome::TryAgain;
            };
            match steps::stop(&context).await {
                // It is asked for again while the step lives, but not all the time.
                Ok(()) => Outcome::TryAgain,
                Err(failure) => {
                    warn!(step = key.step, %failure, "a step could not be asked to stop");
                    Outcome::TryAgain
                }
            }
        }
        Effect::StoreRecord => records::store_record(subject).await,
        Effect::KeepRecord => records::keep_record(subject).await,
        Effect::ForwardRecords(waiting) => records::forward(subject, &waiting).await,
        Effect::PruneRecords(cycles) => records::prune(subject, &cycles).await,
        Effect::StoreSummary => records::store_summary(subject).await,
        other => carry_out_without_plan(shell, memory, run, other).await,
    }
}

async fn step(subject: &Subject, memory: &Memory, task: &Task, key: StepKey) -> Outcome {
    let Subject { shell, plan, run, .. } = subject;
    let (identity, status) = (identity(run), run.status.clone().unwrap_or_default());
    let scope = engine::scope(plan, run, &status);
    let clusters = memory.connections().clusters(&shell.clusters);
    let Some(context) = context(shell, plan, &status, &identity, &clusters, &key, &scope) else {
        if !matches!(task, Task::Begin(_)) {
            return Outcome::TryAgain;
        }
        // Its cluster has just lost its credentials: nothing was asked for, so there is no trace of it. It is begun again after a pause.
        return Outcome::Failed(untouched(key));
    };
    let redactor = redaction::load(shell, run).await;
    let (seen, follow) = match task {
        Task::Confirm(_) => {
            let follow = memory.step(&key).follow;
            (steps::confirm_absent(&context, follow.as_deref()).await, None)
        }
        Task::Resume(_) => {
            let begun = steps::resume(&context).await;
            (begun.seen, begun.follow)
        }
        _ => {
            if !intent_holds(subject, &key) {
                // Nothing was asked for. Giving the attempt up is a write that fails when another has done so already.
                return Outcome::Told(untouched(key));
            }
            let begun = steps::begin(&context).await;
            (begun.seen, begun.follow)
        }
    };
    let seen = redactor.seen(seen);
    let silent = follow.is_none() && !matches!(seen, StepSeen::Ended(_) | StepSeen::Absent);
    if silent && !matches!(task, Task::Begin(_)) {
        return Outcome::TryAgain;
    }
    Outcome::Told(Fact::Step(Box::new((key, seen, follow))))
}

/// Of an attempt that was not begun.
fn untouched(key: StepKey) -> Fact {
    Fact::Step(Box::new((key, StepSeen::Absent, None)))
}

/// Whether beginning a step leaves no trace in the cluster.
pub fn begins_by_looking(plan: &Plan, key: &StepKey) -> bool {
    let leaf = plan.leaf(key.section, &key.phase, &key.step);
    leaf.is_some_and(|leaf| leaf.action.beginning() == Beginning::Looks)
}

/// Whether what the server had then is so new that nobody can have given an intent in it up.
pub fn is_recent(as_of: Option<Instant>) -> bool {
    as_of.is_some_and(|at| at.elapsed() < INTENT_HOLDS)
}

/// Whether the stored intent of a step may be begun now.
fn intent_holds(subject: &Subject, key: &StepKey) -> bool {
    is_recent(subject.as_of) || begins_by_looking(&subject.plan, key)
}

/// What must go on even when the spec can't be parsed (any more).
async fn carry_out_without_plan(shell: &Shell, memory: &Memory, run: &SoakRun, effect: Effect) -> Outcome {
    let clusters = memory.connections().clusters(&shell.clusters);
    match effect {
        Effect::DeletePod { name, uid, target } => {
            let deleted = match clusters.get(&target) {
                Ok(cluster) => steps::delete_pod(cluster, &identity(run), &name, &uid).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = deleted {
                warn!(pod = name, %failure, "a pod could not be deleted");
            }
            // Until the watch has told of it, the deletion is asked for again, but not all the time.
            Outcome::TryAgain
        }
        Effect::Release(object) => match clusters.get(&object.target) {
            Ok(cluster) => release(cluster, run, &object).await,
            Err(failure) => {
                warn!(object = held_name(&object), %failure, "an object is not deleted yet");
                Outcome::TryAgain
            }
        },
        Effect::AcquireLock(key) => lock::acquire(shell, run, &key).await,
        Effect::ReleaseLock(key) => lock::release(shell, run, &key).await,
        Effect::DeleteRun => delete_run(shell, run).await,
        _ => Outcome::Done,
    }
}

async fn release(cluster: &Cluster, run: &SoakRun, object: &HeldObject) -> Outcome {
    let status = run.status.clone().unwrap_or_default();
    match steps::release(cluster, &identity(run), object, &status).await {
        released if released.is_done() => Outcome::Told(Fact::Released(held_name(object))),
        pending => {
            warn!(object = held_name(object), state = ?pending, "an object is not deleted yet");
            Outcome::TryAgain
        }
    }
}

async fn delete_run(shell: &Shell, run: &SoakRun) -> Outcome {
    let runs: Api<SoakRun> = Api::namespaced(shell.client.clone(), &run.namespace().unwrap_or_default());
    let parameters = DeleteParams {
        preconditions: Some(Preconditions { uid: run.uid(), resource_version: None }),
        ..DeleteParams::background()
    };
    match runs.delete(&run.name_any(), &parameters).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
        Err(error) => warn!(%error, "a finished run could not be deleted"),
    }
    // A cache that lags behind asks for it again: not all the time.
    Outcome::TryAgain
}

fn span(run: &SoakRun, effect: &Effect) -> tracing::Span {
    let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
    match effect {
        Effect::Begin(key) | Effect::Observe(key) | Effect::Stop(key) => {
            info_span!("step", namespace, run = name, cycle = key.cycle, phase = key.phase, step = key.step)
        }
        _ => info_span!("effect", namespace, run = name),
    }
}
