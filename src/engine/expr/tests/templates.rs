use super::{
    super::{MAX_OUTPUT_BYTES, Template, check_json, render_json},
    *,
};

fn render(text: &str) -> Result<String, ExprError> {
    Template::parse(text, &roots())?.render(&scope())
}

#[test]
fn texts_are_rendered() {
    for (text, expected, why) in [
        ("plain", "plain", "a text without expressions"),
        ("", "", "an empty text"),
        ("--image=${params.image}!", "--image=registry.example/soak:1!", "strings are put in bare"),
        ("${cycle.number}${cycle.number}", "77", "ints as in JSON"),
        ("${steps.load.outputs.p95}", "87.5", "doubles too"),
        ("${cycle.number > 3}", "true", "bools too"),
        ("${object.metadata.labels}", "{\"app\":\"backup\"}", "maps as compact JSON"),
        ("${[1, 'a']}", "[1,\"a\"]", "lists too"),
        ("${ {\"a\": 1}[\"a\"] }", "1", "braces inside of an expression"),
        ("${'}'}${\"${\"}", "}${", "braces in strings"),
        ("$${HOME} $$ $HOME ${1}", "${HOME} $$ $HOME 1", "a doubled dollar before a brace is a literal one"),
        ("$$${1}", "$${1}", "read from the left"),
        ("costs 5$", "costs 5$", "a dollar at the end"),
        ("ä${'ö'}ü", "äöü", "beyond ASCII"),
        ("${duration('90s')}", "90s", "durations as texts"),
    ] {
        assert_eq!(render(text), Ok(expected.to_owned()), "{text}: {why}");
    }
}

#[test]
fn texts_that_can_not_be_rendered() {
    for (text, parts, why) in [
        ("a ${params.image", &["(column 3)", "never closed", "$${"][..], "a brace is missing"),
        ("${}", &["it is empty"], "nothing in the braces"),
        ("${object.spec.nothing}", &["null", "test for null first"], "null has no text"),
        ("${HOME}/bin", &["unknown variable `HOME`", "write $${HOME}"], "a shell's variable"),
        ("${parms.image}", &["did you mean params?"], "a slip of the pen"),
        ("${params.imge}", &["`params` has no key `imge`", "did you mean image?"], "a key that is missing"),
        ("${1 + 'a'}", &["`+` does not take"], "type errors are found in templates too"),
    ] {
        let error = render(text).map_or_else(|error| error.to_string(), |text| format!("it gave {text}"));
        for part in parts {
            assert!(error.contains(part), "{text}: {why}: {error}");
        }
    }
}

#[test]
fn json_trees_are_rendered() {
    for (value, expected, why) in [
        (json!({ "n": "${cycle.number}" }), json!({ "n": 7 }), "a lone expression keeps its type"),
        (json!({ "n": " ${cycle.number}" }), json!({ "n": " 7" }), "a text around it makes it a text"),
        (json!({ "l": "${object.metadata.labels}" }), json!({ "l": { "app": "backup" } }), "objects too"),
        (json!({ "x": "${object.spec.nothing}" }), json!({ "x": null }), "null too"),
        (
            json!({ "run-${cycle.number}": [1, true, null, "${'a'}"] }),
            json!({ "run-7": [1, true, null, "a"] }),
            "keys are rendered",
        ),
        (json!("${params.count}"), json!(3), "a string alone"),
        (json!({ "a": "$${x}" }), json!({ "a": "${x}" }), "literal braces"),
    ] {
        assert_eq!(render_json(&value, &scope()), Ok(expected), "{value}: {why}");
    }
    let error = render_json(&json!({ "${'a'}": 1, "a": 2 }), &scope()).unwrap_err();
    assert!(error.to_string().contains("two keys"), "keys must stay apart: {error}");
}

#[test]
fn templates_in_json_are_checked_with_their_path() {
    for (value, path, why) in [
        (
            json!({ "spec": { "containers": [{ "args": ["a", "${nope}"] }] } }),
            "spec.containers[0].args[1]",
            "objects and lists",
        ),
        (json!({ "labels": { "a/b": "${nope}" } }), "labels[\"a/b\"]", "keys that are no words"),
        (json!({ "": { "a_b": { "c-d": "${nope}" } } }), "[\"\"].a_b.c-d", "words with a `_` or a `-`"),
        (json!({ "x-${nope}": 1 }), "[\"x-${nope}\"]", "keys that fail"),
        (json!("${nope}"), "", "a string alone"),
        (json!(["${nope}"]), "[0]", "a list"),
    ] {
        let (found, error) = check_json(&value, &roots()).unwrap_err();
        assert_eq!(found, path, "{value}: {why}");
        assert!(matches!(error, ExprError::UnknownVariable { .. }), "{value}: {error}");
    }
    assert_eq!(check_json(&json!({ "a": ["${params.image}", 1, null, "$${x}"] }), &roots()), Ok(()));
}

#[test]
fn references_of_templates_are_extracted() {
    let template = Template::parse("${params.a} and ${steps.b.outputs.x + params[\"c\"]}", &roots()).unwrap();
    let found: Vec<_> = template.references().map(|it| (it.root, it.field)).collect();
    assert_eq!(found, [("params", Some("a")), ("params", Some("c")), ("steps", Some("b"))]);
}

#[test]
fn what_is_rendered_has_a_largest_size() {
    let full = "x".repeat(MAX_OUTPUT_BYTES);
    let half = &full[..MAX_OUTPUT_BYTES / 2];
    let scope = Scope::new().with("half", json!(half));
    for (text, fits) in [
        (full.clone(), true),
        (format!("{full}y"), false),
        ("${half}${half}".to_owned(), true),
        ("${half}y${half}".to_owned(), false),
    ] {
        let rendered = Template::parse(&text, &scope.roots()).unwrap().render(&scope);
        match rendered {
            Ok(rendered) => assert!(fits && rendered == full),
            Err(error) => assert!(!fits && matches!(error, ExprError::TooLarge { .. }), "{error}"),
        }
    }
    let tree = json!({ "a": half, "b": ["${half}"] });
    assert_eq!(render_json(&tree, &scope), Ok(json!({ "a": half, "b": [half] })));
    let error = render_json(&json!([tree, "${1}"]), &scope).unwrap_err();
    assert!(matches!(error, ExprError::TooLarge { .. }), "all texts of a tree count together: {error}");
}
