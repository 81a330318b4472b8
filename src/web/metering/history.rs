//! What a tenant used before, as the ledger tells it. Nothing waits long for it, and nothing depends on it: it is shown
//! beside what is used now.

use std::time::Duration;

use jiff::civil::Date;

use super::{Metering, refusal};
use crate::ledger::client::CallError;
use crate::ledger::history::{each_day, first_of};
use crate::ledger::wire::{DayUsage, PeriodUsage};
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;

/// How long the ledger may take, less than a question waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many days, up to the last one.
#[derive(Clone, Copy, Debug)]
pub struct Days {
    pub days: u16,
    pub last: Date,
}

/// What a tenant used before.
pub struct Recorded {
    /// In each period that the ledger still tells, the present one included.
    pub periods: Vec<PeriodUsage>,
    /// On each day that is asked for, the latest first.
    pub days: Vec<DayUsage>,
}

impl Metering {
    /// What a tenant used before, in its periods and on its latest days. A ledger that fails here is not taken to be
    /// away: what must be counted finds that out by itself.
    pub async fn recorded(&self, tenant: &Served, days: Option<Days>) -> Result<Recorded, Problem> {
        let unavailable = |why: &str| CallError::Unavailable(why.into());
        let told = async {
            if self.is_away() {
                return Err(unavailable("it did not answer a moment ago"));
            }
            tokio::try_join!(self.ledger.periods(&tenant.id), self.each_day(tenant, days))
        };
        let told = tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|_| Err(unavailable("it takes too long")));
        let (periods, days) = told.map_err(|error| {
            let detail = "Earlier usage is not known at the moment. Please try again in a few seconds.";
            refusal::unreadable(&error).told(detail)
        })?;
        Ok(Recorded { periods, days })
    }

    async fn each_day(&self, tenant: &Served, asked: Option<Days>) -> Result<Vec<DayUsage>, CallError> {
        let Some(Days { days, last }) = asked else { return Ok(Vec::new()) };
        let counted = self.ledger.days(&tenant.id, first_of(days, last), last).await?;
        Ok(each_day(&counted, days, last))
    }
}
