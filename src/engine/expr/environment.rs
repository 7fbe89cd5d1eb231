//! The interpreter's environment: standard CEL, the extensions, and the functions that Kubernetes adds.

#![expect(clippy::needless_pass_by_value, reason = "the interpreter hands arguments over by value")]

use std::sync::{Arc, LazyLock};

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{CelInt, CelList, CelString, DYN_TYPE, INT_TYPE, LIST_TYPE, STRING_TYPE},
        value::{CowVal, Val},
    },
    extensions,
};
use regex::{Regex, RegexBuilder};

use super::{MAX_OUTPUT_BYTES, meter, quantity};

/// Memory that a compiled regular expression may take.
const REGEX_BYTES: usize = 256 * 1024;
/// Longest text that indexOf and lastIndexOf look for: they compare it at every place.
const MAX_NEEDLE_BYTES: usize = 256;

/// Names under which the interpreter calls the bounded forms of functions whose own form takes unbounded time or memory.
pub(super) const BOUNDED: &[(&str, &str)] = &[
    ("replace", "@replace"),
    ("join", "@join"),
    ("matches", "@matches"),
    ("indexOf", "@indexOf"),
    ("lastIndexOf", "@lastIndexOf"),
];

type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The environment, built once.
///
/// It can only fail to build when a name is declared twice, which a test would find; expressions then find no functions.
pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let built = declare(&mut env);
    debug_assert_eq!(built, Ok(()));
    Arc::new(env)
});

fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_extension(extensions::strings)?;
    env.add_extension(extensions::lists)?;
    env.add_extension(extensions::math)?;
    env.add_extension(extensions::encoders)?;
    quantity::declare(env)?;
    env.add_overload(meter::CHARGE, meter::CHARGE, vec![DYN_TYPE], meter::charge)?;
    env.add_overload(meter::CHARGE_LOOP, meter::CHARGE_LOOP, vec![DYN_TYPE], meter::charge_loop)?;
    env.add_overload(meter::CHARGE_READ, meter::CHARGE_READ, vec![DYN_TYPE], meter::charge_read)?;
    env.add_overload(meter::CHARGE_TEXT, meter::CHARGE_TEXT, vec![DYN_TYPE], meter::charge_text)?;
    env.add_member_overload("@replace", "replace", STRING_TYPE, vec![STRING_TYPE, STRING_TYPE], replace)?;
    env.add_member_overload("@replace", "replace_n", STRING_TYPE, vec![STRING_TYPE, STRING_TYPE, INT_TYPE], replace)?;
    env.add_member_overload("@join", "join_0", LIST_TYPE, vec![], join)?;
    env.add_member_overload("@join", "join_1", LIST_TYPE, vec![STRING_TYPE], join)?;
    env.add_member_overload("@matches", "matches_member", STRING_TYPE, vec![STRING_TYPE], matches)?;
    env.add_overload("@matches", "matches_global", vec![STRING_TYPE, STRING_TYPE], matches)?;
    for (name, from_the_end) in [("@indexOf", false), ("@lastIndexOf", true)] {
        let find: cel::common::functions::Function = if from_the_end { last_index_of } else { index_of };
        env.add_member_overload(name, &format!("{name}_1"), STRING_TYPE, vec![STRING_TYPE], find)?;
        env.add_member_overload(name, &format!("{name}_2"), STRING_TYPE, vec![STRING_TYPE, INT_TYPE], find)?;
    }
    env.add_member_overload("find", "find", STRING_TYPE, vec![STRING_TYPE], find)?;
    env.add_member_overload("findAll", "find_all", STRING_TYPE, vec![STRING_TYPE], find_all)?;
    env.add_member_overload("findAll", "find_all_n", STRING_TYPE, vec![STRING_TYPE, INT_TYPE], find_all)?;
    env.add_member_overload("sum", "sum", LIST_TYPE, vec![], sum)?;
    env.add_member_overload("min", "min", LIST_TYPE, vec![], |list| extreme("min", list, std::cmp::Ordering::Less))?;
    env.add_member_overload("max", "max", LIST_TYPE, vec![], |list| extreme("max", list, std::cmp::Ordering::Greater))?;
    Ok(())
}

