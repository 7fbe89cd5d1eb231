//! A budget of work for one evaluation, since the interpreter has none.
//!
//! Parsed expressions are rewritten so that whatever can make work grow with the data goes through a function that
//! charges for it: what a loop iterates over, what is copied into lists and maps, what is computed inside of loops.
//! The budget is the thread's for the time of one evaluation, so the same expression on the same values always costs
//! the same.

use std::cell::Cell;

use cel::{
    ExecutionError,
    common::{
        ast::{CallExpr, EntryExpr, Expr, IdedExpr, operators},
        types::{CelBool, CelBytes, CelInt, CelList, CelMap, CelOptional, CelString, CelUInt},
        value::{CowVal, Val},
    },
};

use super::{MAX_COST, check::qualified_name, environment::BOUNDED, explain::is_operator, functions};

/// Charges for the size of a value, and hands it back.
pub(super) const CHARGE: &str = "@charge";
/// Charges for iterating over a value, and hands it back.
pub(super) const CHARGE_LOOP: &str = "@charge_loop";
/// Charges for reading a text or all elements of a list, and hands it back.
pub(super) const CHARGE_READ: &str = "@charge_read";
/// Charges for reading a text, and hands it back.
pub(super) const CHARGE_TEXT: &str = "@charge_text";

/// Bytes that cost as much as one value.
const BYTES_PER_UNIT: usize = 64;
/// What one turn of a loop costs, beside the size of the element.
const TURN: u64 = 10;
/// What compiling a regular expression costs.
pub(super) const REGEX: u64 = 2_000;

/// Operators that look at both sides.
const COMPARISONS: &[&str] = &[
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
];

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    static EXHAUSTED: Cell<bool> = const { Cell::new(false) };
}

/// Fills the thread's budget.
pub(super) fn start() {
    LEFT.set(MAX_COST);
    EXHAUSTED.set(false);
}

/// Whether the budget has been used up since [`start`].
pub(super) fn is_exhausted() -> bool {
    EXHAUSTED.get()
}

pub(super) fn spend(units: u64) -> Result<(), ExecutionError> {
    if let Some(left) = LEFT.get().checked_sub(units) {
        LEFT.set(left);
        return Ok(());
    }
    LEFT.set(0);
    EXHAUSTED.set(true);
    Err(ExecutionError::function_error(CHARGE, "the budget is used up"))
}

pub(super) fn spend_bytes(bytes: usize) -> Result<(), ExecutionError> {
    spend(units(bytes / BYTES_PER_UNIT + 1))
}

fn units(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

pub(super) fn charge<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    spend_size(value.as_ref())?;
    Ok(value)
}

pub(super) fn charge_read<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    spend(arguments.first().map_or(0, |value| elements(value.as_ref())))?;
    charge_text(arguments)
}

pub(super) fn charge_text<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let text = value.downcast_ref::<CelString>().map(|text| text.inner().len());
    let bytes = value.downcast_ref::<CelBytes>().map(|bytes| bytes.inner().len());
    spend_bytes(text.or(bytes).unwrap_or_default())?;
    Ok(value)
}

/// A loop over a map takes its keys. The interpreter's maps have no order, so the keys are handed to it sorted: the same
/// expression on the same values must give the same.
pub(super) fn charge_loop<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    if let Some(map) = value.downcast_ref::<CelMap>() {
        spend(units(map.inner().len()).saturating_mul(TURN))?;
        let mut keys: Vec<Box<dyn Val + 'v>> = map.inner().keys().map(|key| key.inner().clone_as_boxed()).collect();
        keys.sort_by_cached_key(|key| (key.get_type().name().to_owned(), key_order(key.as_ref())));
        return Ok(CowVal::owned(CelList::from(keys)));
    }
    spend(elements(value.as_ref()).saturating_mul(TURN))?;
    spend_size(value.as_ref())?;
    Ok(value)
}

/// How many elements a list has; 0 for all else.
fn elements(value: &dyn Val) -> u64 {
    units(value.downcast_ref::<CelList>().map_or(0, |list| list.inner().len()))
}

/// Orders keys of one type.
fn key_order(key: &dyn Val) -> (i128, String) {
    if let Some(text) = key.downcast_ref::<CelString>() {
        (0, text.inner().to_owned())
    } else if let Some(int) = key.downcast_ref::<CelInt>() {
        (i128::from(*int.inner()), String::new())
    } else if let Some(uint) = key.downcast_ref::<CelUInt>() {
        (i128::from(*uint.inner()), String::new())
    } else {
        (key.downcast_ref::<CelBool>().map_or(0, |it| i128::from(*it.inner())), String::new())
    }
}

/// Spends as it walks, so that a walk never takes longer than the budget lasts.
fn spend_size(value: &dyn Val) -> Result<(), ExecutionError> {
    if let Some(list) = value.downcast_ref::<CelList>() {
        spend(1)?;
        list.inner().iter().try_for_each(|element| spend_size(element.as_ref()))
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        spend(1)?;
        map.inner().iter().try_for_each(|(key, value)| {
            spend_size(key.inner())?;
            spend_size(value.as_ref())
        })
    } else if let Some(text) = value.downcast_ref::<CelString>() {
        spend_bytes(text.inner().len())
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        spend_bytes(bytes.inner().len())
    } else if let Some(inner) = value.downcast_ref::<CelOptional>().and_then(CelOptional::inner) {
        spend_size(inner)
    } else {
        spend(1)
    }
}

