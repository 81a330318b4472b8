//! The lines of invoices. Stripe embeds the first ten in an invoice, and lists the others on request:
//! <https://docs.stripe.com/api/invoices/object#invoice_object-lines>. With usage prices, an invoice has more than ten:
//! one for each tier of each unit.

use serde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

use super::objects::List;
use super::{PAGE, PROVIDER, ProviderError, Stripe};

/// Lines of one invoice, at most. A subscription has at most 20 items, and one of them a line for each of its tiers.
const MOST: usize = 2000;

/// What is read of a line: <https://docs.stripe.com/api/invoice-line-item/object>
#[derive(Deserialize)]
pub struct Line {
    id: String,
    #[serde(default)]
    pub amount: i64,
    /// What the line is for. The invoice's own period is the one before:
    /// <https://docs.stripe.com/api/invoices/object#invoice_object-period_end>
    #[serde(default)]
    pub period: Option<Span>,
}

/// The time that a line is for.
#[derive(Clone, Copy, Deserialize)]
pub struct Span {
    pub start: i64,
    pub end: i64,
}

/// The lines of an invoice: those that it embeds, until they are [completed](Stripe::complete).
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub struct Lines(Option<List<Line>>);

impl Lines {
    pub fn iter(&self) -> impl Iterator<Item = &Line> {
        self.0.iter().flat_map(|lines| &lines.data)
    }

    /// The times that they are for.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.iter().filter_map(|line| line.period)
    }
}

impl Stripe {
    /// Reads the lines of an invoice that it does not embed.
    pub(super) async fn complete(&self, invoice: &str, lines: &mut Lines) -> Result<(), ProviderError> {
        let Some(lines) = &mut lines.0 else { return Ok(()) };
        while lines.has_more {
            let last = lines.data.last().map(|line| line.id.clone());
            let after = last.as_ref().map(|last| format!("&starting_after={last}")).unwrap_or_default();
            let mut request = RequestBuilder::new(StripeMethod::Get, format!("/invoices/{invoice}/lines"));
            request.query = Some(format!("limit={PAGE}{after}"));
            let page: List<Line> = self.send(&request, None).await?;
            let moves = page.data.last().is_some_and(|line| Some(&line.id) != last.as_ref());
            if page.has_more && (!moves || lines.data.len() + page.data.len() > MOST) {
                let said = format!("invoice {invoice} has no end, or more than {MOST} lines");
                return Err(ProviderError::garbage(PROVIDER, said));
            }
            lines.has_more = page.has_more;
            lines.data.extend(page.data);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::{Path, Query, State};
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::Timestamp;
    use crate::providers::CallLimits;
    use crate::providers::stripe::StripeConfig;

    /// When the period that is paid for ends, and when it begins.
    const ENDS: i64 = 2_000_000;
    const BEGINS: i64 = 1_000_000;

    /// The lines of an invoice: usage of the period before, and last the month to come.
    fn lines(count: usize) -> Vec<Value> {
        let line = |number: usize, amount: i64, (start, end): (i64, i64)| json!({"id": format!("il_{number}"), "amount": amount, "period": {"start": start, "end": end}});
        let usage = (1..count).map(|number| line(number, 100, (0, BEGINS)));
        usage.chain([line(count, 4900, (BEGINS, ENDS))]).collect()
    }

    fn page(all: &[Value], query: &Value, most: usize) -> Value {
        let after = |last: &Value| all.iter().position(|line| line["id"] == *last).map_or(0, |at| at + 1);
        let from = query.get("starting_after").map_or(0, after);
        let until = all.len().min(from + most);
        json!({"object": "list", "data": all[from..until], "has_more": until < all.len()})
    }

    /// A Stripe with one invoice that embeds the first ten of so many lines.
    async fn stripe(count: usize) -> Stripe {
        let total = i64::try_from(count - 1).expect("small") * 100 + 4900;
        let invoice = json!({
            "id": "in_1", "amount_paid": total, "currency": "usd", "billing_reason": "subscription_cycle",
            "automatically_finalizes_at": ENDS, "lines": page(&lines(count), &json!({}), 10),
        });
        let list = |data: Value| get(move || async move { Json(json!({"object": "list", "data": [data]})) });
        let paid = json!({"payment": {"payment_intent": "pi_1"}, "amount_paid": total});
        let asked = async |State(count): State<usize>, Path(_): Path<String>, Query(query): Query<Value>| {
            Json(page(&lines(count), &query, 100))
        };
        let routes = Router::new()
            .route("/v1/invoices", list(invoice))
            .route("/v1/invoices/{id}/lines", get(asked))
            .route("/v1/invoice_payments", list(paid))
            .route("/v1/refunds", list(json!({"amount": 4900, "status": "succeeded"})))
            .route("/v1/subscriptions/{id}", get(async || Json(json!({"id": "sub_1", "status": "active"}))))
            .route("/v1/disputes", get(async || Json(json!({"object": "list", "data": []}))))
            .with_state(count);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        crate::cli::install_crypto();
        let per_second = std::num::NonZeroU32::MIN.saturating_add(999);
        Stripe::new(StripeConfig {
            url,
            api_key: "sk_test".into(),
            calls: CallLimits { per_second, timeout: std::time::Duration::from_secs(10), retries: 0 },
            frontend_url: String::new(),
            promotion_codes: false,
        })
    }

    #[tokio::test]
    async fn lines_that_an_invoice_does_not_embed_are_read() {
        for count in [9, 10, 11, 111, 250] {
            let stripe = stripe(count).await;
            let refunded = stripe.refunded_period("sub_1").await.expect("it answers");
            assert_eq!(refunded.as_deref(), Some("in_1"), "{count} lines: usage of the month before was served");
            let drafts = stripe.open_drafts("sub_1", Timestamp::from_second(BEGINS)).await.expect("it answers");
            assert_eq!(drafts.len(), count);
        }
    }

    #[tokio::test]
    async fn an_invoice_without_end_is_refused() {
        let refused = stripe(MOST + 200).await.refunded_period("sub_1").await.expect_err("it ends");
        assert!(refused.message.contains("in_1"), "{refused}");
    }
}
