//! Brings Stripe's meter up to what the ledger counted of one unit.

use super::decide::{Dates, Row, delivered, identifier, record};
use super::trouble::Trouble;
use crate::api::Timestamp;
use crate::api::usage_prices::MeteredUsage;
use crate::providers::biller::{Biller, Delivery, Meter, Report};

/// Who used it, and what bills it.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// The tenant's id.
    pub tenant: &'a str,
    /// The customer.
    pub customer: &'a str,
    /// The subscription.
    pub subscription: &'a str,
    /// The meter.
    pub meter: &'a Meter,
}

/// What Stripe has beyond what was recorded, before anything is sent.
pub async fn compare(
    biller: &dyn Biller,
    of: Of<'_>,
    usage: &MeteredUsage,
    (rows, until): (&[Row], Timestamp),
) -> Result<usize, Trouble> {
    let theirs = biller.reported(&of.meter.id, of.customer, usage.since, until).await?;
    delivered(usage.sent, theirs, rows).ok_or_else(|| differs(usage, rows, theirs))
}

/// That Stripe has another number than was recorded and these rows come to.
fn differs(usage: &MeteredUsage, rows: &[Row], theirs: i64) -> Trouble {
    Trouble::Differs {
        unit: usage.unit,
        meters: vec![usage.meter.to_string()],
        since: usage.since,
        sent: usage.sent,
        unsent: rows.iter().map(|row| row.amount).sum(),
        theirs,
        events: None,
        tenant: None,
    }
}

/// Sends the rows that Stripe lacks, one after the other: Stripe takes one call at a time for a customer and a meter.
/// Whatever happens, `usage` says afterwards what Stripe has for sure. Says beside it whether Stripe's sums may lag
/// from now on: a call that failed may have been carried out.
pub async fn send(
    biller: &dyn Biller,
    of: Of<'_>,
    usage: &mut MeteredUsage,
    (rows, there): (&[Row], usize),
    dates: &Dates,
    mut tell: impl FnMut(Delivery),
) -> (bool, Result<(), Trouble>) {
    let (mut done, mut tried, before) = (there, false, usage.clone());
    let sent = async {
        for row in &rows[there..] {
            let Some(at) = dates.of(row) else {
                let amount = rows[done..].iter().map(|row| row.amount).sum();
                let amounts = vec![(usage.unit, amount)];
                return Err(Trouble::Over { amounts, subscription: of.subscription.to_owned() });
            };
            let name = identifier(of.tenant, &of.meter.id, row);
            let report = Report { meter: of.meter, customer: of.customer, identifier: &name, at, amount: row.amount };
            tried = true;
            tell(biller.report(&report).await?);
            done += 1;
        }
        Ok(())
    }
    .await;
    record(usage, rows, done);
    (tried || *usage != before, sent)
}
