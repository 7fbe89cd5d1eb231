//! Fields are found, changed and changed back, and what others changed meanwhile stays.

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
    assert!(!held(&|now| now["metadata"]["annotations"]["theirs"] = json!("2")), "the map would go with theirs in it");
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
