//! What operators did to the objects that injections hit: never without a stored journal (S5), only to what that names and to no
//! field that somebody else has changed (S7), not after its time or on what is no longer true (S9), not after a deletion (S10).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    history::{History, Request, Version},
    names::text,
};

use super::{
    Violation,
    journal::{Entry, Injection, entries, has_finalizer, is_deleting, phase, time},
    violated,
};

/// How long after a decision its effect may arrive: operators drop what is older than three seconds, and it has to travel.
const FRESH_MILLIS: u128 = 5_000;
/// How much later than the deadline that is looked at right before it an effect may arrive.
const TRAVEL_MILLIS: u128 = 1_000;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A field got the fault's value: the object's uid, the path.
    Field(String, String),
    /// An object was deleted: its uid.
    Deleted(String),
    /// An object was made: its uid.
    Made(String),
    /// A toxic of that name was made in a proxy; without a name the proxy was switched off.
    Toxic(String, String),
}

/// One effect of a fault.
pub(super) struct Effect<'a> {
    pub(super) request: &'a Request,
    pub(super) what: What,
    /// Its revision; none for what is not in etcd.
    pub(super) revision: Option<u64>,
    /// The injection that says in some version that this is its effect, and the place in its journal.
    pub(super) owner: Option<(usize, usize)>,
}

/// Writes of operators to what injections hit, as far as they took place.
fn writes(history: &History) -> impl Iterator<Item = &Request> {
    let hit = |request: &&Request| {
        let named = request.path.split('/').any(|part| part.starts_with("t-"))
            || text(&request.body["metadata"]["name"]).starts_with("t-");
        named || request.path.ends_with("/networkpolicies") || request.path.contains("/networkpolicies/")
    };
    history.requests.iter().filter(|request| request.is_committed()).filter(hit)
}

/// The versions of all objects but runs and injections, by uid.
pub(super) fn objects(history: &History) -> BTreeMap<&str, Vec<&Version>> {
    let mut objects: BTreeMap<&str, Vec<&Version>> = BTreeMap::new();
    for version in history.versions.iter().filter(|it| !matches!(it.resource, "soakruns" | "failureinjections")) {
        objects.entry(version.uid()).or_default().push(version);
    }
    objects
}

/// Whether a version is the beginning of an object's end.
pub(super) fn is_going(version: &Version) -> bool {
    version.gone || version.object["metadata"]["deletionTimestamp"].is_string()
}

/// Every effect, with its owner. A second deletion of what goes already is none.
pub(super) fn all(history: &History) -> Vec<Effect<'_>> {
    let injections = Injection::all(history);
    let objects = objects(history);
    let mut effects = Vec::new();
    for request in writes(history) {
        let effect = |what: What, revision| {
            let owner = owner(&injections, &what, request);
            Effect { request, what, revision, owner }
        };
        if request.path.starts_with("/proxies") {
            effects.extend(toxic(request).map(|what| effect(what, None)));
            continue;
        }
        let revision = Some(crate::names::version(&request.answer));
        match request.method.as_str() {
            "PATCH" => {
                let uid = text(&request.answer["metadata"]["uid"]);
                for (path, ..) in injections.iter().flat_map(|it| fields_of(it, uid)).collect::<Vec<_>>() {
                    let after = request.answer.pointer(path);
                    let before = previous(&objects, uid, &request.answer).and_then(|it| it.object.pointer(path));
                    let is_fault = injections
                        .iter()
                        .any(|it| fields_of(it, uid).iter().any(|(other, _, fault)| *other == path && *fault == after));
                    let what = What::Field(uid.to_owned(), path.to_owned());
                    if before != after
                        && is_fault
                        && effects.iter().all(|it: &Effect<'_>| it.revision != revision || it.what != what)
                    {
                        effects.push(effect(what, revision));
                    }
                }
            }
            "POST" if request.path.ends_with("/eviction") => {
                let uid = text(&request.body["deleteOptions"]["preconditions"]["uid"]);
                effects.push(effect(What::Deleted(uid.to_owned()), end(&objects, uid)));
            }
            "POST" if request.body["metadata"]["labels"]["soak.dev/injection-uid"].is_string() => {
                effects.push(effect(What::Made(text(&request.answer["metadata"]["uid"]).to_owned()), revision));
            }
            "DELETE" => {
                let uid = text(&request.body["preconditions"]["uid"]);
                let what = What::Deleted(uid.to_owned());
                // What injections made is undone so; the rest is a fault.
                let made = objects
                    .get(uid)
                    .and_then(|it| it.first())
                    .is_some_and(|it| it.object["metadata"]["labels"]["soak.dev/injection-uid"].is_string());
                if !made && effects.iter().all(|it: &Effect<'_>| it.what != what) {
                    effects.push(effect(what, end(&objects, uid)));
                }
            }
            _ => {}
        }
    }
    effects
}

