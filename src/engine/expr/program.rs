//! One parsed expression: bounded, checked, and ready to be evaluated.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::{
    Context,
    common::{ast::IdedExpr, value::Val},
    objects::Value,
    parser::ParseErrors,
};

use super::{
    ExprError, MAX_DEPTH, MAX_SOURCE_BYTES, MAX_VALUE_DEPTH, Roots, Scope, aside,
    check::{Checked, check},
    environment::ENVIRONMENT,
    error::{Place, Quoted},
    explain::explain,
    meter,
    roots::OwnedReference,
    scan::{End, scan},
    types::Type,
};

/// Operators and selections in a row that are handed to the parser, whose recursion they are; what comes out is held
/// to [`MAX_DEPTH`].
const MAX_CHAIN: usize = 4 * MAX_DEPTH;
/// Most characters of a parser's message that are passed on.
const PARSER_MESSAGE_CHARS: usize = 160;

#[derive(Debug)]
pub(super) struct Program {
    pub(super) source: String,
    expr: IdedExpr,
    pub(super) references: Vec<OwnedReference>,
    pub(super) result: Type,
    may_take_long: bool,
}

impl Program {
    pub(super) fn parse(source: &str, roots: &Roots) -> Result<Self, ExprError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(ExprError::TooLong { bytes: source.len() });
        }
        if source.trim().is_empty() {
            return Err(ExprError::Syntax {
                expression: Quoted::new(source),
                place: Place::UNKNOWN,
                problem: "it is empty".to_owned(),
            });
        }
        let scanned = scan(source);
        if let End::Brace(at) = scanned.end {
            let place = Place::after(&source[..at]);
            return Err(ExprError::Syntax {
                expression: Quoted::new(source),
                place,
                problem: "this `}` closes nothing".to_owned(),
            });
        }
        if scanned.depth > MAX_DEPTH || scanned.chain > MAX_CHAIN {
            return Err(ExprError::TooDeep { expression: Quoted::new(source) });
        }
        // The parser is generated code with unwraps of its own; whatever else it may do, it shall not take a controller down.
        let parsed =
            catch_unwind(|| ENVIRONMENT.parser().enable_ident_escape_syntax(true).parse_with_source_info(source));
        let (mut expr, info) = parsed.map_err(|_| internal(source))?.map_err(|errors| syntax_error(source, errors))?;
        let checked = catch_unwind(AssertUnwindSafe(|| check(&expr, &info, roots))).map_err(|_| internal(source))??;
        meter::install(&mut expr);
        let Checked { references, result, may_take_long } = checked;
        Ok(Self { source: source.to_owned(), expr, references, result, may_take_long })
    }

    /// Evaluates and hands the value to `take`, since the value may borrow from the scope.
    pub(super) fn evaluate<T>(
        &self,
        scope: &Scope,
        take: impl FnOnce(&dyn Val) -> Result<T, ExprError>,
    ) -> Result<T, ExprError> {
        self.require(scope)?;
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.set_variable_resolver(scope);
        let evaluate = || {
            meter::start();
            match Value::resolve_val(&self.expr, &context) {
                Ok(_) if meter::is_exhausted() => Err(ExprError::TooCostly { expression: self.quoted() }),
                Ok(value) => take(value.as_ref()),
                Err(error) => Err(explain(error, &self.expr, &context, &self.source)),
            }
        };
        let evaluate = || catch_unwind(AssertUnwindSafe(evaluate));
        let answer = if self.may_take_long { aside::run(evaluate) } else { evaluate() };
        answer.unwrap_or_else(|_| Err(internal(&self.source)))
    }

    /// Errors: a variable that the expression uses has no value, or one that can't be converted.
    fn require(&self, scope: &Scope) -> Result<(), ExprError> {
        for reference in &self.references {
            if scope.value(&reference.root).is_some() {
                continue;
            }
            let name = reference.root.clone();
            return Err(if scope.get(&name).is_some() {
                ExprError::DeepValue { name, depth: MAX_VALUE_DEPTH }
            } else {
                ExprError::NotProvided { name, expression: self.quoted(), known: scope.names().into() }
            });
        }
        Ok(())
    }

    pub(super) fn quoted(&self) -> Quoted {
        Quoted::new(&self.source)
    }
}

fn internal(source: &str) -> ExprError {
    ExprError::Evaluation {
        expression: Quoted::new(source),
        problem: "the interpreter has a defect here: write it differently, and please report it".to_owned(),
    }
}

fn syntax_error(source: &str, errors: ParseErrors) -> ExprError {
    let expression = Quoted::new(source);
    let Some(first) = errors.errors.into_iter().next() else { return internal(source) };
    let place =
        Place::at(u32::try_from(first.pos.0).unwrap_or_default(), u32::try_from(first.pos.1).unwrap_or_default());
    if first.msg.contains("recursion") {
        return ExprError::TooDeep { expression };
    }
    ExprError::Syntax { expression, place, problem: problem(&first.msg) }
}

/// The parser's message without its list of tokens, and a hint for the slips that are common.
fn problem(message: &str) -> String {
    let message = message.trim_start_matches("Syntax error: ");
    let short = message.split(" expecting ").next().unwrap_or(message);
    let short: String = short.chars().take(PARSER_MESSAGE_CHARS).collect();
    let hint = if message.contains("<EOF>") {
        ": it ends too early"
    } else if message.contains("error at: '= ") || message.ends_with("error at: '='") {
        ": to compare, write `==`"
    } else if message.contains("error at: '& ") || message.contains("error at: '| ") {
        ": write `&&` for and, `||` for or"
    } else if message.contains("error at: '\"") || message.contains("error at: ''") {
        ": a string is not closed"
    } else {
        ""
    };
    format!("{short}{hint}")
}
