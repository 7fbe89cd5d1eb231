use super::*;

#[test]
fn conditions_hold_or_not() {
    for (source, expected, why) in [
        ("object.status.phase == 'Enabled'", true, "a field is compared"),
        (
            "object.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')",
            true,
            "a loop finds a condition",
        ),
        ("object.status.conditions.all(c, c.status == 'True')", false, "or does not"),
        ("has(object.status.phase)", true, "what is there"),
        ("has(object.status.missing)", false, "what is not"),
        ("has(object.spec) && !has(object.spec.template)", true, "presence tests combine"),
        ("object.spec.replicas > 2.5", true, "ints and doubles are compared"),
        ("object.status.ratio < 1", true, "in either order"),
        ("object.spec.replicas == 3.0", true, "and are equal as numbers"),
        ("object.spec.big > 9223372036854775807", true, "numbers beyond int are compared too"),
        ("object.spec.nothing == null", true, "null is a value"),
        ("duration('90s') > duration('1m')", true, "durations have an order"),
        ("duration(phases.activation.p95) < duration('90s')", true, "durations come as texts"),
        (
            "timestamp('2026-11-24T00:00:00Z') - timestamp(cycle.startedAt) == duration('14h')",
            true,
            "times are subtracted",
        ),
        ("quantity(object.spec.memory).isLessThan(quantity('1Gi'))", true, "quantities are compared"),
        ("quantity('1Gi') == quantity('1024Mi')", true, "however they are written"),
        ("params.image.matches('^registry[.]example/')", true, "patterns match"),
        ("steps['backups-enabled'].outputs == {}", true, "names in brackets"),
        ("steps.`backups-enabled`.outputs == {}", true, "names in backticks"),
        ("object.spec.missing == 1 || true", true, "an error beside a true does not matter"),
        ("object.?spec.?missing.orValue(4) == 4", true, "a default for what is missing"),
        ("math.greatest(1, 2, 3) == 3", true, "extensions are there"),
        ("[3, 1, 2].sort() == [1, 2, 3]", true, "lists are sorted"),
        ("[{'a': 2}, {'a': 1}].sortBy(x, x.a)[0].a == 1", true, "also by a key"),
        ("[1, 2, 3].sum() == 6 && [1.5, 2.5].sum() == 4.0 && [].sum() == 0", true, "sums"),
        ("[2, 9, 4].max() == 9 && [2, 9, 4].min() == 2", true, "extremes"),
        ("'a-b-c'.replace('-', '+') == 'a+b+c' && 'a-b-c'.replace('-', '+', 1) == 'a+b-c'", true, "texts are replaced"),
        ("['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'", true, "and joined"),
        (
            "'tacocat'.indexOf('c') == 2 && 'tacocat'.lastIndexOf('c') == 4 && 'tacocat'.indexOf('c', 3) == 4",
            true,
            "and searched",
        ),
        ("'abc'.indexOf('', 3) == 3 && 'abc'.lastIndexOf('b', 0) == -1", true, "up to the end, back to the start"),
        ("'tacocat'.indexOf('x') == -1 && 'abc'.lastIndexOf('') == 3", true, "with or without success"),
        (
            "'v1.2.3'.find('[0-9]+') == '1' && 'v1.2.3'.findAll('[0-9]+') == ['1', '2', '3'] && '1 2 3'.findAll('[0-9]', 2).size() == 2",
            true,
            "and taken apart",
        ),
        ("optional.of(1).hasValue()", true, "optionals"),
        (
            "[-1, 1].all(n, math.abs(n) == 1 && optional.of(n).hasValue())",
            true,
            "functions in namespaces, also in loops",
        ),
    ] {
        assert_eq!(holds(source), Ok(expected), "{source}: {why}");
    }
}

#[test]
fn values_become_json() {
    for (source, expected, why) in [
        ("1", json!(1), "an int"),
        ("1.5", json!(1.5), "a double"),
        ("object.spec.big", json!(18_446_744_073_709_551_615_u64), "a large number is not changed"),
        ("'a'", json!("a"), "a string"),
        ("null", Json::Null, "null"),
        ("{'b': [1, true], 'a': {}}", json!({ "a": {}, "b": [1, true] }), "lists and maps"),
        ("{1: 'a', true: 'b'}", json!({ "1": "a", "true": "b" }), "keys become strings"),
        ("duration('90s')", json!("90s"), "a duration in seconds"),
        ("duration('-1500ms')", json!("-1.5s"), "with a sign and a fraction"),
        ("duration('-90s')", json!("-90s"), "with a sign"),
        ("[duration('500ms'), duration('-500ms')]", json!(["0.5s", "-0.5s"]), "of less than a second"),
        ("duration('0s')", json!("0s"), "of nothing"),
        ("timestamp(cycle.startedAt)", json!("2026-11-23T10:00:00Z"), "a timestamp"),
        ("timestamp('2026-11-23T10:00:00.5+02:00')", json!("2026-11-23T10:00:00.500+02:00"), "with its offset"),
        ("quantity('1Ki')", json!("1024"), "a quantity"),
        ("optional.none()", Json::Null, "an empty optional"),
        ("optional.of('x')", json!("x"), "a full one"),
        ("type(1)", json!("int"), "a type"),
        ("object.status.conditions.map(c, c.type)", json!(["Ready", "Stalled"]), "a map over a list"),
        ("object.metadata.labels.map(key, key)", json!(["app"]), "a loop over a map takes its keys"),
        ("{'b': 1, 'c': 2, 'a': 3, 2: 0, 1: 0}.map(key, key)", json!([1, 2, "a", "b", "c"]), "in their order"),
        ("{5u: 0, 3u: 0, 1u: 0, 4u: 0, 2u: 0}.map(key, key)", json!([1, 2, 3, 4, 5]), "of any type"),
        ("lists.range(9).all(n, {true: n, false: n}.map(key, key) == [false, true])", json!(true), "each time"),
    ] {
        assert_eq!(evaluate(source), Ok(expected), "{source}: {why}");
    }
}

