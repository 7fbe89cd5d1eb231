//! The kill switch: a ConfigMap in the operator's namespace that stops all injections at once.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::RwLock;
use tracing::{info, warn};

use crate::cluster;

/// The ConfigMap's name. Its `halt: "true"` is the switch; `reason` says why.
pub const KILL_SWITCH: &str = "soak-kill-switch";

/// Whether the switch is on.
#[derive(Clone, Default)]
pub(super) struct Halt(Arc<RwLock<Option<String>>>);

impl Halt {
    /// Why everything is halted; none while the switch is off.
    pub(super) fn reason(&self) -> Option<String> {
        self.0.read().clone()
    }

    /// Takes in what the ConfigMap says. True if that is new.
    fn take_in(&self, map: Option<&ConfigMap>) -> bool {
        let data = map.and_then(|map| map.data.as_ref());
        let on = data.and_then(|data| data.get("halt")).is_some_and(|halt| halt == "true");
        let why = on.then(|| {
            let reason = data.and_then(|data| data.get("reason")).map_or("", String::as_str);
            let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("ConfigMap {KILL_SWITCH} halts all injections{because}")
        });
        let mut state = self.0.write();
        let news = *state != why;
        if news {
            info!(halted = why.is_some(), reason = why.as_deref().unwrap_or_default(), "the kill switch was turned");
        }
        *state = why;
        news
    }
}

/// Watches the switch. The stream has an item whenever it was turned, and must be polled.
pub(super) fn watch(client: Client, namespace: &str) -> (impl Stream<Item = ()> + Send + 'static, Halt) {
    let halt = Halt::default();
    let sink = halt.clone();
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={KILL_SWITCH}"));
    let mut listed = None;
    let turned = watcher(api, config).backoff(cluster::pauses()).filter_map(move |event| {
        let news = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                false
            }
            Ok(watcher::Event::InitApply(map)) => {
                listed = Some(map);
                false
            }
            Ok(watcher::Event::InitDone) => sink.take_in(listed.take().as_ref()),
            Ok(watcher::Event::Apply(map)) => sink.take_in(Some(&map)),
            Ok(watcher::Event::Delete(_)) => sink.take_in(None),
            Err(error) => {
                warn!(%error, "the kill switch can't be read; it stays as it was");
                false
            }
        };
        futures::future::ready(news.then_some(()))
    });
    (turned, halt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_true_halts_and_news_is_told_once() {
        let map = |halt: &str| ConfigMap {
            data: Some([("halt".to_owned(), halt.to_owned()), ("reason".to_owned(), "release day".to_owned())].into()),
            ..ConfigMap::default()
        };
        let halt = Halt::default();
        assert!(!halt.take_in(Some(&map("false"))));
        assert!(halt.take_in(Some(&map("true"))));
        assert!(!halt.take_in(Some(&map("true"))));
        assert!(halt.reason().unwrap().contains("release day"));
        assert!(halt.take_in(None));
        assert_eq!(halt.reason(), None);
    }
}
