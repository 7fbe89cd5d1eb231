use std::time::{Duration, Instant};

use super::*;

/// Expressions that would take hours or all memory without a budget. Their loops alone are within it.
#[test]
fn work_is_bounded() {
    let text = "a,".repeat(200_000);
    let scope = Scope::new()
        .with("text", json!(text))
        .with("texts", json!({ "a": text }))
        .with("list", json!((0..3_000).collect::<Vec<_>>()))
        .with("names", json!((0..1_000).map(|n| format!("pod-{n}")).collect::<Vec<_>>()))
        .with("lines", json!(vec!["x".repeat(1_000); 100]));
    for (source, why) in [
        ("list.all(a, list.all(b, a + b >= 0))", "nine million turns"),
        ("list.all(a, text.split(',').size() > a)", "a text taken apart in a loop"),
        ("list.map(a, text).size() == 1", "a text copied three thousand times"),
        ("text.replace('', text).size() == 1", "a replacement that squares"),
        ("text.split(',').join(text).size() == 1", "a separator that squares"),
        ("list.map(a, list).flatten().map(b, list).flatten().size() == 1", "lists that multiply"),
        ("list.all(a, (text + text).size() > a)", "texts joined in a loop"),
        ("list.all(a, text.contains('b' + string(a)) || true)", "texts searched in a loop"),
        ("list.all(a, size(text) > a)", "texts measured in a loop"),
        ("list.all(a, 'a'.contains(text) || true)", "texts looked for in a loop"),
        ("list.all(a, text <= text)", "texts ordered in a loop"),
        ("list.all(a, !texts[?text].hasValue())", "keys looked up in a loop"),
        ("list.all(a, string(a).matches('(a{50}){50}' + string(a)) || true)", "patterns compiled in a loop"),
        ("list.all(a, list.sum() > a)", "sums in a loop"),
        ("list.all(a, list.max() >= a)", "extremes in a loop"),
        ("list.all(a, list.min() <= a)", "of either end"),
        ("list.all(a, list.slice(0, 1) != [])", "parts taken in a loop"),
        ("list.all(a, list == list)", "lists compared in a loop"),
        ("list.all(a, names != list)", "also for a difference"),
        ("list.all(a, 7 in list)", "lists searched in a loop"),
        ("names.all(a, names == names)", "short texts count, too"),
        ("list.map(a, [list, list, list]).size() == 1", "lists copied in a loop"),
        ("list.map(a, {'k': lines}).size() == 1", "maps made in a loop"),
        ("list.map(a, a >= 0 ? text : text).size() == 1", "copies behind a condition"),
        ("list.filter(a, text.size() > a).map(a, text).size() == 1", "copies of what a filter left"),
        ("list.map(a, text.findAll(',')).size() == 1", "matches in a loop"),
        ("text.findAll(',').size() == 1 || true", "an error that is absorbed is no way out"),
    ] {
        let condition = Condition::parse(source, &scope.roots()).unwrap_or_else(|error| panic!("{source}: {error}"));
        let begun = Instant::now();
        let result = condition.evaluate(&scope);
        assert!(begun.elapsed() < Duration::from_secs(20), "{source}: {why}: took {:?}", begun.elapsed());
        assert!(matches!(result, Err(ExprError::TooCostly { .. })), "{source}: {why}: {result:?}");
    }
}

/// Some functions of the interpreter take whatever memory their result needs; ours ask first, wherever they are called.
#[test]
fn a_function_makes_nothing_larger_than_a_result_may_be() {
    let scope = Scope::new().with("text", json!("a,".repeat(200_000)));
    for (form, why) in [
        ("#.size() == 1", "the receiver of a method"),
        ("size(#) == 1", "an argument"),
        ("{'k': 1}[#] == 1", "an index"),
        ("true ? # == '' : false", "a branch"),
        ("[#].size() == 1", "an element"),
        ("{'k': #}.size() == 1", "a value of a map"),
        ("{#: 1}.size() == 1", "a key of a map"),
        ("has({'k': #}.k)", "what is selected from"),
        ("[#].all(x, x == '')", "what is looped over"),
        ("[1].all(x, # == '')", "a step of a loop"),
        ("[1].map(x, #).size() == 1", "an element that a loop makes"),
        ("[1].map(x, # != '', x).size() == 1", "a condition in a loop"),
        ("[1].filter(x, # == '').size() == 0", "of any kind"),
        ("[1].exists_one(x, # == '')", "also where it counts"),
        ("[#].sortBy(x, x).size() == 1", "what is sorted"),
        ("[1].sortBy(x, #).size() == 1", "what it is sorted by"),
        ("optional.of(1).optMap(x, #).hasValue()", "what is made of an optional"),
        ("(true ? optional.of(#) : optional.none()).optMap(x, x).hasValue()", "what it is made of"),
    ] {
        let source = form.replace('#', "text.replace('', '1234')");
        let condition = Condition::parse(&source, &scope.roots()).unwrap_or_else(|error| panic!("{source}: {error}"));
        let text =
            condition.evaluate(&scope).map_or_else(|error| error.to_string(), |value| format!("it gave {value}"));
        assert!(text.ends_with("replace: its result has more than 1048576 bytes"), "{source}: {why}: {text}");
    }
}

#[test]
fn what_people_write_is_within_the_budget() {
    let pods: Vec<_> = (0..2_000).map(|n| json!({ "metadata": { "name": format!("pod-{n}"), "labels": { "app": "soak" } }, "status": { "phase": "Running", "restarts": n % 3 } })).collect();
    let log = format!("{}{}", "x".repeat(100_000), ",".repeat(1_000));
    let scope = Scope::new().with("object", json!({ "items": pods })).with("log", json!(log));
    for source in [
        "object.items.all(pod, pod.status.phase == 'Running')",
        "object.items.filter(pod, pod.status.restarts > 1).size() < 1000",
        "object.items.map(pod, pod.status.restarts).sum() > 5",
        "object.items.all(pod, pod.metadata.name.startsWith('pod-') && pod.metadata.labels['app'] in ['soak', 'load'])",
        "object.items.all(pod, object.items.size() > pod.status.restarts)",
        "object.items.all(pod, '' != log)",
        "log.findAll(',').size() == 1000",
        "log.replace(',', ';').size() == 101000",
    ] {
        assert_eq!(Condition::parse(source, &scope.roots()).unwrap().evaluate(&scope), Ok(true), "{source}");
    }
}