#[test]
fn failures_say_what_to_do() {
    for (source, parts, why) in [
        (
            "object.status.phse == 'a'",
            &["`object.status` has no key `phse` (it has: conditions, phase, ratio)", "did you mean phase?"][..],
            "which key of what",
        ),
        (
            "object.spec.template.x == 1",
            &["`object.spec` has no key `template`", "has(object.spec.template)"],
            "the innermost that is there",
        ),
        ("params['nope'] == 1", &["`params` has no key `nope`"], "keys in brackets"),
        (
            "steps['load'].outputs.p99 == 1",
            &["`steps[\"load\"].outputs` has no key `p99` (it has: p95, requests)"],
            "also further in",
        ),
        ("object._owner == 1", &["test it with has(object._owner) first"], "names that begin with an underscore"),
        ("object.metadata.labels['a/b'] == 1", &["test it with `in` first"], "keys that are no names"),
        ("object.metadata.labels['2nd'] == 1", &["test it with `in` first"], "nor do names begin with digits"),
        (
            "object.status.conditions[1].reason == ''",
            &["`object.status.conditions[1]` has no key `reason` (it has: status, type)"],
            "indices are told",
        ),
        (
            "object.status.conditions[2 - 1].reason == ''",
            &["`object.status.conditions[...]` has no key `reason`"],
            "what is computed is left out",
        ),
        ("dyn(object.spec).reason == ''", &["`...` has no key `reason` (it has: "], "what a function gives, too"),
        (
            "{true: object.spec}[has(object.spec)].reason == ''",
            &["`...[...]` has no key `reason`"],
            "presence tests are no paths",
        ),
        (
            "['load'].all(name, steps[name].inputs == '')",
            &["`steps[name]` has no key `inputs`"],
            "what a loop computes is told by its name",
        ),
        (
            "['a', 'b'].all(key, params[key] == '')",
            &["`a map` has no key `b`", "test it with `in` first"],
            "keys that come from a loop",
        ),
        ("params[object.metadata.name] == 1", &["`params` has no key `schedule`"], "computed keys"),
        ("steps['load'].inputs == 1", &["`steps[\"load\"]` has no key `inputs`"], "paths are told as written"),
        ("object.status.conditions.all(c, c.reason == 'x')", &["`c` has no key `reason`"], "inside of loops"),
        ("object.spec.nothing.x == 1", &["null"], "null has no fields"),
        (
            "object.spec.replicas + object.status.ratio > 1",
            &["`+` does not take int and float"],
            "types that do not add",
        ),
        ("object.spec.replicas / 0 == 1", &["division by zero"], "division by zero"),
        ("object.status.conditions[5].type == 'x'", &["no element of that index"], "lists have an end"),
        ("object.spec.replicas", &["gave int, expected a bool"], "a field that is no bool"),
        ("duration(object.metadata.name) > duration('1s')", &["duration"], "texts that are no durations"),
        ("9223372036854775807 + object.spec.replicas > 1", &["too large"], "ints have an end"),
        (
            "object.metadata.name.matches(object.metadata.name + '(')",
            &["matches: `schedule(` is not a usable regular expression (RE2 syntax): unclosed group"],
            "patterns that come as values",
        ),
        (
            "[1, 2].join() == object.metadata.name",
            &["join: the list holds something else than strings"],
            "join takes strings",
        ),
        ("[].max() == object", &["max: the list is empty"], "an empty list has no largest"),
        ("['a', 'b'].sum() == object", &["use join() for strings"], "texts have no sum"),
        ("[[1], [2]].sum() == object", &["flatten() for lists"], "nor have lists"),
        ("'abc'.indexOf('a', 4) == 0", &["index out of range: 4"], "texts have an end"),
        ("quantity('1.5').asInteger() == object.spec.replicas", &["1.5 is not an int"], "quantities that are no ints"),
    ] {
        let text = holds(source).map_or_else(|error| error.to_string(), |value| format!("it gave {value}"));
        for part in parts {
            assert!(text.contains(part), "{source}: {why}: {text}");
        }
    }
}

