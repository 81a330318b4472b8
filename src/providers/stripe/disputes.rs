//! The payments that customers dispute at their banks, of all tenants together.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use stripe_core::dispute::ListDispute;
use stripe_types::RangeQueryTs;

use super::objects::List;
use super::{PAGE, ProviderError, Stripe};
use crate::api::Timestamp;
use crate::lifecycle::Dispute;

/// A dispute is decided within three months (<https://docs.stripe.com/disputes/how-disputes-work>); one that was lost
/// longer ago than this is history.
const LOOK_BACK: i64 = 180 * 24 * 3600;

/// What is expanded in a list of disputes.
const INTENT: &str = "data.payment_intent";

/// The fields of <https://docs.stripe.com/api/disputes/object> that are read.
#[derive(Deserialize)]
struct DisputeObject {
    id: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    amount: i64,
    #[serde(default)]
    currency: String,
    #[serde(default)]
    is_charge_refundable: bool,
    /// Its id, or the whole object if it was expanded.
    #[serde(default)]
    payment_intent: Value,
    #[serde(default)]
    evidence_details: Option<Evidence>,
}

/// What a customer's bank has done about one payment.
#[derive(Default)]
pub(super) struct Bank {
    /// What it has given back. A dispute may be about a part of the payment.
    pub returned: i64,
    /// The currency of that.
    pub currency: Option<String>,
    /// The dispute for which it holds money until it decides: Stripe refuses a refund meanwhile.
    pub holds: Option<String>,
}

#[derive(Deserialize)]
struct Evidence {
    #[serde(default)]
    due_by: Option<i64>,
}

impl DisputeObject {
    /// The customer and what it is about, unless it is over.
    fn of_customer(self) -> Option<(String, Dispute)> {
        let lost = match self.status.as_str() {
            "lost" => true,
            "needs_response" | "under_review" | "warning_needs_response" | "warning_under_review" => false,
            // `won`, `warning_closed`, `prevented`.
            _ => return None,
        };
        let due_by = self.evidence_details.and_then(|e| e.due_by).map(Timestamp::from_second);
        let (id, cause, amount, currency) = (self.id, self.reason, self.amount, self.currency);
        let customer = self.payment_intent["customer"].as_str()?.to_owned();
        Some((customer, Dispute { id, cause, amount, currency, lost, due_by }))
    }
}

impl Stripe {
    /// What the customer's bank has decided and returned for a payment.
    pub(super) async fn bank(&self, intent: &str) -> Result<Bank, ProviderError> {
        let all: List<DisputeObject> = self.read_as(ListDispute::new().payment_intent(intent).limit(PAGE)).await?;
        let mut bank = Bank::default();
        for dispute in all.data {
            match &*dispute.status {
                "lost" => {
                    bank.returned += dispute.amount;
                    bank.currency = bank.currency.or(Some(dispute.currency));
                }
                "needs_response" | "under_review" if !dispute.is_charge_refundable => bank.holds = Some(dispute.id),
                // Won, prevented, or an inquiry, during which Stripe lets us refund.
                _ => {}
            }
        }
        Ok(bank)
    }

    /// The disputes, by the customers' ids. Of several, an open one, otherwise the latest.
    pub async fn disputes(&self) -> Result<HashMap<String, Dispute>, ProviderError> {
        let since = Timestamp::now().as_second() - LOOK_BACK;
        let page = |after: Option<&str>| {
            let request = ListDispute::new().created(RangeQueryTs::gte(since)).limit(PAGE);
            let request = request.expand([INTENT.to_owned()]);
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        let all: Vec<DisputeObject> = self.all(page, |d: &DisputeObject| &d.id).await?;
        let mut by_customer: HashMap<String, Dispute> = HashMap::new();
        // Newest first.
        for (customer, dispute) in all.into_iter().filter_map(DisputeObject::of_customer) {
            let there = by_customer.get(&customer);
            if there.is_none_or(|there| there.lost && !dispute.lost) {
                by_customer.insert(customer, dispute);
            }
        }
        Ok(by_customer)
    }
}
