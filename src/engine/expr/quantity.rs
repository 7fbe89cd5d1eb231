//! Kubernetes quantities, `500m`, `1Gi`, `2e3`, with the functions that Kubernetes' own CEL has for them.
//!
//! Grammar and suffixes: `k8s.io/apimachinery/pkg/api/resource`. Values are exact to a billionth, as there.

#![expect(clippy::needless_pass_by_value, reason = "the interpreter hands arguments over by value")]

use std::{any::Any, fmt, sync::LazyLock};

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{CelBool, CelDouble, CelInt, CelString, STRING_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

use super::environment::failed;

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

static TYPE: LazyLock<Type> = LazyLock::new(|| Type::new_unspecified_type("kubernetes.Quantity"));

/// An exact number of billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(i128);

impl Quantity {
    /// Reads a quantity as Kubernetes does. What is finer than a billionth is rounded up, away from zero.
    ///
    /// None: it is not a quantity, or too large to keep.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits_end = text
            .char_indices()
            .find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || *at == 0 && matches!(c, '+' | '-')))
            .map_or(text.len(), |(at, _)| at);
        let (number, suffix) = text.split_at(digits_end);
        let negative = number.starts_with('-');
        let number = number.trim_start_matches(['+', '-']);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() + fraction.len() > 36 {
            return None;
        }
        let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let places = i32::try_from(fraction.len()).ok()?;
        let scaled = if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            scale(digits.checked_mul(1_i128.checked_shl(*shift)?)?, 9 - places)?
        } else {
            let exponent = match DECIMAL.iter().find(|(name, _)| *name == suffix) {
                Some((_, exponent)) => *exponent,
                None if suffix.is_empty() => 0,
                None => suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?.into(),
            };
            scale(digits, 9 + exponent - places)?
        };
        Some(Self(if negative { -scaled } else { scaled }))
    }

    fn as_integer(self) -> Option<i64> {
        (self.0 % NANO == 0).then(|| i64::try_from(self.0 / NANO).ok()).flatten()
    }

    #[allow(clippy::cast_precision_loss, reason = "the function promises an approximation")]
    fn as_double(self) -> f64 {
        self.0 as f64 / NANO as f64
    }
}

/// `digits * 10^exponent`, rounded away from zero.
fn scale(digits: i128, exponent: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        return if digits == 0 { Some(0) } else { digits.checked_mul(power?) };
    }
    // A power too large to keep makes the result a fraction of the last place.
    let Some(power) = power else { return Some(i128::from(digits > 0)) };
    Some(digits / power + i128::from(digits % power > 0))
}

impl fmt::Display for Quantity {
    /// As a plain decimal number, which is a quantity again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, fraction) =
            (self.0.unsigned_abs() / NANO.unsigned_abs(), self.0.unsigned_abs() % NANO.unsigned_abs());
        if fraction == 0 {
            write!(f, "{sign}{whole}")
        } else {
            write!(f, "{sign}{whole}.{}", format!("{fraction:09}").trim_end_matches('0'))
        }
    }
}

