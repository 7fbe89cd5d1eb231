//! Values that steps hand on.

use std::collections::BTreeMap;

use serde_json::Value;

use super::context::StepContext;
use crate::{
    api::status::OutputValue,
    engine::{expr::Scope, seen::StepEnd},
};

/// Most outputs of a step.
pub const MAX_OUTPUTS: usize = 16;
/// Longest name of an output.
const MAX_NAME: usize = 63;

/// Reads the outputs that a container wrote: a JSON object of numbers, bools and texts.
///
/// A message that is no JSON object is no outputs but a text for people, and gives none.
/// Errors: what is wrong with an object that is one.
pub fn parse(message: &str) -> Result<BTreeMap<String, OutputValue>, String> {
    let message = message.trim();
    if !message.starts_with('{') {
        return Ok(BTreeMap::new());
    }
    let fields: serde_json::Map<String, Value> = serde_json::from_str(message).map_err(|error| {
        format!("the results begin like a JSON object, but are none: {error} (they are cut at 4,096 bytes)")
    })?;
    if fields.len() > MAX_OUTPUTS {
        return Err(format!("{} outputs; at most {MAX_OUTPUTS} are kept", fields.len()));
    }
    fields
        .into_iter()
        .map(|(name, value)| {
            check_name(&name)?;
            let value = output(&value).map_err(|problem| format!("output {name} {problem}"))?;
            Ok((name, value))
        })
        .collect()
}

/// Evaluates the step's `outputs` over `variable`, and ends the attempt well with them.
///
/// An output that can't be evaluated fails the step: missing data is never a success.
pub(super) fn end_with(ctx: &StepContext<'_>, variable: &str, value: &Value) -> StepEnd {
    if ctx.leaf.outputs.is_empty() {
        return StepEnd::succeeded();
    }
    let mut scope: Scope = ctx.scope.clone();
    scope.set(variable, value.clone());
    let mut outputs = BTreeMap::new();
    for (name, expression) in &ctx.leaf.outputs {
        let value = expression.evaluate(&scope).map_err(|error| error.to_string());
        match value.and_then(|value| output(&value).map_err(|problem| format!("it {problem}"))) {
            Ok(value) => outputs.insert(name.clone(), value),
            Err(problem) => return StepEnd::failed("InvalidOutput", format!("output {name}: {problem}")),
        };
    }
    StepEnd { outputs, ..StepEnd::default() }
}

fn check_name(name: &str) -> Result<(), String> {
    let good = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if good {
        Ok(())
    } else {
        Err(format!(
            "output name `{}` is not a word of letters, digits and _",
            name.chars().take(40).collect::<String>()
        ))
    }
}

fn output(value: &Value) -> Result<OutputValue, String> {
    match value {
        Value::Bool(value) => Ok(OutputValue::Bool(*value)),
        Value::Number(number) => number
            .as_i64()
            .map(OutputValue::Integer)
            .or_else(|| number.as_f64().map(OutputValue::Number))
            .ok_or_else(|| "is not a finite number".to_owned()),
        Value::String(text) => Ok(OutputValue::Text(text.clone())),
        Value::Null => Err("is null; an output is a number, a bool or a text".into()),
        Value::Array(_) => Err("is a list; an output is a number, a bool or a text".into()),
        Value::Object(_) => Err("is an object; an output is a number, a bool or a text".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_bools_and_texts_are_handed_on() {
        let outputs = parse("{\"p95\": 12.5, \"n\": 3, \"ok\": true, \"who\": \"a\"}\n").unwrap();
        assert_eq!(outputs["p95"], OutputValue::Number(12.5));
        assert_eq!(outputs["n"], OutputValue::Integer(3));
        assert_eq!(outputs["ok"], OutputValue::Bool(true));
        assert_eq!(outputs["who"], OutputValue::Text("a".into()));
    }

    #[test]
    fn what_is_no_output_is_refused_by_name() {
        assert!(parse("plain text for people").unwrap().is_empty());
        assert!(parse("{\"a\": [1]}").unwrap_err().contains("output a is a list"));
        assert!(parse("{\"a\": 1").unwrap_err().contains("are none"));
        assert!(parse("{\"a-b\": 1}").unwrap_err().contains("a-b"));
        let many: BTreeMap<String, u32> = (0..17).map(|number| (format!("o{number}"), number)).collect();
        assert!(parse(&serde_json::to_string(&many).unwrap()).unwrap_err().contains("17 outputs"));
    }
}
