//! Fields that a fault changes: found by comparing two states of an object, changed and changed back by JSON patches.
//!
//! A path is a JSON pointer (RFC 6901) in which an item of a list may be picked by its name, as in
//! `/spec/template/spec/containers/name=app/image`: a list may grow before the fault is undone.

use serde_json::{Value, json};

pub use super::agreements::is_agreement;

use super::agreements::agreements;
use crate::api::failureinjection::FieldChange;

/// What is in a field now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldState {
    /// What was there before the fault.
    Before,
    /// What the fault makes of it.
    After,
    /// Something else: somebody has changed it.
    Other,
}

/// Parts of an object that the server keeps for itself.
pub(super) const SERVERS_OWN: [&str; 6] = [
    "/metadata/managedFields",
    "/metadata/resourceVersion",
    "/metadata/generation",
    "/metadata/uid",
    "/metadata/creationTimestamp",
    "/metadata/selfLink",
];

/// The fields in which two states of an object differ, as far as they lie within or above one of the `touched` paths.
///
/// Lists of named items of the same names are compared item by item, other lists as a whole.
pub fn differences(before: &Value, after: &Value, touched: &[String]) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare(before, after, String::new(), &mut found);
    found.retain(|change| {
        !SERVERS_OWN.iter().any(|own| change.path.starts_with(own))
            && touched.iter().any(|touched| related(&change.path, touched))
    });
    found
}

/// The fields that a fault notes: those that it changes, and those that it only holds.
pub fn noted(before: &Value, after: &Value, touched: &[String]) -> Vec<FieldChange> {
    let mut fields = differences(before, after, touched);
    fields.extend(agreements(before, after, touched));
    fields
}

/// Whether a fault of these fields would change none of them.
pub fn changes_nothing(fields: &[FieldChange]) -> bool {
    fields.iter().all(is_agreement)
}

fn compare(before: &Value, after: &Value, path: String, found: &mut Vec<FieldChange>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            for (name, old) in old {
                let path = format!("{path}/{}", escape(name));
                match new.get(name) {
                    Some(new) => compare(old, new, path, found),
                    None => found.push(FieldChange { path, before: Some(old.clone()), after: None }),
                }
            }
            for (name, new) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                added(new, format!("{path}/{}", escape(name)), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if named_alike(old, new) => {
            for (old, new) in old.iter().zip(new) {
                let name = old["name"].as_str().unwrap_or_default();
                compare(old, new, format!("{path}/name={}", escape(name)), found);
            }
        }
        (before, after) => {
            found.push(FieldChange { path, before: Some(before.clone()), after: Some(after.clone()) });
        }
    }
}

/// A new object is noted by what is in it, so that what others add beside stays theirs.
fn added(value: &Value, path: String, found: &mut Vec<FieldChange>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                added(field, format!("{path}/{}", escape(name)), found);
            }
        }
        value => found.push(FieldChange { path, before: None, after: Some(value.clone()) }),
    }
}

pub(super) fn named_alike(old: &[Value], new: &[Value]) -> bool {
    let name = |item: &Value| item["name"].as_str().map(str::to_owned);
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| name(old).is_some() && name(old) == name(new))
}

/// Whether one path lies within the other. Names and numbers of list items may stand for each other.
fn related(a: &str, b: &str) -> bool {
    segments(a).zip(segments(b)).all(|(a, b)| a == b || is_item(a) && is_item(b))
}

fn is_item(segment: &str) -> bool {
    segment == "-" || segment.starts_with("name=") || segment.parse::<usize>().is_ok()
}

/// The paths that a merge patch is about; a list is meant as a whole.
pub fn touched_by_merge(patch: &Value) -> Vec<String> {
    let mut leaves = Vec::new();
    collect(patch, String::new(), &mut leaves);
    leaves
}

fn collect(patch: &Value, place: String, leaves: &mut Vec<String>) {
    match patch {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                collect(field, format!("{place}/{}", escape(name)), leaves);
            }
        }
        _ => leaves.push(place),
    }
}

