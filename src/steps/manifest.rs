//! Manifests as JSON trees: merging, and texts that expressions turned into numbers.

use serde_json::{Map, Value};

/// The value as an object; anything else is replaced by an empty one.
pub(super) fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // Made an object above.
        _ => unreachable!("not an object"),
    }
}

/// Makes a number or bool a text: `"${cycle.number}"` alone becomes a number, where Kubernetes wants a text.
pub(super) fn coerce_text(value: &mut Value) {
    if matches!(value, Value::Number(_) | Value::Bool(_)) {
        *value = Value::String(value.to_string());
    }
}

/// As [`coerce_text`], for each member of a list or an object.
pub(super) fn coerce_texts(value: Option<&mut Value>) {
    match value {
        None => {}
        Some(value) => match value {
            Value::Array(items) => items.iter_mut().for_each(coerce_text),
            Value::Object(fields) => fields.values_mut().for_each(coerce_text),
            _ => {}
        },
    }
}

/// Puts the places right that hold texts only, in a manifest of that kind or in a merge patch for one.
pub(super) fn coerce_manifest(kind: &str, manifest: &mut Value) {
    for template in ["", "/spec/template"] {
        for field in ["labels", "annotations"] {
            coerce_texts(manifest.pointer_mut(&format!("{template}/metadata/{field}")));
        }
    }
    match kind {
        "ConfigMap" => coerce_texts(manifest.get_mut("data")),
        "Secret" => coerce_texts(manifest.get_mut("stringData")),
        _ => {}
    }
}

/// The field by which members of a list are the same, as the strategic merge of pods has it. Other lists are replaced.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" => Some("containerPort"),
        "hostAliases" => Some("ip"),
        _ => None,
    }
}

/// Merges `over` over `base`: objects field by field, null removes, lists of named things by their names.
pub(super) fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (field, value) in over {
                if value.is_null() {
                    base.remove(&field);
                    continue;
                }
                let Some(old) = base.get_mut(&field) else {
                    base.insert(field, value);
                    continue;
                };
                match (merge_key(&field), old, value) {
                    (Some(key), Value::Array(old), Value::Array(new)) => merge_list(old, new, key),
                    (_, old, value) => merge(old, value),
                }
            }
        }
        (base, over) => *base = over,
    }
}

fn merge_list(base: &mut Vec<Value>, over: Vec<Value>, key: &str) {
    for member in over {
        match base.iter_mut().find(|old| old.get(key).is_some() && old.get(key) == member.get(key)) {
            Some(old) => merge(old, member),
            None => base.push(member),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn named_things_are_merged_and_other_lists_replaced() {
        let mut base = json!({"env": [{"name": "A", "value": "1"}], "args": ["x"], "securityContext": {"runAsUser": 1, "runAsGroup": 1}});
        merge(
            &mut base,
            json!({"env": [{"name": "A", "value": "2"}, {"name": "B"}], "args": ["y", "z"], "securityContext": {"runAsUser": null}}),
        );
        assert_eq!(
            base,
            json!({"env": [{"name": "A", "value": "2"}, {"name": "B"}], "args": ["y", "z"], "securityContext": {"runAsGroup": 1}})
        );
    }

    #[test]
    fn texts_that_became_numbers_are_texts_again_where_only_texts_can_stand() {
        let mut manifest = json!({"metadata": {"labels": {"cycle": 3}}, "data": {"n": 1, "on": true, "gone": null}, "immutable": true});
        coerce_manifest("ConfigMap", &mut manifest);
        assert_eq!(
            manifest,
            json!({"metadata": {"labels": {"cycle": "3"}}, "data": {"n": "1", "on": "true", "gone": null}, "immutable": true})
        );
        let mut patch = json!({"spec": {"replicas": 3, "template": {"metadata": {"annotations": {"cycle": 3}}}}});
        coerce_manifest("StatefulSet", &mut patch);
        assert_eq!(patch, json!({"spec": {"replicas": 3, "template": {"metadata": {"annotations": {"cycle": "3"}}}}}));
    }
}
