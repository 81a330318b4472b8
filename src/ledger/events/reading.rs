//! What is read from an events store.

use crate::api::Timestamp;
use crate::ledger::units::Amounts;

/// From a moment on, and before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Included.
    pub from: Timestamp,
    /// Not included.
    pub to: Timestamp,
}

/// A page of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Those after this number.
    pub after: i64,
    /// At most so many.
    pub most: u32,
}

/// What is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// A tenant's lines by the hour that they are part of. What another ledger counted is in none.
    TenantHours(&'a str),
    /// A tenant's lines by day of UTC.
    TenantDays(&'a str),
    /// A tenant's lines by the period that their flows count in.
    TenantPeriods(&'a str),
    /// All lines by day of UTC.
    SiteDays,
    /// All lines by tenant and by the hour that they are part of.
    EveryTenantsHours,
    /// The same by the day of UTC of that hour.
    EveryTenantsDays,
}

/// How an answer is grouped, and which lines are part of it, as columns of `line`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The column of the tenant, or an empty text for the site.
    pub tenant: &'static str,
    /// The moment that a group begins at.
    pub start: &'static str,
    /// The moment that the span is about.
    pub moment: &'static str,
    /// Which lines.
    pub only: &'static str,
}

impl Asked<'_> {
    /// The tenant, if it is about one.
    pub(super) const fn tenant(&self) -> Option<&str> {
        match self {
            Self::TenantHours(tenant) | Self::TenantDays(tenant) | Self::TenantPeriods(tenant) => Some(tenant),
            Self::SiteDays | Self::EveryTenantsHours | Self::EveryTenantsDays => None,
        }
    }

    pub(super) const fn shape(&self) -> Shape {
        let day = "at - at % 86400";
        let (tenant, start, moment, only) = match self {
            Self::TenantHours(_) | Self::EveryTenantsHours => ("tenant", "hour", "hour", "kind <> 'moved'"),
            Self::EveryTenantsDays => ("tenant", "hour - hour % 86400", "hour", "kind <> 'moved'"),
            Self::TenantDays(_) => ("tenant", day, "at", "1 = 1"),
            Self::TenantPeriods(_) => ("tenant", "period_start", "at", "1 = 1"),
            Self::SiteDays => ("''", day, "at", "1 = 1"),
        };
        Shape { tenant, start, moment, only }
    }
}

/// What lines add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Whose. Empty for the site.
    pub tenant: String,
    /// When the hour, day or period begins.
    pub start: Timestamp,
    /// The sum.
    pub amounts: Amounts,
}
