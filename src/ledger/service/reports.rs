//! What was counted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Shared;
use super::answers::{ServiceProblem, check_page};
use super::extract::{Name, Parameters};
use crate::api::Timestamp;
use crate::ledger::account::{Account, Period};
use crate::ledger::store::{Changed, ClosedHour, ClosedHours, Day};
use crate::ledger::units::Amounts;
use crate::ledger::wire::{DayUsage, HourUsage, HoursUsage, PeriodUsage, TenantUsage};

/// Periods of one answer.
const PERIODS: u32 = 36;
/// Tenants of one answer.
const MOST: u32 = 1000;
/// Days of one answer: a little over a year.
const DAYS: i64 = 400;

impl From<(Period, Account)> for PeriodUsage {
    fn from((period, Account { used, reserved }): (Period, Account)) -> Self {
        Self { period, used, reserved }
    }
}

/// `GET /v1/tenants/{tenant}/usage`: the latest period, and the levels.
pub async fn usage(State(shared): State<Arc<Shared>>, Name(tenant): Name) -> Result<Json<PeriodUsage>, ServiceProblem> {
    let usage = shared.store.usage(&tenant).await?.ok_or(ServiceProblem::UnknownTenant)?;
    Ok(Json(usage.into()))
}

/// `GET /v1/tenants/{tenant}/periods`: the latest periods, the latest first.
pub async fn periods(
    State(shared): State<Arc<Shared>>,
    Name(tenant): Name,
) -> Result<Json<Vec<PeriodUsage>>, ServiceProblem> {
    let periods = shared.store.periods(&tenant, PERIODS).await?;
    Ok(Json(periods.into_iter().map(PeriodUsage::from).collect()))
}

/// Hours of one answer.
const HOURS: u32 = 1000;

/// Hours from a moment on, and at most so many: `?from=2026-12-01T00:00:00Z&most=100`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoursFrom {
    from: Timestamp,
    most: u32,
}

/// `GET /v1/tenants/{tenant}/hours`: what was counted in closed hours, which never change.
pub async fn hours(
    State(shared): State<Arc<Shared>>,
    Name(tenant): Name,
    Parameters(HoursFrom { from, most }): Parameters<HoursFrom>,
) -> Result<Json<HoursUsage>, ServiceProblem> {
    check_page(most, HOURS, "hours")?;
    let now = shared.clock.read().now;
    let ClosedHours { closed_until, listed_until, hours } = shared.store.hours(&tenant, from, most, now).await?;
    let usage = |ClosedHour { hour, period, amounts }| HourUsage { hour, period, counted: amounts };
    Ok(Json(HoursUsage { closed_until, listed_until, hours: hours.into_iter().map(usage).collect() }))
}

/// Days of UTC, both included: `?from=2026-12-01&to=2026-12-31`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    from: jiff::civil::Date,
    to: jiff::civil::Date,
}

impl Between {
    fn days(&self) -> Result<(Day, Day), ServiceProblem> {
        let (first, last) = (day_of(self.from)?, day_of(self.to)?);
        if (0..DAYS).contains(&(last.0 - first.0)) {
            Ok((first, last))
        } else {
            Err(ServiceProblem::Malformed(format!(
                "from {} to {}: ask for 1 to {DAYS} days, the earlier one first",
                self.from, self.to
            )))
        }
    }
}

fn day_of(date: jiff::civil::Date) -> Result<Day, ServiceProblem> {
    let midnight =
        date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| ServiceProblem::Malformed(error.to_string()))?;
    Ok(Day::of(Timestamp::from(midnight.timestamp())))
}

type Days = Result<Json<Vec<DayUsage>>, ServiceProblem>;

/// `GET /v1/tenants/{tenant}/days`
pub async fn tenant_days(
    State(shared): State<Arc<Shared>>,
    Name(tenant): Name,
    Parameters(between): Parameters<Between>,
) -> Days {
    shared.days(Some(&tenant), &between).await
}

/// `GET /v1/days`: of the whole site.
pub async fn site_days(State(shared): State<Arc<Shared>>, Parameters(between): Parameters<Between>) -> Days {
    shared.days(None, &between).await
}

impl Shared {
    async fn days(&self, tenant: Option<&str>, between: &Between) -> Days {
        let (first, last) = between.days()?;
        let days = self.store.days(tenant, first, last).await?;
        let usage = |(day, counted): (Day, Amounts)| {
            let moment = jiff::Timestamp::from_second(day.0 * 24 * 3600).unwrap_or_default();
            DayUsage { day: moment.to_zoned(jiff::tz::TimeZone::UTC).date(), counted }
        };
        Ok(Json(days.into_iter().map(usage).collect()))
    }
}

/// What is asked for: `?after=0&most=1000`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    after: i64,
    most: u32,
}

/// `GET /v1/usage`: the tenants for which something was counted after a line.
pub async fn changed(
    State(shared): State<Arc<Shared>>,
    Parameters(After { after, most }): Parameters<After>,
) -> Result<Json<Vec<TenantUsage>>, ServiceProblem> {
    if after < 0 || !(1..=MOST).contains(&most) {
        return Err(ServiceProblem::Malformed(format!(
            "after={after}&most={most}: ask for 1 to {MOST} tenants after a line"
        )));
    }
    let changed = shared.store.changed(after, most).await?;
    let usage = |Changed { tenant, period, account: Account { used, reserved }, seq }| TenantUsage {
        tenant,
        period,
        used,
        reserved,
        seq,
    };
    Ok(Json(changed.into_iter().map(usage).collect()))
}
