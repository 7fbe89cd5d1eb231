use super::{super::*, *};

#[test]
fn long_deep_and_nested_expressions_are_refused() {
    let long = format!("'{}' == ''", "a".repeat(MAX_SOURCE_BYTES));
    assert_eq!(Condition::parse(&long, &roots()).unwrap_err(), ExprError::TooLong { bytes: long.len() });
    for (source, why) in [
        (format!("{}true{}", "(".repeat(40), ")".repeat(40)), "brackets"),
        (format!("{}1{}  == 1", "[".repeat(2_000), "]".repeat(2_000)), "lists"),
        (format!("{}true", "!".repeat(4_000)), "negations"),
        (format!("{}1 == 1", "-".repeat(4_000)), "minus signs"),
        (format!("object{} == 1", ".a".repeat(1_900)), "selections"),
        (format!("object{} == 1", ".size()".repeat(500)), "calls"),
        (format!("object{} == 1", "[0]".repeat(1_000)), "indices"),
        (format!("1{} == 1", " + 1".repeat(900)), "sums"),
        (format!("{}true", "true ? true : ".repeat(200)), "conditionals"),
        (format!("true{}", " == true".repeat(300)), "comparisons"),
        (format!("1{}", " in [1]".repeat(300)), "searches"),
        (format!("object{} == 1", ".a".repeat(MAX_DEPTH + 1)), "one more than allowed"),
    ] {
        let error = Condition::parse(&source, &roots()).map(|_| ()).unwrap_err();
        let expected = matches!(error, ExprError::TooDeep { .. } | ExprError::Syntax { .. });
        assert!(expected, "{why}: {error}");
    }
    let flat = vec!["object.a == 1"; 200].join(" && ");
    assert!(Condition::parse(&flat, &roots()).is_ok(), "a long conjunction is not deep");
    let list = format!("[{}].size() == 1", vec!["object.a.b"; 300].join(", "));
    assert!(Condition::parse(&list, &roots()).is_ok(), "a long list is not deep");
}

#[test]
fn a_bound_itself_is_within() {
    let scope = Scope::new().with("text", json!("a".repeat(300)));
    let parse = |source: String| Expression::parse(&source, &scope.roots());
    let deep = |expression: Result<Expression, ExprError>| matches!(expression, Err(ExprError::TooDeep { .. }));
    let sum = |operators| parse(format!("1{}", " + 1".repeat(operators)));
    assert!(sum(MAX_DEPTH).is_ok() && deep(sum(MAX_DEPTH + 1)), "operators");
    let brackets = |depth| parse(format!("{}true{}", "(".repeat(depth), ")".repeat(depth)));
    assert!(brackets(MAX_DEPTH).is_ok() && deep(brackets(MAX_DEPTH + 1)), "brackets");
    let signs = |count| parse(format!("{}true", "!".repeat(count)));
    assert!(
        signs(4 * MAX_DEPTH).is_ok() && deep(signs(4 * MAX_DEPTH + 1)),
        "signs that cancel out, up to what is parsed"
    );
    let equal = parse(format!("true{}", " == true".repeat(MAX_DEPTH - 2)));
    assert!(equal.is_ok(), "an operator of two characters is one");
    let source = |bytes| parse(format!("'{}'", "a".repeat(bytes - 2)));
    assert!(source(MAX_SOURCE_BYTES).is_ok() && source(MAX_SOURCE_BYTES + 1).is_err(), "bytes");
    for (needle, expected) in [(256, Ok(json!(0))), (257, Err(()))] {
        for function in ["indexOf", "lastIndexOf"] {
            let found = parse(format!("text.{function}('{}') * 0", "a".repeat(needle))).unwrap().evaluate(&scope);
            assert_eq!(found.map_err(drop), expected, "{function} of {needle} bytes");
        }
    }
}

