use super::{super::functions, *};

#[test]
fn names_that_do_not_exist_are_refused_with_what_does() {
    for (source, parts, why) in [
        (
            "parms.image == ''",
            &["unknown variable `parms`", "known: cycle, object, params, phases, steps", "did you mean params?"][..],
            "a slip of the pen is guessed",
        ),
        (
            "elephant == 1",
            &["unknown variable `elephant`", "(column 1)", "known: "],
            "what has no like gets the list alone",
        ),
        ("true && elephant", &["(column 9)"], "the place is told"),
        ("true &&\n  elephant", &["(line 2, column 3)"], "also on later lines"),
        ("'äöü' == elephant", &["(column 10)"], "columns count characters"),
        (
            "steps.load-test.outputs.x == 1",
            &["unknown variable `test`", "steps[\"load-test\"]"],
            "a dash in a name is explained",
        ),
        (
            "object.items.all(item, itm == 1)",
            &["unknown variable `itm`", "did you mean item?"],
            "variables of loops are known inside of them",
        ),
        ("object.items.all(item, true) && item", &["unknown variable `item`"], "and not outside"),
        (
            "sise(object) == 1",
            &["unknown function `sise`", "did you mean size?", "functions: bool, bytes"],
            "functions are guessed",
        ),
        (
            "object.name.startWith('a')",
            &["unknown function `startWith`", "did you mean startsWith?", "methods: "],
            "methods are guessed",
        ),
        (
            "startsWith(object.name, 'a')",
            &["it is called as x.startsWith()"],
            "a method called as a function is explained",
        ),
        (
            "startWith(object.name, 'a')",
            &["did you mean startsWith?", "functions: bool, bytes"],
            "a misspelt method too",
        ),
        (
            "object.name.sting() == ''",
            &["did you mean string?", "methods: "],
            "and a misspelt function called as a method",
        ),
        (
            "type(object) == has(google.protobuf).Timestamp",
            &["unknown variable `google`"],
            "a presence test is no part of a type's name",
        ),
        ("object.name.int() == 1", &["it is called as int(x)"], "and the other way round"),
        ("math.absolute(1) == 1", &["unknown function `absolute`"], "functions in namespaces are known"),
        ("[1, 1].distinct() == [1]", &["unknown function `distinct`"], "what has no bound is left out"),
        ("Point{x: 1} == 1", &["no message types such as `Point`"], "there are no messages"),
        ("@charge(1) == 1", &["not valid CEL"], "the names that the meter uses can't be written"),
    ] {
        let text = refusal(source);
        for part in parts {
            assert!(text.contains(part), "{source}: {why}: {text}");
        }
    }
}

#[test]
fn what_is_not_cel_is_refused() {
    for (source, part, why) in [
        ("", "it is empty", "nothing is no expression"),
        ("  \n", "it is empty", "blanks neither"),
        ("1 +", "ends too early", "an operand is missing"),
        ("(true", "ends too early", "a bracket is open"),
        ("object.status.phase = 'x'", "write `==`", "assignments are a common slip"),
        ("object.status.phase =", "write `==`", "also at the end"),
        ("true & false", "write `&&`", "so is a single &"),
        ("true | false", "`||` for or", "and a single |"),
        ("object.phase == 'x", "a string is not closed", "quotes come in pairs"),
        ("object.phase == \"x", "a string is not closed", "of either kind"),
        ("true}", "closes nothing", "a stray brace"),
        ("'äöü' == 1 2", "(column 12)", "the parser's columns count characters too"),
        ("1 2", "not valid CEL", "two expressions"),
    ] {
        let text = refusal(source);
        assert!(text.contains(part), "{source}: {why}: {text}");
    }
}

