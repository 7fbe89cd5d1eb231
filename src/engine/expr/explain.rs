//! Turns what the interpreter says into what a person can act on.

use cel::{
    Context, ExecutionError,
    common::{
        ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators},
        types::{CelMap, CelString},
    },
    objects::Value,
};

use super::{
    ExprError, check,
    environment::BOUNDED,
    error::Quoted,
    meter::{self, unwrapped},
};

/// Most keys that an error lists.
const LISTED_KEYS: usize = 12;

/// Whether a call's name stands for an operator.
pub(super) fn is_operator(name: &str) -> bool {
    matches!(
        name,
        operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::SUBSTRACT
            | operators::ADD
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::GREATER_EQUALS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::LESS
            | operators::NEGATE
            | operators::INDEX
            | operators::OPT_INDEX
            | operators::OPT_SELECT
            | operators::NOT_STRICTLY_FALSE
            | operators::IN
    )
}

/// The error for a failed evaluation of `expr`, which `source` is the text of.
pub(super) fn explain(error: ExecutionError, expr: &IdedExpr, context: &Context<'_, '_>, source: &str) -> ExprError {
    let expression = Quoted::new(source);
    if meter::is_exhausted() {
        return ExprError::TooCostly { expression };
    }
    let problem = match error {
        ExecutionError::NoSuchKey(key) => return missing_key(&key, expr, context, expression),
        ExecutionError::FunctionError { function, message } => format!("{}: {message}", plain_name(&function)),
        ExecutionError::NoSuchOverload(error) => {
            let types: Vec<String> = error
                .argument_types()
                .iter()
                .map(|it| if it == "null_type" { "null".to_owned() } else { it.clone() })
                .collect();
            let hint = if types.iter().any(|it| it == "null") {
                "; a value is null: test it with `!= null` first"
            } else {
                ""
            };
            format!(
                "`{}` does not take {}{hint}",
                super::types::written(plain_name(error.function())),
                types.join(" and ")
            )
        }
        ExecutionError::UnexpectedType { got, want } => format!("expected {want}, this is {got}"),
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            let sign = match operator {
                "add" => "+",
                "sub" => "-",
                "mul" => "*",
                "div" => "/",
                "rem" => "%",
                other => other,
            };
            format!(
                "`{sign}` does not take {} and {}: convert one with int(...), double(...) or string(...)",
                left.type_of(),
                right.type_of()
            )
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero: test the divisor first".to_owned()
        }
        ExecutionError::Overflow(..) => "the result is too large for its type".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => {
            "the list has no element of that index: test its size() first".to_owned()
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} have no order", left.type_of(), right.type_of())
        }
        // The interpreter prints whole values, maps in no order; types say enough.
        ExecutionError::UnsupportedKeyType(key) => {
            format!("{} can't be a map's key: use a string, an int or a bool", key.type_of())
        }
        ExecutionError::UnsupportedIndex(index, list) => {
            format!("{} can't be an index into {}", index.type_of(), list.type_of())
        }
        ExecutionError::UnsupportedTargetType { target } => format!("it does not work on {}", target.type_of()),
        ExecutionError::NotSupportedAsMethod { method, target } => {
            format!("{} has no method `{method}`", target.type_of())
        }
        other => Quoted::new(&other.to_string()).to_string(),
    };
    ExprError::Evaluation { expression, problem }
}

/// The name that a user knows a function by.
fn plain_name(function: &str) -> &str {
    BOUNDED.iter().find(|(_, bounded)| *bounded == function).map_or(function, |(name, _)| name)
}

