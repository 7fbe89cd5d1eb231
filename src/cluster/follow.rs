//! One watch for as long as somebody wants it: with backoff, and with a full list from time to time.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use backon::ExponentialBuilder;
use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{
        utils::{Backoff, ResetTimerBackoff},
        watcher::{self, Event, ExponentialBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::error::{ApiFailure, Class, classify, classify_status};

/// A watch that hears nothing for so long (and the watcher's margin of 5 s) is made anew: the connection may be dead.
pub const WATCH_SECONDS: u32 = 120;
/// Everything is listed again after so long, in case that an event was lost.
const RELIST: Duration = Duration::from_mins(10);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that was away is found again within about twice this: what is to be undone must not wait for a watch (L2).
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(2);
/// After so long without a failure the pauses begin small again.
const FORGIVEN: Duration = Duration::from_mins(2);

/// Which objects are followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

/// The pauses of a watch of the operator's own resources. Shorter than the runtime's default of up to a minute, since the
/// operator has a handful of watches and faults that wait to be undone.
pub fn pauses() -> impl Backoff + 'static {
    let growing = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_OUTAGE_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    ResetTimerBackoff::new(ExponentialBackoff::from(growing), FORGIVEN)
}

/// Feeds `sink` with everything that happens to the objects of `api`; it never ends by itself.
///
/// After an error the watch goes on after a pause that grows to 30 s, or to 2 s where nothing but the connection is wrong. The
/// pause is kept here: the runtime's own begins anew with each try to list, so that a watch that is forbidden would ask every
/// second for ever.
pub(super) async fn follow<K>(api: Api<K>, selection: Selection, mut sink: impl FnMut(Result<Event<K>, ApiFailure>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let Selection { labels, fields } = selection;
    let config = watcher::Config { label_selector: labels, field_selector: fields, ..watcher::Config::default() }
        .timeout(WATCH_SECONDS);
    let mut failures = 0;
    loop {
        let until = tokio::time::sleep(RELIST + jitter());
        let mut stream = std::pin::pin!(watcher(api.clone(), config.clone()).take_until(until));
        while let Some(event) = stream.next().await {
            let event = event.map_err(|error| read(&error));
            let rest = event.as_ref().err().map(|failure| pause(failures, failure.class));
            // The beginning of a list is no success yet.
            if event.as_ref().is_ok_and(|event| !matches!(event, Event::Init)) {
                failures = 0;
            }
            sink(event);
            if let Some(rest) = rest {
                tokio::time::sleep(rest).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

fn pause(failures: u32, class: Class) -> Duration {
    let longest = if class == Class::Transient { LONGEST_OUTAGE_PAUSE } else { LONGEST_PAUSE };
    longest.min(FIRST_PAUSE * 2_u32.pow(failures.min(6))) + jitter() / 60
}

fn read(error: &watcher::Error) -> ApiFailure {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => classify(error),
        WatchError(status) => classify_status(status),
        NoResourceVersion => ApiFailure::definite(super::error::Class::Invalid, error.to_string()),
    }
}

/// Up to a minute, so that watches that began together do not list together for ever.
fn jitter() -> Duration {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    Duration::from_millis(u64::from(nanos) % 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let pause = |failures| pause(failures, Class::Forbidden);
        assert!(pause(0) >= FIRST_PAUSE && pause(0) <= FIRST_PAUSE + Duration::from_secs(1));
        assert!(pause(3) >= FIRST_PAUSE * 8);
        assert!(pause(1_000) <= LONGEST_PAUSE + Duration::from_secs(1));
    }

    #[test]
    fn a_server_that_was_away_is_soon_found_again() {
        assert!(pause(1_000, Class::Transient) <= LONGEST_OUTAGE_PAUSE + Duration::from_secs(1));
        let all: Vec<Duration> = pauses().take(20).collect();
        assert!(
            all[0] < all[19] && all.iter().all(|it| (FIRST_PAUSE..=LONGEST_OUTAGE_PAUSE * 2).contains(it)),
            "{all:?}"
        );
    }
}