impl Val for Quantity {
    fn get_type(&self) -> &Type {
        &TYPE
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Quantity>() == Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Quantity {}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let this = || TYPE.to_owned();
    env.add_overload("quantity", "quantity", vec![STRING_TYPE], quantity)?;
    env.add_overload("isQuantity", "is_quantity", vec![STRING_TYPE], |arguments| {
        Ok(CowVal::owned(CelBool::from(text(&arguments).and_then(Quantity::parse).is_some())))
    })?;
    env.add_member_overload("compareTo", "quantity_compare", this(), vec![this()], |arguments| {
        let (a, b) = pair(&arguments)?;
        Ok(CowVal::owned(CelInt::from(a.cmp(&b) as i64)))
    })?;
    env.add_member_overload("isGreaterThan", "quantity_greater", this(), vec![this()], |arguments| {
        let (a, b) = pair(&arguments)?;
        Ok(CowVal::owned(CelBool::from(a > b)))
    })?;
    env.add_member_overload("isLessThan", "quantity_less", this(), vec![this()], |arguments| {
        let (a, b) = pair(&arguments)?;
        Ok(CowVal::owned(CelBool::from(a < b)))
    })?;
    env.add_member_overload("add", "quantity_add", this(), vec![this()], |arguments| {
        let (a, b) = pair(&arguments)?;
        a.0.checked_add(b.0)
            .map(|sum| CowVal::owned(Quantity(sum)))
            .ok_or_else(|| failed("add", "the sum is too large"))
    })?;
    env.add_member_overload("sub", "quantity_sub", this(), vec![this()], |arguments| {
        let (a, b) = pair(&arguments)?;
        a.0.checked_sub(b.0)
            .map(|difference| CowVal::owned(Quantity(difference)))
            .ok_or_else(|| failed("sub", "the difference is too large"))
    })?;
    env.add_member_overload("sign", "quantity_sign", this(), vec![], |arguments| {
        let sign = receiver(&arguments)?.0.signum();
        Ok(CowVal::owned(CelInt::from(i64::try_from(sign).unwrap_or_default())))
    })?;
    env.add_member_overload("isInteger", "quantity_is_integer", this(), vec![], |arguments| {
        Ok(CowVal::owned(CelBool::from(receiver(&arguments)?.as_integer().is_some())))
    })?;
    env.add_member_overload("asInteger", "quantity_integer", this(), vec![], |arguments| {
        let quantity = receiver(&arguments)?;
        quantity
            .as_integer()
            .map(|number| CowVal::owned(CelInt::from(number)))
            .ok_or_else(|| failed("asInteger", format!("{quantity} is not an int: use asApproximateFloat()")))
    })?;
    env.add_member_overload("asApproximateFloat", "quantity_float", this(), vec![], |arguments| {
        Ok(CowVal::owned(CelDouble::from(receiver(&arguments)?.as_double())))
    })?;
    Ok(())
}

fn quantity<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = text(&arguments).ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let quantity = Quantity::parse(text).ok_or_else(|| {
        failed("quantity", format!("`{}` is not a quantity: write a number with one of n u m k M G T P E Ki Mi Gi Ti Pi Ei, such as 500m or 1Gi", super::error::Quoted::new(text)))
    })?;
    Ok(CowVal::owned(quantity))
}

fn text<'a>(arguments: &'a [CowVal<'_, '_>]) -> Option<&'a str> {
    arguments.first().and_then(|value| value.downcast_ref::<CelString>()).map(CelString::inner)
}

fn receiver(arguments: &[CowVal<'_, '_>]) -> Result<Quantity, ExecutionError> {
    arguments
        .first()
        .and_then(|value| value.downcast_ref::<Quantity>())
        .copied()
        .ok_or(ExecutionError::MissingArgumentOrTarget)
}

fn pair(arguments: &[CowVal<'_, '_>]) -> Result<(Quantity, Quantity), ExecutionError> {
    let other = arguments.get(1).and_then(|value| value.downcast_ref::<Quantity>()).copied();
    Ok((receiver(arguments)?, other.ok_or(ExecutionError::MissingArgumentOrTarget)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, value, why) in [
            ("1", Some("1"), "a plain number"),
            ("500m", Some("0.5"), "thousandths"),
            ("1Ki", Some("1024"), "binary suffixes"),
            ("1.5Gi", Some("1610612736"), "a fraction of a binary unit"),
            ("2e3", Some("2000"), "an exponent"),
            ("2E", Some("2000000000000000000"), "E alone is exa"),
            ("-3k", Some("-3000"), "a sign"),
            (".5", Some("0.5"), "no digits before the point"),
            ("1n", Some("0.000000001"), "the finest unit"),
            ("0.1n", Some("0.000000001"), "finer is rounded up"),
            ("", None, "nothing is no quantity"),
            ("Gi", None, "a suffix needs a number"),
            ("1.2.3", None, "two points"),
            ("1gi", None, "suffixes have a case"),
            ("5u", Some("0.000005"), "millionths"),
            ("0.25M", Some("250000"), "a fraction of a decimal unit"),
            ("7G", Some("7000000000"), "billions"),
            ("1e-3", Some("0.001"), "a negative exponent"),
            ("10e-10", Some("0.000000001"), "what is exact is not rounded"),
            ("-1.5n", Some("-0.000000002"), "rounding is away from zero"),
            ("1e-60", Some("0.000000001"), "however little there is"),
            ("0e-60", Some("0"), "but nothing stays nothing"),
            ("0e60", Some("0"), "of any unit"),
            ("--1", None, "two signs"),
            ("+-1", None, "of either kind"),
            ("1-2", None, "a sign inside"),
            ("000000000000000000000000000000000001", Some("1"), "36 digits are read"),
            ("0000000000000000000000000000000000001", None, "more are not"),
            ("12345678.12345678", Some("12345678.12345678"), "digits on both sides"),
            ("99999999999999999999999999999999E", None, "too large to keep"),
            ("1e999", None, "an absurd exponent"),
        ] {
            assert_eq!(Quantity::parse(text).map(|it| it.to_string()), value.map(str::to_owned), "{text}: {why}");
        }
    }
}
