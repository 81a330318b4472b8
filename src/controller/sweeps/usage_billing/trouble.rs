//! Why usage of a tenant is not sent.

use crate::api::{Timestamp, Unit};
use crate::ledger::client::CallError;
use crate::providers::ProviderError;
use crate::providers::stripe::UsagePriceError;

/// Why usage of a tenant is not sent.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The ledger does not answer, or refuses.
    #[error(transparent)]
    Ledger(#[from] CallError),
    /// Stripe does not answer, or refuses.
    #[error(transparent)]
    Stripe(#[from] ProviderError),
    /// The API server does not answer, or the object has changed.
    #[error("Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    /// The subscription in the spec is not at Stripe.
    #[error("Stripe does not know subscription {0}, so no usage is sent: correct spec.billing.stripe.subscriptionId")]
    Unknown(String),
    /// The subscription is another tenant's, or another customer's.
    #[error(
        "subscription {0} belongs to another tenant or customer, so no usage is sent: correct spec.billing.stripe.subscriptionId and \
         customerId"
    )]
    Foreign(String),
    /// The price cannot bill it.
    #[error("{0}")]
    Unfit(String),
    /// Two prices share a meter, and both would bill the usage of both.
    #[error(
        "subscription {subscription} has or gets two usage prices with the meter {meter}: make a meter for each unit, or take one of the \
         prices off the subscription"
    )]
    Shared {
        /// The subscription.
        subscription: String,
        /// The meter.
        meter: String,
    },
    /// Two prices would bill the same usage.
    #[error(
        "subscription {subscription} has two usage prices for {name}, so no usage of the subscription is sent: take one of the two prices off the subscription",
        name = .unit.in_plans()
    )]
    PricedTwice {
        /// The subscription.
        subscription: String,
        /// The unit.
        unit: Unit,
    },
    /// Stripe has another number than was sent.
    #[error(
        "the ledger has sent {sent} {name} since {since} and holds {unsent} more in closed hours, {copied} of those that were \
         sent, and Stripe has {theirs} on {on}. No {name} are sent until they agree{looked}. Once Stripe's number has stayed the \
         same for an hour, `kubectl tenant settle-usage` says whose number the customer pays",
        name = .unit.in_plans(),
        on = on(.meters),
        copied = copied(*.events),
        looked = looked(.tenant.as_ref())
    )]
    Differs {
        /// The unit.
        unit: Unit,
        /// The meters that Stripe has it on.
        meters: Vec<String>,
        /// From when on it is counted.
        since: Timestamp,
        /// What was sent.
        sent: i64,
        /// What waits.
        unsent: i64,
        /// What Stripe has.
        theirs: i64,
        /// What the events store has of the hours that were sent. None is not known.
        events: Option<i64>,
        /// The namespace and the name of the tenant, once they are known.
        tenant: Option<(String, String)>,
    },
    /// Stripe's sums may lack what was sent in the last minutes.
    #[error("Stripe does not show yet what was sent")]
    Settling,
    /// Nothing bills it yet.
    #[error(
        "{} wait: they were counted before subscription {subscription}, which has no price for them. They are billed once it has one. To \
         drop them, run `kubectl tenant settle-usage`",
        listed(.amounts)
    )]
    Waits {
        /// How much of which units.
        amounts: Vec<(Unit, i64)>,
        /// The subscription.
        subscription: String,
    },
    /// Nothing bills it any more.
    #[error(
        "{} were not billed: they were counted after the last invoice of subscription {subscription} was final. Invoice them by hand if \
         the customer is to pay for them",
        listed(.amounts)
    )]
    Over {
        /// How much of which units.
        amounts: Vec<(Unit, i64)>,
        /// The subscription.
        subscription: String,
    },
}

impl From<UsagePriceError> for Trouble {
    fn from(error: UsagePriceError) -> Self {
        match error {
            UsagePriceError::Provider(error) => Self::Stripe(error),
            UsagePriceError::Unfit(why) => Self::Unfit(why),
        }
    }
}

/// `12 queries and 300 prompt_tokens`.
fn listed(amounts: &[(Unit, i64)]) -> String {
    amounts.iter().map(|(unit, amount)| format!("{amount} {}", unit.in_plans())).collect::<Vec<_>>().join(" and ")
}

/// What the events store has.
fn copied(events: Option<i64>) -> String {
    events.map_or_else(
        || "it is not known how many the events store has".to_owned(),
        |events| format!("the events store has {events}"),
    )
}

/// The command that shows the hours.
fn looked(tenant: Option<&(String, String)>) -> String {
    let shown = |(namespace, name): &(String, String)| {
        format!(
            ": `kubectl tenant usage {name} -n {namespace} --billed --hours --lines` shows the hours and their lines"
        )
    };
    tenant.map(shown).unwrap_or_default()
}

/// `meter mtr_1`, or `the meters mtr_1 and mtr_2 together`.
fn on(meters: &[String]) -> String {
    match meters {
        [one] => format!("meter {one}"),
        all => format!("the meters {} together", all.join(" and ")),
    }
}

impl Trouble {
    /// The reason of usage that nothing bills.
    pub const OVER: &str = "SubscriptionOver";

    /// Combines the troubles of two units of a tenant. Keeps the first, but lists every unit whose usage nothing bills.
    pub fn both(first: Option<Self>, then: Self) -> Self {
        match (first, then) {
            (Some(Self::Over { mut amounts, subscription }), Self::Over { amounts: more, .. }) => {
                amounts.extend(more);
                Self::Over { amounts, subscription }
            }
            (Some(first), _) => first,
            (None, then) => then,
        }
    }

    /// One word for programs. By hand: the words are fixed, the variants' names are not, and one word is a constant
    /// that the metric and the condition use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ledger(_) => "LedgerUnavailable",
            Self::Stripe(_) => "StripeRefuses",
            Self::Kubernetes(_) => "KubernetesRefuses",
            Self::Unknown(_) => "SubscriptionUnknown",
            Self::Foreign(_) => "ForeignSubscription",
            Self::Unfit(_) => "PriceUnfit",
            Self::Shared { .. } => "MeterShared",
            Self::PricedTwice { .. } => "UnitPricedTwice",
            Self::Differs { .. } => "NumbersDiffer",
            Self::Settling => "Settling",
            Self::Waits { .. } => "WaitsForPrice",
            Self::Over { .. } => Self::OVER,
        }
    }

    /// Whether it goes by itself in most cases, so that it is shown only if it lasts.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Ledger(_) | Self::Stripe(_) | Self::Kubernetes(_) | Self::Settling)
    }
}
