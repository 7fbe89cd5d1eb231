use std::time::{Duration, Instant};

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

/// Expressions that would take hours or all memory without a budget.
#[test]
fn work_is_bounded() {
    let text = "a,".repeat(200_000);
    let scope = Scope::new()
        .with("text", json!(text))
        .with("list", json!((0..3_000).collect::<Vec<_>>()))
        .with("lines", json!(vec!["x".repeat(1_000); 100]));
    for (source, why) in [
        ("list.all(a, list.all(b, a + b >= 0))", "nine million turns"),
        ("text.split(',').all(a, text.split(',').all(b, a == b))", "a text taken apart in a loop"),
        ("lists.range(1000000).map(a, text).size() == 1", "a text copied a million times"),
        ("text.replace('', text).size() == 1", "a replacement that squares"),
        ("text.split(',').join(text).size() == 1", "a separator that squares"),
        ("list.map(a, list).flatten().map(b, list).flatten().size() == 1", "lists that multiply"),
        ("lists.range(100000).all(a, text.contains('b' + string(a)) || true)", "texts searched in a loop"),
        (
            "lists.range(100000).all(a, string(a).matches('(a{50}){50}' + string(a)) || true)",
            "patterns compiled in a loop",
        ),
        ("lists.range(100000).all(a, list == list)", "lists compared in a loop"),
        ("lists.range(100000).all(a, 7 in list)", "lists searched in a loop"),
        ("lists.range(100000).map(a, [list, list, list]).size() == 1", "lists copied in a loop"),
        ("lists.range(100000).map(a, {'k': lines}).size() == 1", "maps made in a loop"),
        ("lists.range(100000).map(a, a > 0 ? text : text).size() == 1", "copies behind a condition"),
        ("lists.range(100000).filter(a, text.size() > a).map(a, text).size() == 1", "copies of what a filter left"),
        ("list.map(a, text.findAll(',')).size() == 1", "matches in a loop"),
        (
            "text.findAll(',').size() == 1 && list.all(a, list.exists(b, b < 0))",
            "an error that is absorbed is no way out",
        ),
    ] {
        let condition = Condition::parse(source, &scope.roots()).unwrap_or_else(|error| panic!("{source}: {error}"));
        let begun = Instant::now();
        let result = condition.evaluate(&scope);
        assert!(begun.elapsed() < Duration::from_secs(20), "{source}: {why}: took {:?}", begun.elapsed());
        assert!(
            matches!(result, Err(ExprError::TooCostly { .. } | ExprError::Evaluation { .. })),
            "{source}: {why}: {result:?}"
        );
    }
}

#[test]
fn what_people_write_is_within_the_budget() {
    let pods: Vec<_> = (0..2_000).map(|n| json!({ "metadata": { "name": format!("pod-{n}"), "labels": { "app": "soak" } }, "status": { "phase": "Running", "restarts": n % 3 } })).collect();
    let scope = Scope::new().with("object", json!({ "items": pods }));
    for source in [
        "object.items.all(pod, pod.status.phase == 'Running')",
        "object.items.filter(pod, pod.status.restarts > 1).size() < 1000",
        "object.items.map(pod, pod.status.restarts).sum() > 5",
        "object.items.all(pod, pod.metadata.name.startsWith('pod-') && pod.metadata.labels['app'] in ['soak', 'load'])",
    ] {
        assert_eq!(Condition::parse(source, &scope.roots()).unwrap().evaluate(&scope), Ok(true), "{source}");
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