fn toxic(request: &Request) -> Option<What> {
    let mut parts = request.path.split('/').skip(2);
    let proxy = parts.next()?.to_owned();
    if request.method != "POST" {
        return None;
    }
    match parts.next() {
        Some(_) => Some(What::Toxic(proxy, text(&request.body["name"]).to_owned())),
        None => (request.body["enabled"] == false).then(|| What::Toxic(proxy, String::new())),
    }
}

/// The fields of an object that an injection changes, by its journal.
fn fields_of<'a>(injection: &Injection<'a>, uid: &str) -> Vec<(&'a str, Option<&'a Value>, Option<&'a Value>)> {
    let entries = injection.journal().into_iter().filter(|entry| entry.uid() == uid);
    entries.flat_map(Entry::changes).collect()
}

/// The version of an object before the one that a write made.
fn previous<'a>(objects: &BTreeMap<&str, Vec<&'a Version>>, uid: &str, answer: &Value) -> Option<&'a Version> {
    let revision = crate::names::version(answer);
    objects.get(uid)?.iter().rev().find(|version| version.revision() < revision).copied()
}

/// The revision at which an object began to go.
fn end(objects: &BTreeMap<&str, Vec<&Version>>, uid: &str) -> Option<u64> {
    objects.get(uid)?.iter().find(|version| is_going(version)).map(|version| version.revision())
}

fn owner(injections: &[Injection<'_>], what: &What, request: &Request) -> Option<(usize, usize)> {
    let is_it = |entry: &Entry<'_>, injection: &Injection<'_>| match what {
        What::Field(uid, path) => {
            let value = request.answer.pointer(path);
            entry.uid() == uid && entry.changes().any(|(its, _, after)| its == path && after == value)
        }
        What::Deleted(uid) => entry.uid() == uid && matches!(entry.undo(), "Nothing" | "Restore"),
        What::Made(_) => {
            let labels = &request.body["metadata"]["labels"];
            entry.undo() == "Made"
                && labels["soak.dev/injection-uid"] == injection.uid()
                && entry.0["undo"]["object"]["name"] == request.body["metadata"]["name"]
        }
        What::Toxic(proxy, toxic) => {
            let undo = &entry.0["undo"];
            undo["proxy"] == proxy.as_str() && text(&undo["toxic"]["name"]) == toxic
        }
    };
    injections.iter().enumerate().find_map(|(index, injection)| {
        let place = injection.journal().iter().position(|entry| is_it(entry, injection))?;
        Some((index, place))
    })
}

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    let injections = Injection::all(history);
    for effect in all(history) {
        let what = format!(
            "{} ({:?}) at {} ms",
            effect.request.key.as_deref().unwrap_or_default(),
            effect.what,
            effect.request.at
        );
        match effect.owner.and_then(|(index, place)| Some((injections.get(index)?, place))) {
            None => violated(found, "S5", format!("{what} stands in no journal")),
            Some((injection, place)) => one(history, injection, place, &effect, &what, found),
        }
    }
    touched(history, &injections, found);
}

