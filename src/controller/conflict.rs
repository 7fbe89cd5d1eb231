//! After a write that somebody else came before: what the server has is read past the cache, which lags behind for as long as its
//! watch is broken.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// The pause after one conflict; with each more in a row it doubles, up to about three seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const DOUBLINGS: u32 = 6;

/// The object as the server has it; none if it is gone, or another one has its name.
pub(super) async fn read_again<K>(client: &Client, metadata: &ObjectMeta) -> kube::Result<Option<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let stored = api.get_opt(metadata.name.as_deref().unwrap_or_default()).await?;
    Ok(stored.filter(|stored| stored.meta().uid == metadata.uid))
}

/// How long an object rests after so many conflicts in a row.
pub(super) fn pause(conflicts: u32) -> Duration {
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
