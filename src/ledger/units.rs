//! What the ledger counts.

use std::ops::{Index, IndexMut};

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use strum::{EnumCount, IntoEnumIterator};

pub use crate::api::quota::{LARGEST, Unit};

/// An amount of each unit. Those of accounts and commands are never negative; a line may take away from a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Amounts([i64; Unit::COUNT]);

impl Amounts {
    /// Nothing of any unit.
    pub const ZERO: Self = Self([0; Unit::COUNT]);

    /// So much of one unit.
    pub fn of(unit: Unit, amount: i64) -> Self {
        Self::ZERO.with(unit, amount)
    }

    /// The levels that a document of so many bytes takes.
    pub fn of_document(bytes: i64) -> Self {
        Self::of(Unit::Documents, 1).with(Unit::Bytes, bytes.clamp(0, LARGEST))
    }

    /// With so much of a unit instead.
    #[must_use]
    pub fn with(mut self, unit: Unit, amount: i64) -> Self {
        self[unit] = amount;
        self
    }

    /// Each unit with its amount.
    pub fn each(self) -> impl Iterator<Item = (Unit, i64)> {
        Unit::iter().map(move |unit| (unit, self[unit]))
    }

    /// Both, combined unit by unit.
    #[must_use]
    pub fn zip(self, other: Self, combine: impl Fn(i64, i64) -> i64) -> Self {
        let mut result = Self::ZERO;
        for unit in Unit::iter() {
            result[unit] = combine(self[unit], other[unit]);
        }
        result
    }

    /// The smaller amount of each unit.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        self.zip(other, i64::min)
    }

    /// The larger amount of each unit.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        self.zip(other, i64::max)
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, i64::saturating_add)
    }

    /// The difference.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.zip(other, i64::saturating_sub)
    }

    /// The flows or the levels of it, and nothing of the others.
    #[must_use]
    pub fn only(self, levels: bool) -> Self {
        let mut result = self;
        for unit in Unit::iter().filter(|unit| unit.is_level() != levels) {
            result[unit] = 0;
        }
        result
    }

    /// With any amount of the flows.
    #[must_use]
    pub fn with_any_flows(self) -> Self {
        Unit::iter().filter(|unit| !unit.is_level()).fold(self, |all, unit| all.with(unit, LARGEST))
    }

    /// Whether it is nothing of any unit.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl Index<Unit> for Amounts {
    type Output = i64;

    fn index(&self, unit: Unit) -> &i64 {
        &self.0[unit as usize]
    }
}

impl IndexMut<Unit> for Amounts {
    fn index_mut(&mut self, unit: Unit) -> &mut i64 {
        &mut self.0[unit as usize]
    }
}

/// Written as a map of what is not zero: `{"queries": 1}`.
impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (unit, amount) in self.each().filter(|(_, amount)| *amount != 0) {
            map.serialize_entry(unit.name(), &amount)?;
        }
        map.end()
    }
}

/// Read from such a map. Unknown units, a unit twice, and what is negative, not whole or beyond [`LARGEST`] are errors.
impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = deserializer.deserialize_map(UnitsVisitor { least: 0, most: LARGEST })?;
        Ok(Self(named.map(Option::unwrap_or_default)))
    }
}

/// Reads sums of lines, which have no bounds: a level that became lower is negative.
pub fn sums<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Amounts, D::Error> {
    let named = deserializer.deserialize_map(UnitsVisitor { least: i64::MIN, most: i64::MAX })?;
    Ok(Amounts(named.map(Option::unwrap_or_default)))
}

/// How much of each unit a tenant may use. A unit without a limit is counted only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits([Option<i64>; Unit::COUNT]);

impl Limits {
    /// With a limit of one unit.
    #[must_use]
    pub fn with(mut self, unit: Unit, limit: i64) -> Self {
        self.0[unit as usize] = Some(limit);
        self
    }

    /// The limit of a unit. None where it is counted only.
    pub fn of(&self, unit: Unit) -> Option<i64> {
        self.0[unit as usize]
    }