#[test]
fn results_have_a_largest_size() {
    let half = "x".repeat(MAX_OUTPUT_BYTES / 2);
    let scope = Scope::new().with("half", json!(half)).with("lines", json!(vec!["x".repeat(1_024); 1_024]));
    for (source, fits, why) in [
        ("[half]", true, "a text"),
        ("[half, half]", false, "two of them"),
        ("half + half", false, "one that is as large"),
        ("{half: 1}", true, "a key"),
        ("{half + 'a': 1, half + 'b': 1}", false, "two keys"),
    ] {
        let result = Expression::parse(source, &scope.roots()).unwrap().evaluate(&scope);
        let expected = if fits { result.is_ok() } else { matches!(result, Err(ExprError::TooLarge { .. })) };
        assert!(expected, "{source}: {why}: {:?}", result.err());
    }
    let joined = |source: &str| Condition::parse(source, &scope.roots()).unwrap().evaluate(&scope);
    assert_eq!(joined("lines.join().size() == 1048576"), Ok(true), "what a function makes may be as large");
    let error = joined("lines.map(l, l != '', l + 'x').join().size() == 1").unwrap_err().to_string();
    assert!(error.contains("join: its result has more than 1048576 bytes"), "but not larger: {error}");
}

#[test]
fn loops_nest_to_a_bound() {
    for (source, ok, why) in [
        ("object.all(a, object.all(b, a == b))", true, "two levels"),
        ("object.all(a, object.all(b, object.all(c, true)))", false, "three levels"),
        ("object.map(a, a).map(b, b).map(c, c).all(d, d == d)", true, "one after the other"),
        ("object.sortBy(a, a.x).all(b, object.exists(c, b == c))", true, "sorting binds a variable, which is no loop"),
        ("object.all(a, object.all(b, object.sortBy(c, c) == b))", false, "but its keys are computed in one"),
    ] {
        let parsed = Condition::parse(source, &roots());
        assert_eq!(parsed.is_ok(), ok, "{source}: {why}");
        if let Err(error) = parsed {
            assert!(matches!(error, ExprError::TooManyLoops { .. }), "{source}: {error}");
        }
    }
}

#[test]
fn deep_values_are_refused() {
    let mut value = json!(1);
    for _ in 0..=MAX_VALUE_DEPTH {
        value = json!([value]);
    }
    let scope = Scope::new().with("object", value.clone());
    let error = Condition::parse("size(object) == 1", &scope.roots()).unwrap().evaluate(&scope).unwrap_err();
    assert!(matches!(error, ExprError::DeepValue { .. }), "{error}");
    assert!(matches!(render_json(&value, &scope), Err(ExprError::DeepValue { .. })));
    assert!(check_json(&value, &scope.roots()).is_err());
}

/// Threads of async runtimes have two megabytes of stack. Unoptimized, the generated parser needs up to eight unless the
/// profile optimizes it; a stack that overflows would end all tests.
#[test]
fn the_deepest_expressions_fit_a_small_stack() {
    let stack = if cfg!(debug_assertions) { 16 << 20 } else { 2 << 20 };
    let sources = [
        format!("object{} == 1", ".a".repeat(MAX_DEPTH * 3)),
        format!("{}true{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH)),
        format!("{}1{} == 1", "[".repeat(MAX_DEPTH - 2), "]".repeat(MAX_DEPTH - 2)),
        format!("{}true", "true ? true : ".repeat(MAX_DEPTH - 1)),
        format!("{}true", "!".repeat(4 * MAX_DEPTH)),
        format!("1{} == 1", " + 1".repeat(MAX_DEPTH - 2)),
        format!("1{} == 1", " + 1".repeat(MAX_DEPTH * 3)),
        format!("{}1{} == 1", "(((1+".repeat(10), ")))".repeat(10)),
    ];
    let small = std::thread::Builder::new().stack_size(stack).spawn(move || {
        for source in sources {
            if let Ok(condition) = Condition::parse(&source, &roots()) {
                drop(condition.evaluate(&scope()));
            }
        }
    });
    small.unwrap().join().unwrap();
}
