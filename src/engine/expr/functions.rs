//! The functions that expressions may call, and what is known of them before they are called.
//!
//! The interpreter resolves calls by the types of values; this table is what lets a misspelt name or a certain type
//! error be refused when a spec is parsed. A test compares it with the interpreter's environment.

use super::types::Type::{
    self, Bool, Bytes, Double, Duration, Dyn, Int, List, Map, Optional, Quantity, String, Timestamp, Uint,
};

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `size(x)`; the name may have a namespace, as in `math.abs(x)`.
    Global,
    /// `x.size()`, on a value of one of these types.
    Method(&'static [Type]),
}

/// What is known of a function, or of the overloads of it that share a style.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) style: Style,
    /// Fewest and most arguments, without the receiver.
    pub(super) arguments: (usize, usize),
    /// Dyn where it depends on the arguments.
    pub(super) result: Type,
}

const fn global(name: &'static str, arguments: usize, result: Type) -> Function {
    Function { name, style: Style::Global, arguments: (arguments, arguments), result }
}

const fn method(on: &'static [Type], name: &'static str, arguments: (usize, usize), result: Type) -> Function {
    Function { name, style: Style::Method(on), arguments, result }
}

const TIME: &[Type] = &[Timestamp, Duration];
const SIZED: &[Type] = &[String, Bytes, List, Map];

/// All functions, in the order in which the guide shows them. `distinct` of the lists extension is left out: it compares
/// all pairs, in time that no budget bounds.
pub(super) const FUNCTIONS: &[Function] = &[
    global("bool", 1, Bool),
    global("bytes", 1, Bytes),
    global("double", 1, Double),
    global("duration", 1, Duration),
    global("dyn", 1, Dyn),
    global("int", 1, Int),
    global("isQuantity", 1, Bool),
    global("matches", 2, Bool),
    global("quantity", 1, Quantity),
    global("size", 1, Int),
    global("string", 1, String),
    global("timestamp", 1, Timestamp),
    global("type", 1, Type::Type),
    global("uint", 1, Uint),
    global("base64.decode", 1, Bytes),
    global("base64.encode", 1, String),
    global("lists.range", 1, List),
    global("math.abs", 1, Dyn),
    global("math.bitAnd", 2, Dyn),
    global("math.bitNot", 1, Dyn),
    global("math.bitOr", 2, Dyn),
    global("math.bitShiftLeft", 2, Dyn),
    global("math.bitShiftRight", 2, Dyn),
    global("math.bitXor", 2, Dyn),
    global("math.ceil", 1, Double),
    global("math.floor", 1, Double),
    global("math.isFinite", 1, Bool),
    global("math.isInf", 1, Bool),
    global("math.isNaN", 1, Bool),
    global("math.round", 1, Double),
    global("math.sign", 1, Dyn),
    global("math.sqrt", 1, Double),
    global("math.trunc", 1, Double),
    global("optional.none", 0, Optional),
    global("optional.of", 1, Optional),
    global("optional.ofNonZeroValue", 1, Optional),
    global("strings.quote", 1, String),
    method(SIZED, "size", (0, 0), Int),
    method(&[String], "charAt", (1, 1), String),
    method(&[String], "contains", (1, 1), Bool),
    method(&[String], "endsWith", (1, 1), Bool),
    method(&[String], "find", (1, 1), String),
    method(&[String], "findAll", (1, 2), List),
    method(&[String], "format", (1, 1), String),
    method(&[String], "indexOf", (1, 2), Int),
    method(&[String], "lastIndexOf", (1, 2), Int),
    method(&[String], "lowerAscii", (0, 0), String),
    method(&[String], "matches", (1, 1), Bool),
    method(&[String], "replace", (2, 3), String),
    method(&[String], "split", (1, 2), List),
    method(&[String], "startsWith", (1, 1), Bool),
    method(&[String], "substring", (1, 2), String),
    method(&[String], "trim", (0, 0), String),
    method(&[String], "upperAscii", (0, 0), String),
    method(&[String, List], "reverse", (0, 0), Dyn),
    method(&[List], "flatten", (0, 1), List),
    method(&[List], "join", (0, 1), String),
    method(&[List], "max", (0, 0), Dyn),
    method(&[List], "min", (0, 0), Dyn),
    method(&[List], "slice", (2, 2), List),
    method(&[List], "sort", (0, 0), List),
    method(&[List], "sum", (0, 0), Dyn),
    method(&[Timestamp], "getDate", (0, 1), Int),
    method(&[Timestamp], "getDayOfMonth", (0, 1), Int),
    method(&[Timestamp], "getDayOfWeek", (0, 1), Int),
    method(&[Timestamp], "getDayOfYear", (0, 1), Int),
    method(&[Timestamp], "getFullYear", (0, 1), Int),
    method(&[Timestamp], "getMonth", (0, 1), Int),
    method(TIME, "getHours", (0, 1), Int),
    method(TIME, "getMilliseconds", (0, 1), Int),
    method(TIME, "getMinutes", (0, 1), Int),
    method(TIME, "getSeconds", (0, 1), Int),
    method(&[Optional], "hasValue", (0, 0), Bool),
    method(&[Optional], "or", (1, 1), Optional),
    method(&[Optional], "orValue", (1, 1), Dyn),
    method(&[Optional], "value", (0, 0), Dyn),
    method(&[Quantity], "add", (1, 1), Quantity),
    method(&[Quantity], "asApproximateFloat", (0, 0), Double),
    method(&[Quantity], "asInteger", (0, 0), Int),
    method(&[Quantity], "compareTo", (1, 1), Int),
    method(&[Quantity], "isGreaterThan", (1, 1), Bool),
    method(&[Quantity], "isInteger", (0, 0), Bool),
    method(&[Quantity], "isLessThan", (1, 1), Bool),
    method(&[Quantity], "sign", (0, 0), Int),
    method(&[Quantity], "sub", (1, 1), Quantity),
];

/// What the parser expands before it looks for functions; named in lists of what exists.
pub(super) const MACROS: &[&str] = &["all", "exists", "exists_one", "filter", "map", "optFlatMap", "optMap", "sortBy"];

/// Names that only the parser writes: what the macros of the extensions expand to.
pub(super) const INTERNAL: &[(&str, Type)] = &[("@sortByAssociatedKeys", List), ("math.@max", Dyn), ("math.@min", Dyn)];

/// The types that expressions can name, as in `type(x) == string`.
pub(super) const TYPE_NAMES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "int",
    "list",
    "map",
    "null_type",
    "optional_type",
    "string",
    "type",
    "uint",
];

/// The global function of this name.
pub(super) fn find_global(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.style == Style::Global && function.name == name)
}

/// The method of this name.
pub(super) fn find_method(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| matches!(function.style, Style::Method(_)) && function.name == name)
}

/// The names of all functions of one style, the macros with the methods.
pub(super) fn names(methods: bool) -> impl Iterator<Item = &'static str> {
    let macros: &[&str] = if methods { MACROS } else { &["has", "math.greatest", "math.least"] };
    FUNCTIONS
        .iter()
        .filter(move |function| matches!(function.style, Style::Method(_)) == methods)
        .map(|function| function.name)
        .chain(macros.iter().copied())
}