#[test]
fn functions_tell_which_types_they_got() {
    for (source, expected, why) in [
        (
            "object.metadata.name.matches(object.spec.replicas)",
            "`matches` does not take string and int",
            "by its own name",
        ),
        (
            "object.metadata.name.contains(object.spec.nothing)",
            "`contains` does not take string and null; a value is null: test it with `!= null` first",
            "null is what is often missing",
        ),
    ] {
        let expected = ExprError::Evaluation { expression: Quoted::new(source), problem: expected.to_owned() };
        assert_eq!(holds(source), Err(expected), "{source}: {why}");
    }
}

#[test]
fn an_error_lists_a_dozen_keys() {
    for (count, end) in [(0, "(it is empty)"), (1, "(it has: key-00)"), (12, "key-11)"), (13, "key-11, ...)")] {
        let labels: serde_json::Map<_, _> = (0..count).map(|n| (format!("key-{n:02}"), json!(n))).collect();
        let scope = Scope::new().with("labels", Json::Object(labels));
        let error =
            Expression::parse("labels.owner", &scope.roots()).unwrap().evaluate(&scope).unwrap_err().to_string();
        assert!(error.contains(&format!("{end} in `labels.owner`")), "{count}: {error}");
    }
}

#[test]
fn quantities_are_compared_added_and_converted() {
    for (source, expected) in [
        ("['1', '1Ki', '2Ki'].map(q, quantity(q).isGreaterThan(quantity('1Ki')))", json!([false, false, true])),
        ("['1', '1Ki', '2Ki'].map(q, quantity(q).isLessThan(quantity('1Ki')))", json!([true, false, false])),
        ("['1', '1Ki', '2Ki'].map(q, quantity(q).compareTo(quantity('1Ki')))", json!([-1, 0, 1])),
        ("['1', '1Ki', '2Ki'].map(q, quantity(q) == quantity('1Ki'))", json!([false, true, false])),
        ("['-1m', '0', '1m'].map(q, quantity(q).sign())", json!([-1, 0, 1])),
        ("[quantity('1Ki').add(quantity('500m')), quantity('1').sub(quantity('1Ki'))]", json!(["1024.5", "-1023"])),
        (
            "['1500m', '2Ki', '-3', '1E', '99E'].map(q, quantity(q).isInteger())",
            json!([false, true, true, true, false]),
        ),
        ("['2Ki', '-3', '1E'].map(q, quantity(q).asInteger())", json!([2048, -3, 1_000_000_000_000_000_000_i64])),
        ("['1500m', '2Ki', '-250m'].map(q, quantity(q).asApproximateFloat())", json!([1.5, 2048.0, -0.25])),
        ("['1Gi', '1gi'].map(q, isQuantity(q))", json!([true, false])),
        ("dyn(quantity('1')) == dyn(1)", json!(false)),
    ] {
        assert_eq!(evaluate(source), Ok(expected), "{source}");
    }
}

#[test]
fn what_is_missing_can_be_told_from_what_is_wrong() {
    for (source, missing, why) in [
        ("object.status.later == 1", true, "a key may come"),
        ("object.spec.replicas / 0 == 1", false, "a division by zero stays"),
    ] {
        assert_eq!(holds(source).map_err(|error| error.is_missing()), Err(missing), "{source}: {why}");
    }
    let condition = Condition::parse("response.status == 200", &Roots::new(["response"])).unwrap();
    let error = condition.evaluate(&scope()).unwrap_err();
    assert!(
        error.is_missing()
            && error.to_string().contains("needs the variable `response`")
            && error.to_string().contains("(set here: cycle, object, params, phases, steps)"),
        "a variable may get a value: {error}"
    );
}

#[test]
fn non_finite_doubles_and_bytes_have_no_json() {
    for (source, part) in [("1.0 / 0.0", "math.isFinite"), ("b'abc'", "base64.encode")] {
        let text = evaluate(source).map_or_else(|error| error.to_string(), |value| value.to_string());
        assert!(text.contains(part), "{source}: {text}");
    }
}

#[test]
fn a_scope_shows_its_values() {
    let scope = Scope::new().with("cycle", json!({ "number": 7 }));
    assert_eq!(format!("{scope:?}"), r#"{"cycle": Object {"number": Number(7)}}"#);
}

#[test]
fn a_scope_is_shared_by_its_clones() {
    let scope = scope();
    let mut other = scope.clone();
    other.set("cycle", json!({ "number": 8 }));
    let expression = Expression::parse("cycle.number", &roots()).unwrap();
    assert_eq!(expression.evaluate(&scope), Ok(json!(7)), "a clone that is changed leaves the original alone");
    assert_eq!(expression.evaluate(&other), Ok(json!(8)), "and has its own value");
    assert!(std::ptr::eq(scope.get("object").unwrap(), other.get("object").unwrap()), "what was not changed is shared");
}
