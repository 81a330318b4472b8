//! Usage that Stripe took and found wrong later: says so, and has the tenants concerned looked at.
//!
//! Stripe tells web of it (`src/web/webhooks/`), which has no key to read what was wrong. So the events are read here,
//! which also finds those whose delivery was lost.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::ResourceExt;

use super::billed;
use crate::api::{Tenant, Timestamp};
use crate::controller::context::Context;
use crate::lifecycle::Fault;
use crate::providers::stripe::{MeterErrors, Told};
use crate::providers::{Priority, ProviderError};

/// Seconds before the start of this process from which on reports are read: the one before may have ended with them.
const BACK: i64 = 10 * 60;
/// Reports that are read in one go. The others are read in the next one.
const AT_ONCE: usize = 20;
/// Reports that are remembered as read: two pages of Stripe's list.
const REMEMBERED: usize = 200;
/// Stripe's codes (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#error-codes>).
const CODES: [&str; 11] = [
    "archived_meter",
    "meter_event_customer_not_found",
    "meter_event_dimension_count_too_high",
    "meter_event_invalid_value",
    "meter_event_no_customer_defined",
    "meter_event_value_not_found",
    "meter_event_value_too_many_digits",
    "missing_dimension_payload_keys",
    "no_meter",
    "timestamp_in_future",
    "timestamp_too_far_in_past",
];
/// A code that is not one of these.
const OTHER: &str = "other";

/// Tenants to be looked at now, by the uids of their objects.
#[derive(Debug, Default)]
pub struct Asked(Mutex<HashSet<String>>);

impl Asked {
    fn add(&self, uid: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
    }