    /// What is left of each limit beside an account's use and reservations. Never negative.
    #[must_use]
    pub fn left(mut self, taken: Amounts) -> Self {
        for unit in Unit::iter() {
            self.0[unit as usize] = self.of(unit).map(|limit| (limit - taken[unit]).max(0));
        }
        self
    }
}

/// Written as a map of the units that have a limit: `{"queries": 10000}`.
impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Unit::iter().filter_map(|unit| Some((unit.name(), self.of(unit)?))))
    }
}

/// Read from such a map, with the same errors as [`Amounts`].
impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UnitsVisitor { least: 0, most: LARGEST }).map(Self)
    }
}

/// Reads a map from units to numbers. None for a unit that the map does not name.
struct UnitsVisitor {
    least: i64,
    most: i64,
}

impl<'de> Visitor<'de> for UnitsVisitor {
    type Value = [Option<i64>; Unit::COUNT];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a map from units to whole numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut named = [None; Unit::COUNT];
        while let Some(name) = map.next_key::<String>()? {
            let unit = name.parse::<Unit>().map_err(|_| {
                let known: Vec<_> = Unit::iter().map(Unit::name).collect();
                A::Error::custom(format!("unknown unit {name:?}: use one of {}", known.join(", ")))
            })?;
            let amount: i64 = map.next_value()?;
            let Self { least, most } = self;
            if !(least..=most).contains(&amount) {
                return Err(A::Error::custom(format!("{unit} is {amount}: use {least} to {most}")));
            }
            if named[unit as usize].replace(amount).is_some() {
                return Err(A::Error::custom(format!("{unit} is listed twice")));
            }
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_by_their_units_names_and_read_again() {
        let amounts = Amounts::of(Unit::Queries, 1).with(Unit::PromptTokens, 800);
        let text = serde_json::to_string(&amounts).expect("JSON");
        assert_eq!(text, r#"{"queries":1,"prompt_tokens":800}"#);
        assert_eq!(serde_json::from_str::<Amounts>(&text).expect("amounts"), amounts);
    }

    #[test]
    fn what_cannot_be_counted_is_refused_with_the_unit_and_the_bounds() {
        for (text, wanted) in [
            (r#"{"questions":1}"#, "unknown unit \"questions\": use one of queries, prompt_tokens"),
            (r#"{"queries":-1}"#, "queries is -1: use 0 to 999999999999999"),
            (r#"{"queries":1000000000000000}"#, "queries is 1000000000000000: use 0 to"),
            (r#"{"queries":1.5}"#, "invalid type: floating point `1.5`"),
            (r#"{"queries":1,"queries":1}"#, "queries is listed twice"),
            ("5", "expected a map from units to whole numbers"),
            (r#"{"queries":18446744073709551615}"#, "invalid value: integer `18446744073709551615`"),
        ] {
            let said = serde_json::from_str::<Amounts>(text).map_err(|e| e.to_string()).expect_err(text);
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }

    #[test]
    fn flows_and_levels_are_told_apart() {
        let all = Unit::iter().fold(Amounts::ZERO, |all, unit| all.with(unit, 1));
        assert_eq!(all.only(true), Amounts::of(Unit::Documents, 1).with(Unit::Bytes, 1));
        assert_eq!(all.only(true).plus(all.only(false)), all);
    }

    #[test]
    fn a_limit_of_zero_is_a_limit_and_a_unit_that_is_not_named_has_none() {
        let limits: Limits = serde_json::from_str(r#"{"queries":0,"documents":7}"#).expect("limits");
        assert_eq!([Unit::Queries, Unit::Documents, Unit::Bytes].map(|u| limits.of(u)), [Some(0), Some(7), None]);
        assert_eq!(serde_json::to_string(&limits).expect("JSON"), r#"{"queries":0,"documents":7}"#);
        assert!(serde_json::from_str::<Limits>(r#"{"queries":-1}"#).is_err());
        let left = limits.left(Amounts::of(Unit::Queries, 3).with(Unit::Documents, 2));
        assert_eq!([Unit::Queries, Unit::Documents, Unit::Bytes].map(|u| left.of(u)), [Some(0), Some(5), None]);
    }
}