/// The paths that a JSON patch is about.
pub fn touched_by_operations(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().into_iter().flatten().filter(|operation| operation["op"] != "test");
    operations
        .flat_map(|operation| ["path", "from"].map(|field| operation[field].as_str().map(str::to_owned)))
        .flatten()
        .collect()
}

/// What is in a field of an object now.
pub fn state(change: &FieldChange, object: &Value) -> FieldState {
    let current = resolve(&change.path, object).and_then(|pointer| object.pointer(&pointer));
    if current == change.after.as_ref() {
        FieldState::After
    } else if current == change.before.as_ref() {
        FieldState::Before
    } else {
        FieldState::Other
    }
}

/// The operations that make the fault in an object whose fields are all as they were before it.
pub fn forward(changes: &[FieldChange], object: &Value) -> Vec<Value> {
    let ours = changes.iter().filter(|change| !is_agreement(change));
    operations(ours.map(|change| (change.path.as_str(), change.after.as_ref())), object)
}

/// The operations that give the fields of an object that are [`FieldState::After`] their old values back. An object that was
/// made for them and is empty then goes as well.
pub fn back(changes: &[FieldChange], object: &Value) -> Vec<Value> {
    let ours = changes.iter().filter(|change| !is_agreement(change) && state(change, object) == FieldState::After);
    operations(ours.map(|change| (change.path.as_str(), change.before.as_ref())), object)
}

/// Tests, as operations of a JSON patch, that hold while what `operations` of [`back`] change is as it is in `object`, whatever
/// else was written to it. None when only its version can tell: a patch can't test that a field is absent.
pub fn unchanged(changes: &[FieldChange], operations: &[Value], object: &Value) -> Option<Vec<Value>> {
    let test = |path: &str| Some(json!({"op": "test", "path": path, "value": object.pointer(path)?}));
    let items = changes.iter().flat_map(|change| item_names(&change.path, object));
    let fields = operations.iter().map(|operation| (operation["op"] != "add").then(|| operation["path"].as_str())?);
    items.map(|path| test(&path)).chain(fields.map(|path| test(path?))).collect()
}

/// Where the names of the items are that a path goes through.
fn item_names(path: &str, object: &Value) -> Vec<String> {
    let mut place = String::new();
    let mut names = Vec::new();
    for segment in segments(path) {
        place = format!("{place}/{segment}");
        if segment.starts_with("name=")
            && let Some(pointer) = resolve(&place, object)
        {
            names.push(format!("{pointer}/name"));
        }
    }
    names
}

fn operations<'a>(wanted: impl Iterator<Item = (&'a str, Option<&'a Value>)>, object: &Value) -> Vec<Value> {
    // The operations are tried on a copy, so that a parent that one of them made is there for the next.
    let mut copy = object.clone();
    let mut operations = Vec::new();
    for (path, value) in wanted {
        match value {
            Some(value) => set(path, value, &mut copy, &mut operations),
            None => remove(path, &mut copy, &mut operations),
        }
    }
    operations
}

fn set(path: &str, value: &Value, copy: &mut Value, operations: &mut Vec<Value>) {
    let mut made = String::new();
    let all: Vec<&str> = segments(path).collect();
    for segment in &all[..all.len().saturating_sub(1)] {
        made = format!("{made}/{segment}");
        if resolve(&made, copy).is_none_or(|pointer| copy.pointer(&pointer).is_none()) {
            put(&made, &json!({}), copy, operations);
        }
    }
    put(path, value, copy, operations);
}

fn put(path: &str, value: &Value, copy: &mut Value, operations: &mut Vec<Value>) {
    let Some(pointer) = resolve(path, copy) else { return };
    let there = copy.pointer(&pointer).is_some();
    operations.push(json!({"op": if there { "replace" } else { "add" }, "path": pointer, "value": value}));
    if there {
        if let Some(field) = copy.pointer_mut(&pointer) {
            *field = value.clone();
        }
    } else if let Some((parent, name)) = split(&pointer)
        && let Some(Value::Object(fields)) = copy.pointer_mut(parent)
    {
        fields.insert(unescape(name), value.clone());
    }
}

