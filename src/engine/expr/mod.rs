//! The expression language of specs: CEL, as Kubernetes uses it.
//!
//! Conditions are bare expressions ([`Condition`]), values likewise ([`Expression`]); texts and whole manifests have
//! expressions in `${...}` ([`Template`], [`render_json`]). Everything is checked when a spec is parsed, as far as that
//! goes without values: names against [`Roots`], functions, and types that can't fit. What remains to go wrong when a
//! [`Scope`] supplies the values is that a value is missing or has another type than expected.
//!
//! Nothing here does IO, reads a clock or draws random numbers. Evaluating is bounded: the text by
//! [`MAX_SOURCE_BYTES`], its nesting by [`MAX_DEPTH`] and [`MAX_LOOPS`], its work by [`MAX_COST`], its result by
//! [`MAX_OUTPUT_BYTES`].

pub mod aside;
mod check;
mod constants;
mod environment;
mod error;
mod explain;
mod functions;
mod meter;
mod output;
mod program;
mod quantity;
mod roots;
mod scan;
mod scope;
mod template;
mod types;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

use std::sync::Arc;

use cel::common::types::CelBool;

use output::{Refusal, to_json};
use program::Program;
use types::Type;

pub use error::{ExprError, Place, Quoted};
pub use roots::{Reference, Roots};
pub use scope::Scope;
pub use template::{Template, check_json, render_json};

/// Longest expression, in bytes.
pub const MAX_SOURCE_BYTES: usize = 4_096;
/// Deepest nesting of an expression: brackets, operators, selections and calls inside of each other.
pub const MAX_DEPTH: usize = 32;
/// Deepest nesting of loops (all, exists, map, filter and the like).
pub const MAX_LOOPS: usize = 2;
/// Work of one evaluation. A unit is about a value looked at, 64 bytes read or copied, or a tenth of a loop's turn; all of it
/// takes a few tenths of a second.
pub const MAX_COST: u64 = 1_000_000;
/// Largest result of an evaluation, a rendered text, or all strings of a rendered JSON tree together.
pub const MAX_OUTPUT_BYTES: usize = 1_048_576;
/// Deepest nesting of a value that is read, made or rendered.
pub const MAX_VALUE_DEPTH: usize = 64;

/// An expression that yields a value. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Expression(Arc<Program>);

impl Expression {
    /// Parses an expression that may use the variables of `roots`.
    pub fn parse(source: &str, roots: &Roots) -> Result<Self, ExprError> {
        Program::parse(source, roots).map(|program| Self(Arc::new(program)))
    }

    /// What it reads, each once, sorted.
    pub fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.0.references.iter().map(roots::OwnedReference::borrow)
    }

    /// Evaluates it.
    ///
    /// Durations become the seconds they last as text (`90s`, `1.5s`), timestamps RFC 3339 in UTC or with their own
    /// offset, quantities plain numbers as text, types their names, an empty optional null. Keys of maps become strings.
    ///
    /// Errors: see the second group of [`ExprError`]; also where the value has no JSON form.
    pub fn evaluate(&self, scope: &Scope) -> Result<serde_json::Value, ExprError> {
        self.0.evaluate(scope, |value| {
            to_json(value).map_err(|refusal| match refusal {
                Refusal::TooLarge => ExprError::TooLarge { expression: self.quoted() },
                Refusal::TooDeep => ExprError::DeepValue { name: self.quoted().to_string(), depth: MAX_VALUE_DEPTH },
                Refusal::NoJson(problem) => {
                    ExprError::Evaluation { expression: self.quoted(), problem: problem.to_owned() }
                }
            })
        })
    }

    fn quoted(&self) -> Quoted {
        self.0.quoted()
    }
}

/// An expression that yields a bool. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Condition(Arc<Program>);

impl Condition {
    /// Parses a condition that may use the variables of `roots`.
    ///
    /// Errors: also when it is certain not to be a bool.
    pub fn parse(source: &str, roots: &Roots) -> Result<Self, ExprError> {
        let program = Program::parse(source, roots)?;
        if !program.result.may_be(Type::Bool) {
            let problem = format!("expected a bool, this is {}", program.result);
            return Err(ExprError::Type { expression: program.quoted(), place: Place::UNKNOWN, problem });
        }
        Ok(Self(Arc::new(program)))
    }

    /// The text as it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// What it reads, each once, sorted.
    pub fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.0.references.iter().map(roots::OwnedReference::borrow)
    }

    /// Whether it holds.
    ///
    /// Errors: see the second group of [`ExprError`]. A condition on an object that is still being built fails with one
    /// for which [`ExprError::is_missing`] tells so.
    pub fn evaluate(&self, scope: &Scope) -> Result<bool, ExprError> {
        self.0.evaluate(scope, |value| match value.downcast_ref::<CelBool>() {
            Some(value) => Ok(*value.inner()),
            None => Err(ExprError::WrongResult {
                expression: self.0.quoted(),
                got: value.get_type().name().to_owned(),
                expected: "a bool: compare it with something".to_owned(),
            }),
        })
    }
}
