//! Values of the interpreter as JSON.

use cel::common::{
    types::{
        CelBool, CelDouble, CelDuration, CelInt, CelList, CelMap, CelNull, CelOptional, CelString, CelTimestamp,
        CelType, CelUInt,
    },
    value::Val,
};
use chrono::SecondsFormat;
use serde_json::{Map, Value as Json};

use super::{MAX_OUTPUT_BYTES, MAX_VALUE_DEPTH, quantity::Quantity};

/// Why a value has no JSON form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is larger than [`MAX_OUTPUT_BYTES`].
    TooLarge,
    /// It is nested deeper than [`MAX_VALUE_DEPTH`].
    TooDeep,
    /// JSON can't say it; with what to do.
    NoJson(&'static str),
}

/// Durations become the seconds that they last (`1.5s`), timestamps RFC 3339, an empty optional null.
pub(super) fn to_json(value: &dyn Val) -> Result<Json, Refusal> {
    convert(value, MAX_VALUE_DEPTH, &mut { MAX_OUTPUT_BYTES })
}

fn convert(value: &dyn Val, depth: usize, bytes_left: &mut usize) -> Result<Json, Refusal> {
    take(bytes_left, 4)?;
    if let Some(text) = value.downcast_ref::<CelString>() {
        take(bytes_left, text.inner().len())?;
        return Ok(text.inner().into());
    }
    if let Some(value) = value.downcast_ref::<CelBool>() {
        return Ok((*value.inner()).into());
    }
    if let Some(value) = value.downcast_ref::<CelInt>() {
        return Ok((*value.inner()).into());
    }
    if let Some(value) = value.downcast_ref::<CelUInt>() {
        return Ok((*value.inner()).into());
    }
    if let Some(value) = value.downcast_ref::<CelDouble>() {
        return serde_json::Number::from_f64(*value.inner()).map(Json::Number).ok_or(Refusal::NoJson(
            "a double that is infinite or no number has no JSON form: test it with math.isFinite() first",
        ));
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(Json::Null);
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        let depth = depth.checked_sub(1).ok_or(Refusal::TooDeep)?;
        return list
            .inner()
            .iter()
            .map(|item| convert(item.as_ref(), depth, bytes_left))
            .collect::<Result<_, _>>()
            .map(Json::Array);
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let depth = depth.checked_sub(1).ok_or(Refusal::TooDeep)?;
        // Sorted, since the interpreter's maps have no order and the same value must always give the same text.
        let mut fields = map
            .inner()
            .iter()
            .map(|(key, value)| Ok((key_text(key.inner()), convert(value.as_ref(), depth, bytes_left)?)))
            .collect::<Result<Vec<_>, _>>()?;
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, _) in &fields {
            take(bytes_left, name.len())?;
        }
        return Ok(Json::Object(Map::from_iter(fields)));
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return optional.inner().map_or(Ok(Json::Null), |inner| convert(inner, depth, bytes_left));
    }
    other(value).map(Json::String)
}

fn other(value: &dyn Val) -> Result<String, Refusal> {
    if let Some(duration) = value.downcast_ref::<CelDuration>() {
        Ok(duration_text(duration.inner().num_seconds(), duration.inner().subsec_nanos()))
    } else if let Some(time) = value.downcast_ref::<CelTimestamp>() {
        Ok(time.inner().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    } else if let Some(quantity) = value.downcast_ref::<Quantity>() {
        Ok(quantity.to_string())
    } else if let Some(type_) = value.downcast_ref::<CelType>() {
        Ok(type_.name().to_owned())
    } else {
        Err(Refusal::NoJson("bytes have no JSON form: use string(...) or base64.encode(...)"))
    }
}

/// The parts have the same sign, or are zero.
fn duration_text(seconds: i64, nanoseconds: i32) -> String {
    let sign = if seconds < 0 || nanoseconds < 0 { "-" } else { "" };
    let fraction = format!("{:09}", nanoseconds.unsigned_abs());
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{}s", seconds.unsigned_abs()),
        fraction => format!("{sign}{}.{fraction}s", seconds.unsigned_abs()),
    }
}

fn key_text(key: &dyn Val) -> String {
    if let Some(text) = key.downcast_ref::<CelString>() {
        text.inner().to_owned()
    } else if let Some(int) = key.downcast_ref::<CelInt>() {
        int.inner().to_string()
    } else if let Some(uint) = key.downcast_ref::<CelUInt>() {
        uint.inner().to_string()
    } else {
        key.downcast_ref::<CelBool>().is_some_and(|it| *it.inner()).to_string()
    }
}

fn take(left: &mut usize, bytes: usize) -> Result<(), Refusal> {
    *left = left.checked_sub(bytes).ok_or(Refusal::TooLarge)?;
    Ok(())
}
