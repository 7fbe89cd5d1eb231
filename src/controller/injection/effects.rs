//! What an injection's decisions ask for, done within the visit.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use kube::{Api, Resource, ResourceExt, api::DeleteParams};
use tracing::info;

use super::{
    super::reconcile::{ReconcileError, api_error},
    Guarded, Visit, write,
};
use crate::{
    api::{FailureInjection, failureinjection::EntryState, names::reason},
    cluster::Cluster,
    engine::{
        PlanError,
        injection::{EntrySeen, Found, Health, InjectionEffect, InjectionPlan, InjectionSeen},
    },
    faults::{self, FaultContext, HealthWatch, InjectionIdentity},
};

/// Whether performing has moved something.
pub(super) enum Moved {
    Yes,
    No,
    /// The injection is gone.
    Gone,
}

/// Those of the cache that can be read.
fn injections(all: &[Arc<Guarded>]) -> impl Iterator<Item = &FailureInjection> {
    all.iter().filter_map(|it| it.0.as_ref().ok())
}

fn task(index: usize, inject: bool) -> String {
    format!("{} {index}", if inject { "inject" } else { "revert" })
}

impl Visit<'_> {
    /// Does what was decided. Awaited within the visit: there is little, and each effect looks before it acts.
    pub(super) async fn perform(
        &mut self,
        plan: &Result<InjectionPlan, PlanError>,
        seed: &str,
        effects: Vec<InjectionEffect>,
        known: &mut InjectionSeen,
        decided_at: Instant,
    ) -> Result<Moved, ReconcileError> {
        let mut moved = Moved::No;
        let mut entries = Vec::new();
        for effect in effects {
            match effect {
                InjectionEffect::AddFinalizer => {
                    self.change_finalizer(true).await?;
                    moved = Moved::Yes;
                }
                InjectionEffect::RemoveFinalizer => {
                    self.change_finalizer(false).await?;
                    if self.injection.metadata.deletion_timestamp.is_some() {
                        return Ok(Moved::Gone);
                    }
                }
                InjectionEffect::Notify(note) => self.all.shell.notes.tell(self.injection.object_ref(&()), note),
                InjectionEffect::Delete => self.delete().await?,
                InjectionEffect::Find => {
                    if self.memory.rests("find") {
                        continue;
                    }
                    let found = self.find(plan, seed, decided_at).await;
                    self.memory.tried("find", matches!(found, Found::NotYet { .. } | Found::Nothing { .. }), None);
                    known.found = Some(found);
                    moved = Moved::Yes;
                }
                InjectionEffect::Look => {
                    let health = self.look(plan, seed, decided_at).await;
                    let news = health != known.health;
                    known.health = health;
                    if news {
                        moved = Moved::Yes;
                    }
                }
                InjectionEffect::Inject(index) => entries.push((index, true)),
                InjectionEffect::Revert(index) => entries.push((index, false)),
            }
        }
        if entries.iter().any(|(index, inject)| *inject && !self.memory.rests(&task(*index, true))) {
            self.confirm().await?;
            if let Some(why) = self.forestalled().await? {
                if self.memory.is_untried() {
                    self.memory.tried("find", true, None);
                    known.yields = Some(why);
                } else {
                    let broken = EntrySeen::Broken { reason: reason::CONFLICT.into(), message: why };
                    known.entries.extend(entries.into_iter().map(|(index, _)| (index, broken.clone())));
                }
                return Ok(Moved::Yes);
            }
        }
        if !entries.is_empty() && self.entries(plan, seed, entries, known, decided_at).await {
            moved = Moved::Yes;
        }
        Ok(moved)
    }

    /// Makes or undoes the faults of journal entries, side by side. True if something new is known.
    async fn entries(
        &self,
        plan: &Result<InjectionPlan, PlanError>,
        seed: &str,
        entries: Vec<(usize, bool)>,
        known: &mut InjectionSeen,
        decided_at: Instant,
    ) -> bool {
        let (identity, journal, deadline) = (self.identity(), self.status().journal, self.status().deadline);
        let undoes = entries.iter().any(|(_, inject)| !inject);
        let cluster = self.cluster(&identity, undoes);
        let lost = match &cluster {
            Err(message) => Some(self.without_cluster(&identity.namespace, message).await),
            Ok(_) => None,
        };
        let due = entries.into_iter().filter(|(index, inject)| !self.memory.rests(&task(*index, *inject)));
        let work = due.filter_map(|(index, inject)| journal.get(index).map(|entry| (index, inject, entry)));
        let done = join_all(work.map(|(index, inject, entry)| {
            let (identity, cluster, lost) = (&identity, cluster.as_ref().ok(), lost.clone());
            async move {
                let Some(cluster) = cluster else {
                    let failing = EntrySeen::Failing { message: String::new() };
                    return (index, inject, lost.unwrap_or(failing), None);
                };
                // What was seen there is certain; only what was merely planned may still come.
                let open_until = (entry.state == EntryState::Planned).then(|| self.memory.open_until(index));
                let context = FaultContext {
                    deadline: deadline.filter(|_| inject),
                    open_until,
                    ..self.context(identity, plan, seed, decided_at, cluster)
                };
                let outcome = if inject {
                    self.memory.opens(index);
                    let outcome = faults::inject(&context, entry).await;
                    if !matches!(outcome, EntrySeen::Failing { .. }) {
                        self.memory.closes(index);
                    }
                    outcome
                } else {
                    faults::revert(&context, entry).await
                };
                (index, inject, outcome, open_until.filter(|_| !inject))
            }
        }))
        .await;
        let mut news = false;
        for (index, inject, what, open_until) in done {
            self.memory.tried(&task(index, inject), matches!(what, EntrySeen::Failing { .. }), open_until);
            if let EntrySeen::Failing { message } = &what {
                info!(entry = index, message, "a fault is not there yet or not undone yet");
            }
            news |= known.entries.get(&index) != Some(&what);
            known.entries.insert(index, what);
        }
        news
    }

    /// What an effect without a journal entry is performed with.
    pub(super) fn context<'a>(
        &'a self,
        identity: &'a InjectionIdentity,
        plan: &'a Result<InjectionPlan, PlanError>,
        seed: &'a str,
        decided_at: Instant,
        cluster: &'a Cluster,
    ) -> FaultContext<'a> {
        FaultContext {
            injection: identity,
            plan: plan.as_ref().ok(),
            seed,
            cluster,
            settings: &self.all.settings,
            decided_at,
            deadline: None,
            open_until: None,
        }
    }

    /// Finds out what would be hit, and takes hold of it.
    async fn find(&self, plan: &Result<InjectionPlan, PlanError>, seed: &str, decided_at: Instant) -> Found {
        let identity = self.identity();
        let cluster = match self.cluster(&identity, false) {
            Ok(cluster) => cluster,
            Err(message) => return Found::NotYet { reason: reason::TARGET_UNREACHABLE.into(), message },
        };
        let context = self.context(&identity, plan, seed, decided_at, &cluster);
        let before = self.all.memories.holders(&identity.uid, injections(&self.all.store.state()));
        let found = faults::find(&context).await;
        let Found::Targets { journal, .. } = &found else { return found };
        if self.injection.spec.dry_run {
            return found;
        }
        self.all
            .memories
            .hold(
                &identity.uid,
                journal,
                self.all.settings.guard_rails.max_active,
                &before,
                injections(&self.all.store.state()),
            )
            .unwrap_or(found)
    }

    async fn look(&self, plan: &Result<InjectionPlan, PlanError>, seed: &str, decided_at: Instant) -> Health {
        let identity = self.identity();
        let cluster = match self.cluster(&identity, false) {
            Ok(cluster) => cluster,
            Err(message) => return Health::NotYet { message },
        };
        let context = self.context(&identity, plan, seed, decided_at, &cluster);
        let mut watch: HealthWatch = self.memory.take_health();
        let health = faults::health(&context, &mut watch).await;
        self.memory.keep_health(watch);
        health
    }

    async fn change_finalizer(&mut self, wanted: bool) -> Result<(), ReconcileError> {
        match write::finalizer(&self.all.shell.client, &self.injection, wanted).await {
            Ok(metadata) => {
                self.injection.metadata = metadata;
                self.memory.written(self.injection.clone());
            }
            // Gone is as good as released.
            Err(kube::Error::Api(status)) if status.code == 404 && !wanted => {
                self.injection.metadata.finalizers = None;
            }
            Err(error) => return Err(api_error(error)),
        }
        Ok(())
    }

    /// Deletes an injection whose time to live is over.
    ///
    /// Errors: it may still be there, and nothing but another try will tell.
    async fn delete(&self) -> Result<(), ReconcileError> {
        let namespace = self.injection.namespace().unwrap_or_default();
        let api: Api<FailureInjection> = Api::namespaced(self.all.shell.client.clone(), &namespace);
        let parameters = DeleteParams {
            preconditions: Some(kube::api::Preconditions { uid: self.injection.uid(), resource_version: None }),
            ..DeleteParams::background()
        };
        match api.delete(&self.injection.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(error) => Err(api_error(error)),
        }
    }
}
