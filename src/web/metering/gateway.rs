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
use crate::web::serving::problem::Problem;

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
    /// When the period ends.
    pub end: Timestamp,
}

impl Queries {
    fn of(account: &Account, left: Option<i64>) -> Self {
        Self { limit: account.limit(Unit::Queries), left, end: Period::from(account.period).end }
    }
}

impl Metering {
    /// What is left of a tenant's queries, at this moment. Nothing is counted.
    pub async fn queries(self: &Arc<Self>, tenant: &Served, now: Timestamp) -> Result<Queries, Problem> {
        let account = self.account(tenant, now).await?;
        if account.limits.of(Unit::Queries).is_none() {
            return Ok(Queries::of(&account, None));
        }
        let left = match self.usage_of(&tenant.id).await {
            Ok(usage) => account.left(usage).of(Unit::Queries),
            // A request that is let through counts nothing, so it needs no journal.
            Err(CallError::Unavailable(_)) if account.when_unavailable == WhenUnavailable::Serve => None,
            Err(error) => return Err(refusal::of(&error, &account, now)),
        };
        Ok(Queries::of(&account, left))
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
