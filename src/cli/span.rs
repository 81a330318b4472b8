//! Durations as people write them, on the command line and in variables: `7d`, `1h 30m`, `20s`. A plain number is taken
//! as well. A day has 24 hours.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// Why a text is no duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    #[error("not a duration: write one such as 500ms, 20s, 90m, 1h 30m, 7d or 2w, or a plain number of {0}")]
    Unreadable(&'static str),
    #[error("months and years differ in length: write days, such as 30d")]
    NoFixedLength,
    #[error("a duration is not negative")]
    Negative,
    #[error("write whole seconds")]
    Fraction,
    #[error("must be at least 1s")]
    Zero,
}

/// Whole seconds; a plain number is seconds.
pub fn seconds(text: &str) -> Result<i64, SpanError> {
    let duration = parse(text, "seconds", SignedDuration::from_secs)?;
    if duration.subsec_nanos() == 0 { Ok(duration.as_secs()) } else { Err(SpanError::Fraction) }
}

/// Whole seconds where 0 has no meaning.
pub fn some_seconds(text: &str) -> Result<i64, SpanError> {
    seconds(text).and_then(|seconds| if seconds > 0 { Ok(seconds) } else { Err(SpanError::Zero) })
}

/// A plain number is seconds.
pub fn duration(text: &str) -> Result<Duration, SpanError> {
    Ok(parse(text, "seconds", SignedDuration::from_secs)?.unsigned_abs())
}

/// A plain number is milliseconds.
pub fn duration_or_millis(text: &str) -> Result<Duration, SpanError> {
    Ok(parse(text, "milliseconds", SignedDuration::from_millis)?.unsigned_abs())
}

fn parse(text: &str, unit: &'static str, plain: fn(i64) -> SignedDuration) -> Result<SignedDuration, SpanError> {
    let text = text.trim();
    let duration = if let Ok(number) = text.parse() {
        plain(number)
    } else {
        let span: Span = text.parse().map_err(|_| SpanError::Unreadable(unit))?;
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(SpanError::NoFixedLength);
        }
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| SpanError::Unreadable(unit))?
    };
    if duration.is_negative() { Err(SpanError::Negative) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;
    use crate::lifecycle::{RETRY_WAITS, UPLOAD_LIMIT};

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, wanted) in [
            ("0", 0),
            ("0s", 0),
            ("604800", 604_800),
            (" 20s ", 20),
            ("90m", 5_400),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("1.5h", 5_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1 day, 2 hours", 93_600),
            ("P1DT2H", 93_600),
            ("1000ms", 1),
        ] {
            assert_eq!(seconds(text), Ok(wanted), "{text}");
        }
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("75"), Ok(Duration::from_secs(75)));
        assert_eq!(duration_or_millis("500"), Ok(Duration::from_millis(500)));
        assert_eq!(duration_or_millis("20s"), Ok(Duration::from_secs(20)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_is_taken() {
        for (text, wanted) in [
            ("", SpanError::Unreadable("seconds")),
            ("soon", SpanError::Unreadable("seconds")),
            ("7x", SpanError::Unreadable("seconds")),
            ("1.5", SpanError::Unreadable("seconds")),
            ("99999999999999999999", SpanError::Unreadable("seconds")),
            ("1mo", SpanError::NoFixedLength),
            ("1 year", SpanError::NoFixedLength),
            ("-5", SpanError::Negative),
            ("2h ago", SpanError::Negative),
            ("500ms", SpanError::Fraction),
        ] {
            assert_eq!(seconds(text), Err(wanted), "{text}");
        }
        assert_eq!(some_seconds("0s"), Err(SpanError::Zero));
        assert_eq!(some_seconds("1s"), Ok(1));
        let said = seconds("soon").map_err(|why| why.to_string());
        let wanted =
            "not a duration: write one such as 500ms, 20s, 90m, 1h 30m, 7d or 2w, or a plain number of seconds";
        assert_eq!(said, Err(wanted.into()));
    }

    #[test]
    fn a_flag_takes_durations_and_says_so_when_it_is_given_none() {
        let logs = |since: &str| Cli::try_parse_from(["tenant-operator", "logs", "acme", "--since", since]);
        assert!(logs("2h").is_ok() && logs("7200").is_ok());
        let said = logs("soon").err().map(|why| why.to_string()).unwrap_or_default();
        assert!(
            said.contains("invalid value 'soon' for '--since <SINCE>': not a duration: write one such as"),
            "{said}"
        );
    }

    /// The help shows them as text, so they stand there once more. Controller and web must agree on the limit of
    /// uploads.
    #[test]
    fn defaults_that_help_shows_are_those_of_the_policy() {
        let mut cli = Cli::command();
        cli.build();
        for (part, flag, wanted) in [
            ("controller", "upload_limit", &[UPLOAD_LIMIT][..]),
            ("web", "upload_limit", &[UPLOAD_LIMIT]),
            ("controller", "retry_waits", &RETRY_WAITS),
        ] {
            let command = cli.find_subcommand(part).expect("a command");
            let flag = command.get_arguments().find(|a| a.get_id() == flag).expect("a flag");
            let default = flag.get_default_values().first().and_then(|value| value.to_str()).expect("a default");
            let default: Result<Vec<_>, _> = default.split(',').map(seconds).collect();
            assert_eq!(default.as_deref(), Ok(wanted), "{part}: {}", flag.get_id());
        }
    }
}