    /// Takes them all.
    pub fn take(&self) -> HashSet<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads reports for as long as a tenant of this controller is billed by usage.
pub async fn watch(context: &Context, asked: &Asked, every: Duration) {
    // A counter that appears with its first error would show no increase.
    for code in CODES.into_iter().chain([OTHER]) {
        context.metrics.usage_errors.get_or_create_owned(&code.into());
    }
    let (mut since, mut read, mut failing) = (context.clock.read().now.plus(-BACK), Vec::new(), false);
    loop {
        if !billed(context, false).is_empty() {
            match Priority::Resync.scope(look(context, asked, &mut since, &mut read)).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::warn!(%error, "it cannot be read which usage Stripe found wrong");
                    failing = true;
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// The reports that were not read yet, the oldest first.
fn unread(told: Vec<Told>, since: Timestamp, read: &[String]) -> Vec<Told> {
    let mut new: Vec<_> =
        told.into_iter().filter(|event| event.created >= since && !read.contains(&event.id)).collect();
    new.sort_by_key(|event| event.created);
    new.truncate(AT_ONCE);
    new
}

async fn look(
    context: &Context,
    asked: &Asked,
    since: &mut Timestamp,
    read: &mut Vec<String>,
) -> Result<(), ProviderError> {
    let stripe = &context.providers.stripe;
    for event in unread(stripe.meter_errors().await?, *since, read) {
        match stripe.meter_error(&event.id).await {
            Ok(report) => tell(context, asked, &report),
            // The others are read all the same.
            Err(error) if is_unreadable(&error) => {
                tracing::warn!(event = event.id, %error, "a report of usage that Stripe found wrong cannot be read");
            }
            Err(error) => return Err(error),
        }
        read.push(event.id);
        // An event that Stripe lists late may be a little older than one that was read.
        *since = event.created.plus(-BACK).max(*since);
    }
    read.drain(..read.len().saturating_sub(REMEMBERED));
    Ok(())
}

/// Whether the report itself is why it is not read: Stripe has it no more, or it is not of a form that is known.
fn is_unreadable(error: &ProviderError) -> bool {
    matches!(error.reason, Fault::BadAnswer | Fault::NotFound | Fault::Refused)
}

/// Says what was wrong, and has those looked at whom it may concern.
fn tell(context: &Context, asked: &Asked, report: &MeterErrors) {
    let (start, end) = report.span();
    for error in report.errors() {
        let known = CODES.contains(&&*error.code);
        let code = if known { &*error.code } else { OTHER };
        context.metrics.usage_errors.get_or_create_owned(&code.into()).inc_by(error.error_count.max(1));
        let identifiers: Vec<_> = error.identifiers().collect();
        tracing::warn!(
            event = report.id,
            meter = report.meter().unwrap_or_default(),
            code = error.code,
            count = error.error_count,
            message = error.messages().next().unwrap_or_default(),
            identifiers = identifiers.join(","),
            from = start.map(|at| at.to_string()).unwrap_or_default(),
            until = end.map(|at| at.to_string()).unwrap_or_default(),
            "Stripe found usage wrong that it had taken"
        );
    }
    let mut concerned = 0_usize;
    for tenant in context.caches.each_tenant().filter(|tenant| concerns(report, tenant)) {
        asked.add(tenant.uid().unwrap_or_default());
        concerned += 1;
    }
    tracing::info!(event = report.id, concerned, "their usage is compared with Stripe's again");
}

/// Whether a report may be of a tenant's events: it bills by the meter, and it is the customer that Stripe names, if
/// Stripe names one.
fn concerns(report: &MeterErrors, tenant: &Tenant) -> bool {
    let billing = tenant.status.as_ref().and_then(|status| status.usage_billing.as_deref());
    let metered =
        billing.is_some_and(|billing| billing.meters.iter().any(|usage| report.meter() == Some(&*usage.meter)));
    let customer = tenant.spec.billing.stripe.as_ref().and_then(|refs| refs.customer_id.as_deref());
    metered && (!report.names_any() || customer.is_some_and(|customer| report.names(customer)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lifecycle::Provider;

    fn told(id: &str, created: i64) -> Told {
        Told { id: id.into(), created: Timestamp::from_second(created) }
    }

    #[test]
    fn each_report_is_read_once_and_the_oldest_first() {
        let all = vec![told("c", 30), told("b", 20), told("a", 10), told("before", 9)];
        let ids = |new: Vec<Told>| new.into_iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!(ids(unread(all.clone(), Timestamp::from_second(10), &["b".into()])), ["a", "c"]);
        let many = (0..50).map(|number| told(&number.to_string(), number)).collect();
        assert_eq!(unread(many, Timestamp::from_second(0), &[]).len(), AT_ONCE);
    }

    #[test]
    fn a_report_that_cannot_be_read_does_not_hold_up_the_others() {
        let error = |reason| ProviderError { reason, ..ProviderError::garbage(Provider::Stripe, "no report") };
        assert!([Fault::BadAnswer, Fault::NotFound, Fault::Refused].into_iter().all(|why| is_unreadable(&error(why))));
        for passes in [Fault::Timeout, Fault::Unauthorized, Fault::RateLimited, Fault::ProviderError] {
            assert!(!is_unreadable(&error(passes)), "{passes:?}");
        }
    }

    #[test]
    fn a_report_concerns_the_customer_that_it_names_or_all_of_the_meter() {
        let tenant = |customer: &str, meter: &str| -> Tenant {
            let usage = json!({"unit": "queries", "price": "price_1", "meter": meter, "since": Timestamp::from_second(0),
                "through": Timestamp::from_second(0), "sent": 0});
            serde_json::from_value(json!({
                "apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
                "spec": {"companyName": "A", "adminEmail": "a@example.com", "plan": "p",
                    "billing": {"stripe": {"customerId": customer}}},
                "status": {"usageBilling": {"subscription": "sub_1", "meters": [usage]}},
            }))
            .expect("a tenant")
        };
        let report = |message: &str| -> MeterErrors {
            let error = json!({"code": "x", "error_count": 1, "sample_errors": [{"error_message": message}]});
            let data = json!({"reason": {"error_types": [error]}});
            serde_json::from_value(json!({"id": "evt_1", "related_object": {"id": "mtr_1"}, "data": data}))
                .expect("a report")
        };
        let named = report("No such customer: 'cus_1'");
        assert!(concerns(&named, &tenant("cus_1", "mtr_1")));
        assert!(!concerns(&named, &tenant("cus_2", "mtr_1")) && !concerns(&named, &tenant("cus_1", "mtr_2")));
        let unnamed = report("The value must be a whole number");
        assert!(concerns(&unnamed, &tenant("cus_2", "mtr_1")) && !concerns(&unnamed, &tenant("cus_2", "mtr_2")));
    }
}
