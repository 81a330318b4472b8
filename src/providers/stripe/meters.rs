//! Usage by Stripe's meters: <https://docs.stripe.com/billing/subscriptions/usage-based>

use std::collections::HashMap;

use async_trait::async_trait;
use serde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

use super::objects::{List, Recurring};
use super::{PROVIDER, ProviderError, Stripe};
use crate::api::{Timestamp, UsagePrice};
use crate::providers::biller::{Biller, Delivery, Meter, Report};

/// How Stripe says that it has an event with this identifier. The refusal has no code of its own.
const DUPLICATE: &str = "An event already exists with identifier";

/// Why usage cannot be billed by a price.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UsagePriceError {
    /// Stripe does not answer, or refuses.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The price or its meter is of another kind.
    #[error("{0}")]
    Unfit(String),
}

/// A price by use: <https://docs.stripe.com/api/prices/object>
#[derive(Deserialize)]
struct MeteredPrice {
    #[serde(default)]
    recurring: Option<Recurring>,
    #[serde(default)]
    tiers_mode: Option<String>,
    #[serde(default)]
    tiers: Option<Vec<Tier>>,
}

#[derive(Deserialize)]
struct Tier {
    up_to: Option<i64>,
    #[serde(default)]
    unit_amount_decimal: Option<String>,
    #[serde(default)]
    flat_amount_decimal: Option<String>,
}

impl Tier {
    fn is_free(&self) -> bool {
        let zero = |amount: &Option<String>| amount.as_ref().is_none_or(|a| a.parse::<f64>().is_ok_and(|a| a == 0.0));
        zero(&self.unit_amount_decimal) && zero(&self.flat_amount_decimal)
    }
}

impl MeteredPrice {
    /// What the price charges nothing for, in each period.
    fn included(&self) -> i64 {
        let first = self.tiers.as_ref().and_then(|tiers| tiers.first());
        first.filter(|tier| tier.is_free()).and_then(|tier| tier.up_to).unwrap_or(0)
    }

    /// The meter of a price that says what the Plan says.
    fn meter(&self, wanted: &UsagePrice) -> Result<&str, String> {
        let (id, unit) = (&wanted.stripe_price_id, wanted.unit);
        let meter = self.recurring.as_ref().and_then(Recurring::metered).ok_or_else(|| {
            format!(
                "price {id} of {unit} is not metered: name a price with usage_type metered and a meter in usagePrices"
            )
        })?;
        let included = self.included();
        if included != wanted.included || (included > 0 && self.tiers_mode.as_deref() != Some("graduated")) {
            return Err(format!(
                "usagePrices says that {} {unit} are included, and price {id} charges nothing for the first {included}: \
                 make a price with graduated tiers whose first one ends at {} and is free, or correct included",
                wanted.included, wanted.included
            ));
        }
        Ok(meter)
    }
}

/// <https://docs.stripe.com/api/billing/meter/object>
#[derive(Deserialize)]
struct MeterObject {
    id: String,
    event_name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    event_time_window: Option<String>,
    default_aggregation: Aggregation,
    customer_mapping: PayloadKey,
    value_settings: PayloadKey,
}

#[derive(Deserialize)]
struct Aggregation {
    formula: String,
}

#[derive(Deserialize)]
struct PayloadKey {
    event_payload_key: String,
}

impl MeterObject {
    /// The meter, if it is active and sums the values of its events.
    fn checked(self) -> Result<Meter, String> {
        let id = &self.id;
        if self.status != "active" {
            return Err(format!("meter {id} is {}: activate it at Stripe", self.status));
        }
        // Stripe keeps only the newest event of a window, and drops the others.
        if self.default_aggregation.formula != "sum" || self.event_time_window.is_some() {
            return Err(format!(
                "meter {id} does not add up each event: make a meter with the formula sum and no time window"
            ));
        }
        Ok(Meter {
            event_name: self.event_name,
            customer_key: self.customer_mapping.event_payload_key,
            value_key: self.value_settings.event_payload_key,
            id: self.id,
        })
    }
}

/// What a customer's events come to: <https://docs.stripe.com/api/billing/meter-event-summary/object>
#[derive(Deserialize)]
struct Summary {
    id: String,
    aggregated_value: f64,
    start_time: i64,
}

/// Summaries of one page: the most that Stripe gives.
const SUMMARIES: u32 = 100;

/// An answer of which nothing is read.
#[derive(Deserialize)]
struct Taken {}

impl Stripe {
    fn get(path: String, query: &str) -> RequestBuilder {
        let mut request = RequestBuilder::new(StripeMethod::Get, path);
        request.query = Some(query.to_owned()).filter(|query| !query.is_empty());
        request
    }

    /// The id of the meter of a price by use. Fails if the price charges in another way than the Plan says.
    pub async fn meter_of_price(&self, wanted: &UsagePrice) -> Result<String, UsagePriceError> {
        let path = format!("/prices/{}", wanted.stripe_price_id);
        let price: MeteredPrice = self.send(&Self::get(path, "expand[0]=tiers"), None).await?;
        price.meter(wanted).map(str::to_owned).map_err(UsagePriceError::Unfit)
    }

    /// The meter of any price, also of one that charges in another way than a Plan says. None if it is not metered or
    /// Stripe does not know it.
    pub async fn any_meter_of_price(&self, id: &str) -> Result<Option<String>, UsagePriceError> {
        match self.send::<MeteredPrice>(&Self::get(format!("/prices/{id}"), ""), None).await {
            Err(error) if error.is_not_found() => Ok(None),
            price => Ok(price?.recurring.as_ref().and_then(Recurring::metered).map(str::to_owned)),
        }
    }