#[test]
fn certain_type_errors_are_refused() {
    for (source, part, why) in [
        ("1 + 1", "expected a bool, this is an int", "a sum is no condition"),
        ("'a'", "expected a bool, this is a string", "nor is a text"),
        ("size(object)", "expected a bool, this is an int", "functions tell their type"),
        ("object.name.lowerAscii()", "expected a bool, this is a string", "methods too"),
        ("[true]", "expected a bool, this is a list", "nor is a list"),
        ("null", "expected a bool, this is null", "nor is null"),
        ("true ? 1 : 2", "expected a bool, this is an int", "both branches are ints"),
        ("[1].map(x, x)", "expected a bool, this is a list", "a map gives a list"),
        ("!3", "expected a bool, this is an int", "! needs a bool"),
        ("-'a' == 1", "needs a number", "- needs a number"),
        ("1 && true", "expected a bool, this is an int", "&& needs bools"),
        ("1 ? true : false", "expected a bool, this is an int", "so does ?"),
        ("1 in 2", "`in` does not take an int and an int", "in needs a list or map"),
        ("object.all(x, 1)", "expected a bool, this is an int", "loops need a bool"),
        ("'abc'.all(x, true)", "a loop needs a list or a map, this is a string", "and something to loop over"),
        ("1.size() == 1", "an int has no method `size`", "receivers are checked"),
        ("'a'.b == 1", "a string has no field `b`", "fields too"),
        ("[1]['a'] == 1", "a list's index is an int", "indices too"),
        ("size(1, 2) == 1", "`size` takes 1 argument, this has 2", "and numbers of arguments"),
        ("duration('1s') > 1", "`>` does not take a duration and an int", "durations are compared with durations"),
        ("phases.activation.p95 < duration('90x')", "90x", "literal durations are read"),
        ("quantity('1gi').isInteger()", "is not a quantity", "so are quantities"),
        ("object.name.matches('a(')", "not a usable regular expression", "and patterns"),
        (
            "quantity('1').isLessThan(quantity('2')) && quantity('1') < quantity('2')",
            "quantities have methods",
            "quantities have no operators",
        ),
    ] {
        let text = refusal(source);
        assert!(text.contains(part), "{source}: {why}: {text}");
    }
}

/// The end of the message, so that no hint is given where none helps.
#[test]
fn operators_say_which_types_they_take_and_what_to_write() {
    for (source, end) in [
        ("1 + 'a' == 1", "`+` does not take an int and a string; write string(...) around the other value"),
        ("'a' + true == ''", "`+` does not take a string and a bool; write string(...) around the other value"),
        ("'a' + null == ''", "`+` does not take a string and null"),
        ("'a' - 1 == 1", "`-` does not take a string and an int"),
        ("'a' - 'b' == ''", "`-` does not take a string and a string"),
        ("'a' * 2 == ''", "`*` does not take a string and an int"),
        ("'a' / 'b' == ''", "`/` does not take a string and a string"),
        ("1.5 % 1.0 == 0.5", "`%` does not take a double and a double"),
        ("1 + 1.0 == 2.0", "`+` does not take an int and a double; write double(...) around the int"),
        ("1 + 1u == 2", "`+` does not take an int and a uint; write int(...) around the uint"),
        ("'a' < 1", "`<` does not take a string and an int"),
        ("[1] < [2]", "`<` does not take a list and a list"),
        ("1 == 'a'", "`==` does not take an int and a string"),
        ("1 != 'a'", "`!=` does not take an int and a string"),
        ("1 in 'a'", "`in` does not take an int and a string"),
        ("duration('1s') < '1s'", "`<` does not take a duration and a string; write duration(...) around the string"),
        ("'1' == quantity('1')", "`==` does not take a string and a quantity; write quantity(...) around the string"),
        (
            "timestamp('2026-11-23T10:00:00Z') < '2026'",
            "`<` does not take a timestamp and a string; write timestamp(...) around the string",
        ),
        (
            "timestamp('2026-11-23T10:00:00Z') + timestamp('2026-11-23T10:00:00Z') == null",
            "`+` does not take a timestamp and a timestamp",
        ),
        ("duration('1s') - timestamp('2026-11-23T10:00:00Z') == null", "`-` does not take a duration and a timestamp"),
        ("timestamp('2026-11-23T10:00:00Z') - duration('1s')", "expected a bool, this is a timestamp"),
        ("duration('1s') + timestamp('2026-11-23T10:00:00Z')", "expected a bool, this is a timestamp"),
        (
            "timestamp('2026-11-23T10:00:00Z') - timestamp('2026-11-23T10:00:00Z')",
            "expected a bool, this is a duration",
        ),
        ("duration('1s') - duration('1s')", "expected a bool, this is a duration"),
        ("object.a - 1", "expected a bool, this is an int"),
    ] {
        let text = refusal(source);
        assert!(text.ends_with(end), "{source}: {text}");
    }
}

