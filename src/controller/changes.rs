//! Which objects changed, told when the store has them.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::runtime::watcher::{self, Event};

/// The objects that were made or changed, of a watch that a store reflects already.
///
/// Objects of a list are told at its end. The store takes the list in as a whole then; who looks at one before sees what the list
/// is about to replace, and is not called again (kube's own `applied_objects` calls at once).
pub(super) fn changes<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
) -> impl Stream<Item = watcher::Result<K>> {
    let mut listed = Vec::new();
    events
        .map_ok(move |event| {
            let told = match event {
                Event::Init => {
                    listed.clear();
                    Vec::new()
                }
                Event::InitApply(object) => {
                    listed.push(object);
                    Vec::new()
                }
                Event::InitDone => std::mem::take(&mut listed),
                Event::Apply(object) => vec![object],
                Event::Delete(_) => Vec::new(),
            };
            stream::iter(told).map(Ok)
        })
        .try_flatten()
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, channel::mpsc};

    use super::*;

    #[test]
    fn a_list_is_told_when_it_is_complete() {
        let (events, watch) = mpsc::unbounded();
        let mut told = Box::pin(changes(watch));
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
        assert!(told.next().now_or_never().flatten().is_some_and(|it| it.is_err()), "errors are passed on");
    }
}
