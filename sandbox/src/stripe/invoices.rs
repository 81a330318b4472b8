//! Invoices: what they come to, and who pays them.

use serde_json::{Value, json};

use super::periods::DAY;
use super::prices::is_metered;
use super::problem::{Events, Problem};
use super::usage::Seen;
use super::{Data, fields, invoice_lines, items};

/// Days after an invoice at which its payment is tried again.
const RETRIES: [i64; 3] = [3, 5, 7];

/// How long the invoice of a renewal with usage is a draft, if the sandbox has no other setting: "the default is set to
/// 1 hour" (<https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period>).
const GRACE: i64 = 3600;

/// Makes the invoice of a period and collects it: the usage of the period before, which `before` was billed for, and
/// the month to come. Answers whether it is settled.
pub fn period(
    data: &mut Data,
    (before, subscription): (&Value, &Value),
    free: bool,
    now: i64,
    events: &mut Events,
) -> bool {
    let lines = lines_of(data, (before, subscription), free, now);
    // "If the resulting invoice wouldn't contain any items, we don't generate one":
    // <https://docs.stripe.com/billing/subscriptions/billing-mode/compare>
    lines.is_empty() || bill(data, subscription, &lines, now, events)
}

/// Makes the invoice of the next period. Where renewals are drafts, and where there is usage, it is collected once its
/// hour is over, whether collection is paused by then or not: <https://docs.stripe.com/invoicing/automatic-collection>
pub fn renewal(data: &mut Data, subscription: &Value, now: i64, events: &mut Events) -> bool {
    let drafted = draft_for(data, subscription);
    if drafted == 0 || subscription["pause_collection"].is_object() {
        return period(data, (subscription, subscription), false, now, events);
    }
    let lines = lines_of(data, (subscription, subscription), false, now);
    let invoice = drafted_invoice(data, subscription, &lines, (now, drafted));
    keep(data, subscription, &invoice);
    events.push(("invoice.created", invoice));
    true
}

/// Makes the last invoice of a subscription that ends with its period: "the final invoice at the end of the period
/// includes metered usage" (<https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup>).
pub fn last(data: &mut Data, subscription: &Value, now: i64, events: &mut Events) {
    let mut lines = invoice_lines::elapsed(data, subscription, now, Seen::All);
    if lines.is_empty() {
        return;
    }
    lines.extend(take_pending(data, subscription));
    let drafted = draft_for(data, subscription);
    let mut invoice = drafted_invoice(data, subscription, &lines, (now, drafted));
    invoice["_sandbox"] = json!({"last": true});
    keep(data, subscription, &invoice);
    events.push(("invoice.created", invoice));
}

/// Bills at once what was used until now and what waits for an invoice.
pub fn now(data: &mut Data, subscription: &Value, now: i64, events: &mut Events) {
    let mut lines = invoice_lines::elapsed(data, subscription, now, Seen::All);
    lines.extend(take_pending(data, subscription));
    if !lines.is_empty() {
        bill(data, subscription, &lines, now, events);
    }
}

/// How long the invoice of a renewal is a draft, in seconds.
fn draft_for(data: &Data, subscription: &Value) -> i64 {
    let metered = items::of(subscription).iter().any(|item| is_metered(&item["price"]));
    if data.drafts == 0 && metered { GRACE } else { data.drafts }
}

fn drafted_invoice(data: &mut Data, subscription: &Value, lines: &[Value], (now, seconds): (i64, i64)) -> Value {
    let due = due(data, subscription, lines);
    let mut invoice = invoice(data, subscription, lines, "draft", due, now);
    invoice["auto_advance"] = json!(true);
    invoice["automatically_finalizes_at"] = json!(now + seconds);
    invoice["billing_reason"] = json!("subscription_cycle");
    invoice
}

fn lines_of(data: &mut Data, (before, subscription): (&Value, &Value), free: bool, now: i64) -> Vec<Value> {
    let mut lines = invoice_lines::elapsed(data, before, now, Seen::All);
    lines.extend(invoice_lines::upcoming(subscription, free, now));
    lines.extend(take_pending(data, subscription));
    lines
}

