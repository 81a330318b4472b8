//! Each kind is found by the facts that make it, and by no others.

use serde_json::json;

use super::examples::{at, condition, now, reached, sound, tenant};
use super::*;

fn kinds(tenant: &Tenant) -> Vec<Kind> {
    items(tenant, now()).iter().map(|item| item.kind).collect()
}

fn one(tenant: &Tenant, kind: Kind) -> (Option<Timestamp>, String) {
    let items = items(tenant, now());
    let item = items.iter().find(|item| item.kind == kind).unwrap_or_else(|| panic!("{kind:?} is not in {items:?}"));
    (item.since, item.message.clone().into_owned())
}

#[test]
fn a_sound_tenant_and_a_new_one_need_nothing() {
    assert_eq!(kinds(&sound("acme")), []);
    let mut new = sound("acme");
    new.status = None;
    assert_eq!(kinds(&new), []);
    assert!(groups([], now()).is_empty());
}

#[test]
fn a_failed_tenant_says_what_became_of_the_payment() {
    let failed = |refund| {
        let ready = condition("Ready", "False", "PineconeRefused", "Pinecone refused the call.");
        tenant("acme", "Failed", json!({"conditions": [ready], "refund": refund}))
    };
    let (since, said) =
        one(&failed(json!({"amount": 4900, "currency": "usd", "at": "2026-11-30T11:01:00Z"})), Kind::Failed);
    assert_eq!(since, Some(at("2026-11-30T11:00:00Z")));
    assert_eq!(said, "Pinecone refused the call. The operator refunded 49.00 USD at 2026-11-30T11:01:00Z.");
    let nothing = failed(json!({"amount": 0, "at": "2026-11-30T11:01:00Z"}));
    assert!(one(&nothing, Kind::Failed).1.ends_with("The customer had paid nothing, so there is no refund."));
    let waived = failed(json!({"amount": 0, "at": "2026-11-30T11:01:00Z", "waived": true}));
    assert!(one(&waived, Kind::Failed).1.contains("An admin took over the refund"));
    assert_eq!(kinds(&waived), [Kind::Failed]);
    let mut owed = failed(json!(null));
    assert_eq!(kinds(&owed), [Kind::Failed, Kind::RefundOwed]);
    assert!(one(&owed, Kind::Failed).1.ends_with("The refund is not settled yet."));
    owed.spec.billing.mode = BillingMode::Manual;
    assert_eq!(kinds(&owed), [Kind::Failed], "the operator owes nothing to a customer who is billed by hand");
}

#[test]
fn a_refund_that_came_back_is_owed_in_any_phase() {
    let shown = condition("Refunded", "False", "RefundFailed", "The refund is not settled yet: the bank refused it");
    let owed = tenant("acme", "Deleting", json!({"refundOwedSince": "2026-11-30T09:00:00Z", "conditions": [shown]}));
    let (since, said) = one(&owed, Kind::RefundOwed);
    assert_eq!((since, said.contains("the bank refused it")), (Some(at("2026-11-30T09:00:00Z")), true));
}

#[test]
fn what_waits_for_a_person_is_held() {
    let shown = condition("Held", "True", "SuspensionHeld", "12 of 40 tenants would be suspended");
    let held = json!({
        "subscription": "active", "held": {"harm": "Suspend", "since": "2026-11-30T11:15:00Z"}, "conditions": [shown],
    });
    let (since, said) = one(&tenant("acme", "Active", held), Kind::Held);
    assert_eq!((since, said.as_str()), (Some(at("2026-11-30T11:15:00Z")), "12 of 40 tenants would be suspended"));
    let unknown = condition("PaymentReceived", "False", "StripeCustomerUnknown", "Stripe does not know the customer");
    let unknown = tenant("acme", "Active", json!({"subscription": "active", "conditions": [unknown]}));
    assert_eq!(one(&unknown, Kind::Held).1, "Stripe does not know customer cus_1");
}

#[test]
fn facts_of_money_and_data_have_lists_of_their_own() {
    let with = |fact: serde_json::Value, shown| {
        let mut status = json!({"subscription": "active", "conditions": [shown]});
        let (Some(into), serde_json::Value::Object(fact)) = (status.as_object_mut(), fact) else { panic!("objects") };
        into.extend(fact);
        tenant("acme", "Active", status)
    };
    let since = "2026-11-30T08:00:00Z";
    for (kind, fact, type_) in [
        (Kind::Disputed, json!({"dispute": "Open"}), "PaymentDisputed"),
        (Kind::OnHold, json!({"billingFailingSince": since}), "BillingReady"),
        (Kind::DataUnclear, json!({"namespaceMissingSince": since}), "NamespaceReady"),
        (Kind::DataUnclear, json!({"dataUnclearSince": since}), "DataInOnePlace"),
        (Kind::BilledWrong, json!({"surplusSince": since}), "SingleSubscription"),
        (Kind::BilledWrong, json!({"otherPrice": "price_2"}), "PriceAsPlanned"),
        (Kind::UsageNotBilled, json!({}), "UsageBilled"),
    ] {
        let tenant = with(fact, condition(type_, "False", "Why", "what the condition says"));
        assert_eq!(kinds(&tenant), [kind], "{type_}");
        assert_eq!(one(&tenant, kind).1, "what the condition says");
    }
    let billed = with(json!({}), condition("UsageBilled", "True", "Sent", "Stripe has all usage"));
    assert_eq!(kinds(&billed), []);
}

