//! After a write that somebody else came before: what the server has is read past the cache, which lags behind for as long as its
//! watch is broken.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Resource, runtime::controller::Action};
use serde::de::DeserializeOwned;

use super::{
    Shell,
    reconcile::{ReconcileError, api_error},
};

/// The pause after one conflict; with each more in a row it doubles, up to about three seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const DOUBLINGS: u32 = 6;

/// Reads the object again and lets `take_in` remember it, which tells how many conflicts there were in a row. What is gone, has
/// another one in its place or is not taken in is left to the watch.
///
/// Errors: the server could not be asked.
pub(super) async fn look_again<K>(
    shell: &Shell,
    metadata: &ObjectMeta,
    take_in: impl FnOnce(K) -> Option<u32>,
) -> Result<Action, ReconcileError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    shell.metrics.reconcile_failed(ReconcileError::Conflict.class());
    let api: Api<K> = Api::namespaced(shell.client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let stored = api.get_opt(metadata.name.as_deref().unwrap_or_default()).await.map_err(api_error)?;
    let conflicts = stored.filter(|stored| stored.meta().uid == metadata.uid).and_then(take_in);
    Ok(conflicts.map_or_else(Action::await_change, |conflicts| Action::requeue(pause(conflicts))))
}

/// How long an object rests after so many conflicts in a row.
fn pause(conflicts: u32) -> Duration {
    FIRST_PAUSE * 2_u32.pow(conflicts.saturating_sub(1).min(DOUBLINGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_each_conflict_in_a_row() {
        assert_eq!([pause(0), pause(1)], [FIRST_PAUSE; 2]);
        assert_eq!(pause(3), FIRST_PAUSE * 4);
        assert_eq!(pause(u32::MAX), Duration::from_millis(3_200));
    }
}