/// The lines of the invoice items that waited. They are on an invoice now.
fn take_pending(data: &mut Data, subscription: &Value) -> Vec<Value> {
    let lines = invoice_lines::pending(data, subscription);
    if let Some(items) = data.objects.get_mut("invoiceitem") {
        items.retain(|item| item["subscription"] != subscription["id"]);
    }
    lines
}

/// What an invoice with these lines comes to: due now, and the customer's balance after it. A balance below zero is
/// credit.
pub fn due(data: &mut Data, subscription: &Value, lines: &[Value]) -> (i64, i64) {
    let customer = subscription["customer"].as_str().unwrap_or_default();
    let balance = data.find("customer", customer).ok().and_then(|c| c["balance"].as_i64()).unwrap_or(0);
    let total = total(lines);
    ((total + balance).max(0), (total + balance).min(0))
}

fn total(lines: &[Value]) -> i64 {
    lines.iter().filter_map(|line| line["amount"].as_i64()).sum()
}

fn declined(data: &mut Data, subscription: &Value) -> bool {
    let method = subscription["default_payment_method"].as_str().unwrap_or_default();
    data.find("payment_method", method).is_ok_and(|m| m["_sandbox"]["declined"] == true) || asks(data, subscription)
}

/// Whether the customer's bank asks for the customer, who is not there.
pub fn asks(data: &mut Data, subscription: &Value) -> bool {
    let method = subscription["default_payment_method"].as_str().unwrap_or_default();
    let asks = |m: &mut Value| m["_sandbox"]["asks"] == true && m["_sandbox"]["answered"] != true;
    data.find("payment_method", method).is_ok_and(asks)
}

/// The customer is there to answer their bank, or is not any more.
pub fn answer(data: &mut Data, method: &Value, answered: bool) {
    if let Ok(method) = data.find("payment_method", method.as_str().unwrap_or_default()) {
        method["_sandbox"]["answered"] = json!(answered);
    }
}

/// Whether an invoice with these lines would be paid.
pub fn can_pay(data: &mut Data, subscription: &Value, lines: &[Value]) -> bool {
    due(data, subscription, lines).0 == 0 || !declined(data, subscription)
}

/// Makes an invoice with these lines and collects it. Answers whether it is settled.
pub fn bill(data: &mut Data, subscription: &Value, lines: &[Value], now: i64, events: &mut Events) -> bool {
    let due = due(data, subscription, lines);
    let declined = declined(data, subscription);
    let status = match (due.0, subscription["pause_collection"]["behavior"].as_str()) {
        (0, _) => "paid",
        (_, Some("void")) => "void",
        (_, Some(_)) => "draft",
        _ if declined => "open",
        _ => "paid",
    };
    let invoice = invoice(data, subscription, lines, status, due, now);
    if invoice["amount_paid"] != 0 {
        pay(data, &invoice, now);
    }
    balance(data, &invoice);
    keep(data, subscription, &invoice);
    let event = match status {
        "paid" => "invoice.paid",
        "open" => "invoice.payment_failed",
        "void" => "invoice.voided",
        _ => "invoice.created",
    };
    events.push((event, invoice));
    status != "open"
}

pub fn invoice(
    data: &mut Data,
    subscription: &Value,
    lines: &[Value],
    status: &str,
    (amount, balance): (i64, i64),
    now: i64,
) -> Value {
    json!({
        "id": data.next_id("in"), "object": "invoice", "created": now, "livemode": false, "status": status,
        "customer": subscription["customer"], "amount_due": amount, "amount_paid": if status == "paid" { amount } else { 0 },
        "currency": subscription["currency"], "metadata": {},
        "total": total(lines), "ending_balance": balance,
        "lines": {"object": "list", "data": lines}, "auto_advance": status == "open", "attempt_count": 1,
        "next_payment_attempt": (status == "open").then(|| now + RETRIES[0] * DAY),
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": subscription["id"], "metadata": subscription["metadata"]}},
    })
}

