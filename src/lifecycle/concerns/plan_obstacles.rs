//! What stands in the way of another plan: what can never be, what the customer has to remove first, and what passes by
//! itself.

use super::migration;
use crate::api::plan::{Limits, PlanSpec};
use crate::api::tenant::BillingMode;
use crate::lifecycle::{Input, Regions, Stored, View};

/// The reason while no Plan has the name in the spec.
pub const PLAN_NOT_FOUND: &str = "PlanNotFound";
/// The reason while the Plan names no price at Stripe.
pub const PLAN_HAS_NO_PRICE: &str = "PlanHasNoPrice";
/// The reason while no index holds the region of the Plan.
pub const REGION_UNSUPPORTED: &str = "RegionUnsupported";

/// Why a change is blocked. It is checked again whenever something changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Why, as one word.
    pub reason: &'static str,
    /// Why, as a sentence, and what to do.
    pub message: String,
    /// Whether the change waits for an answer of the ledger. Nothing changes when it answers again, so the controller
    /// asks again after a while.
    pub asks_again: bool,
}

/// Why the tenant can never change to that plan, even if the customer removes documents.
pub fn impossible(
    tenant: &View,
    current: Option<&PlanSpec>,
    wanted: Option<&PlanSpec>,
    regions: &Regions,
) -> Option<Obstacle> {
    let (name, before) = (&tenant.spec.plan, tenant.plan_in_force());
    let obstacle = |reason, message: String| Some(Obstacle { reason, message, asks_again: false });
    let Some(wanted) = wanted else {
        let message =
            format!("No Plan is named {name:?}, so the tenant stays on {before}. `kubectl get plans` lists the plans");
        return obstacle(PLAN_NOT_FOUND, message);
    };
    let by_stripe = tenant.spec.billing.mode == BillingMode::Stripe;
    if by_stripe && wanted.stripe_price_id.is_none() {
        let message = format!("Plan {name} has no stripePriceId, so the tenant stays on {before}. Set it on the Plan");
        return obstacle(PLAN_HAS_NO_PRICE, message);
    }
    if let Some(why) = regions.unsupported(name, &wanted.region) {
        return obstacle(REGION_UNSUPPORTED, format!("{why}. The tenant stays on {before}"));
    }
    let current = current?;
    if regions.is_empty() && current.region != wanted.region {
        let message = format!(
            "Plan {name} keeps data in {}, the tenant's data is in {}, and one index holds the data of all regions, so the tenant \
             stays on {before}. Name an index for each region in PINECONE_REGIONS",
            wanted.region, current.region
        );
        return obstacle("RegionDiffers", message);
    }
    let currencies = (&current.monthly_price.currency, &wanted.monthly_price.currency);
    if by_stripe && currencies.0 != currencies.1 {
        let message = format!(
            "Plan {name} is paid in {}, and Stripe cannot change the currency of a subscription from {}, so the tenant \
             stays on {before}",
            currencies.1, currencies.0
        );
        return obstacle("CurrencyDiffers", message);
    }
    None
}

/// Whether a plan holds what a tenant stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It does.
    Fits,
    /// The ledger has not been asked yet.
    NotCounted,
    /// It does not, or the ledger does not answer.
    Not(Obstacle),
}

/// Whether a plan holds whatever a tenant may store under its present limits.
fn holds_as_much(wanted: &Limits, present: Option<&Limits>) -> bool {
    present.is_some_and(|present| wanted.documents >= present.documents && wanted.bytes >= present.bytes)
}

/// What is stored too much for a plan: what it is, how much there is, and how much the plan holds.
pub fn excess(documents: i64, bytes: i64, wanted: &Limits) -> Option<(&'static str, i64, i64)> {
    let over = [("documents", documents, wanted.documents), ("bytes of documents", bytes, wanted.bytes)];
    over.into_iter().find(|(_, used, limit)| used > limit)
}

/// Whether the tenant fits a plan at once. A plan with limits as large as the present ones needs no count, so that an
/// upgrade does not wait for the ledger.
pub fn fit(input: &Input, wanted: &PlanSpec) -> Fit {
    let tenant = input.tenant;
    let present = tenant.status.config.as_ref().map(|config| &config.limits);
    if holds_as_much(&wanted.limits, present) {
        return Fit::Fits;
    }
    let (name, before) = (&tenant.spec.plan, tenant.plan_in_force());
    match input.observed.stored {
        None => Fit::NotCounted,
        Some(Stored::Unknown) => Fit::Not(Obstacle {
            reason: "UsageUnknown",
            message: format!(
                "The ledger does not answer, so the controller cannot tell whether plan {name} holds the tenant's documents. The \
                 change continues once the ledger answers; until then the tenant stays on {before}"
            ),
            asks_again: true,
        }),
        Some(Stored::Counted { documents, bytes }) => match excess(documents, bytes, &wanted.limits) {
            None => Fit::Fits,
            Some((what, used, limit)) => Fit::Not(Obstacle {
                reason: "UsageExceedsPlan",
                message: format!(
                    "The tenant has {used} {what}, and plan {name} holds {limit}. Remove {} of them, and the change continues; \
                     until then the tenant stays on {before}",
                    used - limit
                ),
                asks_again: false,
            }),
        },
    }
}

/// The data moves to one place at a time.
pub fn moving(input: &Input, wanted: &PlanSpec) -> Option<Obstacle> {
    let to = migration::in_plan(input, wanted);
    let moves = migration::there(input).is_some_and(|there| there != to);
    let busy = moves && migration::is_busy(input, to);
    busy.then(|| Obstacle {
        reason: "DataMoving",
        message: format!(
            "Plan {} embeds documents with {to}, and another move of the tenant's data is not complete yet. The \
             change continues afterwards; `status.migration` shows how far it is",
            input.tenant.spec.plan
        ),
        asks_again: false,
    })
}
