//! Fields in which a fault finds what it wants: it changes nothing there, and holds them all the same.
//!
//! The value may be another injection's doing. If that gave it back beneath this one, this one's fault would not be what its spec
//! says. So the field is noted with the value that it has as both its values, is claimed like any other, and is never written.

use serde_json::Value;

use super::fields::{SERVERS_OWN, escape, named_alike, segments};
use crate::api::failureinjection::FieldChange;

/// What a patch may repeat without meaning it: nobody can change it.
const IDENTITY: [&str; 4] = ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"];

/// Whether a field is held and not changed.
pub fn is_agreement(field: &FieldChange) -> bool {
    field.before == field.after
}

/// The fields at or below the `touched` paths in which two states of an object agree, missing ones included.
///
/// Paths are those of [`differences`](super::fields::differences): items of lists by their names where all have one.
pub fn agreements(before: &Value, after: &Value, touched: &[String]) -> Vec<FieldChange> {
    let mut found = Vec::new();
    let rests: Vec<Vec<&str>> =
        touched.iter().filter(|path| !path.is_empty()).map(|path| segments(path).collect()).collect();
    walk(Some(before), Some(after), String::new(), &rests, &mut found);
    found.retain(|field| !SERVERS_OWN.iter().chain(&IDENTITY).any(|own| field.path.starts_with(own)));
    found
}

/// `rests` are the touched paths as seen from `path`, which are in or above all of them; an empty one is about all that is here.
fn walk(
    before: Option<&Value>,
    after: Option<&Value>,
    path: String,
    rests: &[Vec<&str>],
    found: &mut Vec<FieldChange>,
) {
    let whole = rests.iter().any(Vec::is_empty);
    let inside = |names: &[&str]| -> Vec<Vec<&str>> {
        let here = rests.iter().filter(|rest| rest.first().is_some_and(|first| names.contains(first)));
        here.map(|rest| rest[1..].to_vec()).chain(whole.then(Vec::new)).collect()
    };
    match (before, after) {
        (None, None) => found.extend(rests.iter().map(|rest| {
            let path = rest.iter().fold(path.clone(), |path, segment| format!("{path}/{segment}"));
            FieldChange { path, before: None, after: None }
        })),
        (Some(old), Some(new)) if old == new && whole => found.push(agreement(path, old)),
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let absent = rests.iter().filter_map(|rest| rest.first()).map(|name| super::fields::unescape(name));
            let mut names: Vec<String> = if whole { old.keys().cloned().collect() } else { Vec::new() };
            names.extend(absent);
            names.sort();
            names.dedup();
            for name in names {
                let segment = escape(&name);
                let rests = inside(&[&segment]);
                walk(old.get(&name), new.get(&name), format!("{path}/{segment}"), &rests, found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if named_alike(old, new) => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                let segment = format!("name={}", escape(old["name"].as_str().unwrap_or_default()));
                let rests = inside(&[&segment, &index.to_string()]);
                if !rests.is_empty() {
                    walk(Some(old), Some(new), format!("{path}/{segment}"), &rests, found);
                }
            }
        }
        // A list of other items is meant as a whole.
        (Some(old), Some(new)) if old == new => found.push(agreement(path, old)),
        _ => {}
    }
}

fn agreement(path: String, value: &Value) -> FieldChange {
    FieldChange { path, before: Some(value.clone()), after: Some(value.clone()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::failureinjection::{JournalEntry, ObjectRef, Undo},
        engine::injection::{
            Holder, claims, conflict,
            fields::{back, changes_nothing, forward, noted, touched_by_merge, touched_by_operations},
        },
    };

    fn paths(before: &Value, after: &Value, touched: &[String]) -> Vec<String> {
        agreements(before, after, touched).into_iter().map(|field| field.path).collect()
    }

    fn journal(before: &Value, after: &Value, patch: &Value) -> Vec<JournalEntry> {
        let undo = Undo::Fields { subresource: String::new(), fields: noted(before, after, &touched_by_merge(patch)) };
        let target = ObjectRef { uid: "u".into(), ..ObjectRef::default() };
        vec![JournalEntry { target, undo, ..JournalEntry::default() }]
    }

    #[test]
    fn of_two_patches_that_agree_in_a_field_the_second_waits() {
        let good = json!({"data": {"mode": "good", "size": "1"}});
        let first = json!({"data": {"mode": "bad", "size": "1"}});
        let held = journal(&good, &first, &json!({"data": {"mode": "bad"}}));
        let first_holds = [Holder { name: "first".into(), claims: claims(&held) }];
        let second = json!({"data": {"mode": "bad", "size": "2"}});
        let wanted = claims(&journal(&first, &second, &second));
        let (whom, claim) = conflict(&wanted, &first_holds).unwrap();
        assert_eq!((whom.name.as_str(), claim.part.as_str()), ("first", "/data/mode"));
        // One that has nothing in common with it need not wait.
        let other = journal(&first, &json!({"data": {"mode": "bad", "size": "2"}}), &json!({"data": {"size": "2"}}));
        assert!(conflict(&claims(&other), &first_holds).is_none());
    }

    #[test]
    fn what_is_only_held_is_never_written() {
        let (before, after) = (json!({"data": {"a": "1", "b": "1"}}), json!({"data": {"a": "1", "b": "2"}}));
        let fields = noted(&before, &after, &touched_by_merge(&after));
        assert_eq!(fields.len(), 2);
        assert!(!changes_nothing(&fields));
        assert_eq!(forward(&fields, &before), [json!({"op": "replace", "path": "/data/b", "value": "2"})]);
        assert_eq!(back(&fields, &after), [json!({"op": "replace", "path": "/data/b", "value": "1"})]);
        assert_eq!(back(&fields, &before), [] as [Value; 0]);
    }

    #[test]
    fn paths_are_those_of_changes_whoever_wrote_the_patch() {
        let containers = json!([{"name": "app", "image": "app:1"}, {"name": "side", "image": "side:1"}]);
        let pod =
            json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"args": ["a", "b"], "containers": containers}});
        for (patch, expected) in [
            (
                json!([{"op": "replace", "path": "/spec/containers/1/image", "value": "side:1"}]),
                "/spec/containers/name=side/image",
            ),
            (json!([{"op": "replace", "path": "/spec/args/0", "value": "a"}]), "/spec/args"),
            (json!([{"op": "remove", "path": "/spec/hostNetwork"}]), "/spec/hostNetwork"),
        ] {
            assert_eq!(paths(&pod, &pod, &touched_by_operations(&patch)), [expected], "{patch}");
        }
        let merge = json!({"kind": "Pod", "metadata": {"name": "p", "labels": {"x/y": null}}, "spec": {"containers": containers}});
        assert_eq!(paths(&pod, &pod, &touched_by_merge(&merge)), ["/metadata/labels/x~1y", "/spec/containers"]);
        let mut after = pod.clone();
        after["spec"]["containers"][0]["image"] = json!("app:2");
        let both = ["/spec/containers/name=app/name", "/spec/containers/name=side"];
        assert_eq!(paths(&pod, &after, &touched_by_merge(&merge))[1..], both);
        assert!(paths(&pod, &pod, &touched_by_merge(&json!({}))).is_empty());
    }
}
