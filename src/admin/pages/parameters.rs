//! The parameters of a page's address. What a page does not take is refused, not passed over: the page would show
//! something else than what was asked for.

use crate::admin::figures::{DAYS, MOST_DAYS};
use crate::plain::plain;

/// The longest text that a message repeats, in characters.
const REPEATED: usize = 40;

/// A parameter that a page does not take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}.")]
pub struct ParameterError {
    name: String,
    why: String,
}

impl ParameterError {
    /// What is wrong with a parameter, and what is allowed.
    pub fn new(name: &str, why: impl Into<String>) -> Self {
        let name = plain(name).chars().take(REPEATED).collect();
        Self { name, why: why.into() }
    }
}

/// The parameters by their names. An empty one is none: a form sends each of its fields.
#[derive(Debug, Default)]
pub struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Reads those of these names.
    pub fn of(query: Option<&str>, known: &[&'static str]) -> Result<Self, ParameterError> {
        let mut found = Vec::<(&'static str, String)>::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let Some(name) = known.iter().find(|known| **known == name) else {
                let takes = if known.is_empty() { "no parameters".into() } else { known.join(", ") };
                return Err(ParameterError::new(&name, format!("there is no such parameter. This page takes {takes}")));
            };
            if found.iter().any(|(there, _)| there == name) {
                return Err(ParameterError::new(name, "appears more than once. Send it once"));
            }
            found.push((name, value.into_owned()));
        }
        found.retain(|(_, value)| !value.trim().is_empty());
        Ok(Self(found))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(there, _)| *there == name).map(|(_, value)| value.trim())
    }

    /// A value that is one of a few.
    pub fn one_of<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
        all: &[&str],
    ) -> Result<Option<T>, ParameterError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || ParameterError::new(name, format!("must be one of: {}", all.join(", ")));
        read(value).ok_or_else(wrong).map(Some)
    }

    /// A whole number in a range.
    pub fn number(&self, name: &str, default: i64, most: i64) -> Result<i64, ParameterError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| ParameterError::new(name, format!("must be a whole number from 1 to {most}")))
    }

    /// The days of a page about the signups of the last days.
    pub fn days(query: Option<&str>) -> Result<i64, ParameterError> {
        Self::of(query, &["days"])?.number("days", DAYS, MOST_DAYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_a_default_and_a_range_and_the_message_says_which() {
        let days = |query| Parameters::days(Some(query)).map_err(|error| error.to_string());
        assert_eq!((days(""), days("days="), days("days=1"), days("days=3650")), (Ok(30), Ok(30), Ok(1), Ok(3650)));
        for query in ["days=0", "days=-1", "days=3651", "days=9999999999999999999999", "days=1.5", "days=%3Cscript%3E"]
        {
            assert_eq!(days(query), Err("days: must be a whole number from 1 to 3650.".into()), "{query}");
        }
        assert_eq!(days("days=1&days=2"), Err("days: appears more than once. Send it once.".into()));
        let strange = days("d%E2%80%AEays%1b[2J=1").expect_err("unknown");
        assert_eq!(strange, "d ays [2J: there is no such parameter. This page takes days.");
        assert!(days(&format!("{}=1", "a".repeat(5000))).expect_err("unknown").len() < 120);
    }
}
