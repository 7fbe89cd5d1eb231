//! Functions on literals are tried when a spec is parsed: `duration("90x")` is wrong before the run begins.

use cel::{
    Context, ExecutionError,
    common::ast::{CallExpr, Expr, IdedExpr, LiteralValue},
    objects::Value,
};

use super::{environment::ENVIRONMENT, meter};

/// Functions that refuse some texts whatever else is given to them.
const CHECKED: &[&str] = &["duration", "timestamp", "quantity"];
/// Functions whose last literal is a regular expression.
const PATTERNS: &[&str] = &["matches", "find", "findAll"];

/// Errors: the call can't succeed, since a literal in it is malformed; with what the function says.
pub(super) fn check_constant(function: &str, target: Option<&IdedExpr>, arguments: &[IdedExpr]) -> Result<(), String> {
    let text = |expr: &IdedExpr| matches!(&expr.expr, Expr::Literal(LiteralValue::String(_)));
    let call = if CHECKED.contains(&function) && arguments.len() == 1 && arguments.iter().all(text) {
        call(function, None, arguments.to_vec())
    } else if PATTERNS.contains(&function) {
        let pattern = arguments.get(usize::from(target.is_none())).filter(|pattern| text(pattern));
        let Some(pattern) = pattern else { return Ok(()) };
        call("@matches", Some(empty_text()), vec![pattern.clone()])
    } else {
        return Ok(());
    };
    meter::start();
    match Value::resolve_val(&call, &Context::with_env(ENVIRONMENT.clone())) {
        Err(ExecutionError::FunctionError { message, .. }) => Err(message),
        Err(error) => Err(error.to_string()),
        Ok(_) => Ok(()),
    }
}

fn call(function: &str, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: target.map(Box::new), args }),
    }
}

fn empty_text() -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String("".into())) }
}
