//! The types that can be told without values, and what the operators make of them.

use std::fmt;

use cel::common::ast::{LiteralValue, operators};

/// A type, as far as it is certain.
#[expect(clippy::enum_variant_names, reason = "CEL calls it so: the type of types")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Not known before the values are.
    Dyn,
    Bool,
    Bytes,
    Double,
    Duration,
    Int,
    List,
    Map,
    Null,
    Optional,
    Quantity,
    String,
    Timestamp,
    Type,
    Uint,
}

use Type::{Bool, Bytes, Double, Duration, Dyn, Int, List, Map, Null, Quantity, String, Timestamp, Uint};

impl Type {
    fn name(self) -> &'static str {
        match self {
            Dyn => "any value",
            Bool => "bool",
            Bytes => "bytes",
            Double => "double",
            Duration => "duration",
            Int => "int",
            List => "list",
            Map => "map",
            Null => "null",
            Type::Optional => "optional",
            Quantity => "quantity",
            String => "string",
            Timestamp => "timestamp",
            Type::Type => "type",
            Uint => "uint",
        }
    }

    /// Whether it is this type, or may be.
    pub(super) fn may_be(self, other: Type) -> bool {
        self == Dyn || other == Dyn || self == other
    }

    /// Whether it is one of these types, or may be.
    pub(super) fn may_be_one_of(self, others: &[Type]) -> bool {
        others.iter().any(|other| self.may_be(*other))
    }

    fn is_number(self) -> bool {
        matches!(self, Int | Uint | Double)
    }

    /// The type of either of two values.
    pub(super) fn join(self, other: Type) -> Type {
        if self == other { self } else { Dyn }
    }

    pub(super) fn of_literal(literal: &LiteralValue) -> Type {
        match literal {
            LiteralValue::Boolean(_) => Bool,
            LiteralValue::Bytes(_) => Bytes,
            LiteralValue::Double(_) => Double,
            LiteralValue::Int(_) => Int,
            LiteralValue::Null => Null,
            LiteralValue::String(_) => String,
            LiteralValue::UInt(_) => Uint,
        }
    }
}

impl fmt::Display for Type {
    /// With its article, as in `an int`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dyn | Null | Bytes => f.write_str(self.name()),
            Int | Type::Optional => write!(f, "an {}", self.name()),
            _ => write!(f, "a {}", self.name()),
        }
    }
}

/// The text of an operator as it is written, for messages.
pub(super) fn written(operator: &str) -> &str {
    match operator {
        operators::IN => "in",
        operators::INDEX | operators::OPT_INDEX => "[]",
        other => other.trim_matches('_'),
    }
}

/// The type of `left operator right`.
///
/// Errors: the two can't go together, whatever their values; with what to do about it.
pub(super) fn of_binary(operator: &str, left: Type, right: Type) -> Result<Type, std::string::String> {
    let result = match operator {
        operators::ADD => added(left, right),
        operators::SUBSTRACT => subtracted(left, right),
        operators::MULTIPLY | operators::DIVIDE => same_of(&[Int, Uint, Double], left, right),
        operators::MODULO => same_of(&[Int, Uint], left, right),
        operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
            is_ordered(left, right).then_some(Bool)
        }
        operators::EQUALS | operators::NOT_EQUALS => is_equatable(left, right).then_some(Bool),
        operators::IN => right.may_be_one_of(&[List, Map]).then_some(Bool),
        _ => Some(Dyn),
    };
    result.ok_or_else(|| {
        let hint = match (left, right) {
            (String, other) | (other, String) if operator == operators::ADD && (other.is_number() || other == Bool) => {
                "; write string(...) around the other value"
            }
            (Int, Double) | (Double, Int) => "; write double(...) around the int",
            (Int, Uint) | (Uint, Int) => "; write int(...) around the uint",
            (Quantity, Quantity) => "; quantities have methods: a.isGreaterThan(b), a.isLessThan(b), a.add(b)",
            (String, Duration) | (Duration, String) => "; write duration(...) around the string",
            (String, Quantity) | (Quantity, String) => "; write quantity(...) around the string",
            (String, Timestamp) | (Timestamp, String) => "; write timestamp(...) around the string",
            _ => "",
        };
        format!("`{}` does not take {left} and {right}{hint}", written(operator))
    })
}

fn same_of(types: &[Type], left: Type, right: Type) -> Option<Type> {
    (left.may_be(right) && left.may_be_one_of(types) && right.may_be_one_of(types))
        .then(|| if left == Dyn { right } else { left })
}

fn added(left: Type, right: Type) -> Option<Type> {
    match (left, right) {
        (Timestamp, Duration) | (Duration, Timestamp) => Some(Timestamp),
        // Beside a time, what is not known may be the other kind of time.
        (Dyn, Timestamp | Duration) | (Timestamp | Duration, Dyn) => Some(Dyn),
        _ => same_of(&[Int, Uint, Double, String, Bytes, List, Duration], left, right),
    }
}

fn subtracted(left: Type, right: Type) -> Option<Type> {
    match (left, right) {
        (Timestamp, Timestamp) => Some(Duration),
        (Timestamp, Duration) => Some(Timestamp),
        (Dyn, Timestamp | Duration) | (Timestamp | Duration, Dyn) => Some(Dyn),
        _ => same_of(&[Int, Uint, Double, Duration], left, right),
    }
}

fn is_ordered(left: Type, right: Type) -> bool {
    const ORDERED: &[Type] = &[Bool, Int, Uint, Double, String, Bytes, Timestamp, Duration];
    left.is_number() && right.is_number() || same_of(ORDERED, left, right).is_some()
}

/// Null may be compared with anything: that is how a missing value is told.
fn is_equatable(left: Type, right: Type) -> bool {
    left.may_be(right) || left.is_number() && right.is_number() || left == Null || right == Null
}
