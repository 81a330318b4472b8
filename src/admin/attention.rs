//! What needs an owner now. Pure: Tenants and the time go in, lists come out, the most urgent first. The facts of the
//! status decide; the conditions only lend their words.

mod kind;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use kind::Kind;

use crate::analytics::{Journey, StuckAfter, stuck_reason};
use crate::api::conditions::{
    self, BILLING_READY, CLEANED_UP, DATA_IN_ONE_PLACE, ERASED, HELD, NAMESPACE_READY, PAYMENT_DISPUTED,
    PRICE_AS_PLANNED, READY, REFUNDED, SINGLE_SUBSCRIPTION, USAGE_BILLED,
};
use crate::api::facts::SuspendedFor;
use crate::api::tenant::BillingMode;
use crate::api::{Condition, ConditionStatus, LEGAL_HOLD_ANNOTATION, Phase, Tenant, TenantStatus, Timestamp};
use crate::lifecycle::{Finding, FindingKind, HeldDecision, audit};

/// How long an erasure may take once it is due.
const ERASURE_LIMIT: i64 = 3600;

/// One thing about one tenant.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    /// What kind of thing.
    pub kind: Kind,
    /// The tenant.
    pub tenant: &'a Tenant,
    /// Since when.
    pub since: Option<Timestamp>,
    /// What the operator says of it.
    pub message: Cow<'a, str>,
}

impl Item<'_> {
    /// The command that deals with it.
    pub fn command(&self) -> String {
        self.kind.command(self.tenant.place())
    }
}

/// Everything of one kind, what lasts longest first.
pub type Groups<'a> = BTreeMap<Kind, Vec<Item<'a>>>;

/// What needs an owner, by kind, the most urgent kind first.
pub fn groups<'a>(tenants: impl IntoIterator<Item = &'a Tenant>, now: Timestamp) -> Groups<'a> {
    let mut groups = Groups::new();
    for item in tenants.into_iter().flat_map(|tenant| items(tenant, now)) {
        groups.entry(item.kind).or_default().push(item);
    }
    for items in groups.values_mut() {
        items.sort_by_key(|item| (item.since.unwrap_or(now), item.tenant.metadata.name.as_deref()));
    }
    groups
}

/// What of one tenant needs an owner, the most urgent first.
pub fn items(tenant: &Tenant, now: Timestamp) -> Vec<Item<'_>> {
    let Some(status) = &tenant.status else { return Vec::new() };
    let seen = Seen { tenant, status, now };
    let concerns = [
        seen.failed(),
        seen.refund_owed(),
        seen.held(),
        seen.disputed(),
        seen.on_hold(),
        seen.data_unclear(),
        seen.usage_not_billed(),
        seen.billed_wrong(),
        seen.suspended(),
        seen.stuck(),
        seen.erasure(),
    ];
    let mut items: Vec<_> = concerns.into_iter().flatten().collect();
    let findings = audit(tenant, now);
    items.extend(seen.too_long(&items, &findings));
    items.extend(seen.served_unpaid(&items, findings));
    items.sort_by_key(|item| item.kind);
    items
}

/// What became of the payment of a tenant that failed, as a sentence.
pub fn refund(tenant: &Tenant) -> String {
    let refund = tenant.status.as_ref().and_then(|status| status.refund.as_ref());
    match refund {
        _ if tenant.spec.billing.mode == BillingMode::Manual => {
            "Billed by hand, so the operator refunds nothing".into()
        }
        None => "The refund is not settled yet".into(),
        Some(refund) if refund.waived => {
            format!("An admin took over the refund at {}; the operator refunds nothing", refund.at)
        }
        Some(refund) if refund.amount == 0 => "The customer had paid nothing, so there is no refund".into(),
        Some(refund) => {
            let currency = refund.currency.clone().unwrap_or_default();
            let money = crate::api::money::Money { amount: refund.amount, currency };
            format!("The operator refunded {money} at {}", refund.at)
        }
    }
}

/// One tenant with its status, and the present time.
#[derive(Clone, Copy)]
struct Seen<'a> {
    tenant: &'a Tenant,
    status: &'a TenantStatus,
    now: Timestamp,
}

impl<'a> Seen<'a> {
    fn item(self, kind: Kind, since: Option<Timestamp>, message: impl Into<Cow<'a, str>>) -> Item<'a> {
        Item { kind, tenant: self.tenant, since, message: message.into() }
    }

    fn condition(self, type_: &str) -> Option<&'a Condition> {
        conditions::get(&self.status.conditions, type_)
    }

