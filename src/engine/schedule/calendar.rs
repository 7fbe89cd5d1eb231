//! A cron expression in a time zone: which ticks there are.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

use super::super::text;

/// Names for whole expressions, beside those that the parser knows.
const MIDNIGHT: (&str, &str) = ("@midnight", "0 0 * * *");
/// All names for whole expressions.
const NAMES: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// A schedule can't be worked by; the text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CalendarError(String);

/// The ticks of a schedule.
///
/// At a change of the clocks it is as with Vixie cron: where minute and hour are fixed, a tick that falls into the gap comes at its end,
/// and one in the repeated hour comes once, in the first of them; where they are not, ticks follow the clock on the wall.
#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    zone: Tz,
    text: String,
}

impl Calendar {
    /// Reads a cron expression and an IANA time zone (default UTC).
    ///
    /// Errors: which of them can't be read, and how it is written.
    pub fn parse(schedule: &str, zone: Option<&str>) -> Result<Self, CalendarError> {
        let shown = text::cut(schedule, 64);
        let wrong = |what: &str| CalendarError(format!("spec.schedule: `{shown}` {what}"));
        let written = schedule.trim();
        if written.contains("TZ=") {
            return Err(wrong("names a time zone: set spec.timeZone instead"));
        }
        let pattern = if let Some(name) = written.strip_prefix('@') {
            let known = NAMES.iter().find(|it| it[1..].eq_ignore_ascii_case(name));
            let known = known.ok_or_else(|| wrong(&format!("is none of {}", NAMES.join(", "))))?;
            if *known == MIDNIGHT.0 { MIDNIGHT.1 } else { known }
        } else {
            let fields = written.split_whitespace().count();
            if fields != 5 {
                let problem =
                    format!("has {fields} fields: write five, minute, hour, day of month, month and day of week");
                return Err(wrong(&problem));
            }
            written
        };
        // CronJobs accept `5/15` for `5-59/15`.
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).sloppy_ranges(true).build();
        let cron = parser.parse(pattern).map_err(|error| wrong(&format!("can't be read: {error}")))?;
        let name = zone.unwrap_or("Etc/UTC");
        let zone = name.parse().map_err(|_| {
            let name = text::cut(name, 64);
            CalendarError(format!(
                "spec.timeZone: `{name}` is no IANA time zone: write one such as Europe/Berlin or Etc/UTC"
            ))
        })?;
        Ok(Self { cron, zone, text: format!("{written} {name}") })
    }

    /// What was read: another text is another calendar.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The last tick that is not after that time, if there was one.
    pub fn last(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let found = self.cron.find_previous_occurrence(&now.with_timezone(&self.zone), true).ok()?;
        Some(found.with_timezone(&Utc)).filter(|tick| *tick <= now)
    }

    /// The first tick after that time, if there will be one.
    pub fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let found = self.cron.find_next_occurrence(&now.with_timezone(&self.zone), false).ok()?;
        Some(found.with_timezone(&Utc)).filter(|tick| *tick > now)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn calendar(schedule: &str, zone: &str) -> Calendar {
        Calendar::parse(schedule, Some(zone)).unwrap()
    }

    /// Every tick after `from`, up to `to`.
    fn ticks(calendar: &Calendar, from: &str, to: &str) -> Vec<String> {
        let mut now = at(from);
        let mut found = Vec::new();
        while let Some(tick) = calendar.next(now).filter(|tick| *tick <= at(to)) {
            found.push(tick.format("%dT%H:%M").to_string());
            now = tick;
        }
        found
    }

    #[test]
    fn what_cron_jobs_accept_is_accepted() {
        let now = at("2026-11-26T09:42:26Z");
        for (schedule, next) in [
            ("@hourly", "2026-11-26T10:00:00Z"),
            ("@midnight", "2026-11-27T00:00:00Z"),
            ("@Daily", "2026-11-27T00:00:00Z"),
            ("@weekly", "2026-11-29T00:00:00Z"),
            ("@yearly", "2027-01-01T00:00:00Z"),
            ("*/15 * * * *", "2026-11-26T09:45:00Z"),
            ("5/15 * * * *", "2026-11-26T09:50:00Z"),
            ("0 22 * * 1-5", "2026-11-26T22:00:00Z"),
            ("0 22 * DEC sun", "2026-12-06T22:00:00Z"),
            ("0 0 13 * 5", "2026-11-27T00:00:00Z"),
            ("0 0 ? * 7", "2026-11-29T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ] {
            let calendar = Calendar::parse(schedule, None).unwrap_or_else(|error| panic!("{schedule}: {error}"));
            assert_eq!(calendar.next(now), Some(at(next)), "{schedule}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        for (schedule, zone, told) in [
            ("0 2 * *", None, "has 4 fields: write five"),
            ("0 0 2 * * *", None, "has 6 fields"),
            ("", None, "has 0 fields"),
            ("61 * * * *", None, "can't be read"),
            ("a b c d e", None, "can't be read"),
            ("@every 1h", None, "is none of @yearly"),
            ("@often", None, "is none of @yearly"),
            ("TZ=Europe/Berlin 0 2 * * *", None, "set spec.timeZone"),
            ("0 2 * * *", Some("Local"), "`Local` is no IANA time zone"),
            ("0 2 * * *", Some("Europe/Berln"), "such as Europe/Berlin"),
        ] {
            let error = Calendar::parse(schedule, zone).unwrap_err().to_string();
            assert!(error.contains(told), "{schedule}: {error}");
        }
    }

    #[test]
    fn ticks_are_told_in_the_zone() {
        let berlin = calendar("0 2 * * *", "Europe/Berlin");
        assert_eq!(berlin.next(at("2026-11-26T09:00:00Z")), Some(at("2026-11-27T01:00:00Z")));
        assert_eq!(berlin.next(at("2026-07-01T09:00:00Z")), Some(at("2026-07-02T00:00:00Z")));
        assert_eq!(berlin.last(at("2026-11-26T01:00:00Z")), Some(at("2026-11-26T01:00:00Z")), "now counts");
        assert_eq!(berlin.last(at("2026-11-26T00:59:59Z")), Some(at("2026-11-25T01:00:00Z")));
    }

    #[test]
    fn a_fixed_time_comes_once_a_day_whatever_the_clocks_do() {
        let half_past_two = calendar("30 2 * * *", "Europe/Berlin");
        // From 02:00 to 03:00 there is nothing on 29 March 2026: the tick comes at 03:00, which is 01:00 in UTC.
        let spring = ticks(&half_past_two, "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z");
        assert_eq!(spring, ["28T01:30", "29T01:00", "30T00:30"]);
        // From 02:00 to 03:00 there are two hours on 25 October 2026.
        let autumn = ticks(&half_past_two, "2026-10-23T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(autumn, ["24T00:30", "25T00:30", "26T01:30"]);
        // In the second of the two hours the next one is that of the next day, and the last one was in the first.
        let second = at("2026-10-25T01:10:00Z");
        assert_eq!(half_past_two.next(second), Some(at("2026-10-26T01:30:00Z")));
        assert_eq!(half_past_two.last(second), Some(at("2026-10-25T00:30:00Z")));
        let hourly = ticks(&calendar("@hourly", "Europe/Berlin"), "2026-10-24T23:30:00Z", "2026-10-25T02:30:00Z");
        assert_eq!(hourly, ["25T00:00", "25T01:00", "25T02:00"], "each hour, also the one that comes twice");
    }

    proptest! {
        /// The tick before now is the one that was next before it: looking back misses nothing, at changes of the clocks neither.
        #[test]
        fn looking_back_finds_what_looking_ahead_does(
            schedule in prop::sample::select(vec!["30 2 * * *", "0 * * * *", "*/20 1-3 * * *", "0 0 * * *", "15 3 * * 0"]),
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Etc/UTC", "Asia/Kolkata"]),
            start in 1_773_000_000_i64..1_805_000_000,
        ) {
            let calendar = calendar(schedule, zone);
            let start = DateTime::from_timestamp(start, 0).unwrap();
            let tick = calendar.next(start).unwrap();
            let following = calendar.next(tick).unwrap();
            prop_assert!(following > tick);
            prop_assert_eq!(calendar.last(tick), Some(tick));
            prop_assert_eq!(calendar.last(following - TimeDelta::seconds(1)), Some(tick));
        }
    }
}