#[test]
fn what_may_fit_is_accepted() {
    for (source, why) in [
        ("object.ready", "a field may be a bool"),
        ("object.a + object.b == 1", "fields may be numbers"),
        ("object.a == null", "anything may be null"),
        ("null != object.a", "in either order"),
        ("1 < 1.5", "numbers of different types are compared"),
        ("1 == 1.0", "and may be equal"),
        ("object.started + duration('1s') < object.ended", "a field may be a timestamp"),
        ("object.started + duration('1s') < timestamp('2026-11-23T10:00:00Z')", "also beside one"),
        ("timestamp('2026-11-23T10:00:00Z') + object.lag < object.ended", "and another a duration"),
        ("object.ended - timestamp('2026-11-23T10:00:00Z') > duration('1s')", "times are subtracted"),
        ("object.ended - duration('1s') > timestamp('2026-11-23T10:00:00Z')", "and durations from times"),
        ("timestamp('2026-11-23T10:00:00Z') - object.x == object.y", "whichever of them it is"),
        ("object.x ? true : object.y", "one branch may be a bool"),
        ("type(object) == map", "types have names"),
        ("type(object.at) == google.protobuf.Timestamp", "also qualified ones"),
        ("object.?a.orValue(true)", "optional fields"),
        ("steps.`backups-enabled`.outputs == {}", "names in backticks"),
        ("object.items.map(x, x.y).sum() > 1", "sums of what is not known"),
        ("math.greatest(1, object.a) > 1", "functions in namespaces"),
        ("dyn(1) == 'a'", "dyn turns the check off"),
        ("has(object.a.b) || true", "presence tests"),
        (".object.ready", "absolute names"),
    ] {
        assert!(Condition::parse(source, &roots()).is_ok(), "{source}: {why}: {}", refusal(source));
    }
}

#[test]
fn references_are_extracted() {
    for (source, expected, why) in [
        ("params.image == 'a'", &["params.image"][..], "a field"),
        ("params[\"image\"] == 'a'", &["params.image"], "a literal key"),
        ("steps.load.outputs.p95 < 1.0", &["steps.load"], "only the first field counts"),
        ("steps['a'].x == steps['a'].y", &["steps.a"], "each once"),
        ("params[cycle.name] == 'a'", &["cycle.name", "params"], "a computed key is not known"),
        ("size(params) == 1", &["params"], "the variable as a whole"),
        ("has(params.image)", &["params.image?"], "a presence test is optional"),
        ("params.?image.hasValue()", &["params.image?"], "so is an optional selection"),
        ("has(steps.load.outputs)", &["steps.load"], "a presence test further in is not"),
        ("[1].all(params, params == 1)", &[], "a variable of a loop hides one from outside"),
        ("[{}].all(params, params.image == params['tag'])", &[], "with its fields"),
        ("object.a.all(x, x == params.b)", &["object.a", "params.b"], "references in loops count"),
        ("{'k': params.a} == {params.b: 1}", &["params.a", "params.b"], "and in maps"),
    ] {
        let parsed = Condition::parse(source, &roots()).unwrap_or_else(|error| panic!("{source}: {error}"));
        let found: Vec<String> = parsed
            .references()
            .map(|it| {
                format!(
                    "{}{}{}",
                    it.root,
                    it.field.map(|field| format!(".{field}")).unwrap_or_default(),
                    if it.optional { "?" } else { "" }
                )
            })
            .collect();
        assert_eq!(found, expected, "{source}: {why}");
        assert_eq!(parsed.source(), source);
    }
}

/// The table of functions is written by hand; the environment must agree with it.
#[test]
fn each_function_of_the_table_can_be_called() {
    for function in functions::FUNCTIONS {
        let (call, arguments) = match function.style {
            functions::Style::Global => (function.name.to_owned(), function.arguments.1),
            functions::Style::Method(_) => (format!("object.value.{}", function.name), function.arguments.0),
        };
        let arguments = vec!["object.argument"; arguments].join(", ");
        let source = format!("{call}({arguments})");
        let scope = Scope::new().with("object", json!({ "value": null, "argument": null }));
        let expression = Expression::parse(&source, &scope.roots()).unwrap_or_else(|error| panic!("{source}: {error}"));
        if let Err(error) = expression.evaluate(&scope) {
            assert!(!error.to_string().contains("Undeclared"), "{source}: {error}");
        }
    }
}
