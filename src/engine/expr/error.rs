//! What can be wrong with an expression, in sentences that end with what to do.

use std::fmt;

use super::{MAX_COST, MAX_DEPTH, MAX_LOOPS, MAX_OUTPUT_BYTES, MAX_SOURCE_BYTES};

/// Most characters of an expression or a value that an error quotes.
const QUOTED_CHARS: usize = 80;

/// Why an expression was refused, or could not be evaluated.
///
/// The first group comes from parsing and stays until the text is changed; the variants from
/// [`NotProvided`](ExprError::NotProvided) on come from evaluating and depend on the values.
/// Each message quotes the expression (shortened) and, as far as known, where in it the trouble is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExprError {
    /// The text is longer than [`MAX_SOURCE_BYTES`].
    #[error(
        "the expression has {bytes} bytes, at most {MAX_SOURCE_BYTES} are allowed: make it shorter, or split it into several conditions"
    )]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It is nested deeper than [`MAX_DEPTH`].
    #[error(
        "`{expression}` is nested deeper than {MAX_DEPTH} levels: split it, or join long sums with a list's join()"
    )]
    TooDeep {
        /// The expression, shortened.
        expression: Quoted,
    },
    /// Loops (all, exists, map, filter and the like) are nested deeper than [`MAX_LOOPS`].
    #[error("`{expression}` nests loops (all, exists, map, filter) deeper than {MAX_LOOPS}: move the inner one out")]
    TooManyLoops {
        /// The expression, shortened.
        expression: Quoted,
    },
    /// It is not CEL.
    #[error("`{expression}` is not valid CEL{place}: {problem}")]
    Syntax {
        /// The expression, shortened.
        expression: Quoted,
        /// Where the parser stopped.
        place: Place,
        /// What the parser says, and a next step.
        problem: String,
    },
    /// It uses a variable that does not exist where the expression stands.
    #[error("unknown variable `{name}` in `{expression}`{place}; known: {known}{hint}")]
    UnknownVariable {
        /// The name that was written.
        name: String,
        /// The expression, shortened.
        expression: Quoted,
        /// Where the name is.
        place: Place,
        /// All variables that exist, sorted.
        known: Box<str>,
        /// A guess at what was meant.
        hint: Box<str>,
    },
    /// It calls a function that does not exist, or in a way in which it can't be called.
    #[error("unknown function `{name}` in `{expression}`{place}; {hint}")]
    UnknownFunction {
        /// The name that was written.
        name: String,
        /// The expression, shortened.
        expression: Quoted,
        /// Where the call is.
        place: Place,
        /// What exists, and a guess at what was meant.
        hint: Box<str>,
    },
    /// Its types can't fit, whatever the values are.
    #[error("`{expression}`{place}: {problem}")]
    Type {
        /// The expression, shortened.
        expression: Quoted,
        /// Where the misfit is.
        place: Place,
        /// What was expected and what is there.
        problem: String,
    },
    /// A `${` has no matching `}`.
    #[error("`{template}`{place}: `${{` is never closed: add `}}`, or write `$${{` for a literal `${{`")]
    Unclosed {
        /// The text, shortened.
        template: Quoted,
        /// Where the `${` is.
        place: Place,
    },

    /// The scope lacks a variable that the expression uses.
    #[error("`{expression}` needs the variable `{name}`, which has no value at this point (set here: {known})")]
    NotProvided {
        /// The variable.
        name: String,
        /// The expression, shortened.
        expression: Quoted,
        /// What the scope has.
        known: Box<str>,
    },
    /// A map lacks a key.
    #[error("`{container}` has no key `{key}`{known} in `{expression}`: {advice}")]
    MissingKey {
        /// The key.
        key: Box<str>,
        /// Which map: the part of the expression that stands for it.
        container: Box<str>,
        /// Keys that are there, shortened and in brackets; empty if that could not be told.
        known: Box<str>,
        /// The expression, shortened.
        expression: Quoted,
        /// What to do.
        advice: Box<str>,
    },
    /// The value has another type than its place needs.
    #[error("`{expression}` gave {got}, expected {expected}")]
    WrongResult {
        /// The expression, shortened.
        expression: Quoted,
        /// What came out.
        got: String,
        /// What is needed and how to get it.
        expected: String,
    },
    /// It did more work than [`MAX_COST`] allows.
    #[error(
        "`{expression}` was stopped after {MAX_COST} units of work: it loops over or copies too much; narrow what it reads"
    )]
    TooCostly {
        /// The expression, shortened.
        expression: Quoted,
    },
    /// A result is larger than [`MAX_OUTPUT_BYTES`].
    #[error("the value of `{expression}` is larger than {MAX_OUTPUT_BYTES} bytes: take a part of it")]
    TooLarge {
        /// The expression or template, shortened.
        expression: Quoted,
    },
    /// A value is nested deeper than this module reads.
    #[error("`{name}` is nested deeper than {depth} levels: take a part of it")]
    DeepValue {
        /// The variable, or the value that was to be rendered.
        name: String,
        /// Deepest nesting that is read.
        depth: usize,
    },
    /// Anything else that goes wrong with these values, such as a division by zero.
    #[error("`{expression}` failed: {problem}")]
    Evaluation {
        /// The expression, shortened.
        expression: Quoted,
        /// What the interpreter says, and a next step.
        problem: String,
    },
}

impl ExprError {
    /// Whether a value is not there, where it may come yet: a condition on a growing object then does not hold yet.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::MissingKey { .. } | Self::NotProvided { .. })
    }
}

/// A text, on one line and short enough for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted(Box<str>);

impl Quoted {
    /// The beginning of a text, with `...` where it was cut.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let mut short: String = text.chars().take(QUOTED_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if text.chars().nth(QUOTED_CHARS).is_some() {
            short.push_str("...");
        }
        Self(short.into())
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in an expression, as far as it is known. Shown as ` (line 1, column 5)`, or as nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(Option<(u32, u32)>);

impl Place {
    /// No place.
    pub const UNKNOWN: Self = Self(None);

    /// A line and a column, both counted from 1, the column in characters.
    pub fn at(line: u32, column: u32) -> Self {
        Self((line > 0 && column > 0).then_some((line, column)))
    }

    /// The place right after a text.
    pub fn after(text: &str) -> Self {
        let (line, column) =
            text.chars().fold((1, 1), |(line, column), c| if c == '\n' { (line + 1, 1) } else { (line, column + 1) });
        Self::at(line, column)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((1, column)) => write!(f, " (column {column})"),
            Some((line, column)) => write!(f, " (line {line}, column {column})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_as_far_as_it_is_known() {
        for (place, expected, why) in [
            (Place::at(1, 5), " (column 5)", "on the first line the column says it"),
            (Place::at(2, 1), " (line 2, column 1)", "further on the line too"),
            (Place::at(0, 5), "", "there is no line 0"),
            (Place::at(2, 0), "", "and no column 0"),
            (Place::after("ä\nbc"), " (line 2, column 3)", "the place after a text"),
            (Place::UNKNOWN, "", "nothing is known"),
        ] {
            assert_eq!(place.to_string(), expected, "{why}");
        }
    }
}
