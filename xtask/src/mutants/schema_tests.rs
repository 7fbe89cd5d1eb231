//! A small program whose changes are all behind switches does with each what it would do with the change itself.

use std::{env, fs, process::Command};

use super::*;

const SOURCE: &str = r#"
#[derive(Default)]
struct Point { x: i64, y: i64 }
fn lazy(a: bool, b: bool) -> bool { a && !b }
fn either(l: bool, r: bool) -> bool { l || r }
fn compared(a: i64, b: i64) -> bool { a + 1 > b * 2 }
fn assigned(mut a: i64) -> i64 { a += 2 * 3; a }
fn arms(a: i64) -> i64 { match a { 1 => 10, it if it > 2 => 20, _ => 30 } }
fn fields(y: i64) -> i64 { let p = Point { x: 1, y, ..Point::default() }; p.x * 10 + p.y }
fn chained(a: Option<i64>) -> bool { if let Some(a) = a && a == 1 { true } else { false } }
const SIX: i64 = 2 * 3;
fn main() {
    println!("{} {} {} {} {} {} {} {} {} {} {}", lazy(false, false), lazy(true, false), either(true, false),
        compared(2, 1), assigned(1), arms(1), arms(2), arms(3), fields(2), chained(Some(1)), SIX);
}
"#;
const UNCHANGED: &str = "false true true true 7 10 30 20 12 true 6";
const SWITCHES: &str = r#"
mod mutant {
    pub fn active(number: u32) -> bool { std::env::var("MUTANT").unwrap().parse() == Ok(number) }
}
"#;

/// A change: its kind, what stands at its place after these words, the replacement, and what the program tells then.
const CHANGES: [(Genre, &str, &str, &str, &str); 20] = [
    (Genre::Binary, "{ a ", "&&", "||", "true true true true 7 10 30 20 12 true 6"),
    (Genre::Unary, "a && ", "!", "", "false false true true 7 10 30 20 12 true 6"),
    (Genre::Binary, "{ l ", "||", "&&", "false true false true 7 10 30 20 12 true 6"),
    (Genre::Binary, "a + 1 ", ">", "==", "false true true false 7 10 30 20 12 true 6"),
    (Genre::Binary, "a + 1 ", ">", ">=", UNCHANGED),
    (Genre::Binary, "{ a ", "+ 1", "- 1", "false true true false 7 10 30 20 12 true 6"),
    (Genre::Binary, "> b ", "*", "+", "false true true false 7 10 30 20 12 true 6"),
    (Genre::Binary, "{ a ", "+=", "-=", "false true true true -5 10 30 20 12 true 6"),
    (Genre::Binary, "{ a ", "+=", "*=", "false true true true 6 10 30 20 12 true 6"),
    (Genre::Binary, "a += 2 ", "*", "+", "false true true true 6 10 30 20 12 true 6"),
    (Genre::Arm, "match a { ", "1 => 10,", "", "false true true true 7 30 30 20 12 true 6"),
    (Genre::Arm, "10, ", "it if it > 2 => 20,", "", "false true true true 7 10 30 30 12 true 6"),
    (Genre::Guard, "it if ", "it > 2", "true", "false true true true 7 10 20 20 12 true 6"),
    (Genre::Guard, "it if ", "it > 2", "false", "false true true true 7 10 30 30 12 true 6"),
    (Genre::Binary, "it if it ", ">", "<", "false true true true 7 10 30 30 12 true 6"),
    (Genre::Field, "Point { ", "x: 1,", "", "false true true true 7 10 30 20 2 true 6"),
    (Genre::Field, "x: 1, ", "y,", "", "false true true true 7 10 30 20 10 true 6"),
    (
        Genre::Body,
        "fn arms(a: i64) -> i64 { ",
        "match a { 1 => 10, it if it > 2 => 20, _ => 30 }",
        "0",
        "false true true true 7 0 0 0 12 true 6",
    ),
    (Genre::Binary, "Some(a) = a ", "&&", "||", ""),
    (Genre::Binary, "SIX: i64 = 2 ", "*", "+", ""),
];

fn mutants() -> Vec<Mutant> {
    let mutant = |(number, (genre, before, place, replacement, _)): (u32, (Genre, &str, &str, &str, &str))| {
        let start = SOURCE.find(&format!("{before}{place}")).unwrap() + before.len();
        // `+ 1` names the place; only the operator is replaced.
        let first =
            |words: &str| if genre == Genre::Binary { words.split(' ').next().unwrap().len() } else { words.len() };
        Mutant {
            number,
            name: format!("{place} to {replacement}"),
            file: String::new(),
            genre,
            span: start..start + first(place),
            replacement: replacement[..first(replacement)].into(),
            function: None,
            return_type: String::new(),
        }
    };
    (1..).zip(CHANGES).map(mutant).collect()
}

#[test]
fn each_switch_does_what_its_change_would_and_none_does_nothing() {
    let mutants = mutants();
    let schema = rewrite(SOURCE, &mutants.iter().collect::<Vec<_>>(), &BTreeSet::new()).unwrap();
    let folder = env::temp_dir().join(format!("mutants-schema-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (source, binary) = (folder.join("main.rs"), folder.join("main"));
    fs::write(&source, format!("{}{SWITCHES}", schema.text)).unwrap();
    let mut compiler = Command::new("rustc");
    compiler.args(["--edition", "2024", "-A", "warnings", "-o"]).arg(&binary).arg(&source);
    assert!(compiler.status().unwrap().success(), "{}", schema.text);
    let told = |number: usize| {
        let output = Command::new(&binary).env("MUTANT", number.to_string()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(told(0), UNCHANGED);
    for ((number, mutant), (.., expected)) in (1..).zip(&mutants).zip(CHANGES) {
        // A constant can't ask, and `let` can't stand in parentheses.
        assert_eq!(schema.inside.contains(&mutant.number), !expected.is_empty(), "{}", mutant.name);
        if !expected.is_empty() {
            assert_eq!(told(number), expected, "{}", mutant.name);
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_error_of_the_compiler_is_about_the_change_on_its_line_or_the_innermost_place() {
    let mutants = mutants();
    let schema = rewrite(SOURCE, &mutants.iter().collect::<Vec<_>>(), &[4].into()).unwrap();
    assert!(!schema.inside.contains(&4));
    let line = |words: &str| schema.text.lines().position(|line| line.contains(words)).unwrap() + 1;
    let one = line("active(5)");
    assert_eq!(schema.blamed(&(one..=one)), [5]);
    let rest = line("*__l > *__r }");
    assert_eq!(schema.blamed(&(rest..=rest)), [5]);
    let outside = line("fn main");
    assert_eq!(schema.blamed(&(outside..=outside)), [0; 0]);
}