/// Rewrites an expression so that it pays for its work.
pub(super) fn install(expr: &mut IdedExpr) {
    rewrite(expr, false);
}

fn wrap(expr: &mut IdedExpr, function: &str) {
    if matches!(expr.expr, Expr::Literal(_)) {
        return;
    }
    let inner = std::mem::take(expr);
    *expr = IdedExpr {
        id: inner.id,
        expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args: vec![inner] }),
    };
}

/// The expression inside of what [`install`] put around it.
pub(super) fn unwrapped(expr: &IdedExpr) -> &IdedExpr {
    match &expr.expr {
        Expr::Call(CallExpr { func_name, target: None, args }) if func_name == CHARGE_TEXT => {
            args.first().map_or(expr, unwrapped)
        }
        _ => expr,
    }
}

fn rewrite(expr: &mut IdedExpr, looped: bool) {
    match &mut expr.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => rewrite(&mut select.operand, looped),
        Expr::List(list) => list.elements.iter_mut().for_each(|element| copied(element, looped)),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| rewrite_entry(&mut entry.expr, looped)),
        Expr::Struct(made) => made.entries.iter_mut().for_each(|entry| rewrite_entry(&mut entry.expr, looped)),
        Expr::Comprehension(made) => {
            // An empty list is how macros write a variable that is bound once.
            let is_binding = matches!(&made.iter_range.expr, Expr::List(list) if list.elements.is_empty());
            rewrite(&mut made.iter_range, looped);
            if !is_binding {
                wrap(&mut made.iter_range, CHARGE_LOOP);
            }
            // The accumulator is written by the macros; only a binding's is the user's. Empty lists must stay as they
            // are: by them the interpreter knows map and filter, which it then runs without copying.
            copied_unless_empty(&mut made.accu_init, looped);
            // Errors of a step are kept until the loop ends, in case a later turn decides; those of this end it.
            copied(&mut made.loop_cond, true);
            rewrite_step(&mut made.loop_step, &made.accu_var);
            rewrite(&mut made.result, looped);
        }
        Expr::Call(_) => rewrite_call(expr, looped),
    }
}

fn copied(expr: &mut IdedExpr, looped: bool) {
    rewrite(expr, looped);
    wrap(expr, CHARGE);
}

fn copied_unless_empty(expr: &mut IdedExpr, looped: bool) {
    if !matches!(&expr.expr, Expr::List(list) if list.elements.is_empty()) {
        copied(expr, looped);
    }
}

fn rewrite_entry(entry: &mut EntryExpr, looped: bool) {
    match entry {
        EntryExpr::StructField(field) => copied(&mut field.value, looped),
        EntryExpr::MapEntry(entry) => {
            copied(&mut entry.key, looped);
            copied(&mut entry.value, looped);
        }
    }
}

/// The step of a loop keeps the shape by which the interpreter recognizes map and filter.
fn rewrite_step(step: &mut IdedExpr, accumulator: &str) {
    let is_accumulator = |expr: &IdedExpr| matches!(&expr.expr, Expr::Ident(name) if name == accumulator);
    match &mut step.expr {
        Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::CONDITIONAL => {
            if let [condition, branches @ ..] = args.as_mut_slice() {
                rewrite(condition, true);
                for branch in branches {
                    rewrite_step(branch, accumulator);
                }
            }
        }
        Expr::Call(CallExpr { target: None, args, .. }) if args.first().is_some_and(is_accumulator) => {
            for argument in args {
                rewrite(argument, true);
            }
        }
        _ => rewrite(step, true),
    }
}

fn rewrite_call(expr: &mut IdedExpr, looped: bool) {
    let Expr::Call(call) = &mut expr.expr else { return };
    if let Some(target) = &mut call.target {
        rewrite(target, looped);
    }
    call.args.iter_mut().for_each(|argument| rewrite(argument, looped));
    if let Some((_, bounded)) = BOUNDED.iter().find(|(name, _)| *name == call.func_name) {
        (*bounded).clone_into(&mut call.func_name);
    }
    if !looped {
        return;
    }
    let name = call.func_name.as_str();
    if COMPARISONS.contains(&name) {
        let [left, right] = call.args.as_mut_slice() else { return };
        // Comparing takes as long as the smaller side; searching as long as the right one.
        let is_simple = matches!(left.expr, Expr::Literal(_)) && name != operators::IN;
        if !is_simple {
            wrap(right, CHARGE);
        }
    } else if [operators::INDEX, operators::OPT_INDEX].contains(&name) {
        call.args.iter_mut().skip(1).for_each(|key| wrap(key, CHARGE_TEXT));
    } else if name == operators::ADD {
        wrap(expr, CHARGE);
    } else if !is_operator(name) {
        // The size of a list is known.
        let read = if name == "size" { CHARGE_TEXT } else { CHARGE_READ };
        let receiver = call.target.as_deref_mut().filter(|target| !is_namespace(target, name));
        receiver.into_iter().chain(&mut call.args).for_each(|value| wrap(value, read));
        wrap(expr, CHARGE);
    }
}

/// Whether `target.name()` is a function of a namespace, such as `math.abs`.
fn is_namespace(target: &IdedExpr, name: &str) -> bool {
    qualified_name(target).is_some_and(|target| functions::find_global(&format!("{target}.{name}")).is_some())
}