#[test]
fn a_tenant_that_is_served_and_not_paid_for_is_billed_wrong() {
    let unpaid = tenant("acme", "Active", json!({"subscription": "canceled"}));
    assert_eq!(one(&unpaid, Kind::BilledWrong).1, "Active, and the subscription is canceled");
}

#[test]
fn a_phase_that_lasts_too_long_is_named_once() {
    let later = now().plus(3 * 3600);
    let kinds = |status| {
        let tenant = tenant("acme", "Provisioning", status);
        items(&tenant, later).iter().map(|item| item.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(json!({})), [Kind::PhaseTooLong], "as the audit says");
    assert_eq!(kinds(json!({"slowSince": "2026-11-30T11:06:00Z"})), [Kind::PhaseTooLong]);
    let held = json!({"provisioning": {"attempts": 0, "startedAt": "2026-11-30T11:00:00Z", "heldSince": "2026-11-30T11:01:00Z"}});
    assert_eq!(kinds(held), [Kind::OnHold], "what it waits for says why");
    let slow = tenant("acme", "Provisioning", json!({"slowSince": "2026-11-30T11:06:00Z"}));
    assert_eq!(one(&slow, Kind::PhaseTooLong).0, Some(at("2026-11-30T11:06:00Z")), "long before the audit's limit");
    let over = tenant("acme", "Active", json!({"subscription": "active", "slowSince": "2026-11-30T11:06:00Z"}));
    assert_eq!(items(&over, later).len(), 0, "it is set up");
}

#[test]
fn a_missing_payment_is_told_and_a_suspension_that_an_admin_wants_is_not() {
    let suspended = |why: &str| kinds(&tenant("acme", "Suspended", json!({"suspendedFor": why})));
    assert_eq!(suspended("Payment"), [Kind::SuspendedForPayment]);
    assert_eq!(suspended("End"), [Kind::SuspendedForPayment]);
    assert_eq!(suspended("Admin"), []);
}

#[test]
fn a_customer_who_does_not_go_on_is_stuck_after_the_last_step() {
    let served = |steps: &[&str]| {
        let mut tenant = tenant(
            "acme",
            "Active",
            json!({"subscription": "active", "provisionedAt": "2026-11-20T10:00:00Z", "paidAt": "2026-11-20T09:59:00Z"}),
        );
        for step in steps {
            reached(&mut tenant, step, "2026-11-21T10:00:00Z");
        }
        tenant
    };
    assert_eq!(kinds(&served(&[])), [Kind::StuckAfterPayment]);
    assert_eq!(kinds(&served(&["first-login"])), [Kind::StuckAfterLogin]);
    assert_eq!(kinds(&served(&["first-login", "sample-query"])), [Kind::StuckAfterQuery]);
    assert_eq!(kinds(&served(&["first-login", "sample-query", "first-document"])), []);
    let (since, said) = one(&served(&[]), Kind::StuckAfterPayment);
    assert_eq!((since, said.contains("welcome e-mail")), (Some(at("2026-11-20T10:00:00Z")), true));
}

#[test]
fn an_erasure_is_overdue_an_hour_after_it_was_due_and_a_legal_hold_keeps_it() {
    let deleting = |erases_at: &str| tenant("acme", "Deleting", json!({"erasesAt": erases_at}));
    assert_eq!(kinds(&deleting("2026-12-30T00:00:00Z")), []);
    assert_eq!(kinds(&deleting("2026-11-30T11:00:00Z")), [], "an hour is normal");
    let overdue = deleting("2026-11-30T10:59:59Z");
    assert_eq!(kinds(&overdue), [Kind::ErasureOverdue]);
    assert_eq!(one(&overdue, Kind::ErasureOverdue).0, Some(at("2026-11-30T10:59:59Z")));
    let mut kept = deleting("2026-11-01T00:00:00Z");
    let annotations = kept.metadata.annotations.get_or_insert_default();
    annotations.insert(LEGAL_HOLD_ANNOTATION.into(), "case 7".into());
    assert_eq!(kinds(&kept), [Kind::ErasureOnHold]);
    assert_eq!(one(&kept, Kind::ErasureOnHold).1, "Legal hold: case 7");
    let begun = json!({"erasure": {"startedAt": "2026-11-30T09:00:00Z", "lines": []}});
    assert_eq!(kinds(&tenant("acme", "Deleting", begun)), [Kind::ErasureOverdue]);
}

#[test]
fn what_is_most_urgent_and_lasts_longest_comes_first() {
    let suspended = |name, at: &str| {
        let mut tenant = tenant(name, "Suspended", json!({"suspendedFor": "Payment"}));
        if let Some(last) = tenant.status.as_mut().and_then(|status| status.transitions.last_mut()) {
            last.timestamp = self::at(at);
        }
        tenant
    };
    let all = [
        suspended("late", "2026-11-29T00:00:00Z"),
        suspended("early", "2026-11-01T00:00:00Z"),
        tenant("broken", "Failed", json!({"refund": {"amount": 0, "at": "2026-11-30T11:01:00Z"}})),
        sound("fine"),
    ];
    let groups = groups(&all, now());
    let names = |items: &[Item]| items.iter().map(|item| item.tenant.place().name.to_owned()).collect::<Vec<_>>();
    let found: Vec<_> = groups.iter().map(|(kind, items)| (*kind, names(items))).collect();
    assert_eq!(
        found,
        [
            (Kind::Failed, vec!["broken".to_owned()]),
            (Kind::SuspendedForPayment, vec!["early".to_owned(), "late".to_owned()])
        ]
    );
    assert_eq!(groups[&Kind::Failed][0].command(), "kubectl tenant retry broken -n rag-tenants");
}
