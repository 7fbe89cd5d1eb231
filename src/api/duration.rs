//! Durations as Kubernetes' Gateway API writes them: `1h30m`, `250ms`.

use std::{borrow::Cow, fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The pattern that the schema enforces and [`FromStr`] accepts (GEP-2257).
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// A length of time, written like `1h30m`, `90s` or `250ms`; milliseconds are the finest unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(time::Duration::ZERO);

    /// So many whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }

    /// As the standard library's type.
    pub const fn as_std(self) -> time::Duration {
        self.0
    }

    /// As chrono's type. The pattern bounds a duration to about 45 years, so it always fits.
    pub fn as_chrono(self) -> chrono::TimeDelta {
        chrono::TimeDelta::from_std(self.0).unwrap_or(chrono::TimeDelta::MAX)
    }

    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

/// What was written is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write hours, minutes, seconds or milliseconds such as 1h30m, 90s or 250ms")]
pub struct DurationError(String);

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DurationError(text.chars().take(40).collect());
        let mut rest = text;
        let mut total = time::Duration::ZERO;
        for _ in 0..4 {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 || digits > 5 {
                return Err(error());
            }
            let count: u64 = rest[..digits].parse().map_err(|_| error())?;
            let unit_and_rest = &rest[digits..];
            let (millis, unit) = match unit_and_rest.as_bytes() {
                [b'm', b's', ..] => (1, 2),
                [b'h', ..] => (3_600_000, 1),
                [b'm', ..] => (60_000, 1),
                [b's', ..] => (1_000, 1),
                _ => return Err(error()),
            };
            total += time::Duration::from_millis(count * millis);
            rest = &unit_and_rest[unit..];
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
        Err(error())
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0s");
        }
        let millis = self.0.as_millis();
        for (value, unit) in
            [(millis / 3_600_000, "h"), (millis / 60_000 % 60, "m"), (millis / 1_000 % 60, "s"), (millis % 1_000, "ms")]
        {
            if value > 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 32})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_pattern_allows_and_writes_it_back() {
        for (text, millis, written) in [
            ("1h30m", 5_400_000, "1h30m"),
            ("90s", 90_000, "1m30s"),
            ("250ms", 250, "250ms"),
            ("0s", 0, "0s"),
            ("168h", 604_800_000, "168h"),
            ("1m1s1ms", 61_001, "1m1s1ms"),
        ] {
            let parsed: Duration = text.parse().unwrap();
            assert_eq!(parsed, Duration::from_millis(millis), "{text}");
            assert_eq!(parsed.to_string(), written);
            assert_eq!(parsed.to_string().parse::<Duration>().unwrap(), parsed);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "5", "s", "-1s", "1d", "1.5h", "1h 2m", "100000s", "1h1h1h1h1h", "５s"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