fn remove(path: &str, copy: &mut Value, operations: &mut Vec<Value>) {
    let Some(pointer) = resolve(path, copy).filter(|pointer| copy.pointer(pointer).is_some()) else { return };
    let mut place = pointer.as_str();
    // Only maps that Kubernetes keeps no empty ones of are removed with their last entry.
    while let Some((parent, _)) = split(place)
        && ["annotations", "labels", "nodeSelector"].contains(&parent.rsplit('/').next().unwrap_or_default())
        && copy.pointer(parent).and_then(Value::as_object).is_some_and(|fields| fields.len() == 1)
    {
        place = parent;
    }
    operations.push(json!({"op": "remove", "path": place}));
    if let Some((parent, name)) = split(place)
        && let Some(Value::Object(fields)) = copy.pointer_mut(parent)
    {
        fields.remove(&unescape(name));
    }
}

/// The plain JSON pointer of a path in an object: names of items become their numbers. None: there is no such item.
fn resolve(path: &str, object: &Value) -> Option<String> {
    let mut pointer = String::new();
    for segment in segments(path) {
        let here = object.pointer(&pointer);
        let segment = match (here, segment.strip_prefix("name=")) {
            (Some(Value::Array(items)), Some(name)) => {
                let name = unescape(name);
                items.iter().position(|item| item["name"] == *name)?.to_string()
            }
            _ => segment.to_owned(),
        };
        pointer = format!("{pointer}/{segment}");
    }
    Some(pointer)
}

pub(super) fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

fn split(pointer: &str) -> Option<(&str, &str)> {
    pointer.rsplit_once('/')
}

pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

