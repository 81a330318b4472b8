//! Amounts of money below a cent: up to twelve decimal places of the smallest unit of a currency, as in Stripe's
//! `unit_amount_decimal` (<https://docs.stripe.com/api/prices/create#create_price-unit_amount_decimal>).

use std::fmt;

const PLACES: usize = 12;
const ONE: i128 = 1_000_000_000_000;

/// An amount that is not negative, such as `0.0025` cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cents(i128);

impl Cents {
    /// Reads an amount; None for what Stripe refuses: signs, exponents, more than twelve decimal places.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 12 || part.len() > PLACES || !digits(whole) || !digits(part) {
            return None;
        }
        let whole: i128 = whole.parse().ok()?;
        let part: i128 = if part.is_empty() { 0 } else { format!("{part:0<PLACES$}").parse().ok()? };
        Some(Self(whole * ONE + part))
    }

    /// The amount in cents, if it has no part of one.
    pub fn whole(self) -> Option<i64> {
        (self.0 % ONE == 0).then(|| i64::try_from(self.0 / ONE).ok()).flatten()
    }

    /// What a quantity costs, to the nearest cent.
    pub fn times(self, quantity: i64) -> i64 {
        let exact = self.0.saturating_mul(i128::from(quantity));
        i64::try_from(exact.saturating_add(ONE / 2).div_euclid(ONE)).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:012}", self.0 / ONE, self.0 % ONE);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_as_stripe_does() {
        for (text, written, whole) in [
            ("5", "5", Some(5)),
            ("0.25", "0.25", None),
            ("10.00", "10", Some(10)),
            ("0.000000000001", "0.000000000001", None),
        ] {
            let read = Cents::parse(text).expect(text);
            assert_eq!((read.to_string(), read.whole()), (written.to_owned(), whole), "{text}");
        }
        for text in ["", "-1", "+1", "1e3", ".5", "0.0000000000001", "1.2.3", " 1", "1234567890123"] {
            assert_eq!(Cents::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_quantity_costs_the_nearest_cent() {
        let times = |price: &str, quantity| Cents::parse(price).expect(price).times(quantity);
        assert_eq!([times("0.25", 1), times("0.25", 2), times("0.25", 1000), times("0.001", 499)], [0, 1, 250, 0]);
        assert_eq!(times("0.1", 999_999_999_999_999), 100_000_000_000_000);
    }
}
