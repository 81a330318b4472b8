//! Amounts of money as Stripe counts them, and as people write them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Stripe's currencies without a smaller unit: <https://docs.stripe.com/currencies#zero-decimal>
const WHOLE: [&str; 16] =
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"];

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Money {
    /// The amount in the smallest unit of the currency: 4900 is 49.00 USD.
    #[schemars(range(min = 0, max = 99_999_999))]
    pub amount: i64,
    /// The three-letter ISO 4217 code in lower case.
    #[serde(default = "default_currency")]
    #[schemars(regex(pattern = "^[a-z]{3}$"))]
    pub currency: String,
}

fn default_currency() -> String {
    "usd".into()
}

impl Money {
    /// The whole units, and the cents of currencies that have some.
    pub fn parts(&self) -> (i64, Option<i64>) {
        if WHOLE.contains(&&*self.currency) {
            (self.amount, None)
        } else {
            (self.amount / 100, Some(self.amount % 100))
        }
    }
}

/// As in an e-mail: `49.00 USD`, `4900 JPY`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (whole, Some(cents)) => write!(f, "{whole}.{cents:02} {}", self.currency.to_uppercase()),
            (whole, None) => write!(f, "{whole} {}", self.currency.to_uppercase()),
        }
    }
}

/// A number with commas, as people write it.
pub fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_cents_where_its_currency_has() {
        let text = |amount, currency: &str| Money { amount, currency: currency.into() }.to_string();
        assert_eq!(text(4900, "usd"), "49.00 USD");
        assert_eq!(text(4905, "eur"), "49.05 EUR");
        assert_eq!(text(4900, "jpy"), "4900 JPY");
    }
    #[test]
    fn numbers_have_commas_and_their_sign_before_them() {
        let text = [0, 999, 1000, 1_234_567, -100, -1000].map(thousands);
        assert_eq!(text, ["0", "999", "1,000", "1,234,567", "-100", "-1,000"]);
    }
}
