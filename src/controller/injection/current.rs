//! Whether an injection is still what was decided on, and whether somebody else came first: asked right before a fault is made.

use kube::{
    Api, ResourceExt,
    api::{ListParams, VersionMatch},
};

use super::{
    super::reconcile::{ReconcileError, api_error},
    Visit,
};
use crate::{
    api::FailureInjection,
    engine::injection::{self, Holder},
};

impl Visit<'_> {
    /// A fault is made only on what the server has now (S9): after a restart a cache may be as old as it likes, and another process
    /// may have undone the fault and let the injection go meanwhile.
    ///
    /// Errors: a conflict when it has changed; the next visit decides on what it is now.
    pub(super) async fn confirm(&mut self) -> Result<(), ReconcileError> {
        if self.confirmed {
            return Ok(());
        }
        let namespace = self.injection.namespace().unwrap_or_default();
        let api: Api<FailureInjection> = Api::namespaced(self.all.shell.client.clone(), &namespace);
        let stored = api.get(&self.injection.name_any()).await.map_err(api_error)?;
        if stored.uid() != self.injection.uid() || stored.resource_version() != self.injection.resource_version() {
            return Err(ReconcileError::Conflict);
        }
        self.confirmed = true;
        Ok(())
    }

    /// Who came first to a field that the journal holds (S8). Two operators may each have journaled an injection without knowing of
    /// the other's: as of the revision of one's own journal, exactly one of them sees the other.
    pub(super) async fn forestalled(&self) -> Result<Option<String>, ReconcileError> {
        let wanted = injection::claims(&self.status().journal);
        if self.memory.is_cleared() || wanted.is_empty() {
            return Ok(None);
        }
        let version = self.injection.resource_version().unwrap_or_default();
        let then = ListParams::default().at(&version).matching(VersionMatch::Exact);
        let all = match self.all.api.list(&then).await {
            // Compacted meanwhile. What is there now is no less.
            Err(kube::Error::Api(status)) if status.code == 410 => self.all.api.list(&ListParams::default()).await,
            answer => answer,
        };
        let all = all.map_err(api_error)?.items;
        let others = all.iter().filter_map(|it| it.0.as_ref().ok()).filter(|it| it.uid() != self.injection.uid());
        let holders: Vec<Holder> = others.filter_map(Holder::of).collect();
        if let Some((holder, claim)) = injection::conflict(&wanted, &holders) {
            return Ok(Some(format!("{} came first to {}", holder.name, claim.part)));
        }
        self.memory.clear();
        Ok(None)
    }
}