/// One effect against what its injection had stored by then.
fn one(
    history: &History,
    injection: &Injection<'_>,
    place: usize,
    effect: &Effect<'_>,
    what: &str,
    found: &mut Vec<Violation>,
) {
    let name = injection.name();
    let stored = match effect.revision {
        Some(revision) => injection.before(revision),
        None => stored_before(history, injection, effect.request.at),
    };
    let entry = stored.and_then(|version| entries(version).get(place).copied());
    let (Some(stored), Some(entry)) = (stored, entry) else {
        return violated(found, "S5", format!("{what} came before the journal of injection {name} was stored"));
    };
    if !has_finalizer(stored) {
        violated(found, "S5", format!("{what} was done without the finalizer of injection {name}"));
    }
    let deadline = &stored.object["status"]["deadline"];
    if !deadline.is_string() {
        violated(found, "S5", format!("{what} was done without a deadline of injection {name}"));
    }
    let at = effect.request.at;
    if entry.is_over() {
        violated(found, "S9", format!("{what} came when injection {name} had it as {}", entry.state()));
    } else if time(history, deadline).is_some_and(|deadline| at > deadline + TRAVEL_MILLIS) {
        violated(found, "S9", format!("{what} came after the deadline of injection {name}"));
    }
    let is_late = |since: Option<&Version>| {
        since.is_some_and(|it| it.revision() <= stored.revision() && at > it.at + FRESH_MILLIS)
    };
    let left = injection.first(|version| !matches!(phase(version), "Pending" | "Injecting"));
    // Of several targets, one may be hit again only while the others are still to be hit.
    if is_late(left) {
        violated(found, "S9", format!("{what} came long after injection {name} had begun or given up"));
    }
    if is_late(injection.first(is_deleting)) {
        violated(found, "S10", format!("{what} came long after injection {name} was deleted"));
    }
}

/// What was stored when something happened that has no revision: by the requests, since a watch tells a moment later.
fn stored_before<'a>(history: &History, injection: &Injection<'a>, at: u128) -> Option<&'a Version> {
    let written = history.requests.iter().filter(|it| it.is_injection_status() && it.is_committed() && it.at < at);
    let newest =
        written.map(|request| crate::names::version(&request.answer)).collect::<std::collections::BTreeSet<_>>();
    injection.0.iter().rev().find(|version| newest.contains(&version.revision()) || version.at < at).copied()
}

