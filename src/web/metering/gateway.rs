//! Queries that another service answers: its gateway asks what is left of them, or has them counted before that service
//! is asked.

use std::sync::Arc;

use super::account::Account;
use super::journal::Entry;
use super::{Metering, counted, refusal, reserve};
use crate::api::quota::WhenUnavailable;
use crate::api::{Timestamp, Unit};
use crate::ledger::account::Period;
use crate::ledger::client::CallError;
use crate::ledger::units::{Amounts, Limits};
use crate::ledger::wire::{CommandOutcome, Reserve};
use crate::web::serving::directory::Served;
use crate::web::serving::problem::{Code, Problem};
use crate::web::serving::standing::{Standing, UNITS};

/// Seconds after which queries that were set aside are given back. They are counted at once, so only a process that is
/// killed in between leaves any.
const EXPIRY: u32 = 60;

/// What a tenant has of its queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queries {
    /// What the plan allows in a period. None without a limit.
    pub limit: Option<i64>,
    /// What is left of it. None without a limit, and while the ledger is away.
    pub left: Option<i64>,
    /// The period.
    pub period: Period,
}

impl Queries {
    fn of(account: &Account, left: Option<i64>) -> Self {
        Self { limit: account.limit(Unit::Queries), left, period: account.period.into() }
    }

    /// As headers of an answer. None without a limit, and while the ledger is away.
    pub fn standing(&self) -> Option<Standing> {
        let left = Limits::default().with(Unit::Queries, self.left?);
        let limit = |unit| self.limit.filter(|_| unit == Unit::Queries);
        Some(Standing::of(limit, &left, self.period))
    }
}

impl Metering {
    /// What is left of a tenant's plan, at this moment. Nothing is counted, and nothing asked of a plan without limits.
    pub async fn standing(self: &Arc<Self>, tenant: &Served, now: Timestamp) -> Result<Standing, Problem> {
        let account = self.account(tenant, now).await?;
        let period = account.period.into();
        if UNITS.iter().all(|(unit, _)| account.limit(*unit).is_none()) {
            return Ok(account.standing(&Limits::default(), period));
        }
        match self.usage_of(&tenant.id).await {
            Ok(usage) => Ok(account.standing(&account.left(usage), period)),
            Err(error) => Err(refusal::of(&error, &account, now)),
        }
    }

    /// Whether a standing is of a tenant's present period and limits.
    pub fn is_present(tenant: &Served, standing: &Standing, now: Timestamp) -> bool {
        Account::of(tenant, now).is_ok_and(|account| account.is_of(standing))
    }

    /// What is left as the tenant's status shows it, for want of the ledger. None for a tenant without a plan.
    pub fn shown(tenant: &Served, now: Timestamp) -> Option<Standing> {
        let account = Account::of(tenant, now).ok()?;
        let period = Period::from(account.period);
        let shown = tenant.shown.filter(|shown| shown.period_start >= period.start);
        let left = UNITS.iter().filter_map(|(unit, _)| {
            let used = shown.map_or(0, |shown| shown.of(*unit).used);
            Some((*unit, account.limit(*unit)? - used))
        });
        let left = left.fold(Limits::default(), |limits, (unit, left)| limits.with(unit, left.max(0)));
        Some(account.standing(&left, period))
    }

    /// What a check of a gateway rests on if the plan does not limit queries: the ledger is not asked.
    pub fn unlimited(tenant: &Served, now: Timestamp) -> Result<Option<Queries>, Problem> {
        let account = Account::of(tenant, now)?;
        Ok(account.limit(Unit::Queries).is_none().then(|| Queries::of(&account, None)))
    }

    /// What a check of a gateway may rest on: the queries that are left, by what the ledger said, if it did.
    pub fn queries(tenant: &Served, said: Result<Standing, Problem>, now: Timestamp) -> Result<Queries, Problem> {
        let account = Account::of(tenant, now)?;
        match said {
            Ok(standing) => Ok(Queries::of(&account, standing.left(Unit::Queries))),
            // A request that is let through counts nothing, so it needs no journal.
            Err(problem)
                if problem.is(Code::LedgerUnavailable) && account.when_unavailable == WhenUnavailable::Serve =>
            {
                Ok(Queries::of(&account, None))
            }
            Err(problem) => Err(problem),
        }
    }

    /// The refusal of a tenant that has no query left.
    pub fn no_query_left(tenant: &Served, now: Timestamp) -> Problem {
        match Account::of(tenant, now) {
            Ok(account) => refusal::beyond(&account, Unit::Queries, 0, now),
            Err(problem) => problem,
        }
    }

    /// Counts queries under a name, once, however often it is called. Refused where the plan leaves too few. A gateway
    /// that hangs up does not stop it half way.
    pub async fn consume(
        self: &Arc<Self>,
        tenant: &Arc<Served>,
        operation: String,
        queries: i64,
        now: Timestamp,
    ) -> Result<Queries, Problem> {
        let (metering, tenant) = (self.clone(), tenant.clone());
        let counted = async move { metering.reserve_and_settle(&tenant, operation, queries, now).await };
        self.to_its_end(counted).await.map_err(|error| Problem::internal("queries of a gateway", &error))?
    }

    async fn reserve_and_settle(
        self: &Arc<Self>,
        tenant: &Served,
        operation: String,
        queries: i64,
        now: Timestamp,
    ) -> Result<Queries, Problem> {
        let account = self.account(tenant, now).await?;
        let amounts = Amounts::of(Unit::Queries, queries);
        // The other limits are about what the service behind the gateway does, which is not known here.
        let limits = account.limits.of(Unit::Queries);
        let limits = limits.map_or_else(Limits::default, |limit| Limits::default().with(Unit::Queries, limit));
        let body = Reserve { limits, ..reserve(&account, amounts, EXPIRY) };
        let left = match self.ask(self.ledger.reserve(&operation, &body)).await {
            Ok(CommandOutcome::Reserved { left, .. }) => left.of(Unit::Queries),
            Ok(other) => return Err(Problem::internal("a reservation", &format!("{other:?}"))),
            Err(CallError::Unavailable(_)) => {
                self.without_ledger(&account)?;
                None
            }
            Err(error) => return Err(refusal::of(&error, &account, now)),
        };
        self.end(vec![Entry::Settle { operation, body: counted(&account, amounts) }]).await;
        Ok(Queries::of(&account, left))
    }
}