pub(super) fn failed(function: &str, problem: impl ToString) -> ExecutionError {
    ExecutionError::function_error(function, problem)
}

fn text<'a>(arguments: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a str, ExecutionError> {
    let value = arguments.get(at).and_then(|value| value.downcast_ref::<CelString>());
    value.map(CelString::inner).ok_or(ExecutionError::MissingArgumentOrTarget)
}

fn number(arguments: &[CowVal<'_, '_>], at: usize) -> Option<i64> {
    arguments.get(at).and_then(|value| value.downcast_ref::<CelInt>()).map(|value| *value.inner())
}

fn string<'b, 'v>(text: String) -> CowVal<'b, 'v> {
    CowVal::owned(CelString::from(text))
}

fn within_bounds(function: &str, bytes: usize) -> Result<(), ExecutionError> {
    meter::spend_bytes(bytes)?;
    if bytes > MAX_OUTPUT_BYTES {
        Err(failed(function, format!("its result has more than {MAX_OUTPUT_BYTES} bytes")))
    } else {
        Ok(())
    }
}

fn replace<'b, 'v>(arguments: Arguments<'b, 'v>) -> Answer<'b, 'v> {
    let (source, old, new) = (text(&arguments, 0)?, text(&arguments, 1)?, text(&arguments, 2)?);
    let limit = number(&arguments, 3).map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let found = source.matches(old).take(limit).count();
    within_bounds("replace", source.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(string(source.replacen(old, new, limit)))
}

fn join<'b, 'v>(arguments: Arguments<'b, 'v>) -> Answer<'b, 'v> {
    let list = arguments
        .first()
        .and_then(|list| list.downcast_ref::<CelList>())
        .ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let separator = if arguments.len() > 1 { text(&arguments, 1)? } else { "" };
    let parts = list
        .inner()
        .iter()
        .map(|part| {
            part.downcast_ref::<CelString>().map(CelString::inner).ok_or_else(|| {
                failed("join", "the list holds something else than strings: map it through string() first")
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let bytes =
        parts.iter().map(|part| part.len().saturating_add(separator.len())).fold(0_usize, usize::saturating_add);
    within_bounds("join", bytes)?;
    Ok(string(parts.join(separator)))
}

fn regex(function: &str, pattern: &str) -> Result<Regex, ExecutionError> {
    meter::spend(meter::REGEX)?;
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build().map_err(|error| {
        failed(
            function,
            format!(
                "`{}` is not a usable regular expression (RE2 syntax): {}",
                super::error::Quoted::new(pattern),
                last_line(&error.to_string())
            ),
        )
    })
}

/// The regex crate draws the pattern over several lines and says what is wrong in the last one.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

fn matches<'b, 'v>(arguments: Arguments<'b, 'v>) -> Answer<'b, 'v> {
    let (source, pattern) = (text(&arguments, 0)?, text(&arguments, 1)?);
    meter::spend_bytes(source.len())?;
    let found = regex("matches", pattern)?.is_match(source);
    Ok(CowVal::owned(cel::common::types::CelBool::from(found)))
}

fn find<'b, 'v>(arguments: Arguments<'b, 'v>) -> Answer<'b, 'v> {
    let (source, pattern) = (text(&arguments, 0)?, text(&arguments, 1)?);
    meter::spend_bytes(source.len())?;
    let found = regex("find", pattern)?.find(source).map_or("", |found| found.as_str()).to_owned();
    Ok(string(found))
}

fn find_all<'b, 'v>(arguments: Arguments<'b, 'v>) -> Answer<'b, 'v> {
    let (source, pattern) = (text(&arguments, 0)?, text(&arguments, 1)?);
    let limit = number(&arguments, 2).map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut found: Vec<Box<dyn Val + 'v>> = Vec::new();
    for part in regex("findAll", pattern)?.find_iter(source).take(limit) {
        // A pattern that makes the engine look far ahead for each match takes quadratic time.
        meter::spend_bytes(source.len() - part.start())?;
        found.push(Box::new(CelString::from(part.as_str().to_owned())));
    }
    Ok(CowVal::owned(CelList::from(found)))
}

fn index_of<'b, 'v>(arguments: Arguments<'b, 'v>) -> Answer<'b, 'v> {
    index("indexOf", &arguments, false)
}

fn last_index_of<'b, 'v>(arguments: Arguments<'b, 'v>) -> Answer<'b, 'v> {
    index("lastIndexOf", &arguments, true)
}

/// Counts in characters, as the strings extension does.
fn index<'b, 'v>(function: &str, arguments: &[CowVal<'_, '_>], from_the_end: bool) -> Answer<'b, 'v> {
    let (source, needle) = (text(arguments, 0)?, text(arguments, 1)?);
    if needle.len() > MAX_NEEDLE_BYTES {
        return Err(failed(function, format!("it looks for at most {MAX_NEEDLE_BYTES} bytes: use contains()")));
    }
    meter::spend_bytes(source.len())?;
    let source: Vec<char> = source.chars().collect();
    let needle: Vec<char> = needle.chars().collect();
    let offset = match number(arguments, 2) {
        None if from_the_end => source.len(),
        None => 0,
        Some(offset) => usize::try_from(offset)
            .ok()
            .filter(|offset| *offset <= source.len())
            .ok_or_else(|| failed(function, format!("index out of range: {offset}")))?,
    };
    let is_at = |start: usize| source[start..].starts_with(&needle);
    let found = if from_the_end {
        (0..=offset.min(source.len())).rev().find(|at| is_at(*at))
    } else {
        (offset..=source.len()).find(|at| is_at(*at))
    };
    let found = found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1);
    Ok(CowVal::owned(CelInt::from(found)))
}

fn elements<'a, 'v>(arguments: &'a [CowVal<'_, 'v>]) -> Result<&'a [Box<dyn Val + 'v>], ExecutionError> {
    arguments
        .first()
        .and_then(|list| list.downcast_ref::<CelList>())
        .map(CelList::inner)
        .ok_or(ExecutionError::MissingArgumentOrTarget)
}

/// The sum of numbers or durations; of an empty list 0.
fn sum<'b, 'v>(arguments: Arguments<'b, 'v>) -> Answer<'b, 'v> {
    let list = elements(&arguments)?;
    let Some((first, rest)) = list.split_first() else {
        return Ok(CowVal::owned(CelInt::from(0)));
    };
    let mut total: Box<dyn Val + 'v> = first.clone();
    if total.downcast_ref::<CelString>().is_some() || total.downcast_ref::<CelList>().is_some() {
        return Err(failed("sum", "it adds numbers and durations; use join() for strings, flatten() for lists"));
    }
    for next in rest {
        let sum = total
            .as_adder()
            .ok_or_else(|| failed("sum", "the list holds something that can't be added"))?
            .add(next.as_ref())?
            .into_owned();
        total = sum;
    }
    Ok(CowVal::Owned(total))
}

fn extreme<'b, 'v>(function: &str, arguments: Arguments<'b, 'v>, wanted: std::cmp::Ordering) -> Answer<'b, 'v> {
    let (first, rest) = elements(&arguments)?
        .split_first()
        .ok_or_else(|| failed(function, "the list is empty: test its size() first"))?;
    let mut best = first;
    for next in rest {
        let comparer =
            next.as_comparer().ok_or_else(|| failed(function, "the list holds something that can't be compared"))?;
        if comparer.compare(best.as_ref())? == wanted {
            best = next;
        }
    }
    Ok(CowVal::Owned(best.clone()))
}
