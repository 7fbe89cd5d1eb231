//! Which objects changed, told when the store has them.

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Event};
use tracing::warn;

/// The objects that were made or changed, of a watch that a store reflects already.
///
/// Objects of a list are told at its end. The store takes the list in as a whole then; who looks at one before sees what the list
/// is about to replace, and is not called again (kube's own `applied_objects` calls at once).
///
/// Errors are logged and end here: kube's controller lets everything rest after one, what was woken by others and what is due
/// by time as well, for up to a minute. The watch has pauses of its own.
pub(super) fn changes<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    of: &'static str,
) -> impl Stream<Item = watcher::Result<K>> {
    let mut listed = Vec::new();
    events.flat_map(move |event| {
        let told = match event {
            Ok(Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                listed.push(object);
                Vec::new()
            }
            Ok(Event::InitDone) => std::mem::take(&mut listed),
            Ok(Event::Apply(object)) => vec![object],
            Ok(Event::Delete(_)) => Vec::new(),
            Err(error) => {
                warn!(%error, "the watch of {of} failed and is started again");
                Vec::new()
            }
        };
        stream::iter(told).map(Ok)
    })
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, channel::mpsc};

    use super::*;

    #[test]
    fn a_list_is_told_when_it_is_complete() {
        let (events, watch) = mpsc::unbounded();
        let mut told = Box::pin(changes(watch, "letters"));
        let mut now = || {
            let mut all = Vec::new();
            while let Some(Some(object)) = told.next().now_or_never() {
                all.push(object.unwrap());
            }
            all
        };
        let tell = |event: Event<&'static str>| events.unbounded_send(Ok(event)).unwrap();
        tell(Event::Init);
        tell(Event::InitApply("half"));
        tell(Event::Init);
        tell(Event::InitApply("a"));
        tell(Event::InitApply("b"));
        assert!(now().is_empty(), "the store has none of them yet");
        tell(Event::InitDone);
        assert_eq!(now(), ["a", "b"]);
        tell(Event::Apply("a"));
        tell(Event::Delete("b"));
        assert_eq!(now(), ["a"]);
        events.unbounded_send(Err(watcher::Error::NoResourceVersion)).unwrap();
        tell(Event::Apply("b"));
        assert_eq!(now(), ["b"], "an error would stop whoever listens");
    }
}