/// The interpreter tells the key, but not which map lacks it: look for the places in the expression that ask for it.
fn missing_key(key: &str, expr: &IdedExpr, context: &Context<'_, '_>, expression: Quoted) -> ExprError {
    let mut places = Vec::new();
    collect(expr, &mut places);
    let mut guess = None;
    for (container, field) in places {
        let asks = match field {
            Field::Name(name) => name == key,
            Field::Computed(field) => Value::resolve_val(field, context)
                .is_ok_and(|value| value.downcast_ref::<CelString>().is_some_and(|it| it.inner() == key)),
        };
        if !asks {
            continue;
        }
        meter::start();
        if let Ok(value) = Value::resolve_val(container, context)
            && let Some(map) = value.downcast_ref::<CelMap>()
        {
            let mut keys: Vec<&str> = map
                .inner()
                .keys()
                .filter_map(|key| key.inner().downcast_ref::<CelString>().map(CelString::inner))
                .collect();
            keys.sort_unstable();
            if !keys.contains(&key) {
                return missing(key, &text(container), Some(&keys), expression);
            }
        } else {
            guess.get_or_insert_with(|| text(container));
        }
    }
    missing(key, guess.as_deref().unwrap_or("a map"), None, expression)
}

fn missing(key: &str, container: &str, keys: Option<&[&str]>, expression: Quoted) -> ExprError {
    let known = keys.map(|keys| {
        let listed: Vec<String> = keys.iter().take(LISTED_KEYS).map(|key| Quoted::new(key).to_string()).collect();
        let more = if keys.len() > LISTED_KEYS { ", ..." } else { "" };
        if listed.is_empty() { " (it is empty)".to_owned() } else { format!(" (it has: {}{more})", listed.join(", ")) }
    });
    let closest = keys.and_then(|keys| super::roots::closest(key, keys.iter().copied()));
    let advice = match closest {
        Some(meant) => format!("did you mean {}?", Quoted::new(meant)),
        None if is_name(key) && container != "a map" => format!("test it with has({container}.{key}) first"),
        None => "test it with `in` first".to_owned(),
    };
    ExprError::MissingKey {
        key: Quoted::new(key).to_string().into(),
        container: container.into(),
        known: known.unwrap_or_default().into(),
        expression,
        advice: advice.into(),
    }
}

fn is_name(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

enum Field<'e> {
    Name(&'e str),
    Computed(&'e IdedExpr),
}

fn collect<'e>(expr: &'e IdedExpr, places: &mut Vec<(&'e IdedExpr, Field<'e>)>) {
    match &expr.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
        Expr::Select(select) => {
            collect(&select.operand, places);
            if !select.test {
                places.push((&select.operand, Field::Name(&select.field)));
            }
        }
        Expr::Call(CallExpr { func_name, target, args }) => {
            for part in target.iter().map(AsRef::as_ref).chain(args) {
                collect(part, places);
            }
            if let (operators::INDEX, [container, key]) = (func_name.as_str(), args.as_slice()) {
                places.push((container, Field::Computed(key)));
            }
        }
        Expr::List(list) => {
            for element in &list.elements {
                collect(element, places);
            }
        }
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    collect(&entry.key, places);
                    collect(&entry.value, places);
                }
            }
        }
        Expr::Comprehension(made) => {
            for part in [&made.iter_range, &made.accu_init, &made.loop_cond, &made.loop_step, &made.result] {
                collect(part, places);
            }
        }
    }
}

/// An expression as it was written, as far as it is a path; `...` stands for the rest.
fn text(expr: &IdedExpr) -> String {
    let expr = unwrapped(expr);
    match &expr.expr {
        Expr::Select(select) if !select.test => format!("{}.{}", text(&select.operand), select.field),
        Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::INDEX => {
            match args.as_slice() {
                [container, key] => match &key.expr {
                    Expr::Literal(LiteralValue::String(key)) => {
                        format!("{}[\"{}\"]", text(container), Quoted::new(key.inner()))
                    }
                    Expr::Literal(LiteralValue::Int(index)) => format!("{}[{}]", text(container), index.inner()),
                    _ => format!("{}[{}]", text(container), text(key)),
                },
                _ => "...".to_owned(),
            }
        }
        _ => check::qualified_name(expr).unwrap_or_else(|| "...".to_owned()),
    }
}