pub(super) fn unescape(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deployment() -> Value {
        json!({
            "metadata": {"name": "web", "resourceVersion": "1"},
            "spec": {"replicas": 3, "args": ["a", "b"], "template": {"spec": {"containers": [
                {"name": "app", "image": "app:1", "limits": {"cpu": "1"}}, {"name": "side", "image": "side:1"},
            ]}}},
        })
    }

    fn apply(operations: &[Value], object: &mut Value) {
        let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
        json_patch::patch(object, &patch).unwrap();
    }

    fn everything() -> Vec<String> {
        vec![String::new()]
    }

    #[test]
    fn what_a_patch_touches_is_noted_by_leaf_and_nothing_else() {
        let mut after = deployment();
        after["metadata"]["resourceVersion"] = json!("2");
        after["metadata"]["annotations"] = json!({"by-a-controller": "x"});
        after["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
        let patch = json!({"spec": {"template": {"spec": {"containers": []}}}});
        let changes = differences(&deployment(), &after, &touched_by_merge(&patch));
        assert_eq!(
            changes,
            [FieldChange {
                path: "/spec/template/spec/containers/name=app/image".into(),
                before: Some(json!("app:1")),
                after: Some(json!("app:2")),
            }]
        );
        let operations = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "app:2"}]);
        assert_eq!(differences(&deployment(), &after, &touched_by_operations(&operations)), changes);
        // A key that is a number is no item of a list.
        let port = touched_by_merge(&json!({"metadata": {"annotations": {"8080": null}}}));
        assert_eq!(differences(&deployment(), &after, &port), []);
        let mut after = deployment();
        after["spec"]["strategy"] = json!({});
        let changes = differences(&deployment(), &after, &touched_by_merge(&json!({"spec": {"strategy": {}}})));
        assert_eq!(changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["/spec/strategy"]);
    }

    #[test]
    fn a_field_is_found_again_by_its_items_name_when_the_list_has_grown() {
        let change = FieldChange {
            path: "/spec/template/spec/containers/name=side/image".into(),
            before: Some(json!("side:1")),
            after: Some(json!("none")),
        };
        let mut now = deployment();
        let containers = now["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
        containers[1]["image"] = json!("none");
        containers.insert(0, json!({"name": "new", "image": "new:1"}));
        assert_eq!(state(&change, &now), FieldState::After);
        assert_eq!(state(&change, &deployment()), FieldState::Before);
        let mut theirs = deployment();
        theirs["spec"]["template"]["spec"]["containers"][1]["image"] = json!("side:2");
        assert_eq!(state(&change, &theirs), FieldState::Other);
        apply(&back(std::slice::from_ref(&change), &now), &mut now);
        assert_eq!(now["spec"]["template"]["spec"]["containers"][2]["image"], "side:1");
        assert_eq!(now["spec"]["template"]["spec"]["containers"][0]["image"], "new:1");
    }

    #[test]
    fn what_somebody_else_changed_since_stays() {
        let mut after = deployment();
        after["spec"]["replicas"] = json!(0);
        after["spec"]["paused"] = json!(true);
        let changes = differences(&deployment(), &after, &everything());
        let mut now = after;
        now["spec"]["replicas"] = json!(7);
        apply(&back(&changes, &now), &mut now);
        assert_eq!((&now["spec"]["replicas"], now["spec"].get("paused")), (&json!(7), None));
    }

    #[test]
    fn annotations_go_with_the_map_that_was_made_for_them_and_not_with_one_that_others_use() {
        let mut after = deployment();
        after["metadata"]["annotations"] = json!({"ours": "1", "ours/too": "1"});
        let changes = differences(&deployment(), &after, &everything());
        let mut alone = deployment();
        apply(&forward(&changes, &alone), &mut alone);
        assert_eq!(alone, after);
        let mut shared = alone.clone();
        shared["metadata"]["annotations"]["theirs"] = json!("2");
        apply(&back(&changes, &alone), &mut alone);
        assert_eq!(alone, deployment());
        apply(&back(&changes, &shared), &mut shared);
        assert_eq!(shared["metadata"]["annotations"], json!({"theirs": "2"}));
    }

    fn is_taken(tests: &[Value], object: &Value) -> bool {
        let patch: json_patch::Patch = serde_json::from_value(json!(tests)).unwrap();
        json_patch::patch(&mut object.clone(), &patch).is_ok()
    }

    #[test]
    fn the_tests_of_an_undo_hold_until_somebody_touches_what_it_changes() {
        let mut after = deployment();
        after["spec"]["replicas"] = json!(0);
        after["spec"]["template"]["spec"]["containers"][1]["image"] = json!("none");
        after["metadata"]["annotations"] = json!({"ours": "1"});
        let changes = differences(&deployment(), &after, &everything());
        let tests = unchanged(&changes, &back(&changes, &after), &after).unwrap();
        let held = |change: &dyn Fn(&mut Value)| {
            let mut now = after.clone();
            change(&mut now);
            is_taken(&tests, &now)
        };
        assert!(held(&|now| {
            now["metadata"]["resourceVersion"] = json!("3");
            now["status"] = json!({"replicas": 2});
        }));
        assert!(!held(&|now| now["spec"]["replicas"] = json!(7)));
        assert!(
            !held(&|now| now["metadata"]["annotations"]["theirs"] = json!("2")),
            "the map would go with theirs in it"
        );
        let renamed = |now: &mut Value| now["spec"]["template"]["spec"]["containers"][1]["name"] = json!("new");
        assert!(!held(&renamed), "the place of an item is another item's by now");
    }

    #[test]
    fn that_a_field_is_absent_can_not_be_tested() {
        let mut after = deployment();
        after["spec"].as_object_mut().unwrap().remove("replicas");
        let changes = differences(&deployment(), &after, &everything());
        assert_eq!(unchanged(&changes, &back(&changes, &after), &after), None);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0i64..4).prop_map(Value::from),
            "[a-c]".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::btree_map("[a-d/~]", inner.clone(), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
                proptest::collection::vec(inner, 0..3).prop_map(Value::from),
            ]
        })
    }

    proptest! {
        #[test]
        fn forward_and_back_again_changes_nothing(before in tree(), after in tree()) {
            // An object is a map at its top, and the fault's own paths are below it.
            let (before, after) = (json!({"spec": {"x": before}}), json!({"spec": {"x": after}}));
            let changes = differences(&before, &after, &everything());
            let mut object = before.clone();
            apply(&forward(&changes, &object), &mut object);
            prop_assert_eq!(&object, &after);
            prop_assert!(changes.iter().all(|change| state(change, &object) == FieldState::After));
            apply(&back(&changes, &object), &mut object);
            prop_assert!(changes.iter().all(|change| state(change, &object) != FieldState::After || change.before == change.after));
        }
    }
}
