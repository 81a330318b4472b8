//! The status of a Tenant as a version before revision 8 of the definitions (`crds/`) wrote it last: these facts were
//! in its conditions alone. Whatever reads a Tenant gets them as fields, so that an upgrade begins no grace period anew
//! and ends no suspension. The first status that this version writes has the fields.
//!
//! This file may go with the version that no longer upgrades from one before revision 8.

use super::facts::{Awaited, Awaiting, DisputeState, Harm, Held, SuspendedFor};
use super::{Condition, ConditionStatus, Phase, TenantStatus, Timestamp, conditions};

impl TenantStatus {
    /// Adds the facts that are missing, as the conditions tell them. Adds none to a status that this version wrote.
    #[must_use]
    pub fn with_facts_of_conditions(mut self) -> Self {
        let told = std::mem::take(&mut self.conditions);
        let shown = |type_| conditions::get(&told, type_);
        let since = |type_, status| shown(type_).filter(|c| c.status == status).map(|c| c.last_transition_time);
        let true_since = |type_| since(type_, ConditionStatus::True);
        let false_since = |type_| since(type_, ConditionStatus::False);
        let with_reason = |type_, reason| shown(type_).filter(|c| c.reason == reason);
        let time = |condition: &Condition| condition.last_transition_time;

        let ready = shown(conditions::READY);
        if self.phase == Some(Phase::Suspended) {
            self.suspended_for.get_or_insert(suspended_for(ready));
        }
        if matches!(self.phase, Some(Phase::PendingPayment | Phase::Suspended)) {
            let paid_at = true_since(conditions::PAYMENT_RECEIVED);
            self.awaiting = self.awaiting.or_else(|| awaiting(ready?, paid_at));
        }
        let late = with_reason(conditions::PAYMENT_RECEIVED, "PaymentPastDue");
        let late = late.filter(|c| c.status == ConditionStatus::False).map(time);
        self.payment_late_since = self.payment_late_since.or(late);
        let confirmed = shown(conditions::EMAIL_VERIFIED).map(|c| c.status == ConditionStatus::True);
        self.email_confirmed = self.email_confirmed.or(confirmed);
        self.slow_since = self.slow_since.or(true_since(conditions::SLOW));
        let missing = with_reason(conditions::NAMESPACE_READY, "NamespaceMissing").map(time);
        self.namespace_missing_since = self.namespace_missing_since.or(missing);
        self.data_unclear_since = self.data_unclear_since.or(false_since(conditions::DATA_IN_ONE_PLACE));
        self.billing_failing_since = self.billing_failing_since.or(false_since(conditions::BILLING_READY));
        self.collection_paused_since = self.collection_paused_since.or(true_since(conditions::COLLECTION_PAUSED));
        let stopped = with_reason(conditions::RENEWAL_STOPPED, "Stopped").map(time);
        self.renewal_stopped_at = self.renewal_stopped_at.or(stopped);
        self.surplus_since = self.surplus_since.or(false_since(conditions::SINGLE_SUBSCRIPTION));
        self.other_price = self.other_price.or_else(|| other_price(shown(conditions::PRICE_AS_PLANNED)?));
        self.dispute = self.dispute.or_else(|| dispute(shown(conditions::PAYMENT_DISPUTED)?));
        self.held = self.held.or_else(|| held(shown(conditions::HELD)?));
        self.customer_kept |= with_reason(conditions::CLEANED_UP, "Kept").is_some();

        self.conditions = told;
        self
    }
}

fn suspended_for(ready: Option<&Condition>) -> SuspendedFor {
    match ready.map(|ready| &*ready.reason) {
        Some("SuspendedByAdmin") => SuspendedFor::Admin,
        Some("PaymentDisputed") => SuspendedFor::Dispute,
        // A customer who is given a link to subscribe again, too, or who gets none because of the Plan or for lack of
        // room.
        Some(
            "SubscriptionEnded" | "AwaitingPayment" | "LinkOnRequest" | "CapacityMissing" | "PlanNotFound"
            | "PlanHasNoPrice",
        ) => SuspendedFor::End,
        _ => SuspendedFor::Payment,
    }
}

