//! What a schedule's decisions ask for, done within the visit: as the schedule's service account, whatever its spec asks for.

use std::collections::{BTreeMap, BTreeSet};

use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Preconditions},
};
use serde_json::json;

use super::{
    super::{perform, reconcile::ReconcileError},
    Visit,
    memory::Task,
};
use crate::{
    api::{
        SoakRun, SoakTemplate,
        names::{GROUP, reason},
        soakschedule::ConcurrencyPolicy,
    },
    cluster::{
        access::{self, Right},
        client::Account,
        error::{ApiFailure, Class},
        kinds::Kind,
        object::{PatchKind, Target, WriteMode},
    },
    engine::{
        Plan, PlanError,
        schedule::{Problem, ScheduleEffect, ScheduleSeen},
        template,
    },
};

/// The tasks of effects, by which their failures are remembered.
pub(super) fn tasks(effects: &[ScheduleEffect]) -> Vec<Task> {
    effects.iter().filter_map(task).collect()
}

fn task(effect: &ScheduleEffect) -> Option<Task> {
    Some(match effect {
        ScheduleEffect::Try => Task::Try,
        ScheduleEffect::Create { .. } => Task::Create,
        ScheduleEffect::Abort { name, .. } => Task::Abort(name.clone()),
        ScheduleEffect::Delete { name, .. } => Task::Delete(name.clone()),
        ScheduleEffect::Notify(_) => return None,
    })
}

