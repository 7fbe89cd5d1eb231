use proptest::prelude::*;

use super::{
    super::{Template, check_json, render_json},
    *,
};

/// Texts of pieces that mean something to the parser, so that many of them get far.
#[allow(clippy::too_many_lines)]
fn source() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "object",
        "params",
        "steps",
        "cycle",
        "x",
        "a",
        ".",
        "?.",
        ".?",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        "?",
        "+",
        "-",
        "*",
        "/",
        "%",
        "!",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "&&",
        "||",
        "in ",
        "1",
        "0",
        "2u",
        "-9223372036854775808",
        "9223372036854775807",
        "1.5",
        "1e308",
        "'a'",
        "\"b\"",
        "r'c\\'",
        "'''d'''",
        "b'e'",
        "'\\u00e4'",
        "'\\",
        "`f-g`",
        "null",
        "true",
        "false",
        "size",
        "has",
        ".all(x, ",
        ".map(x, ",
        ".filter(x, ",
        ".exists(x, ",
        ".exists_one(x, ",
        ".sortBy(x, ",
        ".optMap(x, ",
        "duration(",
        "timestamp(",
        "'90s'",
        "'2026-11-23T10:00:00Z'",
        "quantity(",
        "'1Gi'",
        "string(",
        "int(",
        "double(",
        "uint(",
        "bytes(",
        "type(",
        "dyn(",
        "math.abs(",
        "math.greatest(",
        "math.bitShiftLeft(",
        "lists.range(",
        "base64.decode(",
        "optional.of(",
        ".substring(",
        ".charAt(",
        ".slice(",
        ".flatten(",
        ".replace(",
        ".split(",
        ".join(",
        ".format(",
        ".indexOf(",
        ".lastIndexOf(",
        ".find(",
        ".findAll(",
        ".matches(",
        ".reverse()",
        ".sort()",
        ".sum()",
        ".max()",
        ".getHours(",
        "'%s%d%.3f%e%x'",
        "'('",
        "//",
        "\n",
        " ",
        "ä",
        "${",
        "$${",
        "$",
        "Foo{",
        "@",
        "#",
    ]);
    prop_oneof![
        3 => prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
        1 => "[ -~]{0,60}",
    ]
}

/// Expressions that are well formed, so that all of them are evaluated.
#[allow(clippy::too_many_lines)]
fn well_formed() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "object",
        "object.spec",
        "object.status.conditions",
        "object.spec.nothing",
        "object.spec.big",
        "params.count",
        "1",
        "-1",
        "0",
        "9223372036854775807",
        "-9223372036854775808",
        "3u",
        "0.0",
        "1e308",
        "'a'",
        "''",
        "'90s'",
        "'äöü'",
        "null",
        "true",
        "[]",
        "{}",
        "[1, 2]",
        "{'a': 1}",
        "duration('90s')",
        "duration('-2562047h')",
        "timestamp('9999-12-31T23:59:59Z')",
        "timestamp('0001-01-01T00:00:00Z')",
        "quantity('-1n')",
        "b'\\xff'",
        "optional.none()",
        "optional.of(1)",
        "type(1)",
        "x",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"]);
        let unary = prop::sample::select(vec![
            "!(#)",
            "-(#)",
            "size(#)",
            "int(#)",
            "uint(#)",
            "double(#)",
            "string(#)",
            "bytes(#)",
            "dyn(#)",
            "type(#)",
            "bool(#)",
            "duration(#)",
            "timestamp(#)",
            "quantity(#)",
            "math.abs(#)",
            "math.ceil(#)",
            "math.sqrt(#)",
            "math.sign(#)",
            "lists.range(dyn(#))",
            "base64.encode(dyn(#))",
            "base64.decode(dyn(#))",
            "dyn(#).a",
            "dyn(#).?a",
            "dyn(#)[0]",
            "dyn(#)['a']",
            "has(dyn(#).a)",
            "dyn(#).reverse()",
            "dyn(#).sort()",
            "dyn(#).sum()",
            "dyn(#).min()",
            "dyn(#).trim()",
            "dyn(#).getHours()",
            "dyn(#).getFullYear('Europe/Berlin')",
            "dyn(#).getDayOfYear('-99:99')",
            "dyn(#).asInteger()",
            "dyn(#).value()",
            "dyn(#).flatten(3)",
            "dyn(#).all(x, x)",
            "dyn(#).map(x, x)",
            "dyn(#).filter(x, x == x)",
            "dyn(#).exists_one(x, true)",
            "dyn(#).sortBy(x, x)",
            "dyn(#).optMap(x, x)",
            "[#]",
            "{'k': #}",
            "{dyn(#): 1}",
            "strings.quote(dyn(#))",
        ]);
        let binary = prop::sample::select(vec![
            "dyn(#).charAt(dyn(@))",
            "dyn(#).substring(dyn(@))",
            "dyn(#).slice(dyn(@), 1)",
            "dyn(#).indexOf(dyn(@))",
            "dyn(#).lastIndexOf('a', dyn(@))",
            "dyn(#).indexOf('', dyn(@))",
            "dyn(#).split(dyn(@))",
            "dyn(#).split(',', dyn(@))",
            "dyn(#).replace(dyn(@), 'b')",
            "dyn(#).replace('a', 'b', dyn(@))",
            "dyn(#).join(dyn(@))",
            "'%s %d %f %x %e %b %o'.format([#, @])",
            "dyn(#).findAll(dyn(@))",
            "dyn(#).findAll('a*', dyn(@))",
            "dyn(#).matches(dyn(@))",
            "math.bitShiftLeft(dyn(#), dyn(@))",
            "math.bitAnd(dyn(#), dyn(@))",
            "math.greatest(dyn(#), dyn(@))",
            "dyn(#).add(dyn(@))",
            "dyn(#)[dyn(@)]",
            "dyn(#)[?dyn(@)]",
            "dyn(#).orValue(@)",
            "dyn(#).substring(1, dyn(@))",
            "(# == @ ? # : @)",
        ]);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, operator, b)| format!("(dyn({a}) {operator} dyn({b}))")),
            (unary, inner.clone()).prop_map(|(form, a)| form.replace('#', &a)),
            (binary, inner.clone(), inner).prop_map(|(form, a, b)| form.replace('#', &a).replace('@', &b)),
        ]
    })
}

