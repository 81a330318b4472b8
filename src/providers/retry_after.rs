//! How long a provider asks to wait.
//!
//! `Retry-After` is a number of seconds or a date (RFC 9110, 10.2.3). `OpenAI` also sends fractions of seconds, and
//! `retry-after-ms`, which its own SDK reads first.

use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::api::Timestamp;

/// A longer wait is cut to this one: a provider that names next year must not park a tenant until then.
const LONGEST: Duration = Duration::from_hours(1);

/// The wait that the headers of an answer ask for.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let milliseconds = text("retry-after-ms").and_then(number).map(|ms| ms / 1000.0);
    let seconds = milliseconds.or_else(|| {
        let wish = text("retry-after")?;
        number(wish).or_else(|| until(wish, text("date")))
    })?;
    Some(Duration::try_from_secs_f64(seconds).map_or(LONGEST, |wait| wait.min(LONGEST)))
}

/// A number that is not negative. `inf` and `NaN` parse as numbers in Rust, and are none here.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

/// Seconds until a date; 0 when it is past. The provider's own clock counts where the answer carries it: this machine's
/// may be wrong.
fn until(date: &str, now: Option<&str>) -> Option<f64> {
    let then = Timestamp::from_http_date(date)?;
    let now = now.and_then(Timestamp::from_http_date).unwrap_or_else(Timestamp::now);
    u32::try_from(then.since(now).max(0)).ok().map(f64::from).or(Some(f64::MAX))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    const NOON: &str = "Fri, 15 Jan 2027 12:00:00 GMT";

    fn wait(headers: &[(&'static str, &'static str)]) -> Option<Duration> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        retry_after(&headers.iter().map(pair).collect())
    }

    #[test]
    fn seconds_fractions_milliseconds_and_dates_are_read() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(wait(&[("retry-after", "7")]), ms(7000));
        assert_eq!(wait(&[("retry-after", " 0 ")]), ms(0));
        assert_eq!(wait(&[("retry-after", "0.25")]), ms(250));
        assert_eq!(wait(&[("retry-after-ms", "1500")]), ms(1500));
        assert_eq!(wait(&[("retry-after-ms", "1500"), ("retry-after", "2")]), ms(1500), "the finer one");
        assert_eq!(wait(&[("retry-after-ms", "soon"), ("retry-after", "2")]), ms(2000));
        assert_eq!(wait(&[("retry-after", "Fri, 15 Jan 2027 12:00:30 GMT"), ("date", NOON)]), ms(30_000));
        assert_eq!(wait(&[("retry-after", NOON), ("date", "Fri, 15 Jan 2027 12:00:30 GMT")]), ms(0), "past");
    }

    #[test]
    fn nonsense_is_no_wish_and_no_wish_is_longer_than_an_hour() {
        for nonsense in ["", "soon", "-1", "NaN", "inf"] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense:?}");
        }
        for long in ["86400", "1e300", "Fri, 15 Jan 2466 12:00:00 GMT"] {
            assert_eq!(wait(&[("retry-after", long), ("date", NOON)]), Some(LONGEST), "{long}");
        }
        let ahead = Timestamp::from_http_date("Fri, 15 Jan 2466 12:00:00 GMT").expect("a date");
        assert!(ahead.since(Timestamp::now()) > 3600);
        assert_eq!(wait(&[("retry-after", "Fri, 15 Jan 2466 12:00:00 GMT")]), Some(LONGEST), "by this machine's clock");
    }
}