impl Visit<'_> {
    /// Does what was decided. True if something new is known.
    pub(super) async fn perform(
        &mut self,
        effects: Vec<ScheduleEffect>,
        seen: &ScheduleSeen,
    ) -> Result<bool, ReconcileError> {
        let mut moved = false;
        for effect in effects {
            let Some(task) = task(&effect) else {
                if let ScheduleEffect::Notify(note) = effect {
                    self.all.shell.notes.tell(self.schedule.object_ref(&()), note);
                }
                continue;
            };
            if self.memory.rests(&task) {
                continue;
            }
            let done = match effect {
                ScheduleEffect::Notify(_) => continue,
                ScheduleEffect::Try => {
                    let answer = self.try_template().await;
                    self.accepted = answer.is_ok();
                    moved |= self.accepted;
                    answer
                }
                ScheduleEffect::Create { name, tick } => {
                    // An intent is acted on while it is certain that nobody has gone further since.
                    if !perform::is_recent(self.written) {
                        self.write().await?;
                    }
                    let manifest = self.schedule.run(&name, Some(tick));
                    let answer = self.create(&name, &manifest).await?;
                    moved |= answer.is_ok();
                    answer
                }
                ScheduleEffect::Abort { name, uid } => self.abort(&name, &uid).await,
                ScheduleEffect::Delete { name, uid } => self.delete(&name, &uid).await,
            };
            match done {
                Ok(()) => {
                    moved |= seen.upkeep.is_some();
                    self.memory.done(&task);
                }
                Err(problem) => moved |= self.memory.failed(task, Some(problem)).0,
            }
        }
        Ok(moved)
    }

    fn account(&self) -> Account {
        Account {
            namespace: self.schedule.namespace().unwrap_or_default(),
            name: self.schedule.spec.service_account_name.clone(),
        }
    }

    /// A run of the schedule, as its account reaches it.
    fn target(&self, name: &str) -> Result<Target, Problem> {
        let client = self.all.shell.clusters.own().tenants.client(&self.account()).map_err(|error| Problem {
            reason: reason::INVALID_SPEC.into(),
            message: format!("spec.serviceAccountName: {error}"),
        })?;
        let resource = ApiResource::erase::<SoakRun>(&());
        let kind = Kind { resource, namespaced: true, watchable: true, subresources: Vec::new() };
        let namespace = self.schedule.namespace().unwrap_or_default();
        Ok(Target { kind, namespace, name: name.to_owned(), client })
    }

    /// Has the server try a run, and looks whether the account may do what it will have to.
    async fn try_template(&self) -> Result<(), Problem> {
        let now = chrono::Utc::now();
        let name = self.schedule.run_name(now);
        let manifest = self.schedule.run(&name, Some(now));
        match self.target(&name)?.create(&manifest, WriteMode::DryRun).await {
            Ok(_) => {}
            Err(failure) if failure.class == Class::AlreadyExists => {}
            Err(failure) => return Err(refusal(&failure)),
        }
        self.may_manage().await?;
        self.plan(&manifest).await
    }

    async fn may_manage(&self) -> Result<(), Problem> {
        let account = self.account();
        let right = |verb: &str| Right::new(verb, GROUP, &SoakRun::plural(&()), Some(&account.namespace));
        let mut rights = BTreeMap::from([(right("delete"), "the history limits".to_owned())]);
        if self.schedule.spec.concurrency_policy == ConcurrencyPolicy::Replace {
            rights.insert(right("patch"), "spec.concurrencyPolicy".to_owned());
        }
        match access::lack(self.all.shell.clusters.own(), "", &account, &rights).await {
            Ok(None) => Ok(()),
            Ok(Some(lack)) => Err(Problem {
                reason: reason::PERMISSION_DENIED.into(),
                message: format!("{lack}: grant it by a Role"),
            }),
            Err(failure) => Err(refusal(&failure)),
        }
    }

    /// What the schema can't tell: expressions, references between steps, values for a template's parameters.
    async fn plan(&self, manifest: &serde_json::Value) -> Result<(), Problem> {
        let wrong = |error: PlanError| Problem {
            reason: reason::INVALID_SPEC.into(),
            message: format!("spec.runTemplate can't be run: {error}"),
        };
        let unread = |error: serde_json::Error| wrong(PlanError::new("spec", error.to_string()));
        let run: SoakRun = serde_json::from_value(manifest.clone()).map_err(unread)?;
        let spec = match &run.spec.template_ref {
            None => run.spec,
            Some(reference) => {
                let account = self.account();
                let templates: Api<SoakTemplate> = Api::namespaced(self.all.shell.client.clone(), &account.namespace);
                let found = templates.get_opt(&reference.name).await.map_err(|error| refusal(&error.into()))?;
                let found = found.ok_or_else(|| Problem {
                    reason: reason::NOT_FOUND.into(),
                    message: format!(
                        "there is no SoakTemplate {} in namespace {}: apply it",
                        reference.name, account.namespace
                    ),
                })?;
                let emptied: BTreeSet<String> = template::emptied(&manifest["spec"]);
                template::resolve(&found.spec, &run.spec, &emptied).map_err(wrong)?
            }
        };
        Plan::parse(&spec).map(drop).map_err(wrong)
    }

    /// Makes a run. One that is there is made, if it is the schedule's.
    async fn create(
        &mut self,
        name: &str,
        manifest: &serde_json::Value,
    ) -> Result<Result<(), Problem>, ReconcileError> {
        let target = match self.target(name) {
            Ok(target) => target,
            Err(problem) => return Ok(Err(problem)),
        };
        let made = match target.create(manifest, WriteMode::Brief).await {
            Ok(made) => serde_json::to_value(made).and_then(serde_json::from_value).ok(),
            Err(failure) if failure.class == Class::AlreadyExists => self.ask_for(name).await?,
            Err(failure) => return Ok(Err(refusal(&failure))),
        };
        let problem = |reason: &str, message| Ok(Err(Problem { reason: reason.into(), message }));
        let Some(made) = made else {
            let message = format!("run {name} was there and went: it is tried again");
            return problem(Class::Transient.reason(), message);
        };
        match self.ours(&made) {
            Some(run) => {
                self.found.push(run);
                Ok(Ok(()))
            }
            None => problem(
                Class::AlreadyExists.reason(),
                format!("there is a SoakRun {name} that this schedule has not made: rename or delete it"),
            ),
        }
    }

    async fn abort(&self, name: &str, uid: &str) -> Result<(), Problem> {
        let patch = json!({"metadata": {"uid": uid}, "spec": {"abort": true}});
        match self.target(name)?.patch(PatchKind::Merge, None, &patch, WriteMode::Brief).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.class, Class::NotFound | Class::Conflict) => Ok(()),
            Err(failure) => Err(refusal(&failure)),
        }
    }

    /// Deletes an ended run as it was seen: one that a `rerun` has begun anew stays.
    async fn delete(&self, name: &str, uid: &str) -> Result<(), Problem> {
        let version = self.runs().into_iter().find(|(run, _)| run.uid == uid).map(|(_, version)| version);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: version }),
            ..DeleteParams::background()
        };
        let runs: Api<DynamicObject> = self.target(name)?.api();
        match runs.delete(name, &parameters).await.map_err(ApiFailure::from) {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.class, Class::NotFound | Class::Conflict) => Ok(()),
            Err(failure) => Err(refusal(&failure)),
        }
    }
}

/// What the server has against a run.
fn refusal(failure: &ApiFailure) -> Problem {
    match failure.class {
        Class::Invalid => Problem {
            reason: reason::INVALID_SPEC.into(),
            message: format!("spec.runTemplate is refused by the server: {}", failure.message),
        },
        class => Problem { reason: class.reason().into(), message: failure.message.clone() },
    }
}
