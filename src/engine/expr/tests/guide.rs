//! The examples of the guide are true.

use super::{super::Template, *};

const GUIDE: &str = include_str!("../../../../docs/expressions.md");

/// The text of the only code block in this language.
fn block(language: &str) -> &'static str {
    let start = format!("```{language}\n");
    GUIDE.split(start.as_str()).nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

fn examples(language: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    block(language).lines().map(|line| line.split_once("=>").unwrap()).map(|(a, b)| (a.trim_end(), b.trim()))
}

fn guide_scope() -> Scope {
    let values: serde_json::Map<String, Json> = serde_json::from_str(block("json")).unwrap();
    values.into_iter().fold(Scope::new(), |scope, (name, value)| scope.with(name, value))
}

#[test]
fn its_expressions_give_what_it_says() {
    let scope = guide_scope();
    for (source, expected) in examples("cel") {
        let expected: Json = serde_json::from_str(expected).unwrap();
        let found = Expression::parse(source, &scope.roots()).and_then(|it| it.evaluate(&scope));
        assert_eq!(found, Ok(expected), "{source}");
    }
}

#[test]
fn its_texts_render_as_it_says() {
    let scope = guide_scope();
    for (source, expected) in examples("template") {
        let found = Template::parse(source, &scope.roots()).and_then(|it| it.render(&scope));
        assert_eq!(found.as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn what_it_says_is_refused_is() {
    let scope = guide_scope();
    for (source, expected) in examples("refused") {
        let error = Condition::parse(source, &scope.roots()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn it_names_each_function() {
    use super::super::functions::names;
    for name in names(false).chain(names(true)) {
        assert!(GUIDE.contains(&format!("`{name}")) || GUIDE.contains(&format!(".{name}(")), "{name}");
    }
}

#[test]
fn it_names_each_limit() {
    use super::super::{MAX_COST, MAX_DEPTH, MAX_LOOPS, MAX_SOURCE_BYTES, MAX_VALUE_DEPTH};
    let limits = GUIDE.split("## Limits").nth(1).unwrap().replace(',', "");
    for limit in [MAX_SOURCE_BYTES as u64, MAX_DEPTH as u64, MAX_LOOPS as u64, MAX_COST, MAX_VALUE_DEPTH as u64] {
        assert!(limits.contains(&format!("| {limit} ")), "{limit}");
    }
}