/// The customer's balance after an invoice.
fn balance(data: &mut Data, invoice: &Value) {
    if let Ok(customer) = data.find("customer", invoice["customer"].as_str().unwrap_or_default()) {
        customer["balance"] = invoice["ending_balance"].clone();
    }
}

fn keep(data: &mut Data, subscription: &Value, invoice: &Value) {
    if let Ok(kept) = data.find("subscription", subscription["id"].as_str().unwrap_or_default()) {
        kept["latest_invoice"] = invoice["id"].clone();
    }
    data.insert("invoice", invoice.clone());
}

/// Finalizes the drafts whose hour is over. Their first payment is due at once: see [`retry_due`].
pub fn finalize_due(data: &mut Data, events: &mut Events) {
    let due = |data: &Data| {
        let at = |invoice: &Value| invoice["automatically_finalizes_at"].as_i64();
        let mut waiting = data.list("invoice").iter().filter(|i| i["status"] == "draft" && i["auto_advance"] == true);
        waiting.find(|i| at(i).is_some_and(|at| at <= data.now_of(&i["customer"]))).cloned()
    };
    while let Some(draft) = due(data) {
        finalize_draft(data, draft, events);
    }
}

/// Finalizes a draft on request (<https://docs.stripe.com/api/invoices/finalize>).
pub fn finalize(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let draft = data.find("invoice", id)?.clone();
    if draft["status"] != "draft" {
        return Err(Problem::bad("This invoice is already finalized, you can't re-finalize a non-draft invoice."));
    }
    finalize_draft(data, draft, events);
    data.find("invoice", id).cloned()
}

/// Counts the usage of a draft for the last time. After that it does not change any more.
fn finalize_draft(data: &mut Data, mut draft: Value, events: &mut Events) {
    let lines = draft["lines"]["data"].as_array().cloned().unwrap_or_default();
    if lines.iter().any(invoice_lines::follows_usage) {
        let lines = invoice_lines::counted_again(data, &lines);
        let of = json!({"customer": draft["customer"]});
        let (amount, ending) = due(data, &of, &lines);
        (draft["total"], draft["amount_due"], draft["ending_balance"]) =
            (total(&lines).into(), amount.into(), ending.into());
        draft["lines"]["data"] = json!(lines);
    }
    balance(data, &draft);
    let now = data.now_of(&draft["customer"]);
    (draft["status"], draft["automatically_finalizes_at"]) = (json!("open"), Value::Null);
    (draft["attempt_count"], draft["next_payment_attempt"]) = (json!(0), json!(now));
    if draft["amount_due"] == 0 {
        // There is nothing to collect.
        (draft["status"], draft["next_payment_attempt"]) = (json!("paid"), Value::Null);
        draft["auto_advance"] = json!(false);
        events.push(("invoice.paid", draft.clone()));
    }
    if let Ok(invoice) = data.find("invoice", draft["id"].as_str().unwrap_or_default()) {
        *invoice = draft;
    }
}

/// Changes whether an invoice is collected by itself, and its metadata, the only things that can be changed here.
pub fn update(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    fields::update(data, "invoice", id, p, &[])?;
    let invoice = data.find("invoice", id)?;
    if let Some(on) = p["auto_advance"].as_str() {
        if !matches!(invoice["status"].as_str(), Some("draft" | "open")) {
            return Err(Problem::bad("Finalized invoices that are paid or void can't be updated in this way."));
        }
        invoice["auto_advance"] = json!(on == "true");
    }
    events.push(("invoice.updated", invoice.clone()));
    Ok(invoice.clone())
}

/// The id of the subscription that an invoice is of.
pub fn subscription_of(invoice: &Value) -> &str {
    invoice["parent"]["subscription_details"]["subscription"].as_str().unwrap_or_default()
}

