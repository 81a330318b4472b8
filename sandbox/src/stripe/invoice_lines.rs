//! The lines of invoices: months in advance, and usage afterwards.

use serde_json::{Value, json};

use super::periods::end_of;
use super::prices::{is_metered, parts};
use super::problem::Problem;
use super::usage::Seen;
use super::{Data, items, meters, pages};

/// Lines that an invoice embeds, at most: "there may be more than 10 line items on the invoice"
/// (<https://docs.stripe.com/api/invoices/object#invoice_object-lines>).
const EMBEDDED: usize = 10;

/// Cuts the lines of every invoice in an answer or an event, as Stripe shows them. The rest is in [a list](list) of its
/// own.
pub fn embed(shown: &mut Value) {
    match shown {
        Value::Object(fields) => {
            if fields.get("object").is_some_and(|object| object == "invoice") {
                let id = fields.get("id").and_then(Value::as_str).unwrap_or_default();
                let url = format!("/v1/invoices/{id}/lines");
                let Some(lines) = fields.get_mut("lines") else { return };
                let Some(all) = lines["data"].as_array_mut() else { return };
                let more = all.len() > EMBEDDED;
                all.truncate(EMBEDDED);
                (lines["has_more"], lines["url"]) = (json!(more), json!(url));
            } else {
                fields.values_mut().for_each(embed);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(embed),
        _ => {}
    }
}

/// A page of the lines of an invoice, in the order in which it shows them
/// (<https://docs.stripe.com/api/invoice-line-item/retrieve>).
pub fn list(data: &mut Data, invoice: &str, p: &Value) -> Result<Value, Problem> {
    let lines = data.find("invoice", invoice)?["lines"]["data"].as_array().cloned().unwrap_or_default();
    Ok(pages::page(lines, &format!("/v1/invoices/{invoice}/lines"), p))
}

/// What a line is for.
pub struct Charge<'a> {
    pub subscription: &'a Value,
    /// The subscription's item.
    pub item: &'a Value,
    pub amount: i64,
    pub quantity: i64,
    pub period: (i64, i64),
    pub proration: bool,
}

/// A line (<https://docs.stripe.com/api/invoice-line-item/object>).
pub fn line(charge: &Charge<'_>) -> Value {
    let Charge { subscription, item, amount, quantity, period: (start, end), proration } = charge;
    let price = &item["price"];
    let details = json!({
        "subscription": subscription["id"], "subscription_item": item["id"], "proration": proration, "invoice_item": null,
        "proration_details": null,
    });
    json!({
        "id": format!("il_sandbox{}", hex::encode(rand::random::<[u8; 8]>())), "object": "line_item", "amount": amount,
        "subtotal": amount, "currency": subscription["currency"], "description": null, "discountable": !proration,
        "discounts": [], "livemode": false, "metadata": {}, "quantity": quantity, "quantity_decimal": quantity.to_string(),
        "proration": proration, "period": {"start": start, "end": end}, "subscription": subscription["id"],
        "parent": {"type": "subscription_item_details", "invoice_item_details": null, "subscription_item_details": details},
        "pricing": {
            "type": "price_details", "unit_amount_decimal": price["unit_amount_decimal"],
            "price_details": {"price": price["id"], "product": price["product"]},
        },
    })
}

/// The months to come: one line for each price that is not metered.
pub fn upcoming(subscription: &Value, free: bool, now: i64) -> Vec<Value> {
    let period = (now, end_of(subscription, free, now));
    let licensed = items::of(subscription).iter().filter(|item| !is_metered(&item["price"]));
    licensed
        .map(|item| {
            let amount = if free { 0 } else { items::monthly(item) };
            let quantity = items::quantity(item);
            line(&Charge { subscription, item, amount, quantity, period, proration: false })
        })
        .collect()
}

/// The usage since the period's begin, or since the item's price: lines for each metered price. What was used in a
/// trial is free. Subscriptions in the classic billing mode have a line of nothing on their first invoice, flexible
/// ones have none (<https://docs.stripe.com/billing/subscriptions/billing-mode/compare#usage-based-pricing>).
pub fn elapsed(data: &Data, subscription: &Value, to: i64, seen: Seen) -> Vec<Value> {
    let flexible = subscription["billing_mode"]["type"] == "flexible";
    let metered = items::of(subscription).iter().filter(|item| is_metered(&item["price"]));
    metered
        .filter(|item| !flexible || items::usage_from(item) < to)
        .flat_map(|item| usage(data, subscription, item, (items::usage_from(item), to), seen))
        .collect()
}

/// The lines of an item's usage within a time.
pub fn usage(data: &Data, subscription: &Value, item: &Value, span: (i64, i64), seen: Seen) -> Vec<Value> {
    let (price, free) = (&item["price"], subscription["status"] == "trialing");
    let (meter, customer) = (&price["recurring"]["meter"], subscription["customer"].as_str().unwrap_or_default());
    let meter = data.list(meters::METER).iter().find(|m| m["id"] == *meter).cloned().unwrap_or_default();
    // "If the overall cycle usage is negative, Stripe reports the invoice line item usage quantity as 0":
    // <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#usage-values>
    let quantity = data.usage.total(&meter, customer, span, seen).0.max(0);
    let parts = parts(price, quantity).into_iter();
    parts
        .map(|(part, unit)| {
            let amount = if free { 0 } else { unit.times(part) };
            let mut line = line(&Charge { subscription, item, amount, quantity: part, period: span, proration: false });
            let name = meter["display_name"].as_str().unwrap_or_default();
            line["description"] =
                json!(if free { format!("{part} × {name} (Free trial)") } else { format!("{part} × {name}") });
            line["pricing"]["unit_amount_decimal"] = json!(unit.to_string());
            let of = json!({
                "id": subscription["id"], "customer": customer, "currency": subscription["currency"],
                "status": subscription["status"],
            });
            line["_sandbox"] = json!({"usage": {"subscription": of, "item": item, "from": span.0, "to": span.1}});
            line
        })
        .collect()
}

/// The same lines with the usage as it is now: "when the invoice finalizes, Stripe updates it to reflect the latest
/// quantity" (<https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period>).
pub fn counted_again(data: &Data, lines: &[Value]) -> Vec<Value> {
    let (mut counted, mut again) = (Vec::new(), Vec::new());
    for line in lines {
        let of = &line["_sandbox"]["usage"];
        if of.is_null() {
            again.push(line.clone());
        } else if !counted.contains(of) {
            let span = (of["from"].as_i64().unwrap_or(0), of["to"].as_i64().unwrap_or(0));
            again.extend(usage(data, &of["subscription"], &of["item"], span, Seen::All));
            counted.push(of.clone());
        }
    }
    again
}

/// Whether a line's quantity follows the usage until its invoice is finalized.
pub fn follows_usage(line: &Value) -> bool {
    line["_sandbox"]["usage"].is_object()
}

/// The lines of the invoice items that wait for the subscription's next invoice.
pub fn pending(data: &Data, subscription: &Value) -> Vec<Value> {
    let waiting = data.list("invoiceitem").iter().filter(|item| item["subscription"] == subscription["id"]);
    waiting
        .map(|item| match &item["_sandbox"]["line"] {
            Value::Null => json!({
                "object": "line_item", "amount": item["amount"], "proration": item["proration"], "period": item["period"],
            }),
            line => line.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invoice_embeds_ten_lines_and_lists_them_all() {
        let mut data = Data::default();
        let lines: Vec<_> = (0..25).map(|number| json!({"id": format!("il_{number}")})).collect();
        let invoice = json!({"id": "in_1", "object": "invoice", "lines": {"object": "list", "data": lines}});
        data.insert("invoice", invoice.clone());
        let mut shown = json!({"object": "list", "data": [invoice, {"object": "invoice", "lines": {"data": []}}]});
        embed(&mut shown);
        let [long, short] = [0, 1].map(|number| shown["data"][number]["lines"].clone());
        assert_eq!((&long["data"][9]["id"], &long["data"][10]), (&json!("il_9"), &Value::Null));
        assert_eq!((&long["has_more"], &long["url"]), (&json!(true), &json!("/v1/invoices/in_1/lines")));
        assert_eq!(short["has_more"], false);
        let page = |data: &mut Data, after: &str| list(data, "in_1", &json!({"starting_after": after, "limit": "10"}));
        let rest = page(&mut data, "il_9").unwrap_or_default();
        assert_eq!((&rest["data"][0]["id"], &rest["has_more"]), (&json!("il_10"), &json!(true)));
        let rest = page(&mut data, "il_19").unwrap_or_default();
        assert_eq!((rest["data"].as_array().map(Vec::len), &rest["has_more"]), (Some(5), &json!(false)));
        assert!(list(&mut data, "in_2", &json!({})).is_err());
    }
}
