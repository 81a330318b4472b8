//! Whose use is counted, in which period and up to which limits, in the ledger's terms.

use strum::IntoEnumIterator;

use crate::api::quota::WhenUnavailable;
use crate::api::{Timestamp, Unit};
use crate::ledger::account::Period;
use crate::ledger::units::{LARGEST, Limits};
use crate::ledger::wire::{PeriodUsage, SomePeriod, TenantId};
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;
use crate::web::serving::standing::Standing;

/// Whose use is counted.
#[derive(Clone, Debug)]
pub struct Account {
    /// The tenant.
    pub tenant: TenantId,
    /// Its present period.
    pub period: SomePeriod,
    /// Beyond what it is refused.
    pub limits: Limits,
    /// Queries of the period that were given back after the ledger had counted them. The limit goes along with so many
    /// more.
    pub given_back: i64,
    /// What happens while the ledger is away.
    pub when_unavailable: WhenUnavailable,
}

impl Account {
    /// Of a tenant that has a plan.
    pub fn of(tenant: &Served, now: Timestamp) -> Result<Self, Problem> {
        let (Some(config), Some(quota)) = (&tenant.config, &tenant.quota) else { return Err(Problem::unavailable()) };
        let (start, end) = quota.period_at(now);
        let unusable = |why: String| Problem::internal("a tenant's account", &why);
        let given_back = given_back(tenant, start);
        let mut limits = Limits::default();
        for unit in Unit::iter() {
            if let Some(limit) = config.hard_limit(unit) {
                let more = if unit == Unit::Queries { given_back } else { 0 };
                limits = limits.with(unit, limit.saturating_add(more).clamp(0, LARGEST));
            }
        }
        Ok(Self {
            tenant: tenant.id.clone().try_into().map_err(unusable)?,
            period: Period { start, end }.try_into().map_err(unusable)?,
            limits,
            given_back,
            when_unavailable: config.quota.when_unavailable,
        })
    }

    /// What the limits leave beside what was used and is set aside.
    pub fn left(&self, usage: Option<PeriodUsage>) -> Limits {
        let taken = |usage: PeriodUsage| {
            let taken = usage.used.plus(usage.reserved);
            // What was used in an earlier period is no matter; what is stored is.
            if usage.period.start >= Period::from(self.period).start { taken } else { taken.only(true) }
        };
        self.limits.left(usage.map(taken).unwrap_or_default())
    }

    /// What is left of it, as headers of an answer. The ledger keeps the end that a period had at first, which moves with
    /// the billing period at Stripe.
    pub fn standing(&self, left: &Limits, period: Period) -> Standing {
        let own = Period::from(self.period);
        let period = if own.start == period.start { own } else { period };
        Standing::of(|unit| self.limit(unit), left, period)
    }

    /// Whether a standing is of the present period and of these limits.
    pub fn is_of(&self, standing: &Standing) -> bool {
        standing.is_of(self.period.into(), |unit| self.limit(unit))
    }

    /// The limit of a unit as the plan has it.
    pub fn limit(&self, unit: Unit) -> Option<i64> {
        let more = if unit == Unit::Queries { self.given_back } else { 0 };
        Some(self.limits.of(unit)? - more)
    }
}

/// Queries of the present period that a version before the ledger gave back after the ledger had counted them.
pub fn given_back(tenant: &Served, start: Timestamp) -> i64 {
    tenant.taken_over.given_back(&tenant.counted_before, start.as_second())
}