fn awaiting(ready: &Condition, paid_at: Option<Timestamp>) -> Option<Awaiting> {
    let what = match &*ready.reason {
        "AwaitingPayment" => Awaited::Payment,
        "LinkOnRequest" => Awaited::LinkRequest,
        "PaymentProcessing" => Awaited::Processing,
        "AwaitingApproval" => Awaited::Approval,
        "CapacityMissing" => Awaited::Capacity,
        "AwaitingVerification" if paid_at.is_some() => Awaited::ConfirmationOfPaid,
        "AwaitingVerification" => Awaited::Confirmation,
        _ => return None,
    };
    Some(Awaiting { what, since: paid_at.unwrap_or(ready.last_transition_time) })
}

/// The message begins with "Stripe bills" and the price.
fn other_price(condition: &Condition) -> Option<super::Text> {
    let price = condition.message.split_whitespace().nth(2)?.trim_end_matches(',');
    (condition.status == ConditionStatus::False).then(|| price.into())
}

fn dispute(condition: &Condition) -> Option<DisputeState> {
    let state = if condition.reason == "Lost" { DisputeState::Lost } else { DisputeState::Open };
    (condition.status == ConditionStatus::True).then_some(state)
}

fn held(condition: &Condition) -> Option<Held> {
    let harm = match &*condition.reason {
        "SuspensionHeld" => Harm::Suspend,
        "FailureHeld" => Harm::Fail,
        "ClosingHeld" => Harm::Close,
        "ErasureHeld" => Harm::Erase,
        _ => return None,
    };
    (condition.status == ConditionStatus::True).then_some(Held { harm, since: condition.last_transition_time })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: Timestamp = Timestamp::from_second(1_000_000);

    /// The status of an earlier version: the phase, and conditions with type, status, reason and message.
    fn read(phase: &str, conditions: &[[&str; 4]]) -> TenantStatus {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|[type_, status, reason, message]| {
                json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": AT})
            })
            .collect();
        serde_json::from_value(json!({"phase": phase, "conditions": conditions})).expect("a status")
    }

    /// What is read of one condition, of a tenant that is served.
    fn of(type_: &str, status: &str, reason: &str) -> TenantStatus {
        read("Active", &[[type_, status, reason, ""]])
    }

    #[test]
    fn a_tenant_stays_suspended_for_what_suspended_it() {
        for (reason, wanted) in [
            ("SuspendedByAdmin", SuspendedFor::Admin),
            ("PaymentDisputed", SuspendedFor::Dispute),
            ("SubscriptionEnded", SuspendedFor::End),
            ("AwaitingPayment", SuspendedFor::End),
            ("LinkOnRequest", SuspendedFor::End),
            ("CapacityMissing", SuspendedFor::End),
            ("PlanNotFound", SuspendedFor::End),
            ("PlanHasNoPrice", SuspendedFor::End),
            ("PaymentMissing", SuspendedFor::Payment),
            ("PaymentProcessing", SuspendedFor::Payment),
        ] {
            let status = read("Suspended", &[["Ready", "False", reason, ""]]);
            assert_eq!(status.suspended_for, Some(wanted), "{reason}");
            assert_eq!(read("Active", &[["Ready", "True", reason, ""]]).suspended_for, None, "{reason}, served");
        }
    }

    #[test]
    fn a_grace_period_does_not_begin_anew() {
        assert_eq!(of("PaymentReceived", "False", "PaymentPastDue").payment_late_since, Some(AT));
        assert_eq!(of("PaymentReceived", "False", "Unpaid").payment_late_since, None);
        assert_eq!(of("PaymentReceived", "True", "Recovered").payment_late_since, None);
    }

    #[test]
    fn a_tenant_waits_for_what_it_waited_for() {
        let waits = |payment: &str, reason: &str| {
            let both = [["Ready", "False", reason, ""], ["PaymentReceived", payment, reason, ""]];
            read("PendingPayment", &both).awaiting.map(|a| (a.what, a.since))
        };
        for (reason, what) in [
            ("AwaitingPayment", Awaited::Payment),
            ("LinkOnRequest", Awaited::LinkRequest),
            ("PaymentProcessing", Awaited::Processing),
            ("AwaitingApproval", Awaited::Approval),
            ("CapacityMissing", Awaited::Capacity),
            ("AwaitingVerification", Awaited::Confirmation),
        ] {
            assert_eq!(waits("False", reason), Some((what, AT)));
            assert_eq!(what.reason(), reason);
        }
        assert_eq!(waits("True", "AwaitingVerification"), Some((Awaited::ConfirmationOfPaid, AT)));
        assert_eq!(waits("Unknown", "StripeUnreachable"), None);
        assert_eq!(of("Ready", "True", "AwaitingPayment").awaiting, None, "a tenant that is served");
    }

    #[test]
    fn what_is_held_is_still_held_and_its_confirmation_holds() {
        for (reason, harm) in [
            ("SuspensionHeld", Harm::Suspend),
            ("FailureHeld", Harm::Fail),
            ("ClosingHeld", Harm::Close),
            ("ErasureHeld", Harm::Erase),
        ] {
            assert_eq!(of("Held", "True", reason).held, Some(Held { harm, since: AT }));
            assert_eq!(of("Held", "False", reason).held, None);
        }
    }

    #[test]
    fn a_dispute_still_counts_before_stripe_is_asked() {
        assert_eq!(of("PaymentDisputed", "True", "Open").dispute, Some(DisputeState::Open));
        assert_eq!(of("PaymentDisputed", "True", "Lost").dispute, Some(DisputeState::Lost));
        assert_eq!(of("PaymentDisputed", "False", "Over").dispute, None);
    }

    #[test]
    fn what_is_known_of_stripe_is_still_known() {
        let message = "Stripe bills price_9, the price of plan pro, and the tenant is served by plan starter.";
        let billed = read("Active", &[["PriceAsPlanned", "False", "PriceOfAnotherPlan", message]]);
        assert_eq!(billed.other_price.as_deref(), Some("price_9"));
        assert_eq!(of("PriceAsPlanned", "True", "Recovered").other_price, None);
        assert_eq!(of("SingleSubscription", "False", "SurplusSubscription").surplus_since, Some(AT));
        assert_eq!(of("SingleSubscription", "True", "Recovered").surplus_since, None);
        assert_eq!(of("BillingReady", "False", "StripeCustomerUnknown").billing_failing_since, Some(AT));
        assert_eq!(of("BillingReady", "True", "Recovered").billing_failing_since, None);
        assert_eq!(of("CollectionPaused", "True", "SuspendedByAdmin").collection_paused_since, Some(AT));
        assert_eq!(of("RenewalStopped", "True", "Stopped").renewal_stopped_at, Some(AT));
        assert_eq!(
            of("RenewalStopped", "True", "ClosedBefore").renewal_stopped_at,
            None,
            "it was not closed by its wish"
        );
    }

    #[test]
    fn what_is_known_of_the_data_and_the_customer_is_still_known() {
        assert_eq!(of("NamespaceReady", "False", "NamespaceMissing").namespace_missing_since, Some(AT));
        assert_eq!(of("NamespaceReady", "False", "PineconeTimeout").namespace_missing_since, None);
        assert_eq!(of("DataInOnePlace", "False", "TwoGenerations").data_unclear_since, Some(AT));
        assert_eq!(of("DataInOnePlace", "True", "Recovered").data_unclear_since, None);
        assert_eq!(of("Slow", "True", "SlowProvisioning").slow_since, Some(AT));
        assert_eq!(of("Slow", "False", "Active").slow_since, None);
        assert_eq!(of("EmailVerified", "False", "AwaitingVerification").email_confirmed, Some(false));
        assert_eq!(of("EmailVerified", "True", "Verified").email_confirmed, Some(true));
        assert_eq!(of("Ready", "True", "Active").email_confirmed, None);
        assert!(of("CleanedUp", "False", "Kept").customer_kept && !of("CleanedUp", "False", "Forced").customer_kept);
    }

    #[test]
    fn what_this_version_wrote_is_read_as_it_was_written() {
        let written = TenantStatus {
            suspended_for: Some(SuspendedFor::Dispute),
            payment_late_since: Some(AT.plus(-60)),
            ..read("Suspended", &[["Ready", "False", "SuspendedByAdmin", ""]])
        };
        let stored = serde_json::to_value(&written).expect("JSON");
        assert_eq!(serde_json::from_value::<TenantStatus>(stored).expect("a status"), written);
    }
}