    /// The words of a condition, or else those of the status.
    fn words(self, type_: &str) -> &'a str {
        let shown = self.condition(type_).map(|condition| &*condition.message).filter(|message| !message.is_empty());
        shown.or(self.status.message.as_deref()).unwrap_or("The operator has not reported a reason yet")
    }

    /// Since when a condition is what it is.
    fn since(self, type_: &str) -> Option<Timestamp> {
        self.condition(type_).map(|condition| condition.last_transition_time)
    }

    /// When the present phase began.
    fn in_phase_since(self) -> Option<Timestamp> {
        self.status.transitions.last().map(|transition| transition.timestamp)
    }

    fn by_stripe(self) -> bool {
        self.tenant.spec.billing.mode == BillingMode::Stripe
    }

    fn failed(self) -> Option<Item<'a>> {
        let message = || format!("{}. {}.", self.words(READY).trim_end_matches('.'), refund(self.tenant));
        (self.status.phase == Some(Phase::Failed)).then(|| self.item(Kind::Failed, self.in_phase_since(), message()))
    }

    fn refund_owed(self) -> Option<Item<'a>> {
        let owed_again = self.status.refund_owed_since;
        let owed = self.status.phase == Some(Phase::Failed) || owed_again.is_some();
        let since = owed_again.or_else(|| self.in_phase_since());
        (self.by_stripe() && owed && self.status.refund.is_none())
            .then(|| self.item(Kind::RefundOwed, since, self.words(REFUNDED)))
    }

    fn held(self) -> Option<Item<'a>> {
        let decision = HeldDecision::of(self.tenant)?;
        let since = self.status.held.map(|held| held.since).or_else(|| self.since(READY));
        let held = self.condition(HELD).filter(|_| self.status.held.is_some());
        let message = held.map_or(Cow::Owned(decision.why), |held| Cow::Borrowed(&*held.message));
        Some(self.item(Kind::Held, since, message))
    }

    fn disputed(self) -> Option<Item<'a>> {
        self.status.dispute?;
        Some(self.item(Kind::Disputed, self.since(PAYMENT_DISPUTED), self.words(PAYMENT_DISPUTED)))
    }

    /// Also what `kubectl tenant audit` calls stuck. What is on hold or is erased has a list of its own.
    fn too_long(self, others: &[Item], findings: &[Finding]) -> Option<Item<'a>> {
        let explained = [Kind::OnHold, Kind::SuspendedForPayment, Kind::ErasureOverdue, Kind::ErasureOnHold];
        if others.iter().any(|item| explained.contains(&item.kind)) {
            return None;
        }
        let provisioning = self.status.phase == Some(Phase::Provisioning);
        let slow = self.status.slow_since.filter(|_| provisioning);
        let stuck = findings.iter().any(|finding| finding.kind == FindingKind::Stuck);
        let since = slow.or_else(|| self.in_phase_since().filter(|_| stuck))?;
        Some(self.item(Kind::PhaseTooLong, Some(since), self.words(READY)))
    }

    fn on_hold(self) -> Option<Item<'a>> {
        let run = self.status.provisioning.as_ref().filter(|_| self.status.phase == Some(Phase::Provisioning));
        if let Some(since) = run.and_then(|run| run.held_since) {
            return Some(self.item(Kind::OnHold, Some(since), self.words(READY)));
        }
        let since = self.status.billing_failing_since?;
        Some(self.item(Kind::OnHold, Some(since), self.words(BILLING_READY)))
    }

    fn data_unclear(self) -> Option<Item<'a>> {
        if let Some(since) = self.status.namespace_missing_since {
            return Some(self.item(Kind::DataUnclear, Some(since), self.words(NAMESPACE_READY)));
        }
        let since = self.status.data_unclear_since?;
        Some(self.item(Kind::DataUnclear, Some(since), self.words(DATA_IN_ONE_PLACE)))
    }

    fn usage_not_billed(self) -> Option<Item<'a>> {
        let shown = self.condition(USAGE_BILLED).filter(|condition| condition.status == ConditionStatus::False)?;
        Some(self.item(Kind::UsageNotBilled, Some(shown.last_transition_time), &*shown.message))
    }

    fn billed_wrong(self) -> Option<Item<'a>> {
        if let Some(since) = self.status.surplus_since {
            return Some(self.item(Kind::BilledWrong, Some(since), self.words(SINGLE_SUBSCRIPTION)));
        }
        self.status.other_price.as_ref()?;
        Some(self.item(Kind::BilledWrong, self.since(PRICE_AS_PLANNED), self.words(PRICE_AS_PLANNED)))
    }

    fn served_unpaid(self, others: &[Item], findings: Vec<Finding>) -> Option<Item<'a>> {
        if others.iter().any(|item| item.kind == Kind::BilledWrong) {
            return None;
        }
        let found = findings.into_iter().find(|found| found.kind == FindingKind::ServedUnpaid)?;
        Some(self.item(Kind::BilledWrong, None, found.message))
    }

    fn suspended(self) -> Option<Item<'a>> {
        let unpaid = matches!(self.status.suspended_for, Some(SuspendedFor::Payment | SuspendedFor::End));
        (self.status.phase == Some(Phase::Suspended) && unpaid)
            .then(|| self.item(Kind::SuspendedForPayment, self.in_phase_since(), self.words(READY)))
    }

    fn stuck(self) -> Option<Item<'a>> {
        // Most tenants are not in service or go on: the journey is read of the others only.
        self.status.phase.filter(|phase| phase.is_served())?;
        let reason = stuck_reason(&Journey::of(self.tenant)?, self.now)?;
        let kind = match reason.after {
            StuckAfter::Payment => Kind::StuckAfterPayment,
            StuckAfter::Login => Kind::StuckAfterLogin,
            StuckAfter::Query => Kind::StuckAfterQuery,
        };
        Some(self.item(kind, Some(reason.since), reason.action))
    }

    fn erasure(self) -> Option<Item<'a>> {
        if self.status.phase != Some(Phase::Deleting) {
            return None;
        }
        let annotations = self.tenant.metadata.annotations.as_ref();
        let hold = annotations.and_then(|annotations| annotations.get(LEGAL_HOLD_ANNOTATION));
        let begun = self.status.erasure.as_ref().map(|erasure| erasure.started_at);
        let due = begun.or(self.status.erases_at);
        if let Some(why) = hold {
            let since = due.filter(|due| self.now.since(*due) >= 0).or_else(|| self.in_phase_since());
            return Some(self.item(Kind::ErasureOnHold, since, format!("Legal hold: {why}")));
        }
        let due = due.filter(|due| self.now.since(*due) > ERASURE_LIMIT)?;
        let shown = [ERASED, CLEANED_UP].into_iter().find(|type_| self.condition(type_).is_some()).unwrap_or(READY);
        Some(self.item(Kind::ErasureOverdue, Some(due), self.words(shown)))
    }
}

#[cfg(test)]
pub mod examples;
#[cfg(test)]
mod tests;
