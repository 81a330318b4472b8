//! What Stripe says of a tenant: its subscriptions, its Checkout sessions, its disputes and its refunds.

use crate::api::Timestamp;
use crate::api::usage::Cycle;

/// What Stripe says of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObservedBilling {
    /// The customer, when there is one.
    pub customer_id: Option<String>,
    /// The subscription that is worth most: one that is paid or in trial before any other.
    pub subscription: Option<ObservedSubscription>,
    /// The latest Checkout session.
    pub session: Option<ObservedSession>,
    /// Other subscriptions of the tenant that Stripe bills, by their ids.
    pub surplus: Vec<String>,
    /// Those of them whose collection is not paused.
    pub surplus_collected: Vec<String>,
    /// Those of them for which Stripe begins another period.
    pub surplus_renewing: Vec<String>,
}

/// A subscription at Stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObservedSubscription {
    /// `sub_...`
    pub id: String,
    /// Stripe's word: trialing, active, `past_due`, ...
    pub status: String,
    /// Whether a payment method is attached to it or to its customer.
    pub payment_method: bool,
    /// Whether collection is paused.
    pub paused: bool,
    /// When the trial ends.
    pub trial_ends_at: Option<Timestamp>,
    /// The plan that it was bought for.
    pub plan: Option<String>,
    /// The price that it bills, `price_...`.
    pub price: Option<String>,
    /// The Plan that has this price, by its name.
    pub billed_plan: Option<String>,
    /// A change of price that waits until the customer confirms its payment.
    pub unconfirmed: Option<UnconfirmedPrice>,
    /// When the present period ends.
    pub period_ends_at: Option<Timestamp>,
    /// From when on its months are counted.
    pub cycle: Option<Cycle>,
    /// The plan that is in force until the present period ends, where a smaller one is billed from then on.
    pub plan_before: Option<String>,
    /// Whether it ends and its tenant was closed. What a customer cancels at Stripe is theirs.
    pub ends: bool,
    /// When its tenant was closed, of one that was not taken back since.
    pub closed_at: Option<Timestamp>,
    /// Whether Stripe keeps another namespace or name of the Tenant with it.
    pub elsewhere: bool,
    /// Whether Stripe begins another period after the present one.
    pub renews: bool,
}

impl ObservedSubscription {
    /// Whether Stripe counts it as one to be served.
    pub fn served(&self) -> bool {
        matches!(self.status.as_str(), "trialing" | "active")
    }

    /// Whether Stripe makes invoices for it.
    pub fn billed(&self) -> bool {
        self.served() || matches!(self.status.as_str(), "past_due" | "unpaid")
    }

    /// Whether it is over for good: Stripe refuses every change to it but that of its metadata.
    pub fn over(&self) -> bool {
        matches!(self.status.as_str(), "canceled" | "incomplete_expired")
    }

    /// Whether collection is paused and can be resumed.
    pub fn resumable(&self) -> bool {
        self.paused && !self.over()
    }

    /// Whether Stripe begins another period and charges for it.
    pub fn bills_again(&self) -> bool {
        self.billed() && self.renews && !self.ends && !self.paused
    }

    /// Whether Stripe says that its tenant is closed, and it can still go on.
    pub fn renewable(&self) -> bool {
        self.closed_at.is_some() && !self.over()
    }

    /// Whether service is due: paid or in trial, and with a payment method.
    pub fn paid(&self) -> bool {
        self.served() && self.payment_method
    }

    /// Of several subscriptions of a tenant, the one that is worth most counts.
    pub fn worth(&self) -> (bool, bool, bool) {
        (self.paid(), self.served(), self.status != "canceled")
    }
}

/// A change of price that Stripe makes once its payment is confirmed:
/// <https://docs.stripe.com/billing/subscriptions/pending-updates>
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnconfirmedPrice {
    /// The price that it changes to.
    pub price: String,
    /// Where the customer confirms the payment, once it was asked for.
    pub url: Option<String>,
    /// Until when. Then Stripe drops the change.
    pub expires_at: Timestamp,
}

/// A Checkout session at Stripe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObservedSession {
    /// `cs_...`
    pub id: String,
    /// Where to pay, while it is open.
    pub url: Option<String>,
    /// Where it stands.
    pub state: SessionState,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Which attempt of ours made it.
    pub attempt: u32,
    /// The plan that it sells.
    pub plan: Option<String>,
    /// Whether Stripe keeps another namespace or name of the Tenant with it, and would note them with what is bought.
    pub elsewhere: bool,
}

/// Where a Checkout session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Waits for the customer.
    Open,
    /// Paid, or a trial begun.
    Complete,
    /// Too late.
    Expired,
}

/// A payment that the customer disputes, or has disputed with success.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dispute {
    /// `du_...`
    pub id: String,
    /// Stripe's word for the customer's reason, such as `fraudulent`.
    pub cause: String,
    /// In the smallest unit of the currency.
    pub amount: i64,
    /// The currency.
    pub currency: String,
    /// Whether the bank has given the money back.
    pub lost: bool,
    /// Until when it can be answered.
    pub due_by: Option<Timestamp>,
}

/// What is known of disputes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ObservedDispute {
    /// Stripe was not asked yet.
    #[default]
    Unknown,
    /// There is no open dispute.
    None,
    /// There is this one.
    Disputed(Dispute),
}

impl ObservedDispute {
    /// The dispute that counts: one that was settled with the customer does not.
    pub fn counting(&self, accepted: Option<&String>) -> Option<&Dispute> {
        match self {
            Self::Disputed(dispute) if accepted != Some(&dispute.id) => Some(dispute),
            Self::Disputed(_) | Self::None | Self::Unknown => None,
        }
    }
}

/// What was given back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObservedRefund {
    /// What the customer has back, in the smallest unit of the currency; 0 when nothing had been paid.
    pub amount: i64,
    /// What Stripe still sends back: it may fail.
    pub pending: i64,
    /// The currency.
    pub currency: Option<String>,
    /// What a person gives back outside of the operator, as Stripe's record notes.
    pub waived: i64,
}