/// S7: of what injections hit, only what their journals name is written.
fn touched(history: &History, injections: &[Injection<'_>], found: &mut Vec<Violation>) {
    let objects = objects(history);
    for request in writes(history).filter(|request| !request.path.starts_with("/proxies")) {
        let key = format!("{} at {} ms", request.key.as_deref().unwrap_or_default(), request.at);
        match request.method.as_str() {
            "PATCH" => {
                let uid = text(&request.answer["metadata"]["uid"]);
                let Some(before) = previous(&objects, uid, &request.answer) else { continue };
                let named: Vec<_> = injections.iter().flat_map(|it| fields_of(it, uid)).collect();
                if named.is_empty() {
                    violated(found, "S7", format!("{key}: no journal names the object {uid}"));
                    continue;
                }
                for path in differences(&before.object, &request.answer) {
                    let (old, new) = (before.object.pointer(&path), request.answer.pointer(&path));
                    let good = named.iter().any(|(its, from, to)| {
                        let inside = path.starts_with(its) || its.starts_with(&path);
                        let whole = *its == path && (*to == new && *from == old || *to == old && *from == new);
                        inside && (whole || *its != path)
                    });
                    if !good {
                        violated(
                            found,
                            "S7",
                            format!("{key}: {path} was {old:?}, which is no journal's, and became {new:?}"),
                        );
                    }
                }
            }
            "DELETE" => {
                let uid = text(&request.body["preconditions"]["uid"]);
                let object = objects.get(uid).and_then(|it| it.first());
                let maker = object.map(|it| text(&it.object["metadata"]["labels"]["soak.dev/injection-uid"]));
                let known = injections.iter().any(|injection| {
                    maker == Some(injection.uid()) || injection.journal().iter().any(|entry| entry.uid() == uid)
                });
                if uid.is_empty() || !known {
                    violated(found, "S7", format!("{key}: no journal names the object {uid:?}"));
                }
            }
            _ => {}
        }
    }
}

/// Where two versions of an object differ, but for what the server keeps itself.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    fn compare(before: &Value, after: &Value, path: &str, found: &mut Vec<String>) {
        match (before, after) {
            (Value::Object(old), Value::Object(new)) => {
                let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                for name in names {
                    let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                    match (old.get(name), new.get(name)) {
                        (Some(old), Some(new)) => compare(old, new, &path, found),
                        _ => found.push(path),
                    }
                }
            }
            (old, new) if old != new => found.push(path.to_owned()),
            _ => {}
        }
    }
    const OWN: [&str; 5] =
        ["/metadata/managedFields", "/metadata/resourceVersion", "/metadata/generation", "/kind", "/apiVersion"];
    let mut found = Vec::new();
    compare(before, after, "", &mut found);
    found.retain(|path| !OWN.contains(&path.as_str()) && !path.starts_with("/status"));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::sample, *};

    /// The object `t` in that state.
    fn object(revision: u64, mode: &str) -> Version {
        let object = json!({"metadata": {"name": "t-x", "uid": "t"}, "data": {"mode": mode}});
        sample::version("configmaps", revision, object)
    }

    fn patch(at: u128, made: &Version) -> Request {
        let request = sample::request("PATCH", "/api/v1/namespaces/n/configmaps/t-x", json!([]));
        Request { at, answer: made.object.clone(), ..request }
    }

    fn judge(versions: Vec<Version>, requests: Vec<Request>) -> Vec<&'static str> {
        let began = "2026-01-01T00:00:00Z".parse().ok();
        let mut found = Vec::new();
        check(&History { requests, versions, began, ..History::default() }, &mut found);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    fn journal(revision: u64) -> Version {
        sample::injection(revision, "i", "Injecting", "Planned")
    }

    #[test]
    fn a_fault_comes_after_its_journal_and_its_finalizer() {
        let (good, bad) = (object(1, "good"), object(5, "bad"));
        let history = |journal: Version| vec![good.clone(), journal, bad.clone()];
        assert!(judge(history(journal(3)), vec![patch(5, &bad)]).is_empty());
        assert_eq!(judge(history(journal(7)), vec![patch(5, &bad)]), ["S5"]);
        let mut bare = journal(3);
        bare.object["metadata"]["finalizers"] = json!([]);
        assert_eq!(judge(history(bare), vec![patch(5, &bad)]), ["S5"]);
        assert_eq!(judge(history(journal(3)), vec![patch(40_000, &bad)]), ["S9"], "that is past the deadline");
        let over = sample::injection(4, "i", "Recovered", "Reverted");
        assert_eq!(judge([history(journal(3)), vec![over]].concat(), vec![patch(5, &bad)]), ["S9"]);
    }

    #[test]
    fn nothing_begins_long_after_a_deletion() {
        let (good, bad) = (object(1, "good"), object(9, "bad"));
        let mut deleted = journal(4);
        deleted.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
        let history = vec![good, journal(3), deleted, bad.clone()];
        assert!(judge(history.clone(), vec![patch(1_000, &bad)]).is_empty());
        assert_eq!(judge(history, vec![patch(8_000, &bad)]), ["S10"]);
    }

    #[test]
    fn only_what_a_journal_names_is_touched_and_what_others_changed_stays() {
        let (theirs, back) = (object(5, "theirs"), object(6, "good"));
        let history = vec![object(1, "good"), journal(2), object(4, "bad"), theirs, back.clone()];
        assert_eq!(judge(history, vec![patch(6, &back)]), ["S7"]);
        let (mut new, mut changed) = (object(5, "bad"), object(6, "good"));
        for version in [&mut new, &mut changed] {
            version.object["metadata"]["uid"] = json!("other");
        }
        assert_eq!(judge(vec![journal(2), new, changed.clone()], vec![patch(6, &changed)]), ["S7"]);
        let undone = object(6, "good");
        let history = vec![object(1, "good"), journal(2), object(4, "bad"), undone.clone()];
        assert!(judge(history, vec![patch(6, &undone)]).is_empty());
    }
}