    /// What a meter has of a customer in each full hour with events, from one hour until before another one.
    pub async fn reported_by_hour(
        &self,
        meter: &str,
        customer: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(Timestamp, i64)>, ProviderError> {
        let (start, end) = (from.as_second(), until.as_second());
        let query = format!(
            "customer={customer}&start_time={start}&end_time={end}&value_grouping_window=hour&limit={SUMMARIES}"
        );
        let path = format!("/billing/meters/{meter}/event_summaries");
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page: List<Summary> = self.send(&Self::get(path.clone(), &format!("{query}{after}")), None).await?;
            for summary in &page.data {
                all.push((Timestamp::from_second(summary.start_time), whole(summary.aggregated_value)?));
            }
            let Some(last) = page.data.last().filter(|_| page.has_more) else { return Ok(all) };
            after = format!("&starting_after={}", last.id);
        }
    }

    /// A meter. Fails if it would lose usage.
    pub async fn usage_meter(&self, id: &str) -> Result<Meter, UsagePriceError> {
        let meter: MeterObject = self.send(&Self::get(format!("/billing/meters/{id}"), ""), None).await?;
        meter.checked().map_err(UsagePriceError::Unfit)
    }
}

#[async_trait]
impl Biller for Stripe {
    async fn report(&self, report: &Report<'_>) -> Result<Delivery, ProviderError> {
        let Report { meter, customer, identifier, at, amount } = report;
        let (customer_key, value_key) =
            (format!("payload[{}]", meter.customer_key), format!("payload[{}]", meter.value_key));
        let (at, amount) = (at.as_second().to_string(), amount.to_string());
        let form = HashMap::from([
            ("event_name", &*meter.event_name),
            ("identifier", *identifier),
            ("timestamp", &at),
            (&*customer_key, *customer),
            (&*value_key, &amount),
        ]);
        let request = RequestBuilder::new(StripeMethod::Post, "/billing/meter_events").form(&form);
        // The identifier is what makes it happen once. Under an idempotency key, Stripe would save a failure for a day.
        match self.send::<Taken>(&request, None).await {
            Err(error) if error.status == Some(400) && error.message.contains(DUPLICATE) => Ok(Delivery::Before),
            taken => taken.map(|Taken {}| Delivery::New),
        }
    }

    async fn reported(
        &self,
        meter: &str,
        customer: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<i64, ProviderError> {
        let query = format!("customer={customer}&start_time={}&end_time={}", from.as_second(), until.as_second());
        let path = format!("/billing/meters/{meter}/event_summaries");
        let summaries: List<Summary> = self.send(&Self::get(path, &query), None).await?;
        whole(summaries.data.iter().map(|summary| summary.aggregated_value).sum())
    }
}

/// A sum as a whole number. Stripe takes whole numbers of 15 digits, which a float holds exactly.
fn whole(value: f64) -> Result<i64, ProviderError> {
    if value.fract() != 0.0 || value.abs() >= 1e15 || value.is_nan() {
        return Err(ProviderError::garbage(PROVIDER, format!("a sum of usage of {value}")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and has 15 digits")]
    let number = value as i64;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Unit;

    fn price(tiers_mode: &str, tiers: &serde_json::Value) -> MeteredPrice {
        let recurring = json!({"usage_type": "metered", "meter": "mtr_1"});
        serde_json::from_value(json!({"recurring": recurring, "tiers_mode": tiers_mode, "tiers": tiers}))
            .expect("a price")
    }

    fn wanted(included: i64) -> UsagePrice {
        UsagePrice { unit: Unit::Queries, stripe_price_id: "price_1".into(), included }
    }

    #[test]
    fn a_price_includes_what_the_plan_says() {
        let free = json!([{"up_to": 100, "unit_amount_decimal": "0"}, {"up_to": null, "unit_amount_decimal": "0.5"}]);
        assert_eq!(price("graduated", &free).meter(&wanted(100)), Ok("mtr_1"));
        assert!(price("graduated", &free).meter(&wanted(0)).is_err(), "the Plan promises less");
        assert!(price("graduated", &free).meter(&wanted(101)).is_err(), "the Plan promises more");
        assert!(price("volume", &free).meter(&wanted(100)).is_err(), "beyond it, all is charged");
        let flat = json!([{"up_to": 100, "unit_amount_decimal": "0", "flat_amount_decimal": "500"}]);
        assert_eq!(price("graduated", &flat).meter(&wanted(0)), Ok("mtr_1"));
        assert_eq!(price("", &serde_json::Value::Null).meter(&wanted(0)), Ok("mtr_1"));
        let licensed: MeteredPrice =
            serde_json::from_value(json!({"recurring": {"usage_type": "licensed"}})).expect("one");
        assert!(licensed.meter(&wanted(0)).expect_err("not metered").contains("is not metered"));
    }

    #[test]
    fn sums_are_whole_numbers() {
        assert_eq!(whole(999_999_999_999_999.0).expect("whole"), 999_999_999_999_999);
        assert_eq!(whole(-3.0).expect("whole"), -3);
        assert!([0.5, 1e15, f64::NAN, f64::INFINITY].into_iter().all(|value| whole(value).is_err()));
    }
}
