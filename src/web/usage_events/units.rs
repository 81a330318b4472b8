//! What an event says was used: units with the names of the custom resources (`promptTokens`), and whole numbers.

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::Number;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::ledger::units::{Amounts, LARGEST, Unit};

/// What was used. Name at least one unit with more than 0.
#[derive(ToSchema)]
#[schema(as = UsageEventData, rename_all = "camelCase")]
#[allow(dead_code, reason = "it describes what `amounts` reads")]
pub struct UnitsBody {
    /// Questions that were answered.
    #[schema(required = false, example = 1, minimum = 0, maximum = 999_999_999_999_999_i64)]
    queries: i64,
    /// Tokens that a chat model read.
    #[schema(required = false, example = 812, minimum = 0, maximum = 999_999_999_999_999_i64)]
    prompt_tokens: i64,
    /// Tokens that a chat model wrote.
    #[schema(required = false, example = 96, minimum = 0, maximum = 999_999_999_999_999_i64)]
    completion_tokens: i64,
    /// Tokens that an embedding model read.
    #[schema(required = false, example = 12, minimum = 0, maximum = 999_999_999_999_999_i64)]
    embedding_tokens: i64,
    /// Bytes of text that were embedded.
    #[schema(required = false, example = 2048, minimum = 0, maximum = 999_999_999_999_999_i64)]
    embedded_bytes: i64,
}

/// The names that an event may use.
const NAMES: &str = "queries, promptTokens, completionTokens, embeddingTokens, embeddedBytes";

/// Reads the units of an event, or says what is wrong with the first that cannot be counted.
pub fn amounts(data: &str) -> Result<Amounts, String> {
    let Units(amounts) = serde_json::from_str(data).map_err(|error| said(&error))?;
    if amounts.is_zero() {
        return Err("data: name at least one unit with more than 0".into());
    }
    Ok(amounts)
}

/// What was wrong, without the place in the text: an event is one of many.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    if text.starts_with("data") { text.to_owned() } else { format!("data: {text}") }
}

/// What a sender wrote, as a refusal shows it.
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    let shown: String = text.chars().take(SHOWN).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("{:?}", format!("{shown}{more}"))
}

struct Units(Amounts);

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UnitsVisitor).map(Self)
    }
}

struct UnitsVisitor;

impl<'de> Visitor<'de> for UnitsVisitor {
    type Value = Amounts;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an object with units and whole numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Amounts, A::Error> {
        let (mut amounts, mut named) = (Amounts::ZERO, Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            let unit = unit(&name).map_err(A::Error::custom)?;
            let amount = amount(map.next_value()?).map_err(|why| A::Error::custom(format!("data: {name} {why}")))?;
            if named.contains(&unit) {
                return Err(A::Error::custom(format!("data: {name} is listed twice")));
            }
            named.push(unit);
            amounts = amounts.with(unit, amount);
        }
        Ok(amounts)
    }
}

fn unit(name: &str) -> Result<Unit, String> {
    let unit = Unit::deserialize(StrDeserializer::<serde::de::value::Error>::new(name));
    match unit {
        Ok(unit) if unit.is_level() => Err(format!(
            "data: {name} is what is stored at the moment, and no event could take it away again: use {NAMES}"
        )),
        Ok(unit) => Ok(unit),
        Err(_) => Err(format!("data: there is no unit {}: use {NAMES}", quoted(name))),
    }
}

/// Reads the text of a number. What is none is not built in memory: lists in lists take a hundred times their text.
fn amount(text: &RawValue) -> Result<i64, &'static str> {
    const { assert!(LARGEST == 999_999_999_999_999) };
    let text = text.get();
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err("is not a number: send a whole number");
    }
    let number: Number = serde_json::from_str(text).map_err(|_| "is out of range: send at most 999999999999999")?;
    let beyond = "is too large: send at most 999999999999999";
    match number.as_i64() {
        Some(amount) if amount < 0 => Err("is negative: an event only adds"),
        Some(amount) if amount > LARGEST => Err(beyond),
        Some(amount) => Ok(amount),
        None if number.is_u64() => Err(beyond),
        None => Err("is not a whole number: send it without a fraction or exponent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_the_names_of_the_custom_resources_and_whole_numbers() {
        let read = amounts(r#"{"queries": 1, "promptTokens": 999999999999999, "embeddedBytes": 0}"#).expect("units");
        assert_eq!(read, Amounts::of(Unit::Queries, 1).with(Unit::PromptTokens, LARGEST));
        for (data, wanted) in [
            ("{}", "data: name at least one unit with more than 0"),
            (r#"{"queries": 0}"#, "data: name at least one unit with more than 0"),
            (r#"{"queries": -1}"#, "data: queries is negative"),
            (r#"{"queries": 1.5}"#, "data: queries is not a whole number"),
            (r#"{"queries": 1.0}"#, "data: queries is not a whole number"),
            (r#"{"queries": 1e3}"#, "data: queries is not a whole number"),
            (r#"{"queries": 1000000000000000}"#, "data: queries is too large"),
            (r#"{"queries": 18446744073709551615}"#, "data: queries is too large"),
            (r#"{"queries": 99999999999999999999}"#, "data: queries is not a whole number"),
            (r#"{"queries": "1"}"#, "data: queries is not a number"),
            (r#"{"queries": null}"#, "data: queries is not a number"),
            (r#"{"queries": [{"": {"": [0, 1]}}]}"#, "data: queries is not a number"),
            (r#"{"queries": 1, "queries": 2}"#, "data: queries is listed twice"),
            (r#"{"prompt_tokens": 1}"#, r#"data: there is no unit "prompt_tokens": use queries, promptTokens"#),
            (r#"{"documents": 1}"#, "data: documents is what is stored at the moment"),
            (r#"{"queries": 1e999}"#, "data: queries is out of range"),
            ("[1]", "data: invalid type: sequence, expected an object"),
            (r#""queries""#, "data: invalid type: string \"queries\", expected an object"),
        ] {
            let said = amounts(data).expect_err(data);
            assert!(said.starts_with(wanted), "{data}: {said}");
        }
        let long = amounts(&format!("{{\"{}\": 1}}", "x".repeat(10_000))).expect_err("no unit");
        assert!(long.len() < 300, "{}", long.len());
    }
}
