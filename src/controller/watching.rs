//! How the operator watches the resources that are its own.

use std::fmt::Debug;

use futures::Stream;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::cluster;

/// Everything that happens to the objects of `api`; after an error the watch goes on by itself.
pub(super) fn watch<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, watcher::Config::default().streaming_lists().timeout(cluster::WATCH_SECONDS))
        .backoff(cluster::pauses())
}