fn json_tree() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        source().prop_map(Json::from),
        source().prop_map(|it| Json::from(format!("${{{it}}}"))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(source(), inner, 0..4).prop_map(|map| Json::Object(map.into_iter().collect()))
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A panic inside of the interpreter is caught and told as a defect; there should be none of those either.
    #[test]
    fn any_text_is_parsed_or_refused(source in source()) {
        let scope = scope().with("x", json!([1, "a"])).with("a", json!({ "a": null }));
        if let Err(error) = Expression::parse(&source, &scope.roots()).and_then(|it| it.evaluate(&scope)) {
            prop_assert!(!error.to_string().contains("a defect here"), "{}: {}", source, error);
        }
        drop(Template::parse(&source, &scope.roots()).and_then(|it| it.render(&scope)));
    }

    #[test]
    fn any_expression_is_evaluated_or_fails(source in well_formed()) {
        let scope = scope().with("x", json!([1, "a"]));
        if let Err(error) = Expression::parse(&source, &scope.roots()).and_then(|it| it.evaluate(&scope)) {
            prop_assert!(!error.to_string().contains("a defect here"), "{}: {}", source, error);
            prop_assert!(error.to_string().len() < 2_000, "{}: {}", source, error);
        }
    }

    #[test]
    fn any_tree_is_rendered_or_refused(tree in json_tree()) {
        let scope = scope();
        drop(check_json(&tree, &scope.roots()));
        drop(render_json(&tree, &scope));
    }

    #[test]
    fn a_tree_without_templates_stays_as_it_is(tree in json_tree()) {
        if !tree.to_string().contains("${") {
            prop_assert_eq!(render_json(&tree, &scope()), Ok(tree));
        }
    }

    /// What goes into an expression as JSON comes out as the same JSON.
    #[test]
    fn values_go_through_unchanged(tree in json_tree()) {
        let scope = Scope::new().with("object", tree.clone());
        let out = Expression::parse("object", &scope.roots()).and_then(|it| it.evaluate(&scope));
        prop_assert_eq!(out, Ok(tree));
    }

    #[test]
    fn evaluating_twice_gives_the_same(source in well_formed()) {
        let scope = scope().with("x", json!([1, "a"]));
        if let Ok(expression) = Expression::parse(&source, &scope.roots()) {
            prop_assert_eq!(expression.evaluate(&scope), expression.evaluate(&scope));
        }
    }
}
