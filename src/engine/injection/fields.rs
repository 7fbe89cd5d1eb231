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
#[path = "fields_tests.rs"]
mod tests;