/// Tries to collect open invoices again when their day has come, whether collection on their subscription is paused or
/// not: a pause is for the invoices that come. After the last attempt the subscription is `unpaid`.
pub fn retry_due(data: &mut Data, events: &mut Events) {
    let due = |data: &Data| {
        let at = |invoice: &Value| invoice["next_payment_attempt"].as_i64();
        let waits = |i: &&Value| i["status"] == "open" && i["auto_advance"] == true;
        let mut waiting = data.list("invoice").iter().filter(waits);
        waiting.find(|i| at(i).is_some_and(|at| at <= data.now_of(&i["customer"]))).cloned()
    };
    while let Some(invoice) = due(data) {
        retry(data, invoice, events);
    }
}

fn retry(data: &mut Data, mut invoice: Value, events: &mut Events) {
    let id = invoice["id"].as_str().unwrap_or_default().to_owned();
    let of = invoice["parent"]["subscription_details"]["subscription"].as_str().unwrap_or_default().to_owned();
    let subscription = data.find("subscription", &of).map(|s| s.clone()).unwrap_or_default();
    if subscription["status"] == "canceled" && invoice["_sandbox"]["last"] != true {
        // Stripe stops collecting for a subscription that is cancelled, but for its last invoice.
        invoice["auto_advance"] = json!(false);
    } else if declined(data, &subscription) {
        let (attempts, made) =
            (invoice["attempt_count"].as_u64().unwrap_or(1), invoice["created"].as_i64().unwrap_or(0));
        let next = usize::try_from(attempts).ok().and_then(|attempts| RETRIES.get(attempts));
        invoice["attempt_count"] = json!(attempts + 1);
        invoice["next_payment_attempt"] = json!(next.map(|days| made + days * DAY));
        events.push(("invoice.payment_failed", invoice.clone()));
        if attempts == 0 {
            late(data, &of, events);
        }
        if next.is_none() {
            stands(data, &of, "unpaid", events);
        }
    } else {
        settle(data, &mut invoice, events);
        stands(data, &of, "active", events);
    }
    if let Ok(kept) = data.find("invoice", &id) {
        *kept = invoice;
    }
}

/// The first payment of a renewal was declined.
fn late(data: &mut Data, id: &str, events: &mut Events) {
    let Ok(subscription) = data.find("subscription", id) else { return };
    subscription["status"] = json!("past_due");
    events.push(("customer.subscription.updated", subscription.clone()));
}

/// The subscription of a late invoice gets another status.
pub fn stands(data: &mut Data, id: &str, status: &str, events: &mut Events) {
    let Ok(subscription) = data.find("subscription", id) else { return };
    if matches!(subscription["status"].as_str(), Some("past_due" | "unpaid")) {
        subscription["status"] = json!(status);
        events.push(("customer.subscription.updated", subscription.clone()));
    }
}

/// The customer or their card pays an open invoice.
pub fn settle(data: &mut Data, invoice: &mut Value, events: &mut Events) {
    invoice["status"] = json!("paid");
    invoice["amount_paid"] = invoice["amount_due"].clone();
    (invoice["auto_advance"], invoice["next_payment_attempt"]) = (json!(false), Value::Null);
    let now = data.now_of(&invoice["customer"]);
    pay(data, invoice, now);
    events.push(("invoice.paid", invoice.clone()));
}

/// The payment of an invoice.
pub fn pay(data: &mut Data, invoice: &Value, now: i64) {
    let (amount, currency) = (&invoice["amount_due"], &invoice["currency"]);
    let intent = json!({
        "id": data.next_id("pi"), "object": "payment_intent", "created": now, "status": "succeeded",
        "amount": amount, "currency": currency, "customer": invoice["customer"],
    });
    let payment = json!({
        "id": data.next_id("inpay"), "object": "invoice_payment", "created": now, "invoice": invoice["id"],
        "status": "paid", "amount_paid": amount, "currency": currency,
        "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
    });
    data.insert("payment_intent", intent);
    data.insert("invoice_payment", payment);
}
